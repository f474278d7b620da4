"""From PNCC difference images to the Facial Motion condition (D3-Talker, section 3.2)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

_SLOPE = 0.02


class MotionEncoder(nn.Module):
    """E_diff: the difference of a PNCC image to the canonical one, to 32 numbers.

    Args:
        size: side of the square image in pixels.
        channels: one strided convolution per entry; the last map is flattened, so that where on
            the face something moved is kept.
        out_width: width of the feature F_Motion.
    """

    def __init__(self, size: int, channels: Sequence[int], out_width: int = 32) -> None:
        super().__init__()
        widths = (3, *channels)
        self.convolutions = nn.Sequential(
            *(
                layer
                for n_in, n_out in itertools.pairwise(widths)
                for layer in (nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE))
            )
        )
        side = size // 2 ** len(channels)
        self.output = nn.Linear(widths[-1] * side * side, out_width)

    def forward(self, pncc_difference: Tensor) -> Tensor:
        """[B,3,size,size] in -1..1 to [B, out_width]."""
        out: Tensor = self.output(self.convolutions(pncc_difference).flatten(1))
        return out


class TemporalConvolution(nn.Module):
    """TCN over F_Motion of frames i-j..i+j: [1, 2j+1, W] to F_M [1, W].

    ``j`` valid convolutions of width 3 use up the window exactly.
    """

    def __init__(self, radius: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(radius):
            layers += [nn.Conv1d(width, width, 3)]
            if index + 1 < radius:
                layers += [nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, window: Tensor) -> Tensor:
        out: Tensor = self.layers(window.transpose(1, 2)).squeeze(-1)
        return out
