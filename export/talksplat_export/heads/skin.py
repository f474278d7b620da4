"""Face, skull and neck: one grid around the head, slit at the mouth and the eyes.

Rows run from crown to neck, columns from the back over the subject's right, the front and the
left to the back again. At the three slits a row exists twice, once for the skin above and once
for the skin below; the mouth's slit goes on inwards as a bag behind the lips, the eyes' slits as
the thickness of the lids. Millimetres throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identity import Identity
from talksplat_export.heads.model import Region
from talksplat_export.heads.parts import (
    Chart,
    Part,
    bell,
    grid_faces,
    grid_part,
    joined,
    part_of,
    smoothstep,
)
from talksplat_export.heads.sculpture import Sculpture

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Columns of the half x >= 0: wanted x at the front, then shares of the way to the back.
FRONT_X = 2.2 * np.arange(23)
BACK_FRACTIONS = np.array(
    [
        0.022,
        0.048,
        0.08,
        0.118,
        0.163,
        0.215,
        0.272,
        0.333,
        0.4,
        0.47,
        0.545,
        0.625,
        0.71,
        0.8,
        0.9,
        1,
    ]
)
HALF_COLUMNS = len(FRONT_X) + len(BACK_FRACTIONS)  # the last is the seam at the back
COLUMNS = 2 * HALF_COLUMNS - 2  # distinct columns around the head
FRONT_COLUMN = HALF_COLUMNS - 1  # column of x = 0 in the unwrapped grid

# Rows: rays over the skull, levels of the face, rays under the chin.
CROWN_DEGREES = np.array([90, 78, 66, 55, 45, 36, 27, 18, 9.0])
EYE_LEVEL, MOUTH_LEVEL = 2.0, -57.0
FACE_Y = np.array(
    [
        45, 40.5, 36.5, 33, 30, 27.2, 24.6, 22, 19.5, 17, 14.6, 12.3, 10.1, 8.1, 6.4, 4.9, 3.4,
        EYE_LEVEL, 0.6, -1, -2.7, -4.6, -6.8, -9.2, -11.8, -14.6, -17.4, -20.2, -22.9, -25.5, -28,
        -30.4, -32.8, -35.2, -37.6, -40, -42.5, -45, -47.4, -49.8, -51.6, -53.4, -55.2,
        MOUTH_LEVEL, -58.9, -60.8, -62.7, -64.6, -67, -69.6, -72.4, -75.4, -78.4,
    ]
)  # fmt: skip
# Height of the ray's origin, its depression in degrees, its z.
CHIN_RAYS = np.array(
    [
        *([-80, 4 + 5 * k, 2 - k] for k in range(8)),
        (-88, 34, -10), (-96.2, 30, -15), (-105, 25, -20), (-113.4, 20, -24), (-121.5, 15, -27),
        (-129.4, 10, -30), (-137.2, 5, -32), (-143.5, 2, -33), (-149.4, 0, -34),
    ],
    float,
)  # fmt: skip
ROWS = len(CROWN_DEGREES) + len(FACE_Y) + len(CHIN_RAYS)
FACE_ROW = len(CROWN_DEGREES)
CHIN_ROW = FACE_ROW + len(FACE_Y)
EYE_ROW = FACE_ROW + int(np.flatnonzero(FACE_Y == EYE_LEVEL)[0])
MOUTH_ROW = FACE_ROW + int(np.flatnonzero(FACE_Y == MOUTH_LEVEL)[0])
NECK_ROW = CHIN_ROW + 9

MOUTH_COLUMN = 11  # half width of the slit in columns
EYE_COLUMNS = (7, 21)
LIP_ROWS = 4  # from the slit to the vermilion border
LID_ROWS = 2
# The bag behind the lips, slit to back: depth, height, width.
BAG = np.array(
    [(1.8, 0.5, 1.0), (4.2, 2.6, 0.99), (6.0, 7.5, 0.98), (9.5, 13, 1.0), (19, 15, 1.05),
     (32, 11, 1.0), (41, 5, 0.9)]
)  # fmt: skip

SKIN_CHART = Chart(0.002, 0.34, 0.998, 0.998)
BAG_UPPER_CHART = Chart(0.002, 0.002, 0.098, 0.128)
BAG_LOWER_CHART = Chart(0.102, 0.002, 0.198, 0.128)
LID_CHARTS = tuple(Chart(0.002 + 0.05 * k, 0.132, 0.048 + 0.05 * k, 0.158) for k in range(4))


def column(x: int) -> int:
    """Column in the unwrapped grid, counted from the front, positive to the subject's left."""
    return FRONT_COLUMN + x


