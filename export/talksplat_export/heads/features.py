"""Eyeballs, lashes, teeth, tongue, ears and clothes: what is set into or around the skin.

Every piece has a topology of its own and a function that places it for an identity. Millimetres
throughout; side is +1 for the subject's left.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identity import Identity
from talksplat_export.heads.model import Region
from talksplat_export.heads.parts import (
    Chart,
    Part,
    bell,
    grid_part,
    ring_index,
    ring_part,
    smoothstep,
)
from talksplat_export.heads.sculpture import Sculpture
from talksplat_export.heads.skin import EYE_COLUMNS

Array = NDArray[np.float64]
Index = NDArray[np.int64]

EYE_CHARTS = {
    1: Chart(0.202, 0.202, 0.328, 0.328),
    -1: Chart(0.332, 0.202, 0.458, 0.328),
}
LASH_CHARTS = {
    1: Chart(0.212, 0.162, 0.328, 0.198),
    -1: Chart(0.332, 0.162, 0.458, 0.198),
}
TEETH_CHARTS = {
    1: Chart(0.202, 0.082, 0.458, 0.158),
    -1: Chart(0.202, 0.002, 0.458, 0.078),
}
TONGUE_CHART = Chart(0.002, 0.162, 0.098, 0.328)
EAR_CHARTS = {
    1: Chart(0.102, 0.162, 0.148, 0.328),
    -1: Chart(0.152, 0.162, 0.198, 0.328),
}
CLOTHES_CHART = Chart(0.462, 0.002, 0.698, 0.328)

EYE_DEGREES = np.array([0, 4, 8, 11, 14, 18, 22, 25, 28, 32, 40, 52, 66, 82, 100.0])
EYE_SEGMENTS = 28
IRIS_DEGREES = 27.5

TEETH_PER_ARCH = 14
TOOTH_COLUMNS = 4
TONGUE_SHAPE = (14, 16)
EAR_RADII = np.array(
    [0, 0.16, 0.3, 0.42, 0.52, 0.61, 0.7, 0.78, 0.85, 0.91, 0.96, 1.0, 0.98, 0.88, 0.62]
)
EAR_SEGMENTS = 26
CLOTHES_SHAPE = (11, 48)


# Eyeballs -----------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def eye_part(side: int) -> Part:
    """Rings around the optical axis; the chart keeps angles, so the iris is a disc in it."""
    index = ring_index(len(EYE_DEGREES), EYE_SEGMENTS, pole=True)
    around = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    radius = EYE_DEGREES[1:, None] / EYE_DEGREES[-1] * 0.5
    across = np.concatenate([[0.5], (0.5 + radius * np.cos(around)).ravel()])
    down = np.concatenate([[0.5], (0.5 - radius * np.sin(around)).ravel()])
    return ring_part(index, across, down, EYE_CHARTS[side], Region.EYEBALLS)


def place_eye(identity: Identity, side: int) -> Array:
    eye = Sculpture(identity).eye
    around = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    polar = np.radians(EYE_DEGREES)[1:, None]
    # The cornea stands out from the ball; its own curve makes the highlight small and sharp.
    radius = eye.radius + 0.055 * eye.radius * (1 - smoothstep(10, 34, EYE_DEGREES[1:]))[:, None]
    x = radius * np.sin(polar) * np.cos(around)
    y = radius * np.sin(polar) * np.sin(around)
    z = np.broadcast_to(radius * np.cos(polar), x.shape)
    pole = [[0.0, 0.0, 1.055 * eye.radius]]
    points = np.concatenate([pole, np.stack([x, y, z], -1).reshape(-1, 3)])
    return points + np.array(eye.center) * (side, 1, 1)


# Lashes -------------------------------------------------------------------------------------

LASH_COLUMNS = 37


@lru_cache(maxsize=2)
def lash_part(side: int) -> Part:
    index = np.arange(3 * LASH_COLUMNS).reshape(3, LASH_COLUMNS)
    return grid_part(index, LASH_CHARTS[side], Region.EYELASHES, flip=side > 0)


def lash_margin() -> Array:
    """[LASH_COLUMNS, margin vertices] weights that follow the lid's margin."""
    count = EYE_COLUMNS[1] - EYE_COLUMNS[0] + 1
    where = np.linspace(0.10, 1.0, LASH_COLUMNS) * (count - 1)
    weights = np.zeros((LASH_COLUMNS, count))
    low = np.minimum(where.astype(int), count - 2)
    weights[np.arange(LASH_COLUMNS), low] = 1 - (where - low)
    weights[np.arange(LASH_COLUMNS), low + 1] = where - low
    return weights


def place_lashes(identity: Identity, side: int, margin: Array) -> Array:
    """``margin`` [n,3]: the upper lid's margin, inner corner first."""
    base = lash_margin() @ margin
    e = np.linspace(0.10, 1.0, LASH_COLUMNS)
    jag = np.where(np.arange(LASH_COLUMNS) % 2 == 0, 1.0, 0.45)
    length = (0.5 + 4.2 * smoothstep(0, 0.75, e)) * jag * identity.lashes
    out = np.stack([side * (0.9 * (e - 0.35)), 0.62 + 0 * e, 0.75 - 0.35 * e], -1)
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    forward = np.array([side * 0.12, -0.12, 0.95])
    root = base + 0.25 * forward
    middle = base + 0.45 * length[:, None] * forward + 0.15 * length[:, None] * out
    tip = middle + 0.75 * length[:, None] * out
    return np.concatenate([root, middle, tip])


