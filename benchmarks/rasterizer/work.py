"""How much work a picture is, counted by the oracle: the same for every correct rasterizer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from benchmarks.rasterizer.scenes import Scene
from talksplat.rasterization import Dialect
from talksplat_export import oracle

TILE = oracle.TILE


@dataclass(frozen=True)
class Work:
    """Counts for one picture."""

    seen: int
    """Gaussians that survive culling."""
    pairs: int
    """(Gaussian, pixel) contributions that are blended."""
    tile_entries: int
    """(Gaussian, 16×16 tile) entries that the exact ellipse needs."""
    longest_list: int
    """Entries of the busiest tile."""
    steps_8x4: int
    """(Gaussian, 8×4 block of pixels) in which at least one pixel is blended: a warp's."""
    steps_4x4: int
    """(Gaussian, 4×4 block of pixels) in which at least one pixel is blended."""
    steps_4x2: int
    """The same for blocks of 4×2."""
    steps_16x1: int
    """The same for rows of 16."""


def count_work(scene: Scene, dialect: Dialect = "gsplat") -> Work:
    """Draw ``scene``'s first camera with the oracle and count."""
    means, quats, scales, opacities, _, viewmats, Ks = map(torch.from_numpy, scene.arrays)
    seen = oracle.project(
        means,
        quats,
        scales,
        opacities,
        viewmats[0],
        Ks[0],
        scene.width,
        scene.height,
        dialect=dialect,
    )
    lists = oracle.tile_lists(seen, scene.width, scene.height, dialect)
    columns = math.ceil(scene.width / TILE)
    pairs = steps_8x4 = steps_4x4 = steps_4x2 = steps_16x1 = 0
    for tile, entries in enumerate(lists):
        corner = torch.tensor([tile % columns, tile // columns]) * TILE
        pixels = torch.cartesian_prod(torch.arange(TILE), torch.arange(TILE)).flip(-1) + corner
        inside = (pixels[:, 0] < scene.width) & (pixels[:, 1] < scene.height)
        drawn = inside[:, None] & (
            oracle.drawn_alphas(
                pixels + 0.5,
                seen.means2d[entries],
                seen.conics[entries],
                seen.opacities[entries],
                dialect,
            )
            > 0
        )
        pairs += int(drawn.sum())
        steps_8x4 += _blocks(drawn, 8, 4)
        steps_4x4 += _blocks(drawn, 4, 4)
        steps_4x2 += _blocks(drawn, 4, 2)
        steps_16x1 += _blocks(drawn, 16, 1)
    return Work(
        seen=len(seen.indices),
        pairs=pairs,
        tile_entries=sum(map(len, lists)),
        longest_list=max(map(len, lists)),
        steps_8x4=steps_8x4,
        steps_4x4=steps_4x4,
        steps_4x2=steps_4x2,
        steps_16x1=steps_16x1,
    )


def _blocks(drawn: torch.Tensor, width: int, height: int) -> int:
    """In how many (block, Gaussian) of a tile [256, M] some pixel is drawn."""
    blocks = drawn.view(TILE // height, height, TILE // width, width, -1)
    return int(blocks.any(3).any(1).sum())
