"""D3-Talker, as export sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from talksplat.manifest import (
    AudioBlocks,
    AudioContract,
    Baked,
    D3TalkerContract,
    Manifest,
    Provenance,
    Tolerances,
    VideoContract,
    WindowContract,
)
from talksplat_export.audio_encoders.front_end import SAMPLES_PER_FRAME
from talksplat_export.audio_encoders.log_mel import SAMPLE_RATE, SAMPLES_PER_TOKEN
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.base import Array, FamilyExport, FloatArray, Graph, Reference
from talksplat_export.families.d3talker import UPPER_FACE_WIDTH, Conditions
from talksplat_export.families.d3talker_graphs import MotionGraph, bake
from talksplat_export.families.d3talker_reference import D3TalkerReference
from talksplat_export.families.flop_counter import FlopCounter
from talksplat_export.gaussians import GaussianSet
from talksplat_export.training.conditioning import FRAMES_AFTER, FRAMES_BEFORE, WINDOW_TOKENS

_REGIONS = ("face", "mouth")
_GAUSSIAN_OUTPUTS = ("means", "scales", "quats")


class D3TalkerExport(FamilyExport):
    """An avatar checkpoint of D3-Talker.

    ``block_frames`` is how many frames the audio graphs make at once. A frame waits for the end of
    its block, and blocks of one take a small part of a frame's time, so: one.
    """

    family = "d3talker"
    tolerances: ClassVar[dict[str, float]] = {
        "audio_encoder": 1e-4,
        "audio_to_motion": 1e-4,
        "motion_encoder": 1e-4,
        "motion": 1e-5,
        "refiner": 1e-4,
    }
    block_frames = 1

    def __init__(self, checkpoint: AvatarCheckpoint) -> None:
        checkpoint = replace(checkpoint, identity=checkpoint.identity.in_morton_order())
        self.checkpoint = checkpoint
        self.baked = bake(checkpoint.model, checkpoint.identity)

    def graphs(self) -> list[Graph]:
        """See :meth:`FamilyExport.graphs`."""
        model, front_end = self.checkpoint.model, self.checkpoint.front_end
        config = model.config
        padding = front_end.padding
        samples = padding.left_samples + SAMPLES_PER_FRAME * self.block_frames
        pcm = torch.zeros(1, samples + padding.right_samples)
        width, height = self.checkpoint.size
        return [
            Graph(
                "audio_encoder",
                front_end.encoder,
                {"pcm": pcm},
                ("features",),
            ),
            Graph(
                "audio_to_motion",
                front_end.audio_to_motion,
                {"features": front_end.encoder(pcm)},
                ("expression",),
            ),
            Graph(
                "motion_encoder",
                model.motion_encoder,
                {"pncc_difference": torch.zeros(1, 3, config.pncc_size, config.pncc_size)},
                ("facial_motion",),
            ),
            Graph(
                "motion",
                MotionGraph(model, list(self.baked)),
                {**self._conditions(), **self.baked},
                tuple(f"{region}_{name}" for region in _REGIONS for name in _GAUSSIAN_OUTPUTS),
                self._free_axes(),
            ),
            Graph(
                "refiner",
                model.refiner,
                {"coarse": torch.zeros(1, 3, height, width)},
                ("image",),
            ),
        ]

    def tensors(self) -> dict[str, dict[str, Array]]:
        """See :meth:`FamilyExport.tensors`."""
        checkpoint = self.checkpoint
        pncc, tracks = checkpoint.pncc, checkpoint.tracks
        files = {
            "baked": self.baked,
            "face": _appearance(checkpoint.identity.face),
            "mouth": _appearance(checkpoint.identity.mouth),
            "pncc": {
                "template": pncc.template,
                "basis": pncc.basis,
                "faces": pncc.faces,
                "colors": pncc.colors,
            },
            "tracks": {"viewmats": tracks.viewmats, "upper_face": tracks.upper_face},
            "background": {"image": checkpoint.background},
        }
        return {
            f"{file}.safetensors": {name: tensor.numpy() for name, tensor in tensors.items()}
            for file, tensors in files.items()
        }

    def manifest(self, provenance: Provenance, created_with: dict[str, str]) -> Manifest:
        """See :meth:`FamilyExport.manifest`."""
        checkpoint = self.checkpoint
        config, front_end = checkpoint.config, checkpoint.front_end
        width, height = checkpoint.size
        return Manifest(
            family="d3talker",
            name=checkpoint.name,
            created_with=created_with,
            provenance=provenance,
            licence=checkpoint.licence,
            precision="float32",
            audio=AudioContract(
                sample_rate=16000,
                fps=25,
                features="log-mel",
                feature_rate=SAMPLE_RATE // SAMPLES_PER_TOKEN,
                feature_size=config.feature_width,
                blocks=AudioBlocks(
                    block_frames=self.block_frames,
                    left_samples=front_end.padding.left_samples,
                    right_samples=front_end.padding.right_samples,
                    left_tokens=front_end.audio_to_motion.left_tokens,
                    right_tokens=front_end.audio_to_motion.right_tokens,
                ),
            ),
            video=VideoContract(width=width, height=height, fps=25),
            rasterizer=checkpoint.rasterizer,
            camera=checkpoint.camera,
            d3talker=D3TalkerContract(
                window=WindowContract(
                    frames_before=FRAMES_BEFORE,
                    frames_after=FRAMES_AFTER,
                    tokens=WINDOW_TOKENS,
                    tokens_before=WINDOW_TOKENS // 2,
                ),
                motion_radius=config.tcn_radius,
                motion_size=config.condition_width,
                expression_size=len(checkpoint.expression_names),
                pncc=checkpoint.pncc.camera,
            ),
            tolerances=Tolerances(dict(self.tolerances), self.frames_psnr_db),
            baked=self._savings(),
        )

    def reference(self, pcm: FloatArray) -> Reference:
        """See :meth:`FamilyExport.reference`."""
        return D3TalkerReference(self.checkpoint, self.block_frames).render(pcm)

    def _conditions(self) -> dict[str, Tensor]:
        config = self.checkpoint.config
        return {
            "facial_motion": torch.zeros(1, 2 * config.tcn_radius + 1, config.condition_width),
            "audio_window": torch.zeros(
                1, FRAMES_BEFORE + 1 + FRAMES_AFTER, config.feature_width, WINDOW_TOKENS
            ),
            "upper_face": torch.zeros(1, UPPER_FACE_WIDTH),
        }

    def _free_axes(self) -> dict[str, dict[int, str]]:
        """Every baked tensor but the decoders has one row per Gaussian of its region."""
        return {
            name: {0: f"{name.split('_')[0]}_gaussians"}
            for name in self.baked
            if not name.endswith(("condition", "hidden", "output"))
        }

    def _savings(self) -> Baked:
        """Operations from windows to Gaussians, as published and as exported."""
        model, identity = self.checkpoint.model, self.checkpoint.identity
        motion, audio, upper_face = self._conditions().values()
        locations = model.locate(identity)
        graph = MotionGraph(model, list(self.baked))
        with FlopCounter() as published:
            conditions = Conditions(model.temporal(motion), model.audio_branch(audio), upper_face)
            model.deformations(identity, locations, conditions)
        with FlopCounter() as exported:
            graph(motion, audio, upper_face, *self.baked.values())
        return Baked(
            bytes=sum(tensor.nbytes for tensor in self.baked.values()),
            flops_before=published.get_total_flops(),
            flops_after=exported.get_total_flops(),
        )


def _appearance(gaussians: GaussianSet) -> dict[str, Tensor]:
    return {"opacities": gaussians.opacities, "shs": gaussians.shs}
