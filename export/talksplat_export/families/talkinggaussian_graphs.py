"""The frame graphs of TalkingGaussian: a window of speech and action units to Gaussians.

Audio nets and decoders are inside the graphs; what belongs to single Gaussians is their input, so
the number of Gaussians is free. No hash grid is in any graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talksplat_export.families.baked_decoder import (
    BakedDecoder,
    bake_first_layer,
    normalize_quats,
)
from talksplat_export.families.talkinggaussian import (
    FACE_COLUMNS,
    FACE_FACTORS,
    GRID_WIDTH,
    MOUTH_COLUMNS,
    MOUTH_FACTORS,
    FaceMotion,
    TalkingGaussian,
)
from talksplat_export.gaussians import GaussianSet


def bake_face(model: TalkingGaussian) -> dict[str, Tensor]:
    """Constant inputs of :class:`FaceGraph`, by name and in order.

    ====================  =======  ===========================================================
    ``rest``              [N,10]   means, quaternions and scales before activation
    ``motion_first``      [N,64]   grid features through the decoder's first layer
    ``motion_attention``  [N,38]   region attention of audio (32) and of the upper face (6)
    ====================  =======  ===========================================================
    """
    with torch.no_grad():
        features = model.face_features().motion
        return {
            "rest": resting_face(model.face.gaussians),
            **bake_face_field("motion", model.face.motion, features),
        }


def bake_mouth(model: TalkingGaussian) -> dict[str, Tensor]:
    """Constant inputs of :class:`MouthGraph`, by name and in order.

    ====================  =======  ===========================================================
    ``rest_means``        [M,3]
    ``rest_quats``        [M,4]    activated, for they do not change
    ``rest_scales``       [M,3]    activated
    ``motion_first``      [M,32]   grid features through the decoder's first layer
    ``motion_attention``  [M,32]   region attention of audio; only with ``mouth_attention``
    ====================  =======  ===========================================================
    """
    motion = model.mouth.motion
    with torch.no_grad():
        features = model.mouth_features().motion
        baked = resting_mouth(model.mouth.gaussians)
        baked["motion_first"] = bake_first_layer(motion.sigma_net, features)
        if model.options.mouth_attention:
            baked["motion_attention"] = motion.aud_ch_att_net(features)
    return baked


def resting_face(gaussians: GaussianSet) -> Tensor:
    """[N,10] before activation."""
    return torch.cat([gaussians.means, gaussians.raw_quats, gaussians.raw_scales], dim=1).detach()


def resting_mouth(gaussians: GaussianSet) -> dict[str, Tensor]:
    """Activated: of the mouth only the position moves."""
    active = gaussians.activate()
    return {
        "rest_means": active.means.detach(),
        "rest_quats": active.quats.detach(),
        "rest_scales": active.scales.detach(),
    }


def bake_face_field(prefix: str, motion: FaceMotion, features: Tensor) -> dict[str, Tensor]:
    """First layer and attention of a face field."""
    attention = torch.cat([motion.aud_ch_att_net(features), motion.eye_attention(features)], dim=1)
    return {
        f"{prefix}_first": bake_first_layer(motion.sigma_net, features),
        f"{prefix}_attention": attention,
    }


class BakedFaceField(nn.Module):
    """A face field at fixed points."""

    def __init__(self, motion: FaceMotion) -> None:
        super().__init__()
        self.audio_net = motion.audio_net
        self.audio_att_net = motion.audio_att_net
        self.exp_encode_net = motion.exp_encode_net
        self.decoder = BakedDecoder(motion.sigma_net, GRID_WIDTH, FACE_COLUMNS, FACE_FACTORS)

    def forward(
        self, first: Tensor, attention: Tensor, audio_window: Tensor, upper_face: Tensor
    ) -> Tensor:
        """Δmeans, Δquats and Δscales [N,10] before activation."""
        audio = self.audio_att_net(self.audio_net(audio_window[0]))
        eyes = self.exp_encode_net(upper_face[:, :5])
        condition = torch.cat([audio, eyes, upper_face[:, 5:]], dim=1)
        out: Tensor = self.decoder(first, attention, condition)
        return out


def activate_face(raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means, scales and quats of [N,10] before activation."""
    means, quats, scales = torch.split(raw, [3, 4, 3], dim=1)
    return means.clone(), F.softplus(scales), normalize_quats(quats)


class FaceGraph(nn.Module):
    """``audio_window``, ``upper_face`` and the constants to the face's means, scales, quats."""

    def __init__(self, model: TalkingGaussian, baked_names: Sequence[str]) -> None:
        super().__init__()
        self.field = BakedFaceField(model.face.motion)
        self.baked_names = tuple(baked_names)

    def forward(
        self, audio_window: Tensor, upper_face: Tensor, *baked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Activated, [N,3], [N,3], [N,4]."""
        constants = dict(zip(self.baked_names, baked, strict=True))
        moved = self.field(
            constants["motion_first"], constants["motion_attention"], audio_window, upper_face
        )
        return activate_face(constants["rest"] + moved)


class MouthGraph(nn.Module):
    """``audio_window`` and the constants to the mouth's means, scales, quats."""

    def __init__(self, model: TalkingGaussian, baked_names: Sequence[str]) -> None:
        super().__init__()
        motion = model.mouth.motion
        self.audio_net = motion.audio_net
        self.audio_att_net = motion.audio_att_net
        self.decoder = BakedDecoder(motion.sigma_net, GRID_WIDTH, MOUTH_COLUMNS, MOUTH_FACTORS)
        self.baked_names = tuple(baked_names)

    def forward(self, audio_window: Tensor, *baked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Activated, [M,3], [M,3], [M,4]."""
        constants = dict(zip(self.baked_names, baked, strict=True))
        audio = self.audio_att_net(self.audio_net(audio_window[0]))
        attention = constants.get("motion_attention")
        moved = self.decoder(constants["motion_first"], attention, audio)
        return moved_mouth(constants, moved)


def moved_mouth(constants: dict[str, Tensor], moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means, scales and quats of the mouth."""
    return (
        constants["rest_means"] + moved,
        constants["rest_scales"].clone(),
        constants["rest_quats"].clone(),
    )