@dataclass(frozen=True)
class SkinTopology:
    """Vertex numbers of the skin grid and what hangs on its slits."""

    above: Index  # [ROWS, COLUMNS + 1] the vertex that the faces over a row use
    below: Index  # the vertex that the faces under a row use
    bag_upper: Index  # [1 + len(BAG) + 1, 2 MOUTH_COLUMN + 1], row 0 is the upper lip line
    bag_lower: Index
    lids: tuple[Index, ...]  # upper left, lower left, upper right, lower right [1 + LID_ROWS, n]
    part: Part

    @cached_property
    def lip_upper(self) -> Index:
        """Lip line seen from above, subject's right to left, corners included."""
        return self.above[MOUTH_ROW, column(-MOUTH_COLUMN) : column(MOUTH_COLUMN) + 1]

    @cached_property
    def lip_lower(self) -> Index:
        return self.below[MOUTH_ROW, column(-MOUTH_COLUMN) : column(MOUTH_COLUMN) + 1]

    def lid_upper(self, side: int) -> Index:
        """Margin of the upper lid, inner corner first; side is +1 for the subject's left."""
        first, last = EYE_COLUMNS
        return self.above[EYE_ROW, [column(side * x) for x in range(first, last + 1)]]

    def lid_lower(self, side: int) -> Index:
        first, last = EYE_COLUMNS
        return self.below[EYE_ROW, [column(side * x) for x in range(first, last + 1)]]


@lru_cache(maxsize=1)
def skin_topology() -> SkinTopology:
    ring = np.arange(COLUMNS + 1)
    ring[-1] = 0  # the seam
    above = np.zeros((ROWS, COLUMNS + 1), np.int64)  # row 0 is the pole, vertex 0
    above[1:] = 1 + np.arange(ROWS - 1)[:, None] * COLUMNS + ring
    below = above.copy()
    count = int(above.max()) + 1

    def slit(row: int, first: int, last: int) -> None:
        nonlocal count
        below[row, first + 1 : last] = count + np.arange(last - first - 1)
        count += last - first - 1

    slit(MOUTH_ROW, column(-MOUTH_COLUMN), column(MOUTH_COLUMN))
    slit(EYE_ROW, column(EYE_COLUMNS[0]), column(EYE_COLUMNS[1]))
    slit(EYE_ROW, column(-EYE_COLUMNS[1]), column(-EYE_COLUMNS[0]))

    def new_rows(rows: int, columns: int) -> Index:
        nonlocal count
        index = count + np.arange(rows * columns).reshape(rows, columns)
        count += rows * columns
        return index

    mouth = slice(column(-MOUTH_COLUMN), column(MOUTH_COLUMN) + 1)
    bag_upper = np.concatenate(
        [above[MOUTH_ROW, mouth][None], new_rows(len(BAG) + 1, 2 * MOUTH_COLUMN + 1)]
    )
    lower_rows = new_rows(len(BAG), 2 * MOUTH_COLUMN + 1)
    lower_rows[:, [0, -1]] = bag_upper[1:-1, [0, -1]]
    bag_lower = np.concatenate([below[MOUTH_ROW, mouth][None], lower_rows, bag_upper[-1:]])

    lids = []
    for side in (1, -1):
        first, last = EYE_COLUMNS
        columns = [column(side * x) for x in range(first, last + 1)]
        upper = np.concatenate([above[EYE_ROW, columns][None], new_rows(LID_ROWS, len(columns))])
        lower = np.concatenate([below[EYE_ROW, columns][None], new_rows(LID_ROWS, len(columns))])
        lower[:, [0, -1]] = upper[:, [0, -1]]
        lids += [upper, lower]

    # Numbers that the shared corners left unused are closed up.
    used = np.unique(
        np.concatenate([a.ravel() for a in (above, below, bag_upper, bag_lower, *lids)])
    )
    renumber = np.full(count, -1)
    renumber[used] = np.arange(len(used))
    above, below, bag_upper, bag_lower = (renumber[a] for a in (above, below, bag_upper, bag_lower))
    lids = [renumber[a] for a in lids]

    parts = [_outer_part(above, below)]
    parts.append(grid_part(bag_upper, BAG_UPPER_CHART, Region.MOUTH_INTERIOR, flip=False))
    parts.append(grid_part(bag_lower, BAG_LOWER_CHART, Region.MOUTH_INTERIOR, flip=True))
    flips = (False, True, True, False)
    parts += [
        grid_part(i, c, Region.SKIN, f) for i, c, f in zip(lids, LID_CHARTS, flips, strict=True)
    ]
    # The parts share the vertices of the slits, so only their texture coordinates are counted on.
    whole = joined([replace(part, vertex_count=0) for part in parts])
    part = replace(whole, vertex_count=len(used))
    return SkinTopology(above, below, bag_upper, bag_lower, tuple(lids), part)