# Teeth --------------------------------------------------------------------------------------


def _tooth_edges() -> Array:
    """Where teeth begin along half an arch, 0 at the middle, 1 at its end."""
    widths = np.array([8.6, 6.8, 7.6, 7.0, 6.8, 9.0, 8.5])
    return np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])


def _tooth_columns() -> tuple[Array, Array]:
    """Place -1..1 along the arch and place 0..1 in its tooth, for every column."""
    edges = _tooth_edges()
    both = np.concatenate([-edges[:0:-1], edges])
    inside = np.array([0.0, 0.12, 0.5, 0.88])
    place = [a + (b - a) * inside for a, b in pairwise(both)]
    local = np.tile(inside, TEETH_PER_ARCH)
    return np.append(np.concatenate(place), 1.0), np.append(local, 1.0)


TEETH_ROWS = np.array(  # height below the root, towards the tongue
    [
        (-3.5, 0.8), (0.0, 0.0), (2.2, -0.5), (5.0, -0.5),
        (7.4, 0.0), (8.6, 0.7), (8.4, 1.9), (2.0, 4.0),
    ]
)  # fmt: skip


@lru_cache(maxsize=2)
def teeth_part(jaw: int) -> Part:
    """``jaw`` is +1 for the upper teeth, -1 for the lower."""
    columns = TEETH_PER_ARCH * TOOTH_COLUMNS + 1
    index = np.arange(len(TEETH_ROWS) * columns).reshape(len(TEETH_ROWS), columns)
    return grid_part(index, TEETH_CHARTS[jaw], Region.TEETH, flip=jaw < 0)


