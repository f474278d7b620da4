"""D3-Talker at run time: which graph runs when, and what is carried between frames.

Per block of frames: pcm → features → expressions. Per frame: expression → PNCC difference →
facial motion; windows of motion and features → Gaussians → mouth over the plate, face over that →
refiner. The windows are those of ``docs/architecture.md``, all at absolute frame numbers.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from talksplat.backends import Array, Backend, FrameMemory, FrameRunner
from talksplat.bundle import Bundle
from talksplat.errors import BundleError, InputError
from talksplat.families.audio_features import EncodedFeatures
from talksplat.families.base import Noise, Stream
from talksplat.families.contract import GraphTensors, audio_encoder_tensors, load_graphs
from talksplat.families.frame_parts import (
    GAUSSIANS,
    baked_constants,
    camera_constants,
    draw_region,
    frame_inputs,
    region_constants,
    run_graph,
    same_names,
)
from talksplat.frame_program import Coverage, FrameProgram, Pack, Unpack, check_program
from talksplat.manifest import D3TalkerContract, Manifest
from talksplat.pncc import PnccRenderer
from talksplat.ring import Ring
from talksplat.scene import Moment, read_scene
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings
from talksplat.tracks import OPENFACE_CEILING, UPPER_FACE_SIZE

FloatArray = NDArray[np.float32]


class D3Talker:
    """A loaded D3-Talker avatar. Immutable after construction; shared by its sessions.

    Args:
        bundle: an opened bundle of this family.
        backend: what runs the graphs and makes the frames.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = np.float32(1) / OPENFACE_CEILING  # action units in 0..1

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.contract = manifest.contract(D3TalkerContract)
        program = frame_program(bundle)
        self.takes_upper_face = "upper_face" in program.inputs
        self.engines = load_graphs(bundle, backend, _audio_graph_tensors(manifest))
        self.frame = backend.load_frame(bundle, program)
        tensors = TensorReader(bundle)
        self.pncc = _pncc_renderer(tensors, manifest)
        self.scene = read_scene(tensors, manifest.video)

    def stream(
        self, features: FloatArray | None, noise: Noise | None, memory: FrameMemory
    ) -> D3TalkerStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if features is not None or noise is not None:
            given = "noise" if features is None else "features"
            raise InputError(
                f"{self.manifest.name} is a D3-Talker avatar, which takes no {given}: expected "
                "none, found some. Leave them out; its own graphs hear the audio."
            )
        return D3TalkerStream(self, self.frame.runner(memory))


class D3TalkerStream(Stream):
    """Carries the facial motion from frame to frame."""

    def __init__(self, family: D3Talker, frame: FrameRunner) -> None:
        manifest = family.manifest
        audio = manifest.audio
        if audio.blocks is None:
            raise BundleError("A D3-Talker bundle expects audio.blocks, found null.")
        features = EncodedFeatures(
            family.engines["audio_encoder"],
            audio,
            audio.blocks,
            manifest.window,
            frames_after=family.contract.motion_radius,
        )
        super().__init__(features, frame)
        self._family = family
        self._to_expression = family.engines["audio_to_motion"].runner()
        self._to_motion = family.engines["motion_encoder"].runner()

    def reset(self, pcm: Ring) -> None:
        """See :meth:`Stream.reset`."""
        super().reset(pcm)
        contract = self._family.contract
        self._expressions = Ring((contract.expression_size,))
        self._motions = Ring((contract.motion_size,))

    def hear(self, frame: int, frames: int | None, timings: Timings) -> None:
        """Facial motion of every frame up to the end of the motion window of ``frame``."""
        for block in self._audio.listen(frame, frames, timings):
            with timings.stage("audio_to_motion"):
                found = self._to_expression.run({"features": block.features})
            self._expressions.append(found["expression"][0, : block.frames])
        radius = self._family.contract.motion_radius
        last = min(frame + radius, self._expressions.end - 1)
        for position in range(self._motions.end, last + 1):
            expression = self._expressions.zero_padded(position, position + 1)[0]
            with timings.stage("pncc"):
                difference = self._family.pncc.difference(expression)
            with timings.stage("motion_encoder"):
                motion = self._to_motion.run({"pncc_difference": difference[None]})
            self._motions.append(motion["facial_motion"])
        self._expressions.forget(self._motions.end)
        self._motions.forget(frame - radius)

    def conditions(self, frame: int, moment: Moment) -> dict[str, Array]:
        """Motion of frames i-j … i+j, clamped to the ends of the clip, and what they hear."""
        radius = self._family.contract.motion_radius
        conditions: dict[str, Array] = {
            "facial_motion": self._motions.clamped(frame - radius, frame + radius + 1)[None],
            "audio_window": self._audio.window(frame).swapaxes(1, 2)[None],
        }
        if self._family.takes_upper_face:
            conditions["upper_face"] = moment.upper_face[None]
        return conditions

    def close(self) -> None:
        """See :meth:`Stream.close`."""
        with ExitStack() as closing:
            closing.callback(self._to_motion.close)
            closing.callback(self._to_expression.close)
            closing.callback(super().close)


def frame_program(bundle: Bundle) -> FrameProgram:
    """Mouth over the plate, face over that, refined.

    Raises:
        BundleError: a tensor is missing, or a graph does not fit.
    """
    manifest = bundle.manifest
    contract, window = manifest.contract(D3TalkerContract), manifest.window
    tensors = TensorReader(bundle)
    constants = {
        **camera_constants(manifest),
        **region_constants(tensors, "face"),
        **region_constants(tensors, "mouth"),
        **baked_constants(bundle, ("motion", "refiner")),
    }
    conditions = {
        "facial_motion": (1, 2 * contract.motion_radius + 1, contract.motion_size),
        "audio_window": (1, window.frames, manifest.audio.feature_size, window.tokens),
    }
    motion = manifest.graphs.get("motion")
    if motion is not None and any(tensor.name == "upper_face" for tensor in motion.inputs):
        conditions["upper_face"] = (1, UPPER_FACE_SIZE)
    gaussians = [f"{region}_{name}" for region in ("face", "mouth") for name in GAUSSIANS]
    degree = manifest.rasterizer.sh_degree
    program = FrameProgram(
        width=manifest.video.width,
        height=manifest.video.height,
        rules=manifest.rasterizer,
        inputs=frame_inputs(manifest, conditions),
        constants=constants,
        steps=(
            run_graph("motion", "motion", constants, same_names(conditions), same_names(gaussians)),
            Unpack("rasterize", "background", "plate"),
            draw_region("mouth", degree, background="plate"),
            draw_region("face", degree, background="mouth_image"),
            run_graph(
                "refiner", "refiner", constants, {"coarse": "face_image"}, {"image": "image"}
            ),
            Pack("output", "image", "picture"),
            Coverage("output", ("mouth_alpha", "face_alpha"), "coverage"),
        ),
        picture="picture",
        coverage="coverage",
    )
    check_program(program, manifest)
    return program


def _audio_graph_tensors(manifest: Manifest) -> dict[str, GraphTensors]:
    contract = manifest.contract(D3TalkerContract)
    encoder = audio_encoder_tensors(manifest)
    frames = 0 if manifest.audio.blocks is None else manifest.audio.blocks.block_frames
    return {
        "audio_encoder": encoder,
        "audio_to_motion": GraphTensors(
            inputs=encoder.outputs,
            outputs={"expression": (1, frames, contract.expression_size)},
        ),
        "motion_encoder": GraphTensors(
            inputs={"pncc_difference": (1, 3, contract.pncc.height, contract.pncc.width)},
            outputs={"facial_motion": (1, contract.motion_size)},
        ),
    }


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
