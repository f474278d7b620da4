"""The noise that SDTalk's refiner adds, drawn so that a frame's does not depend on the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def draw_noise(
    shapes: Mapping[str, tuple[int, ...]], seed: int, frame: int
) -> dict[str, FloatArray]:
    """Standard normal maps of one frame: NumPy's PCG64 seeded with [seed, frame].

    The reference implementation draws afresh in every call; here the same seed and frame number
    give the same maps, however audio was cut.

    Args:
        shapes: name → shape; drawn in this order.
        seed: at least 0.
        frame: number of the frame in the utterance.
    """
    generator = np.random.default_rng([seed, frame])
    return {
        name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
