"""Layers over each other, dilation and coverage, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.compositing import coverage, dilate, over


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
    np.testing.assert_array_equal(dilate(alpha[None, None], size)[0, 0], expected)


def test_coverage_is_what_no_layer_lets_through() -> None:
    mouth, face, hair = np.random.default_rng(0).random((3, 1, 1, 5, 7), np.float32)
    for alphas in ([mouth], [mouth, face], [mouth, face, hair]):
        kept = [alpha.copy() for alpha in alphas]
        expected = 1 - np.prod(1 - np.stack(alphas).astype(np.float64), axis=0)
        np.testing.assert_allclose(coverage(*alphas), expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(alphas, kept)


def test_a_layer_over_another_lets_it_through_by_its_alpha() -> None:
    image, behind = np.random.default_rng(1).random((2, 1, 3, 5, 7), np.float32)
    alpha = np.random.default_rng(2).random((1, 1, 5, 7), np.float32)
    out = np.empty_like(image)
    assert over(image, alpha, behind, out) is out
    np.testing.assert_array_equal(out, image + behind * (1 - alpha))
