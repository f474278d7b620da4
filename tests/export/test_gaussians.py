"""Sets of Gaussians and their order in memory."""

from __future__ import annotations

import numpy as np
import torch

from talksplat_export.gaussians import GaussianSet
from talksplat_export.morton import morton_order


def a_set(count: int) -> GaussianSet:
    generator = torch.Generator().manual_seed(3)
    means, scales, rgb = (torch.rand(count, 3, generator=generator) + 0.01 for _ in range(3))
    gaussians = GaussianSet(means, scales, torch.randn(count, 4, generator=generator), rgb)
    with torch.no_grad():
        gaussians.raw_opacities += torch.randn(count, 1, generator=generator)
        gaussians.shs_rest += torch.randn(gaussians.shs_rest.shape, generator=generator)
    return gaussians


def test_morton_order_visits_the_octants_one_after_the_other() -> None:
    corners = np.array([[x, y, z] for x in (1, 0) for y in (1, 0) for z in (1, 0)], np.float32)
    assert corners[morton_order(corners)].tolist() == [
        [x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)
    ]


def test_no_points_and_one_point_have_an_order() -> None:
    assert morton_order(np.zeros((0, 3), np.float32)).tolist() == []
    assert morton_order(np.zeros((1, 3), np.float32)).tolist() == [0]


def test_morton_order_moves_all_of_a_gaussian_together() -> None:
    gaussians = a_set(200)
    ordered = gaussians.in_morton_order()
    order = torch.from_numpy(morton_order(gaussians.means.detach().numpy()))
    assert order.sort().values.tolist() == list(range(200)) and order.tolist() != list(range(200))
    before, after = gaussians.state_dict(), ordered.state_dict()
    for name, rows in before.items():
        torch.testing.assert_close(after[name], rows[order], rtol=0, atol=0)
