"""How two pictures are compared, and what is said when they differ.

The fast rasterizer works in float32, the oracle in float64. They differ by rounding, which the
signal-to-noise ratio and the high quantile bound, and now and then by a decision: an alpha within a
rounding of 1/255 is drawn by one and skipped by the other. A float32 picture cannot be blamed for
those pixels, so the oracle names them (it moves its thresholds a little and looks what changes),
and only the size of their error is bounded. There are few; a wrong rule moves others too.

Errors are in units of the picture's peak, which is 1 for colours and larger for depths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.rasterizer.scenes import Array

PSNR_AT_LEAST = 100.0
QUANTILE = 0.9999
QUANTILE_AT_MOST = 2e-5
FLIP_AT_MOST = 8e-3  # one contribution of 1/255, of features whose range is twice their peak
UNDECIDED_AT_MOST = 0.01


@dataclass(frozen=True)
class Truth:
    """What the oracle drew, rounded to float32 once, at the very end."""

    colors: Array
    """[C, H, W, D]"""
    alphas: Array
    """[C, H, W, 1]"""
    undecided: npt.NDArray[np.bool_]
    """[C, H, W]: a threshold lies within float32's rounding of what decides this pixel."""


def psnr(error: npt.NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio in decibels of errors in units of the peak; infinite for none."""
    squared = float(np.mean(error**2)) if error.size else 0.0
    return float(-10 * np.log10(squared)) if squared > 0 else float("inf")


def difference(
    measured: Array, expected: Array, undecided: npt.NDArray[np.bool_] | None = None
) -> str | None:
    """What is wrong with an image [C, H, W, D], in words; None if it is right."""
    if measured.shape != expected.shape:
        return f"shape {measured.shape}, expected {expected.shape}"
    if measured.dtype != np.float32:
        return f"dtype {measured.dtype}, expected float32"
    if not np.isfinite(measured).all():
        return f"{np.count_nonzero(~np.isfinite(measured))} values are not finite"
    peak = max(1.0, float(np.abs(expected).max(initial=0)))
    error = np.abs(measured.astype(np.float64) - expected) / peak
    decided = error if undecided is None else error[~undecided]
    ratio = psnr(decided)
    quantile = float(np.quantile(decided, QUANTILE)) if decided.size else 0.0
    if ratio >= PSNR_AT_LEAST and quantile <= QUANTILE_AT_MOST and error.max() <= FLIP_AT_MOST:
        return None
    camera, row, column, channel = np.unravel_index(error.argmax(), error.shape)
    pixels_off = np.count_nonzero((error > QUANTILE_AT_MOST).any(-1))
    return (
        f"PSNR {ratio:.1f} dB (at least {PSNR_AT_LEAST:.0f}), p99.99 {quantile:.2e} (at most "
        f"{QUANTILE_AT_MOST:.0e}), max {error.max():.2e} (at most {FLIP_AT_MOST:.0e}); "
        f"{pixels_off} of {error[..., 0].size} pixels differ by more than {QUANTILE_AT_MOST:.0e}; "
        f"worst at camera {camera}, row {row}, column {column} (tile row {row // 16}, tile column "
        f"{column // 16}), channel {channel}: {measured[camera, row, column, channel]:.7f}, "
        f"expected {expected[camera, row, column, channel]:.7f}"
    )


def assert_same_picture(measured: tuple[Array, Array], truth: Truth, what: str) -> None:
    """Both the colours and the alphas."""
    assert truth.undecided.mean() <= UNDECIDED_AT_MOST, f"{what}: choose a less delicate scene"
    found = {
        name: difference(image, expected, truth.undecided)
        for name, image, expected in zip(
            ("colors", "alphas"), measured, (truth.colors, truth.alphas), strict=True
        )
    }
    wrong = [f"{name}: {text}" for name, text in found.items() if text is not None]
    assert not wrong, f"{what}\n  " + "\n  ".join(wrong)
