"""TalkingGaussian: structure-persistent 3D talking heads by Gaussian splatting.

Li et al., ECCV 2024. A motion field moves the Gaussians of the face, another those of the inside
of the mouth: hash grids at the Gaussians' rest positions and an audio vector go through a small
perceptron. Names of attributes are those of the authors' state dicts.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from talksplat.errors import InputError
from talksplat.manifest import Licence
from talksplat_export.gaussians import ActiveGaussians, GaussianSet
from talksplat_export.layers.audio_branch import (
    AUDIO_VISUAL_WIDTH,
    AudioNet,
    AudioVisualNet,
    PublishedAudioAttention,
)
from talksplat_export.layers.grid_encoder import TriPlaneGrid
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron

GRID_BOUND = 0.15
FACE_GRID = (16, 256 * GRID_BOUND)
MOUTH_GRID = (64, 384 * GRID_BOUND)
GRID_WIDTH = 36
AUDIO_WIDTH = 32
UPPER_FACE_WIDTH = 6
WINDOW_FRAMES = 8

FACE_COLUMNS = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)
"""Outputs of a face field that are used: Δmeans, Δquats, Δscales. Column 7, Δopacity, never is."""
FACE_FACTORS = (0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
MOUTH_COLUMNS = (0, 1, 2)
MOUTH_FACTORS = (0.002, 0.01, 0.002)


@dataclass(frozen=True)
class AudioInput:
    """Speech features a checkpoint was trained with.

    Attributes:
        features: name of the features.
        feature_rate: tokens per second.
        feature_width: D.
        tokens: W, tokens of one frame of the window.
        tokens_before: how many of them come before the frame's own first token.
        hidden_width: channels of the first convolutions; 0 where there are none.
    """

    features: str
    feature_rate: int
    feature_width: int
    tokens: int
    tokens_before: int
    hidden_width: int = 32

    def audio_net(self) -> nn.Module:
        """[8, D, W] to [8, 32]."""
        if self.features == "ave":
            return AudioVisualNet(AUDIO_WIDTH)
        return AudioNet(self.feature_width, AUDIO_WIDTH, self.hidden_width)


DEEPSPEECH = AudioInput("deepspeech", 50, 29, 16, 8)
ESPERANTO = AudioInput("esperanto", 50, 44, 16, 8)
HUBERT = AudioInput("hubert", 50, 1024, 2, 0)
AUDIO_VISUAL = AudioInput("ave", 25, AUDIO_VISUAL_WIDTH, 1, 0, hidden_width=0)


@dataclass(frozen=True)
class GaussianTalkerOptions:
    """What the tensors of a checkpoint do not say; the defaults are the authors' own.

    Attributes:
        mouth_attention: whether the mouth's audio passes region attention. The authors' code has
            the weights and leaves them out.
        aligned: InsTaG: whether the aligner moves the universal field's query points. Off only for
            the per-identity files of pre-training.
        personalized: InsTaG: whether the personal field is added, ``--personalized`` upstream.
        mouth_dilation: side in pixels, odd, of the max-pool on the mouth's alpha in the background
            term; 0 is none. Default: none for TalkingGaussian, 13 for InsTaG, as in their scripts.
        name: the avatar's name.
        licence: terms of the avatar.
    """

    mouth_attention: bool = False
    aligned: bool = True
    personalized: bool = False
    mouth_dilation: int | None = None
    name: str = "avatar"
    licence: Licence = field(
        default_factory=lambda: Licence(
            "unknown", "The terms of the training code, of its data and of the person shown apply."
        )
    )

    def __post_init__(self) -> None:
        side = self.mouth_dilation
        if side is not None and side and (side < 0 or side % 2 == 0):
            raise InputError(f"mouth_dilation must be 0 or an odd number of pixels, found {side}.")


class MotionField(TriPlaneGrid):
    """Tri-plane grid, audio nets, region attention and a decoder.

    Calling it gives the grid features [N,36] of points [N,3]; subclasses say how they move.

    Args:
        grid: base and finest resolution.
        audio: the speech features.
        conditions: width of the conditions besides audio.
        hidden: width of the decoder's two hidden layers.
        out_width: outputs of the decoder.
    """

    def __init__(
        self,
        grid: tuple[int, float],
        audio: AudioInput,
        conditions: int,
        hidden: int,
        out_width: int,
    ) -> None:
        super().__init__(*grid, bound=GRID_BOUND)
        self.audio_net = audio.audio_net()
        self.audio_att_net = PublishedAudioAttention(AUDIO_WIDTH, WINDOW_FRAMES)
        self.sigma_net = MultilayerPerceptron(
            (GRID_WIDTH + AUDIO_WIDTH + conditions, hidden, hidden, out_width)
        )
        self.aud_ch_att_net = MultilayerPerceptron((GRID_WIDTH, 32, AUDIO_WIDTH))

    def audio(self, audio_window: Tensor) -> Tensor:
        """[1,8,D,W] to one vector [1,32]."""
        out: Tensor = self.audio_att_net(self.audio_net(audio_window[0]))
        return out

    def attended_audio(self, features: Tensor, audio_window: Tensor) -> Tensor:
        """The audio vector weighted per Gaussian by region attention, [N,32]."""
        return self.aud_ch_att_net(features) * self.audio(audio_window)


class FaceMotion(MotionField):
    """Moves the face by speech and action units.

    Args:
        audio: the speech features.
        hidden: 64 for a whole model, 32 for InsTaG's personal field.
    """

    def __init__(self, audio: AudioInput, hidden: int = 64) -> None:
        super().__init__(FACE_GRID, audio, UPPER_FACE_WIDTH, hidden, out_width=11)
        self.exp_encode_net = MultilayerPerceptron((5, 16, 5))
        self.eye_att_net = MultilayerPerceptron((GRID_WIDTH, 16, UPPER_FACE_WIDTH))

    def encoded_upper_face(self, upper_face: Tensor) -> Tensor:
        """Action units 1,4,5,6,7,45 [1,6]: the blink, AU45, bypasses the encoder."""
        return torch.cat([self.exp_encode_net(upper_face[:, :5]), upper_face[:, 5:]], dim=1)

    def eye_attention(self, features: Tensor) -> Tensor:
        """[N,6], not negative."""
        return torch.relu(self.eye_att_net(features))

    def deformation(self, features: Tensor, audio_window: Tensor, upper_face: Tensor) -> Tensor:
        """Δmeans, Δquats and Δscales [N,10] before activation."""
        audio = self.attended_audio(features, audio_window)
        eyes = self.encoded_upper_face(upper_face) * self.eye_attention(features)
        out = self.sigma_net(torch.cat([features, audio, eyes], dim=1))
        return scaled_columns(out, FACE_COLUMNS, FACE_FACTORS)


class MouthMotion(MotionField):
    """Moves the inside of the mouth by speech."""

    def __init__(self, audio: AudioInput) -> None:
        super().__init__(MOUTH_GRID, audio, 0, 32, out_width=3)

    def deformation(self, features: Tensor, audio_window: Tensor, attention: bool) -> Tensor:
        """Δmeans [N,3]; ``attention`` as in :class:`GaussianTalkerOptions`."""
        audio = mouth_audio(self, features, audio_window, attention)
        out = self.sigma_net(torch.cat([features, audio], dim=1))
        return scaled_columns(out, MOUTH_COLUMNS, MOUTH_FACTORS)


def mouth_audio(
    motion: MotionField, features: Tensor, audio_window: Tensor, attention: bool
) -> Tensor:
    """What a mouth field hears at every Gaussian, [N,32]."""
    if attention:
        return motion.attended_audio(features, audio_window)
    return motion.audio(audio_window).expand(len(features), -1)


def scaled_columns(out: Tensor, columns: tuple[int, ...], factors: tuple[float, ...]) -> Tensor:
    """The used outputs of a decoder, each times its factor."""
    return out[:, list(columns)] * out.new_tensor(factors)


Motion = TypeVar("Motion", bound=MotionField)
Personal = TypeVar("Personal", bound=MotionField)


class Region(nn.Module, Generic[Motion, Personal]):
    """Gaussians of the face or of the mouth with what moves them.

    Args:
        gaussians: at rest.
        motion: the field that every identity of InsTaG starts from; TalkingGaussian's only one.
        personal: InsTaG's field of this identity, with the aligner.
    """

    def __init__(
        self, gaussians: GaussianSet, motion: Motion, personal: Personal | None = None
    ) -> None:
        super().__init__()
        self.gaussians = gaussians
        self.motion = motion
        self.personal = personal


@dataclass(frozen=True)
class RegionFeatures:
    """What is constant of a region: grid features [N,36] of the two fields, and the aligner's.

    Attributes:
        motion: at the points where ``motion`` is asked.
        personal: at the Gaussians; None without a personal field.
        move_scale: [N,3], the aligner's factor of Δmeans; None without.
    """

    motion: Tensor
    personal: Tensor | None = None
    move_scale: Tensor | None = None


class GaussianTalker(nn.Module):
    """A talking head of face and mouth, nothing baked: what TalkingGaussian and InsTaG share."""

    face: Region[Any, Any]
    mouth: Region[Any, Any]
    mouth_takes_move: bool
    """Whether :meth:`animate_face` makes a ``move`` that :meth:`animate_mouth` needs."""
    default_mouth_dilation: int

    @abstractmethod
    def face_features(self) -> RegionFeatures:
        """Grid look-ups of the face."""

    @abstractmethod
    def mouth_features(self) -> RegionFeatures:
        """Grid look-ups of the mouth."""

    @abstractmethod
    def animate_face(
        self, features: RegionFeatures, audio_window: Tensor, upper_face: Tensor
    ) -> tuple[ActiveGaussians, Tensor | None]:
        """Face Gaussians of a frame, and ``move`` [1,3] for the mouth or None.

        Args:
            features: of :meth:`face_features`.
            audio_window: [1,8,D,W].
            upper_face: action units 1,4,5,6,7 in 0..5 and 45 in 0..2, [1,6].
        """

    @abstractmethod
    def animate_mouth(
        self, features: RegionFeatures, audio_window: Tensor, move: Tensor | None
    ) -> ActiveGaussians:
        """Mouth Gaussians of a frame."""


class TalkingGaussian(GaussianTalker):
    """TalkingGaussian as published (section 3)."""

    mouth_takes_move = False
    default_mouth_dilation = 0

    def __init__(
        self,
        face: Region[FaceMotion, MotionField],
        mouth: Region[MouthMotion, MotionField],
        options: GaussianTalkerOptions,
    ) -> None:
        super().__init__()
        self.face = face
        self.mouth = mouth
        self.options = options

    def face_features(self) -> RegionFeatures:
        """See :class:`GaussianTalker`."""
        return RegionFeatures(self.face.motion(self.face.gaussians.means))

    def mouth_features(self) -> RegionFeatures:
        """See :class:`GaussianTalker`."""
        return RegionFeatures(self.mouth.motion(self.mouth.gaussians.means))

    def animate_face(
        self, features: RegionFeatures, audio_window: Tensor, upper_face: Tensor
    ) -> tuple[ActiveGaussians, None]:
        """See :class:`GaussianTalker`."""
        moved = self.face.motion.deformation(features.motion, audio_window, upper_face)
        return self.face.gaussians.activate(moved), None

    def animate_mouth(
        self, features: RegionFeatures, audio_window: Tensor, move: Tensor | None
    ) -> ActiveGaussians:
        """See :class:`GaussianTalker`."""
        attention = self.options.mouth_attention
        moved = self.mouth.motion.deformation(features.motion, audio_window, attention)
        return activate_moved(self.mouth.gaussians, moved)


def activate_moved(gaussians: GaussianSet, moved: Tensor) -> ActiveGaussians:
    """Gaussians of which only the position changes, by [N,3]."""
    return gaussians.activate(torch.cat([moved, moved.new_zeros(len(moved), 7)], dim=1))