def place_teeth(identity: Identity, jaw: int, lip_middle: Array) -> Array:
    """``lip_middle`` [3]: where the lips meet at the middle."""
    along, local = _tooth_columns()
    angle = along * np.radians(84)
    wide, deep = (20.5, 25.0) if jaw > 0 else (18.8, 23.5)
    x, z = wide * np.sin(angle), deep * (np.cos(angle) - 1.0)
    normal = np.stack([np.sin(angle) / wide, np.cos(angle) / deep], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    crown = 1.0 - (2 * local - 1) ** 4
    order = np.minimum((np.abs(along)[:, None] >= _tooth_edges()[1:-1]).sum(1), 6)
    # Incisors are long, the side ones shorter, canines pointed, molars low.
    length = np.array([1.0, 0.92, 1.0, 0.86, 0.8, 0.74, 0.7])[order]
    front = lip_middle[2] - (6.6 if jaw > 0 else 9.0)
    root = lip_middle[1] + (7.6 if jaw > 0 else -9.6)
    rows = []
    for down, inward in TEETH_ROWS:
        edge = smoothstep(3.0, 8.6, down)
        reach = down * (length if down > 0 else 1.0) - 1.1 * edge * (1 - crown)
        out = -inward + (0.9 if down > 0 else 0.0) * (crown - 1.0)
        if down > 8.0:
            out = out - 0.2
        y = root - jaw * reach
        rows.append(np.stack([x + normal[:, 0] * out, y, front + z + normal[:, 1] * out], -1))
    return np.concatenate(rows)


# Tongue -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def tongue_part() -> Part:
    rows, segments = TONGUE_SHAPE
    return grid_part(ring_index(rows, segments, pole=True), TONGUE_CHART, Region.TONGUE)


def tongue_along() -> Array:
    """[vertices] 0 at the tip .. 1 at the root."""
    rows, segments = TONGUE_SHAPE
    return np.concatenate([[0.0], np.repeat(np.arange(1, rows) / (rows - 1), segments)])


def place_tongue(identity: Identity, lip_middle: Array) -> Array:
    rows, segments = TONGUE_SHAPE
    along = np.arange(1, rows)[:, None] / (rows - 1)
    around = 2 * np.pi * np.arange(segments) / segments
    width = 14.5 * np.sqrt(np.clip(1 - (1 - np.minimum(along / 0.42, 1)) ** 2, 0, 1))
    thick = (2.2 + 4.0 * smoothstep(0, 0.7, along)) * np.sqrt(
        np.clip(1 - (1 - np.minimum(along / 0.2, 1)) ** 2, 0, 1)
    )
    x = width * np.cos(around)
    y = thick * np.sin(around)
    y = y - 1.1 * bell(x, 3.0) * (np.sin(around) > 0) * smoothstep(0.05, 0.3, along)
    arch = 2.2 * np.sin(np.pi * np.minimum(along, 0.8)) - 7.6
    z = lip_middle[2] - 12.0 - 36.0 * along
    body = np.stack([x, lip_middle[1] + arch + y, np.broadcast_to(z, x.shape)], -1)
    tip = [[0.0, lip_middle[1] - 7.6, lip_middle[2] - 12.0]]
    return np.concatenate([tip, body.reshape(-1, 3)])


# Ears ---------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def ear_part(side: int) -> Part:
    index = ring_index(len(EAR_RADII), EAR_SEGMENTS, pole=True)
    return grid_part(index, EAR_CHARTS[side], Region.SKIN, flip=side < 0)


def ear_relief() -> tuple[Array, Array, Array]:
    """Place of the ear's vertices in its own plane (back, up) and height over it, size 1."""
    around = 2 * np.pi * np.arange(EAR_SEGMENTS) / EAR_SEGMENTS  # 0 back, quarter up
    rho = EAR_RADII[1:, None]
    back, up = np.cos(around), np.sin(around)
    width = 0.56 + 0.10 * up - 0.05 * back - 0.10 * bell(up + 1.0, 0.35)
    a = rho * width * back
    b = rho * (1.0 + 0.02 * back) * up
    turned = np.arange(len(EAR_RADII))[1:, None] > 11  # past the rim: the ear's back
    helix = np.clip(1.15 * smoothstep(-0.75, -0.1, up + 0.75 * back), 0, 1)
    h = 0.17 * helix * bell(rho - 0.93, 0.085)
    h = h + 0.02 * bell(rho - 0.95, 0.1)
    fold = smoothstep(-0.35, 0.25, back) * smoothstep(-0.9, -0.35, up)
    h = h + 0.15 * fold * bell(rho - 0.58, 0.12)
    h = h - 0.13 * fold * bell(rho - 0.77, 0.075)
    h = h - 0.26 * bell(a + 0.05, 0.2) * bell(b + 0.12, 0.3)
    h = h + 0.22 * bell(a + 0.34, 0.085) * bell(b + 0.12, 0.14)  # tragus
    h = h + 0.10 * bell(b + 0.84, 0.22) * bell(a, 0.3)  # lobe
    rim = h[10:11]
    lower = np.array([0.0, -0.10, -0.32])[:, None]
    h = np.where(turned, rim + np.concatenate([np.zeros((len(EAR_RADII) - 4, 1)), lower]), h)
    pole = np.zeros(1)
    bottom = -0.26 * bell(np.array([0.05]), 0.2) * bell(np.array([0.12]), 0.3)
    return (
        np.concatenate([pole, a.ravel()]),
        np.concatenate([pole, b.ravel()]),
        np.concatenate([bottom, h.ravel()]),
    )


def place_ear(identity: Identity, side: int) -> Array:
    size = 28.5 * (1 + 0.12 * identity.ear_size)
    origin = np.array([[0.0, -6.0, -9.0]])
    head = Sculpture(identity).surface(origin, np.array([[1.0, 0, 0]]))[0]
    a, b, h = ear_relief()
    # Long hair lies over the ears and holds them to the head.
    covered = identity.hair_style == "bob"
    lean, flare = np.radians(12), np.radians(6 if covered else 27)
    up = np.array([0.10, np.cos(lean), -np.sin(lean)])
    back = np.array([np.sin(flare), -np.sin(lean) * np.cos(flare), -np.cos(lean) * np.cos(flare)])
    out = np.cross(back, up)
    out *= np.sign(out[0])
    points = head + (4.5, 0, -2) + size * (a[:, None] * back + b[:, None] * up + h[:, None] * out)
    return np.asarray(points * (side, 1, 1))


# Clothes ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def clothes_part() -> Part:
    rows, segments = CLOTHES_SHAPE
    return grid_part(ring_index(rows, segments, pole=False), CLOTHES_CHART, Region.CLOTHES)


def place_clothes(identity: Identity) -> Array:
    _, segments = CLOTHES_SHAPE
    angle = np.pi + 2 * np.pi * np.arange(segments) / segments  # the seam is at the back
    side, front = np.abs(np.sin(angle)), np.cos(angle)
    neck = 44 + 6 * identity.neck_width
    # width, depth, height at the sides, height at front and back
    profile = [
        (neck - 2, neck - 4, -141, -143),
        (neck + 4, neck + 4, -133, -138),
        (neck + 8, neck + 8, -131, -137),
        (neck + 11, neck + 11, -133, -141),
        (neck + 11, neck + 11, -137, -147),
        (neck + 23, neck + 16, -141, -157),
        (neck + 50, neck + 24, -150, -176),
        (neck + 92, neck + 35, -162, -205),
        (neck + 122, neck + 42, -176, -235),
        (neck + 136, neck + 46, -205, -262),
        (neck + 132, neck + 44, -300, -300),
    ]
    rows = []
    for width, depth, y_side, y_front in profile:
        y = y_front + (y_side - y_front) * side**1.5
        y = y + np.where(front < 0, 0.35 * (y_side - y_front) * (1 - side), 0.0)
        z = -34.5 + (depth + 4.0) * front
        rows.append(np.stack([width * np.sin(angle), y, z], -1))
    return np.concatenate(rows)
