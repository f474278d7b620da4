"""The grid encoder against a plain loop in float64, written from Müller et al. (2022)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from talksplat_export.families.d3talker import FACE_GRID, GRID_BOUND, MOUTH_GRID
from talksplat_export.layers.grid_encoder import PlaneGrid, TriPlaneGrid

# SDTalk's grid: base and finest resolution, bound. Its two finest levels are hashed.
SDTALK_GRID = (16, 512 * 1.15)
SDTALK_BOUND = 1.15

GRIDS = {
    "face": (*FACE_GRID, GRID_BOUND),
    "mouth": (*MOUTH_GRID, GRID_BOUND),
    "sdtalk": (*SDTALK_GRID, SDTALK_BOUND),
}


def _naive_plane(
    table: NDArray[np.float64], base: int, finest: float, bound: float, point: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Twelve features of one point on one plane, corner by corner."""
    levels, cap = 12, 2**17
    growth = (finest / base) ** (1 / (levels - 1))
    unit = (point + bound) / (2 * bound)
    features = np.zeros(levels)
    if not ((unit >= 0) & (unit <= 1)).all():
        return features
    offset = 0
    for level in range(levels):
        side = math.ceil(base * growth**level) + 1
        rows = -(-min(side * side, cap) // 8) * 8
        # In float32, as the published kernels do: the cell size itself depends on it.
        scale = float(np.exp2(np.float32(level * math.log2(growth))) * np.float32(base)) - 1
        x, y = unit * scale + 0.5
        left, bottom = math.floor(x), math.floor(y)
        for dx in (0, 1):
            for dy in (0, 1):
                weight = (x - left if dx else left + 1 - x) * (y - bottom if dy else bottom + 1 - y)
                if side * side <= rows:
                    row = (left + dx) + (bottom + dy) * side
                else:
                    row = (left + dx) ^ ((bottom + dy) * 2654435761 % 2**32)
                features[level] += weight * table[offset + row % rows]
        offset += rows
    assert offset == len(table)
    return features


@pytest.mark.parametrize("name", GRIDS)
def test_agrees_with_a_plain_loop(name: str) -> None:
    base, finest, bound = GRIDS[name]
    torch.manual_seed(0)
    grid = PlaneGrid(base, finest, bound)
    with torch.no_grad():
        grid.embeddings.uniform_(-1, 1)
    points = torch.empty(400, 2).uniform_(-1.2 * bound, 1.2 * bound)
    table = grid.embeddings.detach().double().numpy()[:, 0]
    expected = [_naive_plane(table, base, finest, bound, p) for p in points.double().numpy()]
    found = grid.look_up(grid.locate(points)).detach().numpy()
    # A float32 coordinate is off by half a step of 2^-24 of the side, a feature changes by up to 2
    # per cell and axis, and the arithmetic adds as much again.
    tolerance = 8 * max(base, finest) * 2**-24
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert (np.abs(expected).max(axis=0) > 0.5).all()


@pytest.mark.parametrize(("name", "rows"), [("face", 9464), ("mouth", 46600), ("sdtalk", 459360)])
def test_tables_have_the_published_number_of_rows(name: str, rows: int) -> None:
    grid = PlaneGrid(*GRIDS[name])
    assert grid.embeddings.shape == (rows, 1)
    assert grid.offsets.dtype == torch.int32
    assert len(grid.offsets) == 13
    assert int(grid.offsets[-1]) == rows


def test_only_sdtalk_hashes() -> None:
    for name, hashed in (("face", 0), ("mouth", 0), ("sdtalk", 2)):
        grid = PlaneGrid(*GRIDS[name])
        assert sum(int(size) == 2**17 for size in grid.offsets.diff()) == hashed


@pytest.mark.parametrize("name", GRIDS)
def test_the_border_is_inside_and_beyond_it_all_is_zero(name: str) -> None:
    base, finest, bound = GRIDS[name]
    grid = PlaneGrid(base, finest, bound)
    with torch.no_grad():
        grid.embeddings.fill_(1.0)
    beyond = float(np.nextafter(np.float32(bound), np.float32(np.inf))) * 1.000001
    inside = torch.tensor([[-bound, -bound], [bound, bound], [bound, 0.0], [-bound, 0.3 * bound]])
    outside = torch.tensor([[beyond, 0.0], [0.0, -beyond], [beyond, beyond], [10.0, 0.0]])
    # The weights of a point inside add up to one, to rounding.
    torch.testing.assert_close(
        grid.look_up(grid.locate(inside)), torch.ones(4, 12), rtol=0, atol=1e-5
    )
    assert not grid.look_up(grid.locate(outside)).any()


def test_a_point_outside_on_one_axis_keeps_the_plane_without_that_axis() -> None:
    grid = TriPlaneGrid(*FACE_GRID, bound=GRID_BOUND)
    for plane in (grid.encoder_xy, grid.encoder_yz, grid.encoder_xz):
        with torch.no_grad():
            plane.embeddings.fill_(1.0)
    points = torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.2]])
    planes = grid(points).view(3, 3, 12).mean(dim=2)
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    torch.testing.assert_close(planes, expected, rtol=0, atol=1e-5)


def test_planes_are_xy_yz_xz() -> None:
    torch.manual_seed(0)
    grid = TriPlaneGrid(*FACE_GRID, bound=GRID_BOUND)
    points = torch.empty(20, 3).uniform_(-0.15, 0.15)
    planes = [
        (grid.encoder_xy, points[:, :2]),
        (grid.encoder_yz, points[:, 1:]),
        (grid.encoder_xz, points[:, ::2]),
    ]
    expected = torch.cat([plane.look_up(plane.locate(p)) for plane, p in planes], dim=1)
    assert torch.equal(grid(points), expected)
    assert grid.width == 36


def test_gradient_of_the_table_is_that_of_the_dense_map() -> None:
    torch.manual_seed(0)
    grid = PlaneGrid(*FACE_GRID, GRID_BOUND)
    location = grid.locate(torch.empty(30, 2).uniform_(-0.2, 0.2))
    weights = torch.randn(30, 12)
    (grid.look_up(location) * weights).sum().backward()
    expected = location.matrix.to_dense().T @ weights.view(-1, 1)
    torch.testing.assert_close(grid.embeddings.grad, expected, rtol=0, atol=1e-5)