def _outer_part(above: Index, below: Index) -> Part:
    down, across = np.meshgrid(
        np.linspace(0, 1, ROWS), np.linspace(0, 1, COLUMNS + 1), indexing="ij"
    )
    uvs = SKIN_CHART.place(across, down).reshape(-1, 2)
    uv_index = np.arange(above.size).reshape(above.shape)
    faces, uv_faces, regions = [], [], []
    lips = slice(column(-MOUTH_COLUMN), column(MOUTH_COLUMN))
    for row in range(ROWS - 1):
        strip = np.stack([below[row], above[row + 1]])
        strip_faces = grid_faces(strip)
        strip_regions = np.full(
            len(strip_faces), int(Region.NECK if row >= NECK_ROW else Region.SKIN)
        )
        if MOUTH_ROW - LIP_ROWS <= row < MOUTH_ROW + LIP_ROWS:
            strip_regions.reshape(-1, 2)[lips] = int(Region.LIPS)
        faces.append(strip_faces)
        uv_faces.append(grid_faces(uv_index[row : row + 2]))
        regions.append(strip_regions)
    all_faces, all_uv, all_regions = map(np.concatenate, (faces, uv_faces, regions))
    return part_of(all_faces, uvs, all_uv, all_regions, int(above.max()) + 1)


@dataclass(frozen=True)
class Lips:
    """Shape of the mouth at rest, as functions of s = x / half width."""

    identity: Identity

    @property
    def half_width(self) -> float:
        return float(FRONT_X[MOUTH_COLUMN]) * (1.0 + 0.10 * self.identity.mouth_width)

    def line(self, s: Array) -> Array:
        """Height of the lip line: a shallow bow whose middle hangs a little."""
        s = np.abs(s)
        return MOUTH_LEVEL + 1.5 * bell(s - 0.42, 0.3) + 2.4 * smoothstep(0.6, 1.15, s)

    def upper_height(self, s: Array) -> Array:
        s = np.abs(s)
        full = 7.0 + 1.6 * self.identity.lip_fullness
        bow = 1.0 + 0.10 * bell(s - 0.26, 0.16) - 0.20 * bell(s, 0.13)
        return 1.2 + full * bow * np.clip(1.0 - s**2.2, 0.0, 1.0) ** 0.8

    def lower_height(self, s: Array) -> Array:
        s = np.abs(s)
        full = 8.6 + 2.0 * self.identity.lip_fullness
        return 1.2 + full * np.clip(1.0 - s**2.4, 0.0, 1.0) ** 0.8

    def bulge(self, s: Array, across: Array, upper: bool) -> Array:
        """How far the lip stands out, ``across`` 0 at the lip line and 1 at its border."""
        side = np.clip(1.0 - np.abs(s) ** 2.2, 0.0, 1.0)
        if upper:
            crest = 3.4 + 0.9 * self.identity.lip_fullness
            tubercle = 1.0 + 0.12 * bell(s, 0.16)
            profile = np.interp(
                across,
                [0, 0.22, 0.5, 0.8, 1.0, 1.4, 1.9],
                [-0.5, 0.55, 1.0, 0.82, 0.5, 0.14, 0.0],
            )
            return crest * tubercle * side * profile
        crest = 4.6 + 1.1 * self.identity.lip_fullness
        pillows = 1.0 + 0.10 * bell(np.abs(s) - 0.3, 0.2)
        profile = np.interp(
            across,
            [0, 0.2, 0.45, 0.75, 1.0, 1.4, 1.9],
            [-0.40, 0.62, 1.0, 0.82, 0.32, -0.18, 0.0],
        )
        return crest * pillows * side * profile


