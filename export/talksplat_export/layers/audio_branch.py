"""AudioNet and AudioAttNet: a window of speech features to one vector per frame.

The audio condition of AD-NeRF (Guo et al., 2021) as kept by ER-NeRF and TalkingGaussian.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

_SLOPE = 0.02
AUDIO_VISUAL_WIDTH = 512


class AudioNet(nn.Module):
    """[B, D, W] feature tokens to [B, out_width]: four strided convolutions, two linear layers.

    Args:
        feature_width: D.
        out_width: width of the result.
        hidden_width: channels of the first two convolutions.

    W is at most 16, for the convolutions halve it four times down to one.
    """

    def __init__(self, feature_width: int, out_width: int = 32, hidden_width: int = 32) -> None:
        super().__init__()
        channels = (feature_width, hidden_width, hidden_width, 64, 64)
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


class AudioVisualNet(nn.Module):
    """[B, 512, 1] features of SyncTalk's audio-visual encoder to [B, out_width] (InsTaG)."""

    def __init__(self, out_width: int = 32) -> None:
        super().__init__()
        self.encoder_fc1 = nn.Sequential(
            nn.Linear(AUDIO_VISUAL_WIDTH, 256),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(256, 128),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(128, out_width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.encoder_fc1(tokens.squeeze(-1))
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
        self.attentionNet: nn.Module = nn.Linear(frames, frames)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.softmax(self.attentionNet(self.scores(frames)), dim=1) @ frames

    def scores(self, frames: Tensor) -> Tensor:
        """One number per frame, [1, T]."""
        return self.attentionConvNet(frames.T[None]).view(1, -1)


class PublishedAudioAttention(AudioAttention):
    """The same with the state keys of ER-NeRF, TalkingGaussian and InsTaG checkpoints."""

    def __init__(self, width: int = 32, frames: int = 8) -> None:
        super().__init__(width, frames)
        self.attentionNet = nn.Sequential(nn.Linear(frames, frames), nn.Softmax(dim=1))

    def forward(self, frames: Tensor) -> Tensor:
        return self.attentionNet(self.scores(frames)) @ frames


class AudioBranch(nn.Module):
    """Audio window [1, 8, D, 16] to the audio feature F_A [1, 32]."""

    def __init__(self, feature_width: int, out_width: int = 32, frames: int = 8) -> None:
        super().__init__()
        self.audio_net = AudioNet(feature_width, out_width)
        self.audio_att_net = AudioAttention(out_width, frames)

    def forward(self, audio_window: Tensor) -> Tensor:
        out: Tensor = self.audio_att_net(self.audio_net(audio_window[0]))
        return out
