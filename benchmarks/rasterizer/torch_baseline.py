"""What drawing Gaussians costs in torch, without a CUDA compiler.

Two peers. :func:`draw_with_gsplat` is gsplat 1.5.3's own torch code, unmodified, from projection to
``_rasterize_to_pixels``. That code calls CUDA twice: ``rasterize_to_indices_in_range`` finds which
Gaussians reach which pixel, and nerfacc adds them up along rays. Both are written here in torch,
vectorised over the pixels and Gaussians of a tile. Nothing else is replaced, so the Python loop
over Gaussians by which gsplat makes the tile lists is part of the time.

:func:`draw_vectorized` is the fastest we know how to write it in torch: gsplat's projection, tile
lists without a loop over Gaussians, and one dense product per tile.

Both run without gradients, in float32.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from gsplat.cuda import _torch_impl, _wrapper
from torch import Tensor

from benchmarks.rasterizer.scenes import Scene

TILE = 16
ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN = 1 / 255, 0.999, 1e-4


@torch.no_grad()
def draw_with_gsplat(scene: Scene) -> tuple[Tensor, Tensor]:
    """(colors, alphas) by gsplat 1.5.3's torch functions; classic, no background."""
    radii, means2d, depths, conics = _project(scene)
    columns, rows = -(-scene.width // TILE), -(-scene.height // TILE)
    _, tile_keys, entries = _torch_impl._isect_tiles(means2d, radii, depths, TILE, columns, rows)
    offsets = _torch_impl._isect_offset_encode(tile_keys, len(means2d), columns, rows)
    nerfacc = ModuleType("nerfacc")
    nerfacc.accumulate_along_rays = _accumulate_along_rays  # type: ignore[attr-defined]
    nerfacc.render_weight_from_alpha = _render_weight_from_alpha  # type: ignore[attr-defined]
    with (
        patch.object(_wrapper, "rasterize_to_indices_in_range", _rasterize_to_indices_in_range),
        patch.dict(sys.modules, {"nerfacc": nerfacc}),
    ):
        cameras = len(means2d)
        colors, alphas = _torch_impl._rasterize_to_pixels(
            means2d,
            conics,
            torch.from_numpy(scene.colors).expand(cameras, -1, -1),
            torch.from_numpy(scene.opacities).expand(cameras, -1),
            scene.width,
            scene.height,
            TILE,
            offsets,
            entries,
        )
    return colors, alphas


@torch.no_grad()
def draw_vectorized(scene: Scene) -> tuple[Tensor, Tensor]:
    """(colors, alphas) of the first camera by gsplat's projection and our torch for the rest."""
    radii, means2d, depths, conics = (tensor[0] for tensor in _project(scene))
    order = depths.sort(stable=True).indices
    order = order[(radii[order] > 0).all(-1)]
    means2d, conics, radii = means2d[order], conics[order], radii[order].float()
    opacities = torch.from_numpy(scene.opacities)[order]
    features = torch.from_numpy(scene.colors)[order]

    columns, rows = -(-scene.width // TILE), -(-scene.height // TILE)
    grid = torch.tensor([columns, rows])
    first = ((means2d - radii) / TILE).floor().long().clamp(min=0).minimum(grid)
    last = ((means2d + radii) / TILE).ceil().long().clamp(min=0).minimum(grid)
    size = last - first
    counts = size.prod(-1)
    entry = torch.arange(len(order)).repeat_interleave(counts)
    within = torch.arange(len(entry)) - (counts.cumsum(0) - counts)[entry]
    column = first[entry, 0] + within % size[entry, 0]
    row = first[entry, 1] + within // size[entry, 0]
    tile = row * columns + column
    lengths = torch.bincount(tile, minlength=columns * rows).tolist()
    lists = torch.split(entry[tile.sort(stable=True).indices], lengths)

    colors = torch.zeros(rows * TILE, columns * TILE, features.shape[1])
    alphas = torch.zeros(rows * TILE, columns * TILE, 1)
    corner_pixels = torch.cartesian_prod(torch.arange(TILE), torch.arange(TILE)).flip(-1) + 0.5
    for index, chosen in enumerate(lists):
        if len(chosen) == 0:
            continue
        top, left = index // columns * TILE, index % columns * TILE
        pixels = corner_pixels + torch.tensor([left, top])
        alpha = _alphas(pixels, means2d[chosen], conics[chosen], opacities[chosen])
        rest = torch.cumprod(1 - alpha, dim=1)
        alpha = torch.where(rest > TRANSMITTANCE_MIN, alpha, 0)
        rest = torch.cumprod(1 - alpha, dim=1)
        weights = alpha * torch.cat([torch.ones(len(rest), 1), rest[:, :-1]], dim=1)
        area = (slice(top, top + TILE), slice(left, left + TILE))
        colors[area] = (weights @ features[chosen]).view(TILE, TILE, -1)
        alphas[area] = 1 - rest[:, -1].view(TILE, TILE, 1)
    return colors[None, : scene.height, : scene.width], alphas[None, : scene.height, : scene.width]


def _project(scene: Scene) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """radii, means2d, depths and conics by gsplat; [C, N, ...]."""
    means, quats, scales, _, _, viewmats, Ks = map(torch.from_numpy, scene.arrays)
    covariances, _ = _torch_impl._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, _ = _torch_impl._fully_fused_projection(
        means, covariances, viewmats, Ks, scene.width, scene.height
    )
    return radii, means2d, depths, conics


def _alphas(pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor) -> Tensor:
    """Alpha of each Gaussian at each pixel [P, M], zero where it is skipped."""
    dx, dy = (pixels[:, None, :] - means2d).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp(max=ALPHA_MAX)
    return torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0)


def _rasterize_to_indices_in_range(
    range_start: int,
    range_end: int,
    transmittances: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    image_width: int,
    image_height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """In place of gsplat's CUDA kernel: the (Gaussian, pixel, image) triples that are blended.

    Of every tile's list only batches ``range_start`` to ``range_end`` of tile_size² entries count.
    Triples come pixel by pixel, nearest first.
    """
    images, rows, columns = isect_offsets.shape
    bounds = [*isect_offsets.flatten().tolist(), len(flatten_ids)]
    batch = tile_size * tile_size
    gaussians: list[Tensor] = []
    pixels: list[Tensor] = []
    owners: list[Tensor] = []
    for tile in range(images * rows * columns):
        first = bounds[tile] + range_start * batch
        entries = flatten_ids[first : min(bounds[tile + 1], bounds[tile] + range_end * batch)]
        if len(entries) == 0:
            continue
        image, place = divmod(tile, rows * columns)
        top, left = place // columns * tile_size, place % columns * tile_size
        ys = torch.arange(top, min(top + tile_size, image_height))
        xs = torch.arange(left, min(left + tile_size, image_width))
        tile_pixels = torch.cartesian_prod(ys, xs)
        chosen = entries.long() - image * means2d.shape[1]
        alpha = _alphas(
            tile_pixels.flip(-1) + 0.5,
            means2d[image, chosen],
            conics[image, chosen],
            opacities[image, chosen],
        )
        before = transmittances[image, tile_pixels[:, 0], tile_pixels[:, 1]]
        rest = before[:, None] * torch.cumprod(1 - alpha, dim=1)
        pixel, entry = ((alpha > 0) & (rest > TRANSMITTANCE_MIN)).nonzero(as_tuple=True)
        gaussians.append(chosen[entry])
        pixels.append((tile_pixels[:, 0] * image_width + tile_pixels[:, 1])[pixel])
        owners.append(torch.full_like(pixel, image))
    if not gaussians:
        none = torch.zeros(0, dtype=torch.long)
        return none, none, none
    return torch.cat(gaussians), torch.cat(pixels), torch.cat(owners)


def _render_weight_from_alpha(
    alphas: Tensor, *, ray_indices: Tensor, n_rays: int
) -> tuple[Tensor, Tensor]:
    """In place of nerfacc's: alpha times the transmittance before it, ray by ray."""
    # One running sum over all rays, minus its value where the ray began; float64 keeps it exact.
    logs = torch.log1p(-alphas.double())
    before = logs.cumsum(0) - logs
    new = torch.ones_like(ray_indices, dtype=torch.bool)
    new[1:] = ray_indices[1:] != ray_indices[:-1]
    starts = before[new][new.cumsum(0) - 1]
    transmittances = (before - starts).exp().to(alphas.dtype)
    return alphas * transmittances, transmittances


def _accumulate_along_rays(
    weights: Tensor, values: Any, *, ray_indices: Tensor, n_rays: int
) -> Tensor:
    """In place of nerfacc's: the weighted sum of ``values`` over each ray."""
    terms = weights[:, None] if values is None else weights[:, None] * values
    sums = torch.zeros(n_rays, terms.shape[1], dtype=terms.dtype)
    return sums.index_add_(0, ray_indices, terms)
