"""AudioNet and AudioAttNet: a window of speech features to one vector per frame.

The audio condition of AD-NeRF (Guo et al., 2021) as kept by ER-NeRF and TalkingGaussian.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

_SLOPE = 0.02


class AudioNet(nn.Module):
    """[B, D, 16] feature tokens to [B, out_width]: four strided convolutions, two linear layers."""

    def __init__(self, feature_width: int, out_width: int = 32) -> None:
        super().__init__()
        channels = (feature_width, 32, 32, 64, 64)
        self.encoder_conv = nn.Sequential(
            *(
                layer
                for n_in, n_out in itertools.pairwise(channels)
                for layer in (nn.Conv1d(n_in, n_out, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE))
            )
        )
        self.encoder_fc1 = nn.Sequential(
            nn.Linear(64, 64), nn.LeakyReLU(_SLOPE), nn.Linear(64, out_width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.encoder_fc1(self.encoder_conv(tokens).squeeze(-1))
        return out


class AudioAttention(nn.Module):
    """Softmax-weighted sum over the frames of a window: [T, W] to [1, W]."""

    def __init__(self, width: int = 32, frames: int = 8) -> None:
        super().__init__()
        channels = (width, 16, 8, 4, 2, 1)
        self.attentionConvNet = nn.Sequential(
            *(
                layer
                for n_in, n_out in itertools.pairwise(channels)
                for layer in (nn.Conv1d(n_in, n_out, 3, padding=1), nn.LeakyReLU(_SLOPE))
            )
        )
        self.attentionNet = nn.Linear(frames, frames)

    def forward(self, frames: Tensor) -> Tensor:
        scores = self.attentionConvNet(frames.T[None]).view(1, -1)
        weights = torch.softmax(self.attentionNet(scores), dim=1)
        return weights @ frames


class AudioBranch(nn.Module):
    """Audio window [1, 8, D, 16] to the audio feature F_A [1, 32]."""

    def __init__(self, feature_width: int, out_width: int = 32, frames: int = 8) -> None:
        super().__init__()
        self.audio_net = AudioNet(feature_width, out_width)
        self.audio_att_net = AudioAttention(out_width, frames)

    def forward(self, audio_window: Tensor) -> Tensor:
        out: Tensor = self.audio_att_net(self.audio_net(audio_window[0]))
        return out
