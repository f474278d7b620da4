"""SDTalk (arXiv 2605.09956) at run time.

Per frame: the audio window and the eyes → Gaussians → a picture of 32 features per pixel →
refiner → uint8, truncated. The refiner paints the head on black.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from talksplat.backends import Array, Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import BundleError, InputError
from talksplat.families.audio_features import audio_features
from talksplat.families.base import Noise, make_first_frame
from talksplat.families.compositing import Plate, coverage
from talksplat.families.contract import GraphTensors, Shape, audio_encoder_tensors, check_graphs
from talksplat.families.sdtalk_noise import draw_noise
from talksplat.images import to_uint8
from talksplat.manifest import Manifest, SdtalkContract
from talksplat.rasterization import Workspace, allocate_images, rasterize
from talksplat.ring import Ring
from talksplat.scene import Moment, Scene
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings
from talksplat.tracks import UPPER_FACE_SIZE, Track, check_viewmats

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

FEATURES = 32
"""Features per Gaussian and pixel; the first three are a coarse RGB."""

DEFAULT_SEED = 0


class SDTalk:
    """A loaded SDTalk avatar. Immutable after construction; shared by its sessions.

    Args:
        bundle: an opened bundle of this family.
        backend: what runs the graphs.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = None

    def __init__(self, bundle: Bundle, backend: Backend, threads: int) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.threads = threads
        self.contract = manifest.contract(SdtalkContract)
        tensors = TensorReader(bundle)
        self.features: FloatArray = tensors.get("gaussians.safetensors", "features", (-1, FEATURES))
        names = ["motion", "refiner"]
        if manifest.audio.blocks is not None:
            names.append("audio_encoder")
        constants = {name: bundle.constants(name) for name in names}
        check_graphs(manifest, _graph_tensors(manifest, len(self.features), constants))
        self.engines: dict[str, Engine] = {
            name: backend.load(bundle.graph_file(name), manifest.graphs[name], constants[name])
            for name in names
        }
        self.noise_shapes = _noise_shapes(manifest)
        file = "tracks.safetensors"
        self.scene = Scene(
            viewmats=Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4)))),
            upper_face=Track(tensors.get(file, "eyes", (-1, UPPER_FACE_SIZE))),
            background=None,
        )

    def stream(self, features: FloatArray | None, noise: Noise | None) -> SDTalkStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if self.contract.noise == "input":
            return SDTalkStream(
                self, features, self._checked(DEFAULT_SEED if noise is None else noise)
            )
        if noise is not None:
            raise InputError(
                f"The refiner of {self.manifest.name} was exported with the noise "
                f"{self.contract.noise!r}; expected no noise, found some. Export the avatar with "
                "the noise 'input' to choose it here."
            )
        return SDTalkStream(self, features, DEFAULT_SEED)

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


class SDTalkStream:
    """See :class:`talksplat.families.base.Stream`."""

    def __init__(self, family: SDTalk, features: FloatArray | None, noise: Noise) -> None:
        manifest, engines = family.manifest, family.engines
        self._family = family
        self._noise = noise
        self._audio = audio_features(manifest, engines.get("audio_encoder"), features)
        self._motion = engines["motion"].runner()
        self._refiner = engines["refiner"].runner()
        height, width = manifest.video.height, manifest.video.width
        self._features = allocate_images(1, height, width, FEATURES)
        self._alpha = allocate_images(1, height, width, 1)
        self._plate = Plate(height, width)
        self._workspace = Workspace()
        self._K = np.array(manifest.camera.K, np.float32)[None]
        self.look_ahead_samples = self._audio.look_ahead_samples
        make_first_frame(self, family.scene)

    def reset(self, pcm: Ring) -> None:
        """See :meth:`talksplat.families.base.Stream.reset`."""
        self._audio.reset(pcm)

    def samples_needed(self, frame: int) -> int:
        """See :meth:`talksplat.families.base.Stream.samples_needed`."""
        return self._audio.samples_needed(frame)

    def oldest_sample(self) -> int:
        """See :meth:`talksplat.families.base.Stream.oldest_sample`."""
        return self._audio.oldest_sample()

    def render(
        self, frame: int, frames: int | None, moment: Moment, timings: Timings
    ) -> tuple[ByteImage, FloatArray]:
        """See :meth:`talksplat.families.base.Stream.render`."""
        self._audio.listen(frame, frames, timings)
        with timings.stage("motion"):
            gaussians = self._motion.run(
                {"audio_window": self._audio.window(frame), "eyes": moment.upper_face[None]}
            )
        with timings.stage("rasterize"):
            self._rasterize(gaussians, moment.viewmat)
        with timings.stage("refiner"):
            picture = self._features.transpose(0, 3, 1, 2)
            image = self._refiner.run({"features": picture, **self._noise_maps(frame)})["image"]
        with timings.stage("output"):
            if moment.background is not None:
                behind = self._plate.show(moment.background) * (1 - self._alpha)
                image = image + behind.transpose(0, 3, 1, 2)
            pixels = to_uint8(image[0])
            alpha = coverage(self._alpha)
        self._audio.forget(frame + 1)
        return pixels, alpha

    def close(self) -> None:
        """See :meth:`talksplat.families.base.Stream.close`."""
        for part in (self._audio, self._motion, self._refiner):
            part.close()

    def _noise_maps(self, frame: int) -> Mapping[str, FloatArray]:
        if isinstance(self._noise, int):
            return draw_noise(self._family.noise_shapes, self._noise, frame)
        return self._noise

    def _rasterize(self, gaussians: Mapping[str, Array], viewmat: FloatArray) -> None:
        """The features [1,H,W,32] over zeros, and their alpha.

        Opacities may lie outside 0..1, scales be negative and quaternions of any length: the
        dialect says what becomes of them.
        """
        rules = self._family.manifest.rasterizer
        height, width = self._features.shape[1:3]
        rasterize(
            gaussians["means"],
            gaussians["quats"],
            gaussians["scales"],
            gaussians["opacities"][:, 0],
            self._family.features,
            viewmat[None],
            self._K,
            width,
            height,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
            out=(self._features, self._alpha),
            workspace=self._workspace,
            threads=self._family.threads,
        )


def _graph_tensors(
    manifest: Manifest, gaussians: int, constants: Mapping[str, Collection[str]]
) -> dict[str, GraphTensors]:
    """What the runtime feeds and reads, per graph."""
    video, tokens = manifest.video, manifest.window.tokens
    picture = {"features": (1, FEATURES, video.height, video.width)}
    graphs = {
        "motion": GraphTensors(
            inputs={
                "audio_window": (1, tokens, manifest.audio.feature_size),
                "eyes": (1, UPPER_FACE_SIZE),
            },
            outputs={
                "means": (gaussians, 3),
                "scales": (gaussians, 3),
                "quats": (gaussians, 4),
                "opacities": (gaussians, 1),
            },
            constants=constants["motion"],
        ),
        "refiner": GraphTensors(
            inputs={**picture, **_noise_shapes(manifest)},
            outputs={"image": (1, 3, video.height, video.width)},
            constants=constants["refiner"],
        ),
    }
    if "audio_encoder" in constants:
        graphs["audio_encoder"] = audio_encoder_tensors(manifest, constants["audio_encoder"])
    return graphs


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
