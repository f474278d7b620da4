"""How two pictures are compared, and what is said when they differ.

The fast rasterizer works in float32, the oracle in float64. They may differ by rounding, which is
what the signal-to-noise ratio and the high quantile bound, and now and then by a decision: an alpha
within a rounding of 1/255 is drawn by one and skipped by the other, which moves that pixel
by up to 1/255 of the range of the colours (features in -2..2: 8e-3). A wrong rule moves
more pixels than the quantile leaves out.
"""

from __future__ import annotations

import numpy as np
from benchmarks.rasterizer.scenes import Array

PSNR_AT_LEAST = 100.0
QUANTILE = 0.9999
QUANTILE_AT_MOST = 2e-5
FLIP_AT_MOST = 8e-3


def psnr(error: Array) -> float:
    """Signal-to-noise ratio in decibels for a peak of 1; infinite for equal pictures."""
    squared = float(np.mean(error**2))
    return float(-10 * np.log10(squared)) if squared > 0 else float("inf")


def difference(measured: Array, expected: Array) -> str | None:
    """What is wrong with an image [C, H, W, D], in words; None if it is right."""
    if measured.shape != expected.shape:
        return f"shape {measured.shape}, expected {expected.shape}"
    if measured.dtype != np.float32:
        return f"dtype {measured.dtype}, expected float32"
    if expected.size == 0:
        return None
    if not np.isfinite(measured).all():
        return f"{np.count_nonzero(~np.isfinite(measured))} values are not finite"
    error = np.abs(measured.astype(np.float64) - expected)
    ratio, quantile = psnr(error), float(np.quantile(error, QUANTILE))
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


def assert_same_picture(
    measured: tuple[Array, Array], expected: tuple[Array, Array], what: str
) -> None:
    """Both the colours and the alphas."""
    found = {
        name: difference(*images)
        for name, *images in zip(("colors", "alphas"), measured, expected, strict=True)
    }
    wrong = [f"{name}: {text}" for name, text in found.items() if text is not None]
    assert not wrong, f"{what}\n  " + "\n  ".join(wrong)
