"""The same frames without talksplat: the published networks, eagerly by torch, layer after layer.

Nothing is captured, and nothing is baked but the features of hash grids at Gaussians that rest,
which the authors' code looks up again in every frame. Gaussians are drawn by whatever ``draw`` is,
gsplat where it can be used. What depends on the audio alone (features, motion of the face) is
worked out before the first frame, so a frame here is what a bundle does from its windows on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from talksplat.audio import read_audio
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.d3talker import FieldLocations, GridLocations, deform
from talksplat_export.families.d3talker_reference import D3TalkerReference
from talksplat_export.families.sdtalk import FeatureGaussians
from talksplat_export.families.sdtalk_export import SdtalkExport
from talksplat_export.families.sdtalk_reference import SdtalkReference, audio_windows
from talksplat_export.gaussians import ActiveGaussians
from talksplat_export.training.rendering import truncate_to_uint8

Mark = Callable[[str], None]
"""Told when the work of a stage has been put on the stream."""

Draw = Callable[..., tuple[Tensor, Tensor]]
"""Arguments of ``gsplat.rasterization`` by name; colours [1,H,W,D] and alphas [1,H,W,1]."""


class TorchFrames(Protocol):
    """Frames of one clip, one by one."""

    def frame(self, number: int, mark: Mark) -> Tensor:
        """The picture [H,W,3] uint8 on the host."""
        ...


class AdaFrames:
    """A D3-Talker checkpoint.

    Args:
        checkpoint: of the avatar.
        speech: what it says, repeated as often as needed.
        device: of torch.
        draw: Gaussians to pixels.
    """

    def __init__(
        self, checkpoint: AvatarCheckpoint, speech: Path, device: torch.device, draw: Draw
    ) -> None:
        reference = D3TalkerReference(checkpoint, block_frames=1)
        with torch.no_grad():
            self.track = reference._conditions(torch.from_numpy(read_audio(speech)))
            _look_up(checkpoint, reference.locations)
        self.model = checkpoint.model.to(device)
        self.identity = checkpoint.identity.to(device)
        self.locations = reference.locations
        self.plate = reference.plate[None].to(device)
        self.K = torch.tensor(checkpoint.camera.K, device=device)[None]
        self.viewmats = reference.viewmats
        self.rules = checkpoint.rasterizer
        self.device, self.draw = device, draw

    @torch.no_grad()
    def frame(self, number: int, mark: Mark) -> Tensor:
        """See :class:`TorchFrames`."""
        model, track = self.model, self.track
        number %= len(track)
        window = track.pncc_window(number, model.config.tcn_radius).to(self.device)
        audio = track.audio_window(number).to(self.device)
        upper_face = track.upper_face[number][None].to(self.device)
        viewmat = torch.from_numpy(self.viewmats.at(number))[None].to(self.device)
        mark("upload")
        conditions = model.conditions(window, audio, upper_face)
        moves = model.deformations(self.identity, self.locations, conditions)
        face, mouth = deform(self.identity, moves)
        mark("motion")
        picture = self.plate
        for gaussians in (mouth, face):
            picture = self._over(gaussians, viewmat, picture)
        mark("rasterize")
        image = model.refiner(picture.permute(0, 3, 1, 2).contiguous())
        mark("refiner")
        pixels = truncate_to_uint8(image[0].permute(1, 2, 0)).cpu()
        mark("output")
        return pixels

    def _over(self, gaussians: ActiveGaussians, viewmat: Tensor, behind: Tensor) -> Tensor:
        """gsplat's own background is one colour, so a picture is laid under afterwards."""
        height, width = behind.shape[1:3]
        colors, alphas = self.draw(
            means=gaussians.means,
            quats=gaussians.quats,
            scales=gaussians.scales,
            opacities=gaussians.opacities,
            colors=gaussians.shs,
            viewmats=viewmat,
            Ks=self.K,
            width=width,
            height=height,
            near_plane=self.rules.near_plane,
            eps2d=self.rules.eps2d,
            sh_degree=self.rules.sh_degree,
            rasterize_mode=self.rules.rasterize_mode,
        )
        return colors + behind * (1 - alphas)


class _LookedUp(nn.Module):
    """In place of a grid whose points stay where they are: its features there."""

    features: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)

    def look_up(self, locations: GridLocations) -> Tensor:
        """[N,C], whatever the locations."""
        return self.features


def _look_up(checkpoint: AvatarCheckpoint, locations: FieldLocations) -> None:
    """Replace the four grids of a checkpoint by their features."""
    general, individual = checkpoint.model.general, checkpoint.identity.individual
    for field, location in (
        (general.face, locations.general_face),
        (general.mouth, locations.general_mouth),
        (individual.face, locations.individual_face),
        (individual.mouth, locations.individual_mouth),
    ):
        field.grid = _LookedUp(field.grid.look_up(location))  # type: ignore[assignment]


class SdtalkFrames:
    """A checkpoint of SDTalk with one person.

    Args:
        export: checkpoint, person and scene.
        tokens: speech features [L,D].
        frames: of the clip.
        device: of torch.
        draw: Gaussians to pixels.
    """

    def __init__(
        self,
        export: SdtalkExport,
        tokens: np.ndarray[Any, np.dtype[np.float32]],
        frames: int,
        device: torch.device,
        draw: Draw,
    ) -> None:
        rules, scene = export.rasterizer(), export.scene
        reference = SdtalkReference(
            export.model, export.flame, export.dense, scene, rules, export.options.noise
        )
        export.model.to(device)
        reference.refiner.to(device)
        for field in (reference.flame, reference.dense):
            field.gaussians = _moved(field.gaussians, device)
            field.positions = field.positions.to(device)
        self.windows = audio_windows(tokens, export._audio(), export._window(), frames)
        self.reference, self.rules, self.scene = reference, rules, scene
        self.K = torch.from_numpy(scene.K)[None].float().to(device)
        self.device, self.draw = device, draw

    @torch.no_grad()
    def frame(self, number: int, mark: Mark) -> Tensor:
        """See :class:`TorchFrames`."""
        number %= len(self.windows)
        window = torch.from_numpy(self.windows[number])[None].to(self.device)
        eyes = torch.from_numpy(self.reference.eyes.at(number))[None].to(self.device)
        viewmat = torch.from_numpy(self.reference.viewmats.at(number))[None].to(self.device)
        mark("upload")
        gaussians: FeatureGaussians = self.reference.animate(window, eyes)
        mark("motion")
        features, _ = self.draw(
            means=gaussians.means,
            quats=gaussians.quats,
            scales=gaussians.scales,
            opacities=gaussians.opacities[:, 0],
            colors=gaussians.features,
            viewmats=viewmat,
            Ks=self.K,
            width=self.scene.width,
            height=self.scene.height,
            near_plane=self.rules.near_plane,
            eps2d=self.rules.eps2d,
            rasterize_mode=self.rules.rasterize_mode,
        )
        mark("rasterize")
        image = self.reference.refiner(features.permute(0, 3, 1, 2).contiguous())
        mark("refiner")
        pixels = truncate_to_uint8(image[0].permute(1, 2, 0)).cpu()
        mark("output")
        return pixels


def _moved(gaussians: FeatureGaussians, device: torch.device) -> FeatureGaussians:
    return FeatureGaussians(
        **{field.name: getattr(gaussians, field.name).to(device) for field in fields(gaussians)}
    )
