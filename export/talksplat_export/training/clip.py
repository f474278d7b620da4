"""Clips to learn from: frames, cameras, masks and drivers, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talksplat_export.training.conditioning import ConditionTrack
from talksplat_export.training.rendering import View

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Clip:
    """T frames of one identity.

    Attributes:
        name: of the identity.
        frames: uint8 [T,H,W,3].
        mouth_masks: bool [T,H,W], inside of the mouth.
        viewmats: [T,4,4], world → camera, OpenCV.
        K: [3,3], pixels.
        plate: [H,W,3] in 0..1, what is behind the head.
        track: the drivers.
    """

    name: str
    frames: Tensor
    mouth_masks: Tensor
    viewmats: Tensor
    K: Tensor
    plate: Tensor
    track: ConditionTrack

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    def view(self, frame: int) -> View:
        """Camera and background of one frame."""
        return View(self.viewmats[frame], self.K, self.plate)

    def picture(self, frame: int) -> Tensor:
        """[H,W,3] in 0..1; half a step is added, for the capture was truncated to uint8."""
        return (self.frames[frame].float() + 0.5) / 255

    def mouth_box(self, margin: float = 0.04) -> Box:
        """Rows and columns ``(top, bottom, left, right)`` that hold the mouth in every frame.

        Args:
            margin: added on every side, as a share of the picture's height.
        """
        rows, columns = torch.nonzero(self.mouth_masks.any(dim=0), as_tuple=True)
        height, width = self.size
        if rows.numel() == 0:
            return height // 2, height, width // 4, 3 * width // 4
        pad = round(margin * height)
        return (
            max(int(rows.min()) - pad, 0),
            min(int(rows.max()) + pad + 1, height),
            max(int(columns.min()) - pad, 0),
            min(int(columns.max()) + pad + 1, width),
        )
