"""The scenes that are timed: procedural heads, the same numbers on every machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from talksplat_export.morton import morton_order

Array = npt.NDArray[np.float32]

HEAD_SEMI_AXES = (0.075, 0.1, 0.085)
CAMERA_DISTANCE = 0.7


@dataclass(frozen=True)
class Scene:
    """The arguments of one call of ``talksplat.rasterize``."""

    means: Array
    quats: Array
    scales: Array
    opacities: Array
    colors: Array
    viewmats: Array
    Ks: Array
    width: int
    height: int
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments; the caller adds the dialect and the rasterize mode."""

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
        """The seven arrays, in the order of the call."""
        return (
            self.means,
            self.quats,
            self.scales,
            self.opacities,
            self.colors,
            self.viewmats,
            self.Ks,
        )


def looking_at_origin(distance: float, yaw: float = 0.0, pitch: float = 0.0) -> Array:
    """World-to-camera matrix [4, 4] of an OpenCV camera on the +z side that looks at the origin."""
    cos_yaw, sin_yaw = np.cos(yaw), np.sin(yaw)
    cos_pitch, sin_pitch = np.cos(pitch), np.sin(pitch)
    turn_yaw = np.array([[cos_yaw, 0, -sin_yaw], [0, 1, 0], [sin_yaw, 0, cos_yaw]])
    turn_pitch = np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])
    viewmat = np.eye(4)
    viewmat[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ turn_pitch @ turn_yaw
    viewmat[2, 3] = distance
    return viewmat.astype(np.float32)


def intrinsics(width: int, height: int, focal: float) -> Array:
    """K [3, 3] of a camera whose axis meets the middle of the image."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=np.float32)


def head(
    count: int, width: int = 512, height: int = 512, channels: int = 3, seed: int = 0
) -> Scene:
    """An ellipsoid of a head: three quarters skin, flat in the surface, one quarter hair.

    Skin Gaussians are as wide as trained ones: log-normal around 0.75 of the distance between
    neighbours, thin along the normal. Hair is long and thin. Opacities are sigmoid(N(1.2, 1.6)).
    The head fills three quarters of the frame's height. Colours are in 0..1, random unless there
    are three ``channels``.
    """
    rng = np.random.default_rng(seed)
    skin = round(0.75 * count)
    is_skin = np.arange(count)[:, None] < skin

    normals = rng.normal(size=(count, 3))
    normals[skin:, 1] = np.abs(normals[skin:, 1])  # hair grows on the upper half
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lift = 1 + np.where(is_skin, 0.0, rng.uniform(0.0, 0.15, size=(count, 1)))
    means = normals * HEAD_SEMI_AXES * lift

    a, b, c = HEAD_SEMI_AXES
    spacing = np.sqrt(4 * np.pi * (a * b + b * c + c * a) / 3 / max(skin, 1))
    scales = np.where(is_skin, [0.75, 0.75, 0.1], [2.5, 0.3, 0.3]) * spacing
    scales = scales * np.exp(rng.normal(size=(count, 3)) * 0.35)

    # A skin Gaussian's own z axis turns onto the normal; hair points anywhere.
    onto_normal = np.stack(
        [1 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(count)], axis=1
    )
    quats = np.where(is_skin, onto_normal, rng.normal(size=(count, 4)))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)

    light = 0.6 + 0.4 * np.clip(normals @ [0.3, 0.5, 0.8], 0, 1)[:, None]
    colors = np.where(is_skin, [0.86, 0.65, 0.54], [0.22, 0.14, 0.1]) * light
    colors = np.clip(colors + rng.normal(size=(count, 3)) * 0.03, 0, 1)
    if channels != 3:
        colors = rng.uniform(size=(count, channels))

    focal = 0.75 * height * CAMERA_DISTANCE / (2 * b)
    return Scene(
        means=means.astype(np.float32),
        quats=quats.astype(np.float32),
        scales=scales.astype(np.float32),
        opacities=(1 / (1 + np.exp(-rng.normal(1.2, 1.6, size=count)))).astype(np.float32),
        colors=colors.astype(np.float32),
        viewmats=looking_at_origin(CAMERA_DISTANCE, yaw=0.2, pitch=0.05)[None],
        Ks=intrinsics(width, height, focal)[None],
        width=width,
        height=height,
    )


def in_morton_order(scene: Scene) -> Scene:
    """The same Gaussians along a space-filling curve, so that neighbours in space are in memory."""
    order = morton_order(scene.means)
    return replace(
        scene,
        means=scene.means[order],
        quats=scene.quats[order],
        scales=scene.scales[order],
        opacities=scene.opacities[order],
        colors=scene.colors[order],
    )
