"""Building blocks of the mesh: grids of vertices with a place in the atlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat_export.heads.model import Region

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Chart:
    """Rectangle of the atlas, v up, in texture coordinates 0..1."""

    left: float
    bottom: float
    right: float
    top: float

    def place(self, across: Array, down: Array) -> Array:
        """Texture coordinates of positions 0..1 in the rectangle, ``down`` counted from its top."""
        u = self.left + across * (self.right - self.left)
        v = self.top - down * (self.top - self.bottom)
        return np.stack([u, v], -1)


@dataclass(frozen=True)
class Part:
    """Topology of a piece of the mesh: it does not depend on the identity."""

    faces: Index  # [F,3] into the part's vertices
    uvs: Array  # [U,2]
    uv_faces: Index  # [F,3]
    face_regions: Index  # [F]
    vertex_count: int


def grid_faces(index: Index, flip: bool = False) -> Index:
    """Triangles [2(R-1)(C-1),3] of a grid of vertex indices [R,C].

    Rows run down and columns to the right of somebody who looks at the outside.
    """
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, d, c], -1), np.stack([a, c, b], -1)], 2).reshape(-1, 3)
    return faces[:, ::-1] if flip else faces


def ring_index(rows: int, segments: int, pole: bool) -> Index:
    """Grid of vertex numbers whose last column is its first; with a pole, row 0 is one vertex."""
    ring = np.arange(segments + 1) % segments
    if not pole:
        return np.arange(rows)[:, None] * segments + ring
    index = 1 + np.arange(rows - 1)[:, None] * segments + ring
    return np.concatenate([np.zeros((1, segments + 1), np.int64), index])


def grid_part(index: Index, chart: Chart, region: Region, flip: bool = False) -> Part:
    """A grid [R,C] of vertex indices that fills a chart; repeated indices close it to a tube."""
    rows, columns = index.shape
    down, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    uvs = chart.place(across, down).reshape(-1, 2)
    uv_index = np.arange(rows * columns).reshape(rows, columns)
    faces = grid_faces(index, flip)
    uv_faces = grid_faces(uv_index, flip)
    return part_of(faces, uvs, uv_faces, np.full(len(faces), int(region)), int(index.max()) + 1)


def ring_part(index: Index, across: Array, down: Array, chart: Chart, region: Region) -> Part:
    """Rings around a pole; ``across`` and ``down`` [V] place every vertex in the chart."""
    faces = grid_faces(index)
    uvs = chart.place(across, down)
    return part_of(faces, uvs, faces, np.full(len(faces), int(region)), len(uvs))


def part_of(
    faces: Index, uvs: Array, uv_faces: Index, face_regions: Index, vertex_count: int
) -> Part:
    """A part without the triangles that name a vertex twice: half of those around a pole do."""
    a, b, c = faces.T
    whole = (a != b) & (b != c) & (c != a)
    return Part(faces[whole], uvs, uv_faces[whole], face_regions[whole], vertex_count)


def joined(parts: list[Part]) -> Part:
    """One part of several, vertices and texture coordinates counted through."""
    vertex_offsets = np.cumsum([0, *(part.vertex_count for part in parts)])
    uv_offsets = np.cumsum([0, *(len(part.uvs) for part in parts)])
    return Part(
        np.concatenate([part.faces + o for part, o in zip(parts, vertex_offsets, strict=False)]),
        np.concatenate([part.uvs for part in parts]),
        np.concatenate([part.uv_faces + o for part, o in zip(parts, uv_offsets, strict=False)]),
        np.concatenate([part.face_regions for part in parts]),
        int(vertex_offsets[-1]),
    )


def smoothstep(low: ArrayLike, high: ArrayLike, x: ArrayLike) -> Array:
    """0 below ``low``, 1 above ``high`` (or the other way round), smooth between."""
    low = np.asarray(low, np.float64)
    t = np.clip((np.asarray(x, np.float64) - low) / (np.asarray(high) - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def bell(x: ArrayLike, width: float) -> Array:
    """Gaussian of a distance, 1 at 0 and 1/e at ``width``."""
    return np.asarray(np.exp(-((np.asarray(x, np.float64) / width) ** 2)))
