"""Dilation and coverage, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.families.compositing import Plate, coverage, dilate


@pytest.mark.parametrize("size", [1, 3, 5, 13, 33])
@pytest.mark.parametrize("shape", [(1, 1), (4, 30), (48, 64)])
def test_dilation_is_the_maximum_over_a_square(size: int, shape: tuple[int, int]) -> None:
    alpha = np.random.default_rng(size).random(shape, np.float32) ** 8
    expected = np.empty_like(alpha)
    half = size // 2
    for y in range(shape[0]):
        for x in range(shape[1]):
            top, left = max(y - half, 0), max(x - half, 0)
            expected[y, x] = alpha[top : y + half + 1, left : x + half + 1].max()
    np.testing.assert_array_equal(dilate(alpha[None, :, :, None], size)[0, :, :, 0], expected)


def test_coverage_is_what_no_layer_lets_through() -> None:
    mouth, face = np.random.default_rng(0).random((2, 1, 5, 7, 1), np.float32)
    expected = 1 - (1 - mouth[0, :, :, 0]) * (1 - face[0, :, :, 0])
    np.testing.assert_allclose(coverage(mouth, face), expected, rtol=0, atol=1e-6)


def test_a_plate_is_worked_out_again_only_for_another_picture() -> None:
    plate = Plate(2, 3)
    one, other = np.full((2, 3, 3), 51, np.uint8), np.full((2, 3, 3), 255, np.uint8)
    assert np.all(plate.show(one) == np.float32(0.2))
    one[:] = 0  # the same object: still the old picture
    assert np.all(plate.show(one) == np.float32(0.2))
    assert np.all(plate.show(other) == 1)
