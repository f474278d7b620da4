"""Clips to learn from: frames, cameras, masks and drivers, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talksplat_export.training.conditioning import ConditionTrack
from talksplat_export.training.rendering import View

BLINK = 5
"""Column of the upper face that holds action unit 45, the blink."""


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a picture."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def around(cls, points: NDArray[np.floating], margin: int, size: tuple[int, int]) -> Box:
        """The box of points [...,2] (x, y), wider by ``margin`` pixels, inside a picture."""
        points = points.reshape(-1, 2)
        left, top = np.maximum(points.min(axis=0).astype(int) - margin, 0)
        right, bottom = points.max(axis=0).astype(int) + margin + 1
        return cls(int(top), min(int(bottom), size[0]), int(left), min(int(right), size[1]))

    def cut(self, picture: Tensor) -> Tensor:
        """The part of a picture [H,W,...] inside the box."""
        return picture[self.top : self.bottom, self.left : self.right]


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
        details: boxes that hold the mouth and the eyes in every frame: where viewers look.
        track: the drivers.
    """

    name: str
    frames: Tensor
    mouth_masks: Tensor
    viewmats: Tensor
    K: Tensor
    plate: Tensor
    details: tuple[Box, ...]
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

    def blinks(self) -> list[int]:
        """Frames with the lids at least a quarter closed."""
        return torch.nonzero(self.track.upper_face[:, BLINK] >= 0.25).flatten().tolist()
