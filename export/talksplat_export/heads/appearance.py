"""Colours of the procedural head, painted into its atlas texel by texel.

Every texel knows the place on the head at rest that it covers; skin, lips, brows and hairline are
functions of that place, hair and eyes of the place in their charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat.mesh import interpolate, rasterize_mesh
from talksplat_export.heads import features, hair
from talksplat_export.heads.expressions import SkinShapes
from talksplat_export.heads.identity import Identity
from talksplat_export.heads.model import FloatArray, Region
from talksplat_export.heads.parts import Chart, bell, smoothstep
from talksplat_export.heads.pieces import head_topology, piece_faces, piece_vertices
from talksplat_export.heads.sculpture import Sculpture

Array = NDArray[np.float64]
TEXTURE_SIZE = 1024


def _hash(cells: NDArray[np.int64], seed: int) -> Array:
    """Values 0..1 of integer cells [N,D], the same on every machine."""
    value = np.full(len(cells), 0x9E3779B9 + seed * 0x632BE5AB, np.uint64)
    for k in range(cells.shape[1]):
        value ^= (cells[:, k] + (1 << 20)).astype(np.uint64) * np.uint64(
            0x85EBCA6B + 2 * k * 0x27D4EB2F
        )
        value = (value ^ (value >> np.uint64(15))) * np.uint64(0x2C1B3C6D) & np.uint64(0xFFFFFFFF)
        value = (value ^ (value >> np.uint64(12))) * np.uint64(0x297A2D39) & np.uint64(0xFFFFFFFF)
        value ^= value >> np.uint64(15)
    return value.astype(np.float64) / 0xFFFFFFFF


def noise(points: Array, seed: int) -> Array:
    """Value noise 0..1 at points [N,D], one cell per unit."""
    low = np.floor(points).astype(np.int64)
    t = points - low
    t = t * t * (3 - 2 * t)
    total = np.zeros(len(points))
    dimensions = points.shape[1]
    for corner in range(1 << dimensions):
        offset = np.array([(corner >> k) & 1 for k in range(dimensions)])
        weight = np.prod(np.where(offset, t, 1 - t), axis=1)
        total += weight * _hash(low + offset, seed)
    return total


def fractal(points: Array, seed: int, octaves: int = 3) -> Array:
    """Sum of noises at doubling frequencies, about -1..1."""
    total = np.zeros(len(points))
    for k in range(octaves):
        total += (noise(points * 2.0**k, seed + k) * 2 - 1) * 0.5**k
    return total


@dataclass(frozen=True)
class _Texels:
    """The covered texels of one piece."""

    where: tuple[NDArray[np.int64], NDArray[np.int64]]
    place: Array  # [N,3] on the head at rest, mm
    across: Array  # 0..1 over the atlas
    up: Array
    regions: NDArray[np.uint8]
    faces: NDArray[np.int32]
    barycentrics: FloatArray

    def chart(self, chart: Chart) -> tuple[Array, Array]:
        across = (self.across - chart.left) / (chart.right - chart.left)
        down = (chart.top - self.up) / (chart.top - chart.bottom)
        return across, down


def _mix(color: Array, other: Array | tuple[float, float, float], amount: Array) -> Array:
    return color + (np.asarray(other) - color) * np.asarray(amount)[..., None]


def texture(identity: Identity, template: FloatArray, size: int = TEXTURE_SIZE) -> FloatArray:
    """Colours of the atlas [size,size,3], sRGB 0..1, first row at v = 1.

    ``template`` [V,3] are the head's vertices at rest in mm. Texels just outside the charts repeat
    their neighbours.
    """
    head = head_topology()
    screen = np.column_stack([head.uvs * (1, -1) * size + (0, size), np.zeros(len(head.uvs))])
    face_ids, barycentrics, _ = rasterize_mesh(screen, head.uv_faces, size, size)
    image = np.zeros((size, size, 3))
    covered = face_ids >= 0
    rows, columns = np.nonzero(covered)
    ids, weights = face_ids[covered], barycentrics[covered]
    place = interpolate(head.faces, ids, weights, template).astype(float)
    for name, faces in piece_faces().items():
        mine = (ids >= faces.start) & (ids < faces.stop)
        texels = _Texels(
            (rows[mine], columns[mine]),
            place[mine],
            (columns[mine] + 0.5) / size,
            1.0 - (rows[mine] + 0.5) / size,
            head.face_regions[ids[mine]],
            ids[mine],
            weights[mine],
        )
        image[texels.where] = _paint(name, texels, identity, template)
    return np.clip(_spread(image, covered), 0, 1).astype(np.float32)


def _spread(image: Array, covered: NDArray[np.bool_]) -> Array:
    """Colour of empty texels from covered neighbours, so that filtering sees no seams."""
    image, covered = image.copy(), covered.copy()
    for _ in range(3):
        total, count = np.zeros_like(image), np.zeros(covered.shape)
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            total += np.roll(image * covered[..., None], shift, axis)
            count += np.roll(covered, shift, axis)
        new = ~covered & (count > 0)
        image[new] = total[new] / count[new][:, None]
        covered |= new
    return image


def _paint(name: str, texels: _Texels, identity: Identity, template: FloatArray) -> Array:
    stem = name.removesuffix("_left").removesuffix("_right")
    side = -1 if name.endswith("_right") else 1
    match stem:
        case "skin":
            return _paint_skin(texels, identity, template)
        case "eye":
            return _paint_eye(*texels.chart(features.EYE_CHARTS[side]), identity)
        case "lashes":
            dark = 0.35 * np.array(identity.hair_color) * (0.6, 0.5, 0.5) + 0.012
            return np.broadcast_to(dark, texels.place.shape)
        case "teeth_upper":
            return _paint_teeth(*texels.chart(features.TEETH_CHARTS[1]))
        case "teeth_lower":
            return _paint_teeth(*texels.chart(features.TEETH_CHARTS[-1]))
        case "tongue":
            speckle = fractal(texels.place * 0.9, 71)
            return np.array((0.74, 0.36, 0.36)) * (1 + 0.07 * speckle[:, None])
        case "ear":
            skin = _skin_base(texels.place, identity)
            return skin * _mix(
                np.ones_like(skin),
                (1.02, 0.84, 0.80),
                np.full(len(skin), 0.7 * identity.redness),
            )
        case "hair":
            return _paint_hair(texels, identity)
        case "clothes":
            return _paint_clothes(texels, identity)
    raise KeyError(name)


# Skin ---------------------------------------------------------------------------------------


def _skin_base(place: Array, identity: Identity) -> Array:
    color = np.broadcast_to(np.array(identity.skin_color), place.shape)
    blotches = fractal(place * 0.035, 11 + identity.seed, 3)
    grain = fractal(place * 0.55, 21, 2)
    color = color * (1 + np.stack([0.018 * blotches, 0.03 * blotches, 0.03 * blotches], -1))
    return color * (1 + 0.012 * grain[:, None])


def _paint_skin(texels: _Texels, identity: Identity, template: FloatArray) -> Array:
    place = texels.place
    color = _skin_base(place, identity)
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    front = smoothstep(5, 35, z)
    warm = np.array((1.03, 0.80, 0.77))

    def patch(cx: float, cy: float, rx: float, ry: float) -> Array:
        return bell(np.hypot((x - cx) / rx, (y - cy) / ry), 1.0) * front

    uneven = 1 + 0.35 * fractal(place * 0.09, 31, 2)
    flush = identity.redness * uneven * (
        0.85 * patch(37, -25, 17, 14) + 0.75 * patch(0, -28, 13, 9) + 0.25 * patch(0, -88, 14, 9)
        + 0.15 * patch(30, -3, 24, 12)
    )  # fmt: skip
    color = color * _mix(np.ones_like(color), warm, np.clip(flush, 0, 1))
    shade = 0.55 * patch(29, -9, 15, 6) + 0.35 * patch(16, 0, 6, 7)
    color = color * _mix(np.ones_like(color), (0.88, 0.80, 0.82), np.clip(shade, 0, 1))
    color = color * _mix(
        np.ones_like(color), (0.93, 0.84, 0.80), np.clip(patch(31, 13, 17, 5), 0, 1)
    )

    nose = Sculpture(identity).nostril
    hole = bell(
        np.linalg.norm(
            (np.abs(place) * (1, 0, 0) + place * (0, 1, 1) - nose) / (3.4, 3.6, 6.0),
            axis=-1,
        ),
        1.0,
    )
    color = color * (1 - 0.72 * hole[:, None] * np.array((0.85, 1.0, 1.0)))

    skin = piece_vertices()["skin"]
    vertices = template[skin].astype(float)
    shapes = SkinShapes(identity, vertices)
    marks = np.zeros((len(template), 3), np.float32)
    marks[skin, 0] = np.minimum(shapes.lip_row, 4.0)
    marks[skin, 1] = shapes.near_lids(1.5)
    marks[skin, 2] = shapes.lid_fields()[1]
    faces = head_topology().faces
    lip_row, lid, upper_lid = interpolate(faces, texels.faces, texels.barycentrics, marks).T.astype(
        float
    )

    inside_mouth = texels.regions == Region.MOUTH_INTERIOR
    if identity.freckles > 0:
        spots = noise(place * 0.62, 41)
        where = patch(24, -18, 30, 18) + 0.5 * patch(0, -8, 14, 14)
        amount = smoothstep(0.70, 0.82, spots) * where * identity.freckles
        color = color * _mix(np.ones_like(color), (0.80, 0.62, 0.52), np.clip(amount, 0, 1))
    if identity.stubble > 0:
        beard = smoothstep(-34, -48, y) * smoothstep(-122, -100, y) * smoothstep(-8, 14, z)
        beard = beard * (1 - 0.85 * patch(24, -34, 16, 10)) + 0.6 * patch(0, -43, 17, 4)
        hairs = 0.55 + 0.45 * smoothstep(0.35, 0.75, noise(place * 1.25, 43))
        gray = 0.45 * np.array(identity.skin_color) + 0.55 * np.array(identity.hair_color)
        color = _mix(color, gray, np.clip(beard, 0, 1) * hairs * identity.stubble)
    if identity.wrinkles > 0:
        lines = bell(np.sin(y * 0.42 + 0.35 * np.sin(x * 0.08)) - 1.0, 0.25) * patch(0, 50, 36, 13)
        crows = bell(np.sin(np.arctan2(y - 2, x - 36) * 9.0) - 1.0, 0.3) * patch(50, 1, 6, 11)
        folds = bell((x - 17 - 0.32 * (-30 - y)) / 1.6, 1.0) * patch(24, -46, 14, 16)
        amount = np.clip(0.30 * lines + 0.28 * crows + 0.34 * folds, 0, 1) * identity.wrinkles
        color = color * _mix(np.ones_like(color), (0.72, 0.60, 0.55), amount)

    color = _paint_brows(color, place, identity)
    color = _paint_scalp(color, place, identity)

    # Lips, with a soft border, fine vertical lines and a darker line where they meet.
    width = np.abs(place[:, 0]) / (24.2 * (1 + 0.1 * identity.mouth_width))
    on_lips = (
        smoothstep(1.14, 0.90, lip_row)
        * (1 - smoothstep(0.97, 1.06, width))
        * ~inside_mouth
        * (z > 20)
    )
    fine = fractal(np.stack([place[:, 0] * 0.9, y * 0.16], -1), 51, 2)
    lips = np.array(identity.lip_color) * (1 + 0.06 * fine[:, None])
    lips = (
        lips
        * (1 - 0.42 * bell(lip_row, 0.16))[:, None]
        * (1 - 0.10 * bell(lip_row - 1.0, 0.2))[:, None]
    )
    color = _mix(color, lips, on_lips)

    # Lids: pink margins, the upper one with a dark line of lash roots.
    lid_skin = (texels.regions == Region.SKIN) & (texels.up < 0.33)
    margin = np.where(lid_skin, 1.0, 0.75 * lid * front)
    color = _mix(
        color,
        np.array((0.80, 0.52, 0.47)) * np.mean(identity.skin_color) / 0.68,
        np.clip(margin, 0, 1),
    )
    liner = np.clip(upper_lid, 0, 1) * lid * identity.lashes * ~lid_skin
    color = _mix(color, (0.16, 0.09, 0.07), np.clip(1.1 * liner * front, 0, 0.92))

    deep = np.array((0.50, 0.17, 0.16))
    return np.where(inside_mouth[:, None], deep, color)


def _paint_brows(color: Array, place: Array, identity: Identity) -> Array:
    x, y, z = np.abs(place[:, 0]), place[:, 1], place[:, 2]
    along = np.clip((x - 11.5) / (50.0 - 11.5), -0.2, 1.2)
    line = (
        20.6
        + 5.4 * np.sin(np.clip(along * 0.92 + 0.06, 0, 1.1) * np.pi * 0.72)
        - 3.0 * np.maximum(along - 0.72, 0) / 0.28
    )
    half = (2.6 + 1.8 * identity.brow_thickness) * (1.0 - 0.72 * smoothstep(0.35, 1.0, along))
    half = half * (0.55 + 0.45 * smoothstep(0.0, 0.16, along))
    # Hairs lean outwards: streaks along a direction that turns from up to sideways.
    lean = 1.1 - 0.9 * np.clip(along, 0, 1)
    streak = fractal(
        np.stack([(x - y / np.maximum(lean, 0.25) * 0.55) * 1.5, y * 0.25 + x * 0.1], -1),
        61,
        2,
    )
    across = np.abs(y - line) / half
    mask = (1 - smoothstep(0.62, 1.12, across + 0.22 * streak)) * smoothstep(
        -0.03, 0.10, along + 0.05 * streak
    )
    mask = mask * (1 - smoothstep(0.90, 1.02, along + 0.04 * streak)) * (z > 25)
    hairs = np.array(identity.hair_color) * 0.72
    return _mix(
        color,
        hairs * (1 + 0.25 * streak[:, None]),
        np.clip(mask * (0.80 + 0.25 * streak), 0, 0.94),
    )


def _paint_scalp(color: Array, place: Array, identity: Identity) -> Array:
    """Under the hair and a little before it the skin takes the hair's colour."""
    if hair.CUTS[identity.hair_style] is None:
        return color
    arm = place - hair.SCALP_CENTER
    around = np.arctan2(arm[:, 0], arm[:, 2])
    polar = np.degrees(np.arccos(np.clip(arm[:, 1] / np.linalg.norm(arm, axis=-1), -1, 1)))
    before = hair.hairline_degrees(around, identity) - polar
    ragged = 1.3 * fractal(np.stack([np.degrees(around) * 0.45, polar * 0.10], -1), 81, 2)
    amount = smoothstep(-2.6, 2.2, before + ragged)
    return _mix(color, np.array(identity.hair_color) * 0.75, 0.94 * amount)