@dataclass(frozen=True)
class Lids:
    """Shape of the eye openings, as functions of e = 0 inner corner .. 1 outer corner."""

    identity: Identity

    @property
    def _tilt(self) -> float:
        return 1.6 + 1.5 * self.identity.eye_tilt

    def corner_line(self, e: Array) -> Array:
        return EYE_LEVEL - 0.6 + self._tilt * (np.asarray(e) - 0.3)

    def upper(self, e: Array) -> Array:
        e = np.clip(e, 0.0, 1.0)
        height = 9.0 + 0.9 * self.identity.eye_opening
        return self.corner_line(e) + height * (4 * e * (1 - e)) ** 0.62 * (1 + 0.16 * (0.5 - e))

    def lower(self, e: Array) -> Array:
        e = np.clip(e, 0.0, 1.0)
        height = 5.6 + 0.4 * self.identity.eye_opening
        return self.corner_line(e) - height * (4 * e * (1 - e)) ** 0.75 * (1 - 0.2 * (0.5 - e))


def _front_targets(identity: Identity) -> tuple[Array, Array]:
    """Wanted x and y [len(FACE_Y), columns, 2 sides of a slit] of the face's front, x >= 0."""
    x = np.broadcast_to(FRONT_X, (len(FACE_Y), len(FRONT_X)))
    y = np.broadcast_to(FACE_Y[:, None], x.shape)
    lips, lids, eye = Lips(identity), Lids(identity), Sculpture(identity).eye

    # Features move sideways with the identity, most in their own height.
    x = x * (1.0 + 0.10 * identity.mouth_width * bell(y - MOUTH_LEVEL, 18) * bell(x, 40))
    x = x + (eye.center[0] - 30.8) * bell(y - EYE_LEVEL, 22) * smoothstep(4, 16, x)

    first, last = FRONT_X[list(EYE_COLUMNS)] + (eye.center[0] - 30.8)
    e = (x - first) / (last - first)
    beyond = np.maximum(np.maximum(-e, e - 1.0), 0.0) * (last - first)
    near_eye = bell(beyond, 9.0)
    near_mouth_s = x / lips.half_width
    past_corner = smoothstep(1.0, 1.55, near_mouth_s)

    sides = []
    for above in (True, False):
        # The eye: rows above the slit squeeze towards the brow, rows below towards the cheek.
        offset = y - EYE_LEVEL
        lid = (lids.upper(e) if above else lids.lower(e)) - EYE_LEVEL
        edge = 21.0 if above else 24.0
        here = (offset >= 0 if above else offset <= 0) & (np.abs(offset) < edge)
        squeezed = lid + offset * (1.0 - np.abs(lid) / edge)
        # Between lid and brow keep the first rows close to the margin: they model the crease.
        moved = np.where(here, offset + (squeezed - offset) * near_eye, offset)
        side_y = EYE_LEVEL + moved

        # The mouth: LIP_ROWS rows are the lip, the rest reaches to nose or chin.
        offset = y - MOUTH_LEVEL
        rows = np.abs(np.arange(len(FACE_Y)) - (MOUTH_ROW - FACE_ROW))[:, None]
        height = lips.upper_height(near_mouth_s) if above else lips.lower_height(near_mouth_s)
        nominal = np.abs(
            FACE_Y[MOUTH_ROW - FACE_ROW + (-LIP_ROWS if above else LIP_ROWS)] - MOUTH_LEVEL
        )
        height = height + (nominal - height) * past_corner
        reach = 22.0
        line = lips.line(near_mouth_s) - MOUTH_LEVEL
        line = line * (1.0 - smoothstep(1.2, 2.0, near_mouth_s))
        sign = 1.0 if above else -1.0
        inside = sign * line + height * np.minimum(rows / LIP_ROWS, 1.0)
        outside = (
            sign * line
            + height
            + (np.abs(offset) - nominal) * (reach - height - sign * line) / (reach - nominal)
        )
        target = np.where(rows <= LIP_ROWS, inside, outside)
        here = (offset >= 0 if above else offset <= 0) & (np.abs(offset) < reach)
        side_y = np.where(here, MOUTH_LEVEL + sign * target, side_y)
        sides.append(side_y)
    y_above, y_below = sides
    # Each row is warped by the slit that it belongs to, seen from its own side; rows between the
    # eyes and the mouth by both.
    row = np.arange(len(FACE_Y))[:, None] + FACE_ROW
    between = (row > EYE_ROW) & (row < MOUTH_ROW)
    upper_copy = np.where(
        between, y_above + y_below - y, np.where(row <= MOUTH_ROW, y_above, y_below)
    )
    return np.stack([x, x], -1), np.stack([upper_copy, y_below], -1)


