"""How fast a stage could be at best: its counted bytes and operations at this device's own rates.

Counted are bytes that must pass through device memory once (each input read, each output written)
and operations that no way of computing the same picture can leave out. The larger of the two times
is the floor. Launching is a floor of its own: kernels that wait for one another cannot follow
closer than the device starts them.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4
"""Bytes of a float32."""

GEOMETRY = 3 + 4 + 3 + 1
"""Floats of a Gaussian besides its colour: mean, quaternion, scales, opacity."""

STEP_FLOPS = 16
"""Operations of one Gaussian at one pixel before its colour: distance 2, quadratic form 9, exp 1,
opacity 1, transmittance 2, weight 1."""

CHANNEL_FLOPS = 2
"""More for every channel: one multiplication and one addition."""


@dataclass(frozen=True)
class Rates:
    """What this device reaches, measured in the same run.

    Attributes:
        copy: bytes read and written per second by a large copy.
        multiply_add: float32 operations per second outside the matrix units.
        matrix: float16 operations per second of a large product of matrices, accumulated in
            float32; None where nothing that could measure it is installed.
        launch: seconds from one empty kernel of a replayed graph to the next.
    """

    copy: float
    multiply_add: float
    matrix: float | None
    launch: float


@dataclass(frozen=True)
class Work:
    """What a stage cannot do without.

    Attributes:
        bytes: read once and written once.
        flops: float32 operations outside products of matrices.
        matrix_flops: operations of convolutions and products of matrices.
    """

    bytes: float = 0.0
    flops: float = 0.0
    matrix_flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.matrix_flops + other.matrix_flops,
        )


def floor_ms(work: Work, rates: Rates) -> float:
    """Milliseconds that no version of the stage goes below."""
    return 1e3 * max(
        work.bytes / rates.copy,
        work.flops / rates.multiply_add,
        work.matrix_flops / (rates.matrix or rates.multiply_add),
    )


def rasterization(
    *, gaussians: int, channels: int, width: int, height: int, pairs: int, color_floats: int = 0
) -> Work:
    """Gaussians to colours and alphas of one camera.

    Args:
        gaussians: N.
        channels: of the picture.
        width: pixels.
        height: pixels.
        pairs: (Gaussian, pixel) contributions that are blended.
        color_floats: of a Gaussian, where they are not the channels: spherical harmonics.
    """
    read = gaussians * (GEOMETRY + (color_floats or channels))
    written = width * height * (channels + 1)
    return Work(
        bytes=FLOAT * (read + written), flops=pairs * (STEP_FLOPS + CHANNEL_FLOPS * channels)
    )


def warp_steps(*, steps: int, channels: int) -> Work:
    """Blending where 32 pixels go together, as a warp does: all 32 pay if one is drawn.

    Args:
        steps: (Gaussian, block of 8×4 pixels) in which at least one pixel is blended.
        channels: of the picture.
    """
    return Work(flops=32 * steps * (STEP_FLOPS + CHANNEL_FLOPS * channels))


def launches_ms(launches: int, rates: Rates) -> float:
    """Milliseconds for as many kernels one after another, were they empty."""
    return 1e3 * launches * rates.launch