# Other pieces -------------------------------------------------------------------------------


def _paint_eye(across: Array, down: Array, identity: Identity) -> Array:
    dx, dy = across - 0.5, 0.5 - down
    degrees = np.hypot(dx, dy) / 0.5 * features.EYE_DEGREES[-1]
    angle = np.arctan2(dy, dx)
    iris = features.IRIS_DEGREES
    ring = np.stack([np.cos(angle) * 9, np.sin(angle) * 9, degrees * 0.10], -1)
    fibre = fractal(ring, 91, 3)
    veins = fractal(np.stack([dx * 60, dy * 60], -1), 95, 3)
    white = np.array((0.93, 0.915, 0.90)) * np.ones((len(across), 1))
    white = _mix(white, (0.86, 0.62, 0.58), smoothstep(38, 75, degrees) * (0.65 + 0.2 * veins))
    color = np.array(identity.eye_color) * (1.0 + 0.30 * fibre[:, None])
    glow = bell(degrees - 14.0, 6.0) * (0.55 + 0.3 * fibre)
    color = color * (1 + 0.55 * glow[:, None]) + 0.05 * glow[:, None] * np.array((1.0, 0.8, 0.4))
    color = color * (1.0 - 0.72 * smoothstep(iris - 6.5, iris - 0.8, degrees))[:, None]
    color = color * smoothstep(10.0, 12.5, degrees + 0.5 * fibre)[:, None] + 0.004
    return _mix(color, white, smoothstep(iris - 1.0, iris + 1.6, degrees))


