"""D3-Talker at run time: which graph runs when, and what is carried between frames.

Per block of frames: pcm → features → expressions. Per frame: expression → PNCC difference →
facial motion; windows of motion and features → Gaussians → mouth over the plate, face over that →
refiner. The windows are those of ``docs/architecture.md``, all at absolute frame numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talksplat.backdrop import Pictures
from talksplat.backends import Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import BundleError, InputError
from talksplat.families.audio_features import EncodedFeatures
from talksplat.families.base import Noise, make_first_frame
from talksplat.families.compositing import Appearance, Layer, Plate, coverage
from talksplat.families.contract import check_graphs
from talksplat.families.d3talker_contract import GRAPHS, graph_tensors
from talksplat.images import to_uint8
from talksplat.manifest import D3TalkerContract, Manifest
from talksplat.pncc import PnccRenderer
from talksplat.rasterization import Workspace
from talksplat.ring import Ring
from talksplat.scene import Moment, Scene
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings
from talksplat.tracks import OPENFACE_CEILING, UPPER_FACE_SIZE, Track, check_viewmats

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class D3Talker:
    """A loaded D3-Talker avatar. Immutable after construction; shared by its sessions.

    Args:
        bundle: an opened bundle of this family.
        backend: what runs the graphs.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = np.float32(1) / OPENFACE_CEILING  # action units in 0..1

    def __init__(self, bundle: Bundle, backend: Backend, threads: int) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.threads = threads
        self.contract = manifest.contract(D3TalkerContract)
        tensors = TensorReader(bundle)
        self.face = Appearance(tensors, "face", manifest.rasterizer.sh_degree)
        self.mouth = Appearance(tensors, "mouth", manifest.rasterizer.sh_degree)
        counts = {"face": len(self.face.opacities), "mouth": len(self.mouth.opacities)}
        constants = {name: bundle.constants(name) for name in GRAPHS}
        check_graphs(manifest, graph_tensors(manifest, counts, constants))
        self.engines: dict[str, Engine] = {
            name: backend.load(bundle.graph_file(name), manifest.graphs[name], constants[name])
            for name in GRAPHS
        }
        self.pncc = _pncc_renderer(tensors, manifest)
        file, size = "tracks.safetensors", (manifest.video.height, manifest.video.width, 3)
        plate = tensors.get("background.safetensors", "image", size, np.uint8)
        self.scene = Scene(
            viewmats=Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4)))),
            upper_face=Track(tensors.get(file, "upper_face", (-1, UPPER_FACE_SIZE))),
            background=Pictures(plate[None]),
        )

    def stream(self, features: FloatArray | None, noise: Noise | None) -> D3TalkerStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if features is not None or noise is not None:
            given = "noise" if features is None else "features"
            raise InputError(
                f"{self.manifest.name} is a D3-Talker avatar, which takes no {given}: expected "
                "none, found some. Leave them out; its own graphs hear the audio."
            )
        return D3TalkerStream(self)


class D3TalkerStream:
    """See :class:`talksplat.families.base.Stream`."""

    def __init__(self, family: D3Talker) -> None:
        manifest, engines = family.manifest, family.engines
        audio = manifest.audio
        if audio.blocks is None:
            raise BundleError("A D3-Talker bundle expects audio.blocks, found null.")
        self._family = family
        self._audio = EncodedFeatures(
            engines["audio_encoder"],
            audio,
            audio.blocks,
            manifest.window,
            frames_after=family.contract.motion_radius,
        )
        self._runners = {
            name: engine.runner() for name, engine in engines.items() if name != "audio_encoder"
        }
        self._takes_upper_face = any(
            tensor.name == "upper_face" for tensor in engines["motion"].spec.inputs
        )
        workspace = Workspace()
        self._plate = Plate(manifest.video.height, manifest.video.width)
        self._mouth = Layer(manifest, family.mouth, workspace, family.threads)
        self._face = Layer(manifest, family.face, workspace, family.threads)
        self.look_ahead_samples = self._audio.look_ahead_samples
        make_first_frame(self, family.scene)

    def reset(self, pcm: Ring) -> None:
        """See :meth:`talksplat.families.base.Stream.reset`."""
        contract = self._family.contract
        self._audio.reset(pcm)
        self._expressions = Ring((contract.expression_size,))
        self._motions = Ring((contract.motion_size,))

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
        self._encode_motions(frame, frames, timings)
        with timings.stage("motion"):
            inputs = {
                "facial_motion": self._motion_window(frame),
                "audio_window": self._audio.window(frame).swapaxes(1, 2)[None],
            }
            if self._takes_upper_face:
                inputs["upper_face"] = moment.upper_face[None]
            gaussians = self._runners["motion"].run(inputs)
        with timings.stage("rasterize"):
            behind = None if moment.background is None else self._plate.show(moment.background)
            for region, layer in (("mouth", self._mouth), ("face", self._face)):
                behind = layer.draw(
                    gaussians[f"{region}_means"],
                    gaussians[f"{region}_quats"],
                    gaussians[f"{region}_scales"],
                    moment.viewmat,
                    behind,
                )
        with timings.stage("refiner"):
            coarse = self._face.image.transpose(0, 3, 1, 2)
            image = self._runners["refiner"].run({"coarse": coarse})["image"]
        with timings.stage("output"):
            pixels = to_uint8(image[0])
            alpha = coverage(self._mouth.alpha, self._face.alpha)
        self._audio.forget(frame + 1)
        self._expressions.forget(self._motions.end)
        self._motions.forget(frame + 1 - self._family.contract.motion_radius)
        return pixels, alpha

    def close(self) -> None:
        """See :meth:`talksplat.families.base.Stream.close`."""
        self._audio.close()
        for runner in self._runners.values():
            runner.close()

    def _encode_motions(self, frame: int, frames: int | None, timings: Timings) -> None:
        """Facial motion of every frame up to the end of the motion window of ``frame``."""
        for block in self._audio.listen(frame, frames, timings):
            with timings.stage("audio_to_motion"):
                found = self._runners["audio_to_motion"].run({"features": block.features})
            self._expressions.append(found["expression"][0, : block.frames])
        last = min(frame + self._family.contract.motion_radius, self._expressions.end - 1)
        for position in range(self._motions.end, last + 1):
            expression = self._expressions.zero_padded(position, position + 1)[0]
            with timings.stage("pncc"):
                difference = self._family.pncc.difference(expression)
            with timings.stage("motion_encoder"):
                motion = self._runners["motion_encoder"].run({"pncc_difference": difference[None]})
            self._motions.append(motion["facial_motion"])

    def _motion_window(self, frame: int) -> FloatArray:
        """[1, 2j+1, 32]: frames i-j … i+j, clamped to the ends of the clip."""
        radius = self._family.contract.motion_radius
        return self._motions.clamped(frame - radius, frame + radius + 1)[None]


def _pncc_renderer(tensors: TensorReader, manifest: Manifest) -> PnccRenderer:
    contract = manifest.contract(D3TalkerContract)
    file, count = "pncc.safetensors", contract.expression_size
    template = tensors.get(file, "template", (-1, 3))
    vertices = len(template)
    faces = tensors.get(file, "faces", (-1, 3), np.int32)
    try:
        return PnccRenderer(
            template,
            tensors.get(file, "basis", (count, vertices, 3)),
            faces,
            tensors.get(file, "colors", (vertices, 3)),
            contract.pncc,
        )
    except InputError as error:
        raise BundleError(f"The mesh in {file} cannot be drawn: {error}") from error