@lru_cache(maxsize=8)
def skin_vertices(identity: Identity) -> Array:
    """[V,3] vertices of the skin part at rest, in mm; read-only."""
    sculpture = Sculpture(identity)
    half = _half_grid(identity, sculpture)  # [ROWS, HALF_COLUMNS, 2, 3]
    topology = skin_topology()
    vertices = np.zeros((topology.part.vertex_count, 3))
    mirrored = half[:, :0:-1] * (-1.0, 1.0, 1.0)
    grid = np.concatenate([mirrored, half], 1)  # [ROWS, COLUMNS + 1, 2, 3]
    vertices[topology.below] = grid[:, :, 1]
    vertices[topology.above] = grid[:, :, 0]
    _fill_bag(vertices, topology, identity)
    _fill_lids(vertices, topology, sculpture)
    vertices.flags.writeable = False
    return vertices


def _half_grid(identity: Identity, sculpture: Sculpture) -> Array:
    """[ROWS, HALF_COLUMNS, 2 sides of a slit, 3] points of the half x >= 0."""
    fronts, backs = len(FRONT_X), len(BACK_FRACTIONS)
    face = slice(FACE_ROW, CHIN_ROW)
    target_x, target_y = _front_targets(identity)

    height = np.concatenate([np.full(FACE_ROW, 45.0), FACE_Y, CHIN_RAYS[:, 0]])
    elevation = np.radians(np.concatenate([CROWN_DEGREES, np.zeros(len(FACE_Y)), -CHIN_RAYS[:, 1]]))
    depth = np.concatenate([np.full(FACE_ROW + len(FACE_Y), -8.0), CHIN_RAYS[:, 2]])

    # Rows of the face meet wanted x and y at the front: aim, look where the ray lands, aim again.
    origins = np.zeros((ROWS, HALF_COLUMNS, 2, 3))
    origins[..., 1] = height[:, None, None]
    origins[..., 2] = depth[:, None, None]
    origins[face, :fronts, :, 0] = 0.55 * target_x
    origins[face, :fronts, :, 1] = target_y
    aim_x = target_x.copy()
    for _ in range(4):
        toward = np.stack([aim_x - origins[face, :fronts, :, 0], 0 * aim_x, 72.0 - 0.2 * aim_x], -1)
        toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
        landed = sculpture.surface(origins[face, :fronts], toward)
        aim_x += target_x - landed[..., 0]

    # Azimuths of every ray: rows over the brow and under the chin take those of their neighbours
    # and go over to even ones, columns behind the front share what is left to the back.
    azimuth = np.zeros((ROWS, HALF_COLUMNS, 2))
    azimuth[face, :fronts] = np.arctan2(toward[..., 0], toward[..., 2])
    offset_x = np.zeros((ROWS, fronts, 2))
    offset_x[face] = origins[face, :fronts, :, 0]
    even = np.broadcast_to((FRONT_X / 70.0)[:, None], (fronts, 2))
    for row in range(FACE_ROW - 1, -1, -1):
        k = 0.72 ** (FACE_ROW - row)
        azimuth[row, :fronts] = k * azimuth[FACE_ROW, :fronts] + (1 - k) * even
        offset_x[row] = k * offset_x[FACE_ROW]
    for row in range(CHIN_ROW, ROWS):
        k = 0.8 ** (row - CHIN_ROW + 1)
        azimuth[row, :fronts] = k * azimuth[CHIN_ROW - 1, :fronts] + (1 - k) * even
        offset_x[row] = k * offset_x[CHIN_ROW - 1]
    origins[:, :fronts, :, 0] = offset_x

    level = np.cos(elevation)[:, None, None]
    directions = np.zeros_like(origins)

    def aim_level() -> None:
        directions[..., 0] = level * np.sin(azimuth)
        directions[..., 1] = np.sin(elevation)[:, None, None]
        directions[..., 2] = level * np.cos(azimuth)

    aim_level()
    last = sculpture.surface(origins[:, fronts - 1], directions[:, fronts - 1])
    # Seen from the axis the last front column lies at this azimuth.
    start = np.arctan2(last[..., 0], last[..., 2] - depth[:, None])
    azimuth[:, fronts:] = start[:, None] + BACK_FRACTIONS[None, :, None] * (np.pi - start[:, None])
    # Under the skull rays to the back start at the neck's axis, so that their rows never cross.
    under = smoothstep(0.0, 8.0, np.arange(ROWS) - CHIN_ROW + 1.0)[:, None, None]
    backward = smoothstep(np.radians(60), np.radians(130), azimuth)
    origins[..., 2] += under * backward * (-30.0 - origins[..., 2])
    fade = 1.0 - smoothstep(0, 7, np.arange(backs) + 1.0)
    behind = (
        FACE_Y[:, None, None] + (target_y[:, -1] - FACE_Y[:, None])[:, None] * fade[None, :, None]
    )
    origins[face, fronts:, :, 1] = behind
    aim_level()
    points = sculpture.surface(origins, directions)
    points[0] = points[0, 0]
    points[:, 0, :, 0] = 0.0
    points[:, -1, :, 0] = 0.0

    lips = Lips(identity)
    for above, copy, sign in ((True, 0, -1), (False, 1, 1)):
        for k in range(8):
            row = MOUTH_ROW + sign * k
            s = points[row, :fronts, copy, 0] / lips.half_width
            bulge = lips.bulge(s, np.full(fronts, k / LIP_ROWS), above)
            points[row, :fronts, copy, 2] += bulge
            if k:
                points[row, :, 1 - copy] = points[row, :, copy]
    points[MOUTH_ROW, :, 1] = points[MOUTH_ROW, :, 0]  # closed at rest
    return points


