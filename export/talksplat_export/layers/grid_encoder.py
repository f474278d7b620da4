"""Multi-resolution 2-D feature grids on the three coordinate planes.

The encoding of Müller et al., "Instant Neural Graphics Primitives" (2022), with two-dimensional
grids on the xy, yz and xz planes as in ER-NeRF (Li et al., 2023) and the talking-head systems
descending from it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn

# Instant-NGP, equation 4: one large prime per dimension, the first left at 1.
_HASH_PRIMES = (1, 2654435761)


class _SparseProduct(torch.autograd.Function):
    """``matrix @ dense`` with a constant sparse matrix whose transpose is at hand."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradient, None, None


@dataclass(frozen=True)
class GridLocation:
    """Where points fall in a grid: enough to look features up again without the points.

    At fixed points the look-up is linear in the feature table, so a location is the sparse matrix
    of that map. Looking up is one sparse product, its gradient another: on a CPU a hundred times
    faster than gathering and scattering.

    Attributes:
        matrix: CSR [N*L, rows] of the table's dtype, four bilinear weights per row; zero outside
            the bound.
        transposed: the same matrix transposed, CSR.
    """

    matrix: Tensor
    transposed: Tensor

    @classmethod
    def from_corners(cls, rows: Tensor, weights: Tensor, table_rows: int) -> GridLocation:
        """From int64 ``rows`` and float ``weights``, both [N*L, 4]."""
        starts = torch.arange(0, rows.numel() + 1, 4)
        size = (rows.shape[0], table_rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # CSR is "in beta state"
            matrix = torch.sparse_csr_tensor(
                starts, rows.flatten(), weights.flatten(), size=size, check_invariants=False
            )
        transposed = matrix.to_sparse(layout=torch.sparse_coo).t().coalesce()
        return cls(matrix, transposed.to_sparse_csr())


class PlaneGrid(nn.Module):
    """One plane: ``levels`` grids of one feature each over the square [-bound, bound]².

    Args:
        base_resolution: cells per side at level 0.
        finest_resolution: cells per side at the last level; may be below ``base_resolution``.
        bound: half the side of the square, in world units.
        levels: number of grids.
        log2_table_size: levels with more corners than this are hashed.
    """

    embeddings: nn.Parameter
    offsets: Tensor

    def __init__(
        self,
        base_resolution: int,
        finest_resolution: float,
        bound: float,
        levels: int = 12,
        log2_table_size: int = 17,
    ) -> None:
        super().__init__()
        self.base_resolution = base_resolution
        self.bound = bound
        self.levels = levels
        self.log2_scale = math.log2(finest_resolution / base_resolution) / (levels - 1)
        offsets = [0]
        for level in range(levels):
            side = math.ceil(base_resolution * 2.0 ** (level * self.log2_scale)) + 1
            rows = min(2**log2_table_size, side**2)
            offsets.append(offsets[-1] + math.ceil(rows / 8) * 8)
        self.embeddings = nn.Parameter(torch.empty(offsets[-1], 1).uniform_(-1e-4, 1e-4))
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int32))

    def locate(self, points: Tensor) -> GridLocation:
        """Rows and weights of [N,2] points; a point outside on either axis gets zero weights."""
        unit = (points.detach().float() + self.bound) / (2 * self.bound)
        inside = ((unit >= 0) & (unit <= 1)).all(dim=1, keepdim=True)
        unit = unit.clamp(0, 1)
        all_rows, all_weights = [], []
        for level in range(self.levels):
            start, stop = int(self.offsets[level]), int(self.offsets[level + 1])
            # The scale is computed in float32 by the published kernels; the cells depend on it.
            exponent = torch.tensor(level * self.log2_scale, dtype=torch.float32)
            scale = torch.exp2(exponent) * self.base_resolution - 1
            side = math.ceil(float(scale)) + 2
            position = unit * scale + 0.5
            cell = position.floor()
            fraction = position - cell
            cell_index = cell.long()
            rows, weights = [], []
            for corner in product((0, 1), repeat=2):
                x, y = (cell_index[:, axis] + corner[axis] for axis in (0, 1))
                row = x + y * side
                if side**2 > stop - start:
                    row = (x * _HASH_PRIMES[0]) ^ (y * _HASH_PRIMES[1] & 0xFFFFFFFF)
                rows.append(start + row % (stop - start))
                weight = torch.ones_like(fraction[:, 0])
                for axis in (0, 1):
                    along = fraction[:, axis]
                    weight = weight * (along if corner[axis] else 1 - along)
                weights.append(weight)
            all_rows.append(torch.stack(rows, dim=1))
            all_weights.append((torch.stack(weights, dim=1) * inside).to(self.embeddings.dtype))
        return GridLocation.from_corners(
            torch.stack(all_rows, dim=1).reshape(-1, 4),
            torch.stack(all_weights, dim=1).reshape(-1, 4),
            table_rows=self.embeddings.shape[0],
        )

    def look_up(self, location: GridLocation) -> Tensor:
        """Features [N, levels] at a location, differentiable in the table."""
        features = _SparseProduct.apply(  # type: ignore[no-untyped-call]
            self.embeddings, location.matrix, location.transposed
        )
        return cast(Tensor, features).view(-1, self.levels)


class TriPlaneGrid(nn.Module):
    """Three :class:`PlaneGrid` on (x,y), (y,z), (x,z); features concatenated in that order."""

    def __init__(self, base_resolution: int, finest_resolution: float, bound: float) -> None:
        super().__init__()
        self.encoder_xy = PlaneGrid(base_resolution, finest_resolution, bound)
        self.encoder_yz = PlaneGrid(base_resolution, finest_resolution, bound)
        self.encoder_xz = PlaneGrid(base_resolution, finest_resolution, bound)

    @property
    def width(self) -> int:
        return self.encoder_xy.levels + self.encoder_yz.levels + self.encoder_xz.levels

    def locate(self, points: Tensor) -> tuple[GridLocation, GridLocation, GridLocation]:
        """Locations of [N,3] points on the three planes."""
        return (
            self.encoder_xy.locate(points[:, [0, 1]]),
            self.encoder_yz.locate(points[:, [1, 2]]),
            self.encoder_xz.locate(points[:, [0, 2]]),
        )

    def look_up(self, locations: tuple[GridLocation, GridLocation, GridLocation]) -> Tensor:
        """Features [N, 36]."""
        planes = (self.encoder_xy, self.encoder_yz, self.encoder_xz)
        features = [plane.look_up(at) for plane, at in zip(planes, locations, strict=True)]
        return torch.cat(features, dim=1)

    def forward(self, points: Tensor) -> Tensor:
        """Features [N, 36] of [N,3] points; differentiable in the tables, not in the points."""
        return self.look_up(self.locate(points))
