"""The head of a picture without its background, in a square crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talksplat.errors import InputError
from talksplat_export.heads.landmark_finder import CROP

_DIFFERENCE = 28  # of 255: backdrops are even, JPEG noise and dithering stay below
_MARGIN = 0.04


@dataclass(frozen=True)
class Cutout:
    """A picture's foreground.

    Attributes:
        image: uint8 [H,W,3], black where the background was.
        mask: bool [H,W], the foreground.
        box: left, top and side in pixels of the square around the foreground.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    box: tuple[float, float, float]

    def crop(self) -> NDArray[np.float64]:
        """The square, grey in 0..1, 192 pixels a side."""
        left, top, side = self.box
        margin = int(np.ceil(side))  # the square may reach beyond the picture
        grey = np.pad(np.asarray(Image.fromarray(self.image).convert("L")), margin)
        left, top = left + margin, top + margin
        square = Image.fromarray(grey).resize(
            (CROP, CROP), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
        return np.asarray(square, np.float64) / 255


def cut_out(picture: Image.Image) -> Cutout:
    """Remove the background.

    By the picture's alpha, where it has one. Else the backdrop must be plain: every row's is the
    line between its two ends, and what differs from it by more than 28 of 255 in a channel is
    foreground, together with all that lies between in the row.

    Raises:
        InputError: nothing, or all, is foreground.
    """
    rgba = np.asarray(picture.convert("RGBA"))
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    mask = alpha > 127 if (alpha < 128).any() else _foreground(rgb.astype(np.float64))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    share = float(mask.mean())
    if not 0.02 < share < 0.98:
        raise InputError(
            "no head before a plain background: expected a picture with alpha, or one backdrop "
            f"that a head covers in part, found {share:.0%} of it covered"
        )
    height, width = rows[-1] - rows[0] + 1.0, columns[-1] - columns[0] + 1.0
    side = (1 + 2 * _MARGIN) * max(height, width)
    left = (columns[0] + columns[-1] + 1 - side) / 2
    top = (rows[0] + rows[-1] + 1 - side) / 2
    return Cutout(rgb * mask[..., None], mask, (left, top, side))


def _foreground(rgb: NDArray[np.float64]) -> NDArray[np.bool_]:
    height, width = rgb.shape[:2]
    ends = max(2, width // 64)
    left, right = np.median(rgb[:, :ends], axis=1), np.median(rgb[:, -ends:], axis=1)
    # The lower rows may begin and end in clothes: their backdrop is that of the top's trend.
    upper = max(2, height // 3)
    rows = np.arange(height)
    slopes = [np.polyfit(rows[:upper], side[:upper], 1) for side in (left, right)]
    left, right = (np.outer(rows, slope[0]) + slope[1] for slope in slopes)
    along = np.linspace(0, 1, width)[None, :, None]
    backdrop = left[:, None] * (1 - along) + right[:, None] * along
    differs = (np.abs(rgb - backdrop) > _DIFFERENCE).any(axis=-1)
    first = np.where(differs.any(axis=1), differs.argmax(axis=1), width)
    last = width - 1 - differs[:, ::-1].argmax(axis=1)
    columns = np.arange(width)
    return np.asarray((columns >= first[:, None]) & (columns <= last[:, None]))
