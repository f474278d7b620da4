"""A clip rendered by a D3-Talker checkpoint as the paper says, nothing baked, all in torch.

What a bundle is measured against. Only what is no network is shared with the runtime: the PNCC
renderer and the Gaussian rasterizer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from talksplat.pncc import PnccRenderer
from talksplat.tracks import Track
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.base import FloatArray, Probe, Reference
from talksplat_export.families.d3talker import deform
from talksplat_export.gaussians import ActiveGaussians
from talksplat_export.rasterization import rasterize
from talksplat_export.training.conditioning import ConditionTrack
from talksplat_export.training.rendering import truncate_to_uint8

PROBES = 6
"""Frames of a clip, evenly spread, whose per-frame graphs are probed."""


class D3TalkerReference:
    """Renders clips of one checkpoint.

    Args:
        checkpoint: what to render.
        block_frames: length of the audio graphs' probes, in frames.
    """

    def __init__(self, checkpoint: AvatarCheckpoint, block_frames: int) -> None:
        self.checkpoint = checkpoint
        self.block_frames = block_frames
        self.locations = checkpoint.model.locate(checkpoint.identity)
        mesh = checkpoint.pncc
        self.pncc = PnccRenderer(
            mesh.template.numpy(),
            mesh.basis.numpy(),
            mesh.faces.numpy(),
            mesh.colors.numpy(),
            mesh.camera,
        )
        self.plate = checkpoint.background.float() / 255
        self.viewmats = Track(checkpoint.tracks.viewmats.numpy())
        self.upper_face = Track(checkpoint.tracks.upper_face.numpy())

    @torch.no_grad()
    def render(self, pcm: FloatArray) -> Reference:
        """Every frame of a clip, and probes of the graphs at some of them."""
        track = self._conditions(torch.from_numpy(pcm))
        probed = set(np.linspace(0, len(track) - 1, PROBES).astype(int).tolist())
        probes = self._audio_probes(pcm)
        probes |= {name: [] for name in ("motion_encoder", "motion", "refiner")}
        frames = []
        for frame in range(len(track)):
            image, frame_probes = self._frame(track, frame)
            frames.append(image)
            if frame in probed:
                for name, probe in frame_probes.items():
                    probes[name].append(probe)
        return Reference(probes, np.stack(frames))

    def _conditions(self, pcm: Tensor) -> ConditionTrack:
        features, expression = self.checkpoint.front_end.whole_clip(pcm)
        differences = [self.pncc.difference(row) for row in expression.numpy()]
        upper_face = [self.upper_face.at(frame) for frame in range(len(expression))]
        return ConditionTrack(
            features,
            expression,
            torch.from_numpy(np.stack(differences)),
            torch.from_numpy(np.stack(upper_face)),
        )

    def _frame(self, track: ConditionTrack, frame: int) -> tuple[FloatArray, dict[str, Probe]]:
        model, identity = self.checkpoint.model, self.checkpoint.identity
        pncc_window = track.pncc_window(frame, model.config.tcn_radius)
        audio_window = track.audio_window(frame)
        upper_face = track.upper_face[frame][None]
        conditions = model.conditions(pncc_window, audio_window, upper_face)
        face, mouth = deform(identity, model.deformations(identity, self.locations, conditions))
        coarse = self._composite(face, mouth, frame)
        image = model.refiner(coarse)
        motions = model.motion_encoder(pncc_window)
        return truncate_to_uint8(image[0].permute(1, 2, 0)).numpy(), {
            "motion_encoder": _probe(
                {"pncc_difference": pncc_window[:1]}, {"facial_motion": motions[:1]}
            ),
            "motion": _probe(
                {
                    "facial_motion": motions[None],
                    "audio_window": audio_window,
                    "upper_face": upper_face,
                },
                {**_gaussians("face", face), **_gaussians("mouth", mouth)},
            ),
            "refiner": _probe({"coarse": coarse}, {"image": image}),
        }

    def _composite(self, face: ActiveGaussians, mouth: ActiveGaussians, frame: int) -> Tensor:
        """Mouth over the plate, face over that, [1,3,H,W]."""
        rules = self.checkpoint.rasterizer
        height, width = self.plate.shape[:2]
        picture = self.plate[None]
        for gaussians in (mouth, face):
            picture, _ = rasterize(
                gaussians.means,
                gaussians.quats,
                gaussians.scales,
                gaussians.opacities,
                gaussians.shs,
                torch.from_numpy(self.viewmats.at(frame))[None],
                torch.tensor(self.checkpoint.camera.K)[None],
                width,
                height,
                near_plane=rules.near_plane,
                eps2d=rules.eps2d,
                sh_degree=rules.sh_degree,
                backgrounds=picture,
                rasterize_mode=rules.rasterize_mode,
                dialect=rules.dialect,
            )
        return picture.permute(0, 3, 1, 2).contiguous()

    def _audio_probes(self, pcm: FloatArray) -> dict[str, list[Probe]]:
        """The audio graphs on blocks all over the clip, silence before and after it included."""
        front_end = self.checkpoint.front_end
        padding = front_end.padding
        padded = np.pad(pcm, (padding.left_samples, padding.right_samples))
        samples = padding.left_samples + 640 * self.block_frames + padding.right_samples
        padded = np.pad(padded, (0, max(0, samples - len(padded))))
        encoder, audio_to_motion = [], []
        for start in np.linspace(0, len(padded) - samples, PROBES).astype(int):
            block = torch.from_numpy(padded[None, start : start + samples])
            features, expression = front_end(block)
            encoder.append(_probe({"pcm": block}, {"features": features}))
            audio_to_motion.append(_probe({"features": features}, {"expression": expression}))
        return {"audio_encoder": encoder, "audio_to_motion": audio_to_motion}


def _gaussians(region: str, gaussians: ActiveGaussians) -> dict[str, Tensor]:
    return {
        f"{region}_means": gaussians.means,
        f"{region}_scales": gaussians.scales,
        f"{region}_quats": gaussians.quats,
    }


def _probe(inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Probe:
    return Probe(_arrays(inputs), _arrays(outputs))


def _arrays(tensors: dict[str, Tensor]) -> dict[str, FloatArray]:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}
