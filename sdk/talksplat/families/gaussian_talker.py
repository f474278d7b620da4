"""TalkingGaussian (Li et al., ECCV 2024) and InsTaG (Li et al., CVPR 2025) at run time.

Per frame: the audio window → Gaussians of the face, then of the inside of the mouth, which InsTaG
moves by the face's movement too → mouth over the background, face over that → uint8, truncated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from talksplat.backdrop import Pictures
from talksplat.backends import Array, Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import InputError
from talksplat.families.audio_features import audio_features
from talksplat.families.base import Noise, make_first_frame
from talksplat.families.compositing import Appearance, Layer, Plate, coverage, dilate
from talksplat.families.contract import GraphTensors, Shape, audio_encoder_tensors, check_graphs
from talksplat.images import to_uint8
from talksplat.manifest import GaussianTalkerContract, Manifest
from talksplat.rasterization import Workspace
from talksplat.ring import Ring
from talksplat.scene import Moment, Scene
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings
from talksplat.tracks import UPPER_FACE_SIZE, Track, check_viewmats

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_MOVE_SIZE = 3


class GaussianTalker:
    """A loaded TalkingGaussian or InsTaG avatar. Immutable; shared by its sessions.

    Args:
        bundle: an opened bundle of one of the two families.
        backend: what runs the graphs.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = np.ones(UPPER_FACE_SIZE, np.float32)

    def __init__(self, bundle: Bundle, backend: Backend, threads: int) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.threads = threads
        self.contract = manifest.contract(GaussianTalkerContract)
        tensors = TensorReader(bundle)
        self.face = Appearance(tensors, "face", manifest.rasterizer.sh_degree)
        self.mouth = Appearance(tensors, "mouth", manifest.rasterizer.sh_degree)
        names = ["motion_face", "motion_mouth"]
        if manifest.audio.blocks is not None:
            names.append("audio_encoder")
        counts = {"face": len(self.face.opacities), "mouth": len(self.mouth.opacities)}
        constants = {name: bundle.constants(name) for name in names}
        check_graphs(manifest, _graph_tensors(manifest, counts, constants))
        self.engines: dict[str, Engine] = {
            name: backend.load(bundle.graph_file(name), manifest.graphs[name], constants[name])
            for name in names
        }
        file, size = "tracks.safetensors", (manifest.video.height, manifest.video.width, 3)
        plate = tensors.get("background.safetensors", "image", size, np.uint8)
        self.scene = Scene(
            viewmats=Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4)))),
            upper_face=Track(tensors.get(file, "upper_face", (-1, UPPER_FACE_SIZE))),
            background=Pictures(plate[None]),
        )

    def stream(self, features: FloatArray | None, noise: Noise | None) -> GaussianTalkerStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if noise is not None:
            raise InputError(
                f"{self.manifest.name} has no refiner and takes no noise; expected none."
            )
        return GaussianTalkerStream(self, features)


class GaussianTalkerStream:
    """See :class:`talksplat.families.base.Stream`."""

    def __init__(self, family: GaussianTalker, features: FloatArray | None) -> None:
        manifest, engines = family.manifest, family.engines
        self._family = family
        self._audio = audio_features(manifest, engines.get("audio_encoder"), features)
        self._face_motion = engines["motion_face"].runner()
        self._mouth_motion = engines["motion_mouth"].runner()
        workspace = Workspace()
        self._plate = Plate(manifest.video.height, manifest.video.width)
        self._mouth = Layer(manifest, family.mouth, workspace, family.threads)
        self._face = Layer(manifest, family.face, workspace, family.threads)
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
            face, mouth = self._move(frame, moment.upper_face)
        with timings.stage("rasterize"):
            alpha = self._composite(face, mouth, moment)
        with timings.stage("output"):
            pixels = to_uint8(self._face.image[0])
        self._audio.forget(frame + 1)
        return pixels, alpha

    def close(self) -> None:
        """See :meth:`talksplat.families.base.Stream.close`."""
        for part in (self._audio, self._face_motion, self._mouth_motion):
            part.close()

    def _move(
        self, frame: int, upper_face: FloatArray
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        contract = self._family.contract
        inputs: dict[str, Array] = {
            "audio_window": self._audio.window(frame).swapaxes(1, 2)[None],
            "upper_face": upper_face[None],
        }
        face = self._face_motion.run(inputs)
        if not contract.mouth_takes_upper_face:
            del inputs["upper_face"]
        if contract.mouth_takes_move:
            inputs["move"] = face["move"]
        return face, self._mouth_motion.run(inputs)

    def _composite(
        self, face: Mapping[str, Array], mouth: Mapping[str, Array], moment: Moment
    ) -> FloatArray:
        """Mouth over the background, face over that; returns what they cover, [H,W].

        With dilation the background shows through the mouth only where no part of it is near, so
        that no rim of background is seen between lips and teeth.
        """
        behind = None if moment.background is None else self._plate.show(moment.background)
        dilation = self._family.contract.mouth_dilation
        gaussians = (mouth["means"], mouth["quats"], mouth["scales"])
        if dilation and behind is not None:
            picture = self._mouth.draw(*gaussians, moment.viewmat, None)
            mouth_alpha = dilate(self._mouth.alpha, dilation)
            picture += behind * (1 - mouth_alpha)
        else:
            picture = self._mouth.draw(*gaussians, moment.viewmat, behind)
            mouth_alpha = self._mouth.alpha
        self._face.draw(face["means"], face["quats"], face["scales"], moment.viewmat, picture)
        return coverage(mouth_alpha, self._face.alpha)


def _graph_tensors(
    manifest: Manifest,
    gaussians: Mapping[str, int],
    constants: Mapping[str, Collection[str]],
) -> dict[str, GraphTensors]:
    """What the runtime feeds and reads, per graph."""
    contract, window = manifest.contract(GaussianTalkerContract), manifest.window
    heard: dict[str, Shape] = {
        "audio_window": (1, window.frames, manifest.audio.feature_size, window.tokens)
    }
    upper_face: dict[str, Shape] = {"upper_face": (1, UPPER_FACE_SIZE)}
    move: dict[str, Shape] = {"move": (1, _MOVE_SIZE)} if contract.mouth_takes_move else {}
    outputs: dict[str, dict[str, Shape]] = {
        region: {"means": (count, 3), "scales": (count, 3), "quats": (count, 4)}
        for region, count in gaussians.items()
    }
    graphs = {
        "motion_face": GraphTensors(
            inputs={**heard, **upper_face},
            outputs={**outputs["face"], **move},
            constants=constants["motion_face"],
        ),
        "motion_mouth": GraphTensors(
            inputs={**heard, **(upper_face if contract.mouth_takes_upper_face else {}), **move},
            outputs=outputs["mouth"],
            constants=constants["motion_mouth"],
        ),
    }
    if "audio_encoder" in constants:
        graphs["audio_encoder"] = audio_encoder_tensors(manifest, constants["audio_encoder"])
    return graphs