def _paint_teeth(across: Array, down: Array) -> Array:
    columns = features.TEETH_PER_ARCH * features.TOOTH_COLUMNS
    tooth = across * columns / features.TOOTH_COLUMNS
    local = tooth - np.floor(tooth)
    row = down * (len(features.TEETH_ROWS) - 1)
    enamel = np.array((0.98, 0.955, 0.90)) * np.ones((len(across), 1))
    enamel = enamel * (1 - 0.10 * np.abs(across - 0.5) * 2)[:, None]
    enamel = _mix(enamel, (0.90, 0.83, 0.70), 0.6 * (1 - smoothstep(1.0, 3.0, row)))
    gap = bell(np.minimum(local, 1 - local), 0.055)
    enamel = _mix(enamel, (0.50, 0.36, 0.30), 0.75 * gap)
    papilla = 1.05 + 0.75 * (2 * np.abs(local - 0.5)) ** 2
    gums = 1 - smoothstep(papilla - 0.12, papilla + 0.12, row)
    return _mix(enamel, (0.78, 0.42, 0.42), gums)


def _paint_hair(texels: _Texels, identity: Identity) -> Array:
    across, down = texels.chart(hair.HAIR_CHART)
    around = 2 * np.pi * across
    fine = np.zeros(len(across))
    for waves, weight in ((60, 0.8), (130, 0.7), (250, 0.5)):
        radius = waves / (2 * np.pi)
        ring = np.stack([np.cos(around) * radius, np.sin(around) * radius, down * 5.0], -1)
        fine += weight * (noise(ring, 101 + waves) * 2 - 1)
    cut = hair.CUTS[identity.hair_style]
    color = np.array(identity.hair_color) * np.ones((len(across), 1))
    if cut is not None and cut.curl > 1:
        speckle = fractal(texels.place * 0.30, 111, 3)
        return color * (1 + 0.45 * speckle[:, None] + 0.10 * fine[:, None])
    warm = np.array((1.10, 1.0, 0.90))
    lock = fractal(np.stack([np.cos(around) * 6, np.sin(around) * 6, down * 1.5], -1), 121, 2)
    color = color * (1 + 0.30 * fine[:, None] + 0.16 * lock[:, None] * warm)
    return np.asarray(color * (0.86 + 0.22 * smoothstep(0.1, 0.7, down))[:, None])


def _paint_clothes(texels: _Texels, identity: Identity) -> Array:
    across, down = texels.chart(features.CLOTHES_CHART)
    weave = np.sin(across * 900) * np.sin(down * 420)
    blotch = fractal(texels.place * 0.05, 131, 3)
    collar = down < 4.2 / (features.CLOTHES_SHAPE[0] - 1)
    rib = np.where(collar, 0.10 * np.sin(across * 2 * np.pi * 110), 0.03 * weave)
    color = np.array(identity.clothes_color) * (1 + 0.05 * blotch + rib)[:, None]
    return color * np.where(collar, 0.92, 1.0)[:, None]
