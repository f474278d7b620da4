"""TalkingGaussian, as export sees it, and what InsTaG shares with it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from talksplat.errors import CheckpointError
from talksplat.manifest import (
    AudioContract,
    Baked,
    Camera,
    GaussianTalkerContract,
    Manifest,
    Provenance,
    RasterizerContract,
    Row,
    Tolerances,
    VideoContract,
    WindowContract,
)
from talksplat_export.audio_encoders.base import SAMPLES_PER_FRAME, AudioEncoder
from talksplat_export.checkpoints.talkinggaussian import GaussianTalkerCheckpoint
from talksplat_export.families.base import Array, FamilyExport, FloatArray, Graph, Reference
from talksplat_export.families.flop_counter import FlopCounter
from talksplat_export.families.talkinggaussian import (
    UPPER_FACE_WIDTH,
    WINDOW_FRAMES,
    GaussianTalkerOptions,
    Region,
    TalkingGaussian,
)
from talksplat_export.families.talkinggaussian_graphs import (
    FaceGraph,
    MouthGraph,
    bake_face,
    bake_mouth,
)
from talksplat_export.families.talkinggaussian_reference import (
    FRAMES_AFTER,
    FRAMES_BEFORE,
    GaussianTalkerReference,
    encode_in_blocks,
    made_up_features,
)
from talksplat_export.gaussians import GaussianSet
from talksplat_export.scene import Scene

_OUTPUTS = ("means", "scales", "quats")


class GaussianTalkerExport(FamilyExport):
    """A checkpoint of TalkingGaussian or InsTaG before a scene.

    Args:
        checkpoint: what was trained.
        scene: cameras, background and upper face, which no checkpoint holds.
        options: what the tensors do not say.
        audio_encoder: makes the speech features inside the bundle; without one a session needs
            ``features``.

    Raises:
        CheckpointError: the options, or the encoder's features, do not fit the checkpoint.
    """

    tolerances: ClassVar[dict[str, float]] = {"motion_face": 1e-5, "motion_mouth": 1e-5}
    encoder_tolerance: ClassVar[float] = 1e-3
    frames_psnr_db = 60.0

    def __init__(
        self,
        checkpoint: GaussianTalkerCheckpoint,
        scene: Scene,
        options: GaussianTalkerOptions | None = None,
        audio_encoder: AudioEncoder | None = None,
    ) -> None:
        if checkpoint.family != self.family:
            raise CheckpointError(
                f"Expected a checkpoint of {self.family}, found one of {checkpoint.family}."
            )
        if audio_encoder is not None:
            _check_encoder(checkpoint, audio_encoder)
        self.checkpoint = replace(
            checkpoint, face=_ordered(checkpoint.face), mouth=_ordered(checkpoint.mouth)
        )
        self.scene = scene
        self.options = options or GaussianTalkerOptions()
        self.audio_encoder = audio_encoder
        self.model = self.checkpoint.model(self.options)
        self.baked_face = self.bake_face()
        self.baked_mouth = self.bake_mouth()
        dilation = self.options.mouth_dilation
        self.mouth_dilation = self.model.default_mouth_dilation if dilation is None else dilation

    @abstractmethod
    def bake_face(self) -> dict[str, Tensor]:
        """Constant inputs of the face's graph."""

    @abstractmethod
    def bake_mouth(self) -> dict[str, Tensor]:
        """Constant inputs of the mouth's graph."""

    @abstractmethod
    def face_graph(self) -> nn.Module:
        """Takes ``audio_window``, ``upper_face`` and the constants."""

    @abstractmethod
    def mouth_graph(self) -> nn.Module:
        """Takes ``audio_window``, what else :meth:`mouth_inputs` names, and the constants."""

    def mouth_inputs(self) -> dict[str, Tensor]:
        """Examples of what varies from frame to frame for the mouth."""
        inputs = self.face_inputs()
        if self.model.mouth_takes_move:
            return {**inputs, "move": torch.zeros(1, 3)}
        return {"audio_window": inputs["audio_window"]}

    def face_inputs(self) -> dict[str, Tensor]:
        """Examples of what varies from frame to frame for the face."""
        audio = self.checkpoint.audio
        return {
            "audio_window": torch.zeros(1, WINDOW_FRAMES, audio.feature_width, audio.tokens),
            "upper_face": torch.zeros(1, UPPER_FACE_WIDTH),
        }

    def graphs(self) -> list[Graph]:
        """See :meth:`FamilyExport.graphs`."""
        moves = ("move",) if self.model.mouth_takes_move else ()
        graphs = [] if self.audio_encoder is None else [self.audio_encoder.graph()]
        return [
            *graphs,
            Graph(
                "motion_face",
                self.face_graph(),
                {**self.face_inputs(), **self.baked_face},
                _OUTPUTS + moves,
                {name: {0: "face_gaussians"} for name in self.baked_face},
            ),
            Graph(
                "motion_mouth",
                self.mouth_graph(),
                {**self.mouth_inputs(), **self.baked_mouth},
                _OUTPUTS,
                {name: {0: "mouth_gaussians"} for name in self.baked_mouth},
            ),
        ]

    def tensors(self) -> dict[str, dict[str, Array]]:
        """See :meth:`FamilyExport.tensors`."""
        encoder = {} if self.audio_encoder is None else self.audio_encoder.tensors()
        return encoder | {
            "baked_motion_face.safetensors": _arrays(self.baked_face),
            "baked_motion_mouth.safetensors": _arrays(self.baked_mouth),
            "face.safetensors": _appearance(self.model.face.gaussians),
            "mouth.safetensors": _appearance(self.model.mouth.gaussians),
            "tracks.safetensors": {
                "viewmats": self.scene.viewmats,
                "upper_face": self.scene.upper_face,
            },
            "background.safetensors": {"image": self.scene.background},
        }

    def manifest(self, provenance: Provenance, created_with: dict[str, str]) -> Manifest:
        """See :meth:`FamilyExport.manifest`."""
        audio, encoder, scene = self.checkpoint.audio, self.audio_encoder, self.scene
        tolerances = dict(self.tolerances)
        if encoder is not None:
            tolerances["audio_encoder"] = self.encoder_tolerance
            created_with = {**created_with, "audio_encoder": encoder.origin}
        rows = [cast(Row, tuple(float(value) for value in row)) for row in scene.K]
        return Manifest(
            family=self.checkpoint.family,
            name=self.options.name,
            created_with=created_with,
            provenance=provenance,
            licence=self.options.licence,
            precision="float32",
            audio=AudioContract(
                sample_rate=16000,
                fps=25,
                features=audio.features,
                feature_rate=audio.feature_rate,
                feature_size=audio.feature_width,
                blocks=None if encoder is None else encoder.blocks,
            ),
            video=VideoContract(width=scene.width, height=scene.height, fps=25),
            rasterizer=self.rasterizer(),
            camera=Camera(K=(rows[0], rows[1], rows[2])),
            talkinggaussian=GaussianTalkerContract(
                window=WindowContract(
                    frames_before=FRAMES_BEFORE,
                    frames_after=FRAMES_AFTER,
                    tokens=audio.tokens,
                    tokens_before=audio.tokens_before,
                ),
                mouth_takes_upper_face="upper_face" in self.mouth_inputs(),
                mouth_takes_move=self.model.mouth_takes_move,
                mouth_dilation=self.mouth_dilation,
            ),
            tolerances=Tolerances(tolerances, self.frames_psnr_db),
            baked=self.savings(),
        )

    def rasterizer(self) -> RasterizerContract:
        """Both systems were trained with descendants of Inria's rasterizer."""
        return RasterizerContract(
            dialect="inria",
            rasterize_mode="classic",
            sh_degree=self.checkpoint.sh_degree,
            near_plane=0.2,
            eps2d=0.3,
        )

    def reference(self, pcm: FloatArray) -> Reference:
        """See :meth:`FamilyExport.reference`; without an encoder on made-up features."""
        frames = -(-len(pcm) // SAMPLES_PER_FRAME)
        renderer = GaussianTalkerReference(
            self.model, self.checkpoint.audio, self.scene, self.rasterizer(), self.mouth_dilation
        )
        if self.audio_encoder is None:
            features = made_up_features(self.checkpoint.audio, frames)
            return replace(renderer.render(features, frames), features=features)
        features, probes = encode_in_blocks(self.audio_encoder, pcm)
        reference = renderer.render(features, frames)
        return replace(reference, probes={**probes, **reference.probes})

    @torch.no_grad()
    def savings(self) -> Baked:
        """Operations from windows to Gaussians, as published and as exported."""
        inputs, model = self.face_inputs(), self.model
        window, upper_face = inputs["audio_window"], inputs["upper_face"]
        with FlopCounter() as published:
            _, move = model.animate_face(model.face_features(), window, upper_face)
            model.animate_mouth(model.mouth_features(), window, move)
        with FlopCounter() as exported:
            self.face_graph()(window, upper_face, *self.baked_face.values())
            self.mouth_graph()(*self.mouth_inputs().values(), *self.baked_mouth.values())
        baked = (*self.baked_face.values(), *self.baked_mouth.values())
        return Baked(
            bytes=sum(tensor.nbytes for tensor in baked),
            flops_before=published.get_total_flops(),
            flops_after=exported.get_total_flops(),
        )


class TalkingGaussianExport(GaussianTalkerExport):
    """A checkpoint of TalkingGaussian."""

    family = "talkinggaussian"
    model: TalkingGaussian

    def bake_face(self) -> dict[str, Tensor]:
        """See :class:`GaussianTalkerExport`."""
        return bake_face(self.model)

    def bake_mouth(self) -> dict[str, Tensor]:
        """See :class:`GaussianTalkerExport`."""
        return bake_mouth(self.model)

    def face_graph(self) -> nn.Module:
        """See :class:`GaussianTalkerExport`."""
        return FaceGraph(self.model, list(self.baked_face)).eval()

    def mouth_graph(self) -> nn.Module:
        """See :class:`GaussianTalkerExport`."""
        return MouthGraph(self.model, list(self.baked_mouth)).eval()


def _check_encoder(checkpoint: GaussianTalkerCheckpoint, encoder: AudioEncoder) -> None:
    audio = checkpoint.audio
    expected = (audio.feature_rate, audio.feature_width)
    found = (encoder.feature_rate, encoder.feature_size)
    if found != expected:
        raise CheckpointError(
            f"The checkpoint was trained with {audio.features}: expected an audio encoder of "
            f"{expected[0]} tokens per second and {expected[1]} numbers each, found "
            f"{encoder.features} with {found[0]} and {found[1]}. Give the encoder it was trained "
            "with, or none and feed features to the session."
        )


def _ordered(region: Region[Any, Any]) -> Region[Any, Any]:
    """Neighbours in space next to each other, for the rasterizer's sake."""
    return Region(region.gaussians.in_morton_order(), region.motion, region.personal).eval()


def _appearance(gaussians: GaussianSet) -> dict[str, Array]:
    return _arrays({"opacities": gaussians.opacities, "shs": gaussians.shs})


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
