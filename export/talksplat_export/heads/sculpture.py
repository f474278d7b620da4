"""The solid that the head's skin is stretched over: smooth unions of simple bodies.

Coordinates are millimetres in head space, so that numbers read like anatomy: the head is 200
high, chin at -100, eyes near 0. Everything is symmetric in x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identity import Identity

Array = NDArray[np.float64]


def _ellipsoid(
    p: Array, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Array:
    q = (p - center) / radii
    length = np.sqrt((q * q).sum(-1))
    gradient = np.sqrt(((q / radii) ** 2).sum(-1))
    return np.asarray(length * (length - 1.0) / np.maximum(gradient, 1e-9))


def _capsule(
    p: Array,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius_start: float,
    radius_end: float,
) -> Array:
    a, b = np.asarray(start), np.asarray(end)
    axis = b - a
    along = np.clip((p - a) @ axis / (axis @ axis), 0.0, 1.0)
    nearest = a + along[..., None] * axis
    radius = radius_start + along * (radius_end - radius_start)
    return np.asarray(np.sqrt(((p - nearest) ** 2).sum(-1)) - radius)


def _join(a: Array, b: Array, blend: float) -> Array:
    overlap = np.maximum(blend - np.abs(a - b), 0.0) / blend
    return np.minimum(a, b) - overlap * overlap * blend / 4.0


def _carve(a: Array, b: Array, blend: float) -> Array:
    return -_join(-a, b, blend)


@dataclass(frozen=True)
class EyePlacement:
    """Centre (of the subject's left eye, x > 0) and radius of the eyeballs, in mm."""

    center: tuple[float, float, float]
    radius: float


@dataclass(frozen=True)
class Sculpture:
    """Signed distance to the head of an identity, in mm, negative inside."""

    identity: Identity

    @property
    def eye(self) -> EyePlacement:
        i = self.identity
        radius = 18.2 + 0.8 * i.eye_size
        return EyePlacement((30.8 + 1.5 * i.eye_spacing, 2.0, 66.3 - radius), radius)

    @property
    def _nose_tip(self) -> tuple[float, float]:
        """Height and depth of the nose's tip."""
        i = self.identity
        return -25 - 3 * i.nose_length + 2 * i.nose_tip_up, 90 + 3 * i.nose_length

    @property
    def nostril(self) -> tuple[float, float, float]:
        """Middle of the left nostril."""
        tip_y, tip_z = self._nose_tip
        return (5.6 + 1.2 * self.identity.nose_width, tip_y - 8.4, tip_z - 6.5)

    def distance(self, points: Array) -> Array:
        """Distance at points [...,3]."""
        i = self.identity
        p = np.array(points, np.float64)
        p[..., 0] = np.abs(p[..., 0])
        width = 1.0 + 0.05 * i.head_width
        depth = 1.0 + 0.04 * i.head_depth

        head = _ellipsoid(p, (0, 27, -14), (66 * width, 72 + 2 * i.cranium_height, 84 * depth))
        face = _ellipsoid(p, (0, -14, 2), (59 * width, 84, 72))
        head = _join(head, face, 26)
        forehead = _ellipsoid(p, (0, 44, 26), (48 * width, 34, 46))
        head = _join(head, forehead, 22)

        jaw_x = 46 * width + 4.0 * i.jaw_width
        chin_y = -85 - 4 * i.chin_length
        jaw = _capsule(p, (jaw_x - 2, -44, -4), (12.5 + 3 * i.chin_width, chin_y, 46), 12, 12)
        head = _join(head, jaw, 24)
        chin = _ellipsoid(
            p, (0, chin_y, 53 + 3 * i.chin_forward), (17 + 4 * i.chin_width, 14.5, 16)
        )
        head = _join(head, chin, 20)
        muzzle = _ellipsoid(p, (0, -56, 50), (27, 25, 24))
        head = _join(head, muzzle, 22)

        neck_radius = 42 + 6 * i.neck_width
        neck = _capsule(p, (0, -40, -26), (0, -175, -34), neck_radius, neck_radius + 3)
        head = _join(head, neck, 26)
        sternomastoid = _capsule(p, (44, -50, -28), (14, -150, 2), 8, 7)
        head = _join(head, sternomastoid, 26)

        cheek = _ellipsoid(p, (41 * width, -17, 41), (17, 15, 17 + 3 * i.cheekbones))
        head = _join(head, cheek, 18)
        hollow = _ellipsoid(p, (34 * width, -44, 30), (22, 27, 24 + 2 * i.cheek_fullness))
        head = _join(head, hollow, 20)
        apple = _ellipsoid(p, (30, -27, 54), (17, 15, 13 + 2 * i.cheek_fullness))
        head = _join(head, apple, 16)

        ex, ey, ez = self.eye.center
        socket = _ellipsoid(p, (ex - 1, ey + 2, 79), (22, 14, 15))
        head = _carve(head, socket, 14)
        inner_socket = _ellipsoid(p, (15.5, 6, 80), (6, 8, 12))
        head = _carve(head, inner_socket, 12)
        brow = _capsule(p, (10, 20, 66), (41, 21, 48), 6.0 + 1.3 * i.brow_ridge, 5.5)
        head = _join(head, brow, 20)

        bridge_z = 74 + 2.5 * i.nose_bridge
        tip_y, tip_z = self._nose_tip
        bridge = _capsule(p, (0, 14, 68 + i.nose_bridge), (0, -6, bridge_z + 3), 6, 6.0)
        head = _join(head, bridge, 16)
        ridge = _capsule(
            p, (0, 4, bridge_z - 1), (0, tip_y + 2, tip_z - 1), 5.0, 7.2 + i.nose_width
        )
        head = _join(head, ridge, 10)
        tip = _ellipsoid(p, (0, tip_y, tip_z), (9.0 + 1.5 * i.nose_width, 7.4, 8.4))
        head = _join(head, tip, 8)
        ala_x = 11.5 + 2.5 * i.nose_width
        ala = _ellipsoid(p, (ala_x, tip_y - 2.5, tip_z - 11.5), (6.2 + i.nose_width, 6.6, 9.0))
        head = _join(head, ala, 9)
        base = _ellipsoid(p, (0, tip_y - 5, tip_z - 13), (9 + 2 * i.nose_width, 5.0, 12))
        head = _join(head, base, 6)
        nostril = _ellipsoid(p, self.nostril, (3.2 + 0.8 * i.nose_width, 4.6, 5.2))
        head = _carve(head, nostril, 3.0)

        lid = np.sqrt(((p - (ex, ey, ez)) ** 2).sum(-1)) - (self.eye.radius + 1.9)
        head = _join(head, lid, 5)
        philtrum = _capsule(p, (0, -40, 83), (0, -49, 81.5), 2.6, 3.4)
        return _carve(head, philtrum, 6)

    def surface(self, origins: Array, directions: Array, reach: float = 190.0) -> Array:
        """Outermost point of the surface on each ray, by sphere tracing from outside in."""
        along = np.full(origins.shape[:-1], reach)
        for _ in range(70):
            step = self.distance(origins + along[..., None] * directions)
            along = np.maximum(along - 0.85 * step, 0.0)
            if np.abs(step).max() < 1e-3:
                break
        return origins + along[..., None] * directions
