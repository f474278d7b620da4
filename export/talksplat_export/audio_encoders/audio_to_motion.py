"""Audio to expression: feature tokens to blendshape weights of jaw, mouth and tongue.

Deterministic and convolutional, where Real3D-Portrait (Ye et al., 2024) samples a variational
model: a phone's answer must not depend on a random draw. Valid convolutions only, like the
encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talksplat_export.audio_encoders.log_mel import ValidResidual
from talksplat_export.heads.blendshapes import ARKIT_NAMES

TOKENS_PER_FRAME = 2
EXPRESSION_NAMES: tuple[str, ...] = tuple(
    name for name in ARKIT_NAMES if name.startswith(("jaw", "mouth", "tongue"))
)
"""The weights that speech moves, in the order of the output."""

_SLOPE = 0.1


@dataclass(frozen=True)
class AudioToMotionConfig:
    """Width D of a token, hidden width, number E of expression weights."""

    feature_width: int = 32
    hidden_width: int = 128
    expression_width: int = len(EXPRESSION_NAMES)


class AudioToMotion(nn.Module):
    """Features [B, left_tokens + 2·F + right_tokens, D] to expression [B,F,E] in 0..1.

    Frame f of a clip owns tokens 2f and 2f+1. The receptive field is centred on them.
    """

    left_tokens = 8
    right_tokens = 8

    def __init__(self, config: AudioToMotionConfig | None = None) -> None:
        super().__init__()
        self.config = config or AudioToMotionConfig()
        width = self.config.hidden_width
        self.inlet = nn.Conv1d(self.config.feature_width, width, 1)
        self.tokens = nn.Sequential(ValidResidual(width, 1), ValidResidual(width, 2))
        self.pair = nn.Conv1d(width, width, 4, stride=TOKENS_PER_FRAME)
        self.frames = nn.Sequential(ValidResidual(width), ValidResidual(width))
        self.head = nn.Conv1d(width, self.config.expression_width, 1)

    def start_at(self, expression: Tensor) -> None:
        """Makes the untrained network answer about ``expression`` [E], 0..1, to anything.

        Training begins there, at the mean of the data. From the middle of the sigmoid the shapes
        that never move would pull everything into its flat end.
        """
        assert self.head.bias is not None
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.logit(expression.clamp(0.003, 0.997)))

    def forward(self, features: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.inlet(features.transpose(1, 2)), _SLOPE)
        x = nn.functional.leaky_relu(self.pair(self.tokens(x)), _SLOPE)
        return torch.sigmoid(self.head(self.frames(x))).transpose(1, 2)
