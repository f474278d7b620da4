"""First Gaussians of an identity: flat splats on the surface of its tracked head mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from talksplat_export.gaussians import GaussianSet

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """A triangle mesh in head space with a sampling weight and a colour per triangle.

    Attributes:
        vertices: [V,3].
        faces: [F,3].
        weights: [F], how densely to sample relative to area.
        colors: [F,3], rgb in 0..1.
    """

    vertices: FloatArray
    faces: NDArray[np.int32]
    weights: FloatArray
    colors: FloatArray


def gaussians_on_surface(
    surface: Surface, count: int, sh_degree: int, seed: int, flatness: float = 0.25
) -> GaussianSet:
    """Place ``count`` splats on a surface, each as wide as its share of the area.

    Args:
        surface: the mesh.
        count: number of Gaussians.
        sh_degree: degree of the spherical harmonics.
        seed: of the positions.
        flatness: scale along the normal relative to the tangents.
    """
    generator = np.random.default_rng(seed)
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 2
    share = areas * surface.weights
    share = share / share.sum()
    # Systematic sampling: evenly spread, unlike independent draws.
    positions = (np.arange(count) + generator.random()) / count
    chosen = np.searchsorted(np.cumsum(share), positions).clip(max=len(share) - 1)
    u, v = generator.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    at = corners[chosen]
    means = at[:, 0] + u * (at[:, 1] - at[:, 0]) + v * (at[:, 2] - at[:, 0])

    spacing = np.sqrt(areas[chosen] / np.maximum(share[chosen] * count, 1e-12))
    spacing = spacing.clip(2e-4, 8e-3)
    scales = np.stack([0.6 * spacing, 0.6 * spacing, 0.6 * flatness * spacing], axis=1)
    unit = normals[chosen] / np.maximum(2 * areas[chosen, None], 1e-12)
    return GaussianSet(
        torch.from_numpy(means.astype(np.float32)),
        torch.from_numpy(scales.astype(np.float32)),
        torch.from_numpy(_quats_from_z_to(unit).astype(np.float32)),
        torch.from_numpy(surface.colors[chosen].astype(np.float32)),
        sh_degree=sh_degree,
    )


def _quats_from_z_to(directions: NDArray[np.floating]) -> NDArray[np.floating]:
    """Shortest rotations (wxyz) that take +z to unit vectors [N,3]."""
    x, y, z = directions.T
    quats = np.stack([1 + z, -y, x, np.zeros_like(z)], axis=1)
    # Opposite to +z any half turn about an axis in the xy plane will do.
    quats[z < -0.9999] = (0, 1, 0, 0)
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)
