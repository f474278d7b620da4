"""PNCC images: where a vertex lands, what hides what, and the difference to the neutral face."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.errors import InputError
from talksplat.manifest import PnccContract
from talksplat.pncc import PnccRenderer

CAMERA = PnccContract(width=40, height=20, scale=100.0, centre=(0.0, 0.0), background=-1.0)


def renderer(offset: float = 0.0) -> PnccRenderer:
    """A white triangle up and to the viewer's right; a red one behind it, at the same place."""
    near = np.array([[0.02, 0.02, 0.05], [0.18, 0.02, 0.05], [0.02, 0.09, 0.05]], np.float32)
    far = near - [0.0, 0.0, 0.1]
    basis = np.zeros((2, 6, 3), np.float32)
    basis[0, :, 1] = -0.1
    return PnccRenderer(
        np.concatenate([near, far]),
        basis,
        [[0, 1, 2], [3, 4, 5]],
        np.array([[1, 1, 1]] * 3 + [[1, 0, 0]] * 3, np.float32),
        CAMERA,
    )


def test_up_is_up_right_is_right_and_near_hides_far() -> None:
    image = renderer().neutral
    assert image.shape == (20, 40, 3)
    assert image[7, 24].tolist() == [1, 1, 1]
    assert image[12, 24].tolist() == [-1, -1, -1], "below the middle is empty"
    assert image[7, 10].tolist() == [-1, -1, -1], "left of the middle is empty"


def test_expression_moves_vertices_and_the_difference_is_zero_at_rest() -> None:
    pncc = renderer()
    assert pncc.expression_size == 2
    assert not pncc.difference([0.0, 0.0]).any()
    moved = pncc.difference([1.0, 0.0])
    assert moved.shape == (3, 20, 40) and moved.flags.c_contiguous
    assert moved[:, 7, 24].tolist() == [-2, -2, -2]
    assert moved[:, 17, 24].tolist() == [2, 2, 2]
    assert not pncc.difference([0.0, 5.0]).any(), "the second coefficient moves nothing"


def test_expressions_of_another_size_are_refused() -> None:
    for bad in ([0.0], [[0.0, 0.0]], [np.nan, 0.0]):
        with pytest.raises(InputError):
            renderer().render(bad)


def test_meshes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="PNCC expects"):
        PnccRenderer(np.zeros((3, 3)), np.zeros((1, 4, 3)), [[0, 1, 2]], np.zeros((3, 3)), CAMERA)
