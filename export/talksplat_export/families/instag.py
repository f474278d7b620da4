"""InsTaG: learning personalised 3D talking heads from a few seconds of video.

Li et al., CVPR 2025, descending from TalkingGaussian. A universal field is pre-trained on several
people; an adapted avatar asks it at points that the avatar's own aligner has moved. The inside of
the mouth follows how far the face opened (the "face-mouth hook").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talksplat_export.families.talkinggaussian import (
    FACE_GRID,
    GRID_WIDTH,
    MOUTH_COLUMNS,
    MOUTH_FACTORS,
    MOUTH_GRID,
    AudioInput,
    FaceMotion,
    GaussianTalker,
    GaussianTalkerOptions,
    MotionField,
    Region,
    RegionFeatures,
    activate_moved,
    mouth_audio,
    scaled_columns,
)
from talksplat_export.gaussians import ActiveGaussians
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron

MOVE_WIDTH = 3
HOOK_RANK = 10
"""The hook reads the 10th largest and the 10th smallest vertical motion: no lone outlier."""
HOOK_SCALE = 100.0
PERSONAL_MOUTH_FACTORS = (0.01, 0.01, 0.01)


@dataclass(frozen=True)
class Alignment:
    """What an aligner says of each Gaussian.

    Attributes:
        offset: [N,3], added to the point where the universal field is asked, not to the Gaussian.
        move_scale: [N,3] in 0.75..1.25, factor of the face's Δmeans.
    """

    offset: Tensor
    move_scale: Tensor


class HookedMouthMotion(MotionField):
    """Moves the inside of the mouth by speech and by how far the face opened."""

    def __init__(self, audio: AudioInput) -> None:
        super().__init__(MOUTH_GRID, audio, MOVE_WIDTH, 32, out_width=7)
        self.scaler_net = MultilayerPerceptron((GRID_WIDTH + MOVE_WIDTH, 16, 16, 1))

    def deformation(
        self, features: Tensor, audio_window: Tensor, move: Tensor, attention: bool
    ) -> Tensor:
        """Δmeans [N,3]; the field's Δquats are never used."""
        audio = mouth_audio(self, features, audio_window, attention)
        everywhere = move.expand(len(features), -1)
        out = self.sigma_net(torch.cat([features, audio, everywhere], dim=1))
        amount = 2 * torch.sigmoid(self.scaler_net(torch.cat([features, everywhere], dim=1)))
        return scaled_columns(out, MOUTH_COLUMNS, MOUTH_FACTORS) * amount


class PersonalFaceMotion(FaceMotion):
    """The face field of one identity, with its aligner."""

    def __init__(self, audio: AudioInput) -> None:
        super().__init__(audio, hidden=32)
        self.align_net = MultilayerPerceptron((GRID_WIDTH, 32, 6))


class PersonalMouthMotion(MotionField):
    """The mouth field of one identity, with its aligner; its grid is as fine as the face's."""

    def __init__(self, audio: AudioInput) -> None:
        super().__init__(FACE_GRID, audio, 0, 16, out_width=7)
        self.align_net = MultilayerPerceptron((GRID_WIDTH, 16, 6))

    def deformation(self, features: Tensor, audio_window: Tensor) -> Tensor:
        """Δmeans [N,3]; region attention is always on here."""
        audio = self.attended_audio(features, audio_window)
        out = self.sigma_net(torch.cat([features, audio], dim=1))
        return scaled_columns(out, MOUTH_COLUMNS, PERSONAL_MOUTH_FACTORS)


def align(personal: PersonalFaceMotion | PersonalMouthMotion, features: Tensor) -> Alignment:
    """The aligner at the grid features [N,36] of a personal field."""
    out = personal.align_net(features)
    return Alignment(0.01 * out[:, :3], 1 + 0.25 * torch.tanh(out[:, 3:] / 5))


def hook(moved: Tensor) -> Tensor:
    """``move`` [1,3] of the face's Δmeans [N,3]: how far up, how far down, and their difference.

    Order among equals does not matter, for only the 10th value is read.
    """
    vertical = moved[:, 1]
    highest = torch.topk(vertical, HOOK_RANK).values[-1:]
    lowest = torch.topk(vertical, HOOK_RANK, largest=False).values[-1:]
    return HOOK_SCALE * torch.stack([highest, lowest, highest - lowest], dim=1)


class InsTaG(GaussianTalker):
    """InsTaG as published (section 3), adapted or as it is during pre-training."""

    mouth_takes_move = True
    default_mouth_dilation = 13

    def __init__(
        self,
        face: Region[FaceMotion, PersonalFaceMotion],
        mouth: Region[HookedMouthMotion, PersonalMouthMotion],
        options: GaussianTalkerOptions,
    ) -> None:
        super().__init__()
        self.face = face
        self.mouth = mouth
        self.options = options

    def face_features(self) -> RegionFeatures:
        """See :class:`GaussianTalker`."""
        return self._features(self.face)

    def mouth_features(self) -> RegionFeatures:
        """See :class:`GaussianTalker`."""
        return self._features(self.mouth)

    def _features(
        self,
        region: Region[FaceMotion, PersonalFaceMotion]
        | Region[HookedMouthMotion, PersonalMouthMotion],
    ) -> RegionFeatures:
        means, personal = region.gaussians.means, region.personal
        if personal is None:
            return RegionFeatures(region.motion(means))
        features = personal(means)
        if not self.options.aligned:
            return RegionFeatures(region.motion(means), features)
        alignment = align(personal, features)
        return RegionFeatures(
            region.motion(means + alignment.offset), features, alignment.move_scale
        )

    def animate_face(
        self, features: RegionFeatures, audio_window: Tensor, upper_face: Tensor
    ) -> tuple[ActiveGaussians, Tensor]:
        """See :class:`GaussianTalker`.

        The authors scale Δmeans in place, so what the hook reads is scaled as well.
        """
        moved = self.face.motion.deformation(features.motion, audio_window, upper_face)
        personal = self.face.personal
        if self.options.personalized and personal is not None and features.personal is not None:
            moved = moved + personal.deformation(features.personal, audio_window, upper_face)
        if features.move_scale is not None:
            moved = torch.cat([moved[:, :3] * features.move_scale, moved[:, 3:]], dim=1)
        return self.face.gaussians.activate(moved), hook(moved[:, :3])

    def animate_mouth(
        self, features: RegionFeatures, audio_window: Tensor, move: Tensor | None
    ) -> ActiveGaussians:
        """See :class:`GaussianTalker`. The aligner's factor is the face's alone."""
        assert move is not None
        attention = self.options.mouth_attention
        moved = self.mouth.motion.deformation(features.motion, audio_window, move, attention)
        personal = self.mouth.personal
        if self.options.personalized and personal is not None and features.personal is not None:
            moved = moved + personal.deformation(features.personal, audio_window)
        return activate_moved(self.mouth.gaussians, moved)
