"""The frame graphs of InsTaG: as TalkingGaussian's, with aligner, hook and personal fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talksplat_export.families.baked_decoder import BakedDecoder, bake_first_layer
from talksplat_export.families.instag import (
    PERSONAL_MOUTH_FACTORS,
    InsTaG,
    PersonalMouthMotion,
    hook,
)
from talksplat_export.families.talkinggaussian import (
    GRID_WIDTH,
    MOUTH_COLUMNS,
    MOUTH_FACTORS,
)
from talksplat_export.families.talkinggaussian_graphs import (
    BakedFaceField,
    activate_face,
    bake_face_field,
    moved_mouth,
    resting_face,
    resting_mouth,
)


def bake_face(model: InsTaG) -> dict[str, Tensor]:
    """Constant inputs of :class:`FaceGraph`, by name and in order.

    ======================  =======  =========================================================
    ``rest``                [N,10]   means, quaternions and scales before activation
    ``motion_first``        [N,64]   universal field: grid features, at the points where the
                                     aligner asks it, through the decoder's first layer
    ``motion_attention``    [N,38]   region attention of audio (32) and of the upper face (6)
    ``move_scale``          [N,3]    the aligner's factor of Δmeans; not without an aligner
    ``personal_first``      [N,32]   personal field; only with ``personalized``
    ``personal_attention``  [N,38]   the same
    ======================  =======  =========================================================
    """
    region = model.face
    with torch.no_grad():
        features = model.face_features()
        baked = {
            "rest": resting_face(region.gaussians),
            **bake_face_field("motion", region.motion, features.motion),
        }
        if features.move_scale is not None:
            baked["move_scale"] = features.move_scale
        if model.options.personalized and region.personal and features.personal is not None:
            baked |= bake_face_field("personal", region.personal, features.personal)
    return baked


def bake_mouth(model: InsTaG) -> dict[str, Tensor]:
    """Constant inputs of :class:`MouthGraph`, by name and in order.

    ======================  =======  =========================================================
    ``rest_means``          [M,3]
    ``rest_quats``          [M,4]    activated, for they do not change
    ``rest_scales``         [M,3]    activated
    ``motion_first``        [M,32]   as for the face
    ``scaler_first``        [M,16]   the same of the net that scales the motion
    ``motion_attention``    [M,35]   region attention of audio (32), ones for ``move`` (3); only
                                     with ``mouth_attention``
    ``personal_first``      [M,16]   personal field; only with ``personalized``
    ``personal_attention``  [M,32]   the same
    ======================  =======  =========================================================
    """
    region = model.mouth
    with torch.no_grad():
        features = model.mouth_features()
        baked = resting_mouth(region.gaussians)
        baked["motion_first"] = bake_first_layer(region.motion.sigma_net, features.motion)
        baked["scaler_first"] = bake_first_layer(region.motion.scaler_net, features.motion)
        if model.options.mouth_attention:
            attention = region.motion.aud_ch_att_net(features.motion)
            baked["motion_attention"] = torch.cat([attention, torch.ones_like(attention[:, :3])], 1)
        if model.options.personalized and region.personal and features.personal is not None:
            personal = region.personal
            baked["personal_first"] = bake_first_layer(personal.sigma_net, features.personal)
            baked["personal_attention"] = personal.aud_ch_att_net(features.personal)
    return baked


class FaceGraph(nn.Module):
    """``audio_window``, ``upper_face`` and the constants to means, scales, quats and ``move``."""

    def __init__(self, model: InsTaG, baked_names: Sequence[str]) -> None:
        super().__init__()
        self.field = BakedFaceField(model.face.motion)
        self.baked_names = tuple(baked_names)
        personal = model.face.personal if "personal_first" in baked_names else None
        self.personal = BakedFaceField(personal) if personal else None

    def forward(
        self, audio_window: Tensor, upper_face: Tensor, *baked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Activated, [N,3], [N,3], [N,4], and ``move`` [1,3]."""
        constants = dict(zip(self.baked_names, baked, strict=True))
        moved = self.field(
            constants["motion_first"], constants["motion_attention"], audio_window, upper_face
        )
        if self.personal is not None:
            moved = moved + self.personal(
                constants["personal_first"],
                constants["personal_attention"],
                audio_window,
                upper_face,
            )
        if "move_scale" in constants:
            moved = torch.cat([moved[:, :3] * constants["move_scale"], moved[:, 3:]], dim=1)
        return (*activate_face(constants["rest"] + moved), hook(moved[:, :3]))


class BakedPersonalMouth(nn.Module):
    """The mouth field of one identity at fixed points."""

    def __init__(self, motion: PersonalMouthMotion) -> None:
        super().__init__()
        self.audio_net = motion.audio_net
        self.audio_att_net = motion.audio_att_net
        self.decoder = BakedDecoder(
            motion.sigma_net, GRID_WIDTH, MOUTH_COLUMNS, PERSONAL_MOUTH_FACTORS
        )

    def forward(self, first: Tensor, attention: Tensor, audio_window: Tensor) -> Tensor:
        """Δmeans [M,3]."""
        audio = self.audio_att_net(self.audio_net(audio_window[0]))
        out: Tensor = self.decoder(first, attention, audio)
        return out


class MouthGraph(nn.Module):
    """``audio_window``, ``move`` and the constants to the mouth's means, scales, quats.

    ``upper_face`` is taken too, as by every mouth of this family, and is not looked at: the face
    tells the mouth what matters of it through ``move``.
    """

    def __init__(self, model: InsTaG, baked_names: Sequence[str]) -> None:
        super().__init__()
        motion = model.mouth.motion
        self.audio_net = motion.audio_net
        self.audio_att_net = motion.audio_att_net
        self.decoder = BakedDecoder(motion.sigma_net, GRID_WIDTH, MOUTH_COLUMNS, MOUTH_FACTORS)
        self.scaler = BakedDecoder(motion.scaler_net, GRID_WIDTH, (0,), (1.0,))
        self.baked_names = tuple(baked_names)
        personal = model.mouth.personal if "personal_first" in baked_names else None
        self.personal = BakedPersonalMouth(personal) if personal else None

    def forward(
        self, audio_window: Tensor, upper_face: Tensor, move: Tensor, *baked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Activated, [M,3], [M,3], [M,4]."""
        constants = dict(zip(self.baked_names, baked, strict=True))
        audio = self.audio_att_net(self.audio_net(audio_window[0]))
        condition = torch.cat([audio, move], dim=1)
        attention = constants.get("motion_attention")
        amount = 2 * torch.sigmoid(self.scaler(constants["scaler_first"], None, move))
        moved = self.decoder(constants["motion_first"], attention, condition) * amount
        if self.personal is not None:
            moved = moved + self.personal(
                constants["personal_first"], constants["personal_attention"], audio_window
            )
        return moved_mouth(constants, moved)
