"""What drives the fields, frame by frame, worked out once for a whole clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talksplat.pncc import PnccRenderer

FRAMES_BEFORE = 4
FRAMES_AFTER = 3
WINDOW_TOKENS = 16
TOKENS_PER_FRAME = 2


@dataclass(frozen=True)
class ConditionTrack:
    """The drivers of a clip of T frames.

    Attributes:
        features: speech features [2T, D], 50 per second.
        expression: [T,E], from audio alone.
        pncc_differences: float16 [T,3,h,w], drawn from ``expression``.
        upper_face: [T,6], action units 1,4,5,6,7,45.
    """

    features: Tensor
    expression: Tensor
    pncc_differences: Tensor
    upper_face: Tensor

    @classmethod
    def draw(
        cls,
        features: Tensor,
        expression: Tensor,
        upper_face: NDArray[np.float32],
        renderer: PnccRenderer,
    ) -> ConditionTrack:
        """Draw the PNCC differences of an expression track."""
        frames = [renderer.difference(row).astype(np.float16) for row in expression.numpy()]
        return cls(
            features, expression, torch.from_numpy(np.stack(frames)), torch.from_numpy(upper_face)
        )

    def __len__(self) -> int:
        return self.expression.shape[0]

    def pncc_window(self, frame: int, radius: int) -> Tensor:
        """PNCC differences of frames ``frame ± radius`` [2·radius+1,3,h,w], ends repeated."""
        window = torch.arange(frame - radius, frame + radius + 1).clamp(0, len(self) - 1)
        return self.pncc_differences[window].float()

    def audio_window(self, frame: int) -> Tensor:
        """Feature tokens around frames ``frame-4 … frame+3`` as [1,8,D,16], zeros beyond the ends.

        A frame f's sixteen tokens are ``2f-8 … 2f+7``; a frame beyond the ends is all zeros.
        """
        tokens, width = self.features.shape
        rows = []
        for f in range(frame - FRAMES_BEFORE, frame + FRAMES_AFTER + 1):
            row = self.features.new_zeros(WINDOW_TOKENS, width)
            if 0 <= f < len(self):
                start = TOKENS_PER_FRAME * f - WINDOW_TOKENS // 2
                first, last = max(start, 0), min(start + WINDOW_TOKENS, tokens)
                row[first - start : last - start] = self.features[first:last]
            rows.append(row.T)
        return torch.stack(rows)[None]