def _fill_bag(vertices: Array, topology: SkinTopology, identity: Identity) -> None:
    lips = Lips(identity)
    start = vertices[topology.lip_upper]
    s = start[:, 0] / lips.half_width
    openness = np.sqrt(np.clip(1.0 - s**4, 0.0, 1.0))
    center = start[MOUTH_COLUMN]
    for sign, bag in ((1.0, topology.bag_upper), (-1.0, topology.bag_lower)):
        for row, (depth, rise, width) in enumerate(BAG, start=1):
            inward = 1.0 - 0.35 * s**2  # the corners lie further back already
            vertices[bag[row], 0] = start[:, 0] * width
            vertices[bag[row], 1] = start[:, 1] + sign * rise * openness
            vertices[bag[row], 2] = start[:, 2] - depth * inward
    back = topology.bag_upper[-1]
    vertices[back, 0] = start[:, 0] * 0.8
    vertices[back, 1] = start[:, 1]
    vertices[back, 2] = center[2] - 46.0


def _fill_lids(vertices: Array, topology: SkinTopology, sculpture: Sculpture) -> None:
    """Lids have thickness: from the margin two rows lead in to the eyeball and behind it."""
    eye = sculpture.eye
    for index, side in zip(topology.lids, (1, 1, -1, -1), strict=True):
        center = np.array(eye.center) * (side, 1, 1)
        margin = vertices[index[0]]
        outward = margin - center
        length = np.linalg.norm(outward, axis=-1, keepdims=True)
        for row, radius in ((1, eye.radius - 0.3), (2, eye.radius - 3.0)):
            vertices[index[row]] = center + outward / length * radius
