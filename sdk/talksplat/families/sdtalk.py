"""SDTalk (arXiv 2605.09956) at run time.

Per frame: the audio window and the eyes → Gaussians → a picture of 32 features per pixel →
refiner → uint8, truncated. The refiner paints the head on black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talksplat.backdrop import Pictures
from talksplat.backends import Array, Backend, FrameMemory, FrameRunner
from talksplat.bundle import Bundle
from talksplat.errors import BundleError, InputError
from talksplat.families.audio_features import AudioFeatures, audio_features, load_audio_encoder
from talksplat.families.base import Noise, Stream
from talksplat.families.frame_parts import (
    GAUSSIANS,
    baked_constants,
    camera_constants,
    frame_inputs,
    run_graph,
    same_names,
)
from talksplat.families.sdtalk_noise import draw_noise
from talksplat.frame_program import (
    Coverage,
    FrameProgram,
    Over,
    Pack,
    Rasterize,
    Unpack,
    check_program,
)
from talksplat.manifest import Manifest, SdtalkContract
from talksplat.scene import Moment, Scene
from talksplat.tensor_reader import TensorReader
from talksplat.tracks import UPPER_FACE_SIZE, Track, check_viewmats

FloatArray = NDArray[np.float32]
Shape = tuple[int, ...]

FEATURES = 32
"""Features per Gaussian and pixel; the first three are a coarse RGB."""

DEFAULT_SEED = 0


class SDTalk:
    """A loaded SDTalk avatar. Immutable after construction; shared by its sessions.

    Args:
        bundle: an opened bundle of this family.
        backend: what runs the graphs and makes the frames.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = None

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.contract = manifest.contract(SdtalkContract)
        self.noise_shapes = _noise_shapes(manifest)
        self.audio_encoder = load_audio_encoder(bundle, backend)
        self.frame = backend.load_frame(bundle, frame_program(bundle))
        tensors = TensorReader(bundle)
        file, video = "tracks.safetensors", manifest.video
        black = np.zeros((1, video.height, video.width, 3), np.uint8)
        self.scene = Scene(
            viewmats=Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4)))),
            upper_face=Track(tensors.get(file, "eyes", (-1, UPPER_FACE_SIZE))),
            background=Pictures(black),
        )

    def stream(
        self, features: FloatArray | None, noise: Noise | None, memory: FrameMemory
    ) -> SDTalkStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if noise is not None and self.contract.noise != "input":
            raise InputError(
                f"The refiner of {self.manifest.name} was exported with the noise "
                f"{self.contract.noise!r}; expected no noise, found some. Export the avatar with "
                "the noise 'input' to choose it here."
            )
        noise = self._checked(DEFAULT_SEED if noise is None else noise)
        audio = audio_features(self.manifest, self.audio_encoder, features)
        return SDTalkStream(audio, self.frame.runner(memory), noise, self.noise_shapes)

    def _checked(self, noise: Noise) -> Noise:
        if isinstance(noise, int):
            if not 0 <= noise < 2**63:
                raise InputError(f"The noise's seed must be from 0 to 2^63 - 1, found {noise}.")
            return noise
        found = {name: array.shape for name, array in noise.items()}
        finite = all(np.isfinite(array).all() for array in noise.values())
        if found != self.noise_shapes or not finite:
            expected = ", ".join(f"{name} {list(s)}" for name, s in self.noise_shapes.items())
            given = ", ".join(f"{name} {list(s)}" for name, s in found.items()) or "none"
            raise InputError(f"Noise expects finite maps {expected}; found {given}.")
        return noise


class SDTalkStream(Stream):
    """Feeds what a frame hears, the eyes, and noise."""

    def __init__(
        self,
        audio: AudioFeatures,
        frame: FrameRunner,
        noise: Noise,
        noise_shapes: dict[str, Shape],
    ) -> None:
        super().__init__(audio, frame)
        self._noise = noise
        self._noise_shapes = noise_shapes

    def conditions(self, frame: int, moment: Moment) -> dict[str, Array]:
        """See :meth:`Stream.conditions`."""
        noise = self._noise
        if isinstance(noise, int):
            noise = draw_noise(self._noise_shapes, noise, frame)
        return {
            "audio_window": self._audio.window(frame),
            "eyes": moment.upper_face[None],
            **noise,
        }


def frame_program(bundle: Bundle) -> FrameProgram:
    """Features over zeros, refined, over the background.

    Opacities may lie outside 0..1, scales be negative and quaternions of any length: the
    rasterizer's dialect says what becomes of them.

    Raises:
        BundleError: a tensor is missing, or a graph does not fit.
    """
    manifest = bundle.manifest
    features = TensorReader(bundle).get("gaussians.safetensors", "features", (-1, FEATURES))
    constants = {
        **camera_constants(manifest),
        "features": features,
        **baked_constants(bundle, ("motion", "refiner")),
    }
    noise = _noise_shapes(manifest)
    heard = {
        "audio_window": (1, manifest.window.tokens, manifest.audio.feature_size),
        "eyes": (1, UPPER_FACE_SIZE),
    }
    gaussians = same_names((*GAUSSIANS, "opacities"))
    refined = {"features": "feature_image", **same_names(noise)}
    program = FrameProgram(
        width=manifest.video.width,
        height=manifest.video.height,
        rules=manifest.rasterizer,
        inputs=frame_inputs(manifest, {**heard, **noise}),
        constants=constants,
        steps=(
            run_graph("motion", "motion", constants, same_names(heard), gaussians),
            Rasterize(
                stage="rasterize",
                means="means",
                quats="quats",
                scales="scales",
                opacities="opacities",
                colors="features",
                viewmats="viewmats",
                Ks="Ks",
                background=None,
                channels=FEATURES,
                sh_degree=None,
                image="feature_image",
                alpha="alpha",
            ),
            run_graph("refiner", "refiner", constants, refined, {"image": "head"}),
            Unpack("output", "background", "plate"),
            Over("output", "head", "alpha", "plate", "image"),
            Pack("output", "image", "picture"),
            Coverage("output", ("alpha",), "coverage"),
        ),
        picture="picture",
        coverage="coverage",
    )
    check_program(program, manifest)
    return program


def _noise_shapes(manifest: Manifest) -> dict[str, Shape]:
    """Noise inputs of the refiner, in the order of its layers; none unless noise is an input.

    Raises:
        BundleError: they are not ``noise0``, ``noise1``, … of shape [1,1,r,r], or are larger than
            the picture.
    """
    if manifest.contract(SdtalkContract).noise != "input" or "refiner" not in manifest.graphs:
        return {}
    video = manifest.video
    found = {tensor.name: tensor.shape for tensor in manifest.graphs["refiner"].inputs}
    count = sum(name.startswith("noise") for name in found)
    shapes: dict[str, Shape] = {}
    for number in range(max(count, 1)):
        name = f"noise{number}"
        side = found.get(name, ("none",))[-1]
        if not isinstance(side, int) or not 1 <= side <= max(video.width, video.height):
            raise BundleError(
                f"The refiner's noise is an input: expected {name} [1, 1, r, r] of at most "
                f"{max(video.width, video.height)} pixels, found {list(found.get(name, ()))}. "
                "Export the avatar again."
            )
        shapes[name] = (1, 1, side, side)
    return shapes
