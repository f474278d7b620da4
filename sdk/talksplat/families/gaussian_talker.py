"""TalkingGaussian (Li et al., ECCV 2024) and InsTaG (Li et al., CVPR 2025) at run time.

Per frame: the audio window → Gaussians of the face, then of the inside of the mouth, which InsTaG
moves by the face's movement too → mouth over the background, face over that → uint8, truncated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talksplat.backends import Array, Backend, FrameMemory
from talksplat.bundle import Bundle
from talksplat.errors import InputError
from talksplat.families.audio_features import audio_features, load_audio_encoder
from talksplat.families.base import Noise, Stream
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
from talksplat.frame_program import (
    Coverage,
    Dilate,
    FrameProgram,
    Over,
    Pack,
    Step,
    Unpack,
    check_program,
)
from talksplat.manifest import GaussianTalkerContract, Manifest
from talksplat.scene import Moment, read_scene
from talksplat.tensor_reader import TensorReader
from talksplat.tracks import UPPER_FACE_SIZE

FloatArray = NDArray[np.float32]


class GaussianTalker:
    """A loaded TalkingGaussian or InsTaG avatar. Immutable; shared by its sessions.

    Args:
        bundle: an opened bundle of one of the two families.
        backend: what runs the graphs and makes the frames.

    Raises:
        BundleError: graphs or tensors are not those of the contract.
        BackendError: the backend refuses a graph.
    """

    openface_scale: FloatArray | None = np.ones(UPPER_FACE_SIZE, np.float32)

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self.audio_encoder = load_audio_encoder(bundle, backend)
        self.frame = backend.load_frame(bundle, frame_program(bundle))
        self.scene = read_scene(TensorReader(bundle), manifest.video)

    def stream(
        self, features: FloatArray | None, noise: Noise | None, memory: FrameMemory
    ) -> GaussianTalkerStream:
        """See :meth:`talksplat.families.base.Family.stream`."""
        if noise is not None:
            raise InputError(
                f"{self.manifest.name} has no refiner and takes no noise; expected none."
            )
        audio = audio_features(self.manifest, self.audio_encoder, features)
        return GaussianTalkerStream(audio, self.frame.runner(memory))


class GaussianTalkerStream(Stream):
    """Feeds what a frame hears, and the upper face."""

    def conditions(self, frame: int, moment: Moment) -> dict[str, Array]:
        """See :meth:`Stream.conditions`."""
        return {
            "audio_window": self._audio.window(frame).swapaxes(1, 2)[None],
            "upper_face": moment.upper_face[None],
        }


def frame_program(bundle: Bundle) -> FrameProgram:
    """Mouth over the background, face over that.

    Raises:
        BundleError: a tensor is missing, or a graph does not fit.
    """
    manifest = bundle.manifest
    contract, window = manifest.contract(GaussianTalkerContract), manifest.window
    tensors = TensorReader(bundle)
    constants = {
        **camera_constants(manifest),
        **region_constants(tensors, "face"),
        **region_constants(tensors, "mouth"),
        **baked_constants(bundle, ("motion_face", "motion_mouth")),
    }
    conditions = {
        "audio_window": (1, window.frames, manifest.audio.feature_size, window.tokens),
        "upper_face": (1, UPPER_FACE_SIZE),
    }
    face = {name: f"face_{name}" for name in GAUSSIANS}
    mouth = {name: f"mouth_{name}" for name in GAUSSIANS}
    heard = ["audio_window"]
    if contract.mouth_takes_upper_face:
        heard.append("upper_face")
    if contract.mouth_takes_move:
        face["move"] = "move"
        heard.append("move")
    behind_face, mouth_alpha, compositing = _draw_mouth(manifest, contract.mouth_dilation)
    program = FrameProgram(
        width=manifest.video.width,
        height=manifest.video.height,
        rules=manifest.rasterizer,
        inputs=frame_inputs(manifest, conditions),
        constants=constants,
        steps=(
            run_graph("motion", "motion_face", constants, same_names(conditions), face),
            run_graph("motion", "motion_mouth", constants, same_names(heard), mouth),
            *compositing,
            draw_region("face", manifest.rasterizer.sh_degree, background=behind_face),
            Coverage("output", (mouth_alpha, "face_alpha"), "coverage"),
            Pack("output", "face_image", "picture"),
        ),
        picture="picture",
        coverage="coverage",
    )
    check_program(program, manifest)
    return program


def _draw_mouth(manifest: Manifest, dilation: int) -> tuple[str, str, tuple[Step, ...]]:
    """The mouth over the background: its image, its alpha, the steps.

    With dilation the background shows through the mouth only where no part of it is near, so that
    no rim of background is seen between lips and teeth.
    """
    degree = manifest.rasterizer.sh_degree
    plate = Unpack("rasterize", "background", "plate")
    if not dilation:
        return "mouth_image", "mouth_alpha", (plate, draw_region("mouth", degree, "plate"))
    steps = (
        plate,
        draw_region("mouth", degree, background=None),
        Dilate("rasterize", "mouth_alpha", dilation, "wide_mouth_alpha"),
        Over("rasterize", "mouth_image", "wide_mouth_alpha", "plate", "behind_face"),
    )
    return "behind_face", "wide_mouth_alpha", steps
