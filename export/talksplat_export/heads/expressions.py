"""The 52 blendshapes of the skin, and how they carry lashes, lower teeth and tongue.

Each shape is a field of displacements, written with places on the face: how far from the mouth's
line, where along it, how far from the eye. Left shapes are masks of two-sided ones, right shapes
their mirror, so that both sides of a pair add up to a symmetric face. Millimetres throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identity import Identity
from talksplat_export.heads.parts import bell, smoothstep
from talksplat_export.heads.sculpture import Sculpture
from talksplat_export.heads.skin import (
    BAG,
    EYE_COLUMNS,
    EYE_ROW,
    FRONT_X,
    LIP_ROWS,
    MOUTH_ROW,
    ROWS,
    Lids,
    Lips,
    column,
    skin_topology,
)

Array = NDArray[np.float64]

JAW_HINGE = np.array([0.0, -14.0, -8.0])
JAW_OPEN_RADIANS = np.radians(19.0)


def rotation_about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


@dataclass(frozen=True)
class SkinShapes:
    """Displacements of the skin's vertices at rest ``vertices`` [V,3]."""

    identity: Identity
    vertices: Array

    # Places on the face ---------------------------------------------------------------------

    @cached_property
    def x(self) -> Array:
        return self.vertices[:, 0]

    @cached_property
    def left(self) -> Array:
        """1 on the subject's left, 0 on the right; left and its mirror add up to 1."""
        return smoothstep(-9.0, 9.0, self.x)

    @cached_property
    def lips(self) -> Lips:
        return Lips(self.identity)

    @cached_property
    def s(self) -> Array:
        """Place along the mouth, ±1 at its corners."""
        return self.x / self.lips.half_width

    @cached_property
    def upper(self) -> Array:
        """1 for what lies over the mouth's line, the bag's roof included, else 0."""
        topology = skin_topology()
        upper = np.zeros(len(self.vertices))
        upper[topology.below[: MOUTH_ROW + 1]] = 1.0
        upper[topology.above[: MOUTH_ROW + 1]] = 1.0
        upper[topology.lip_lower[1:-1]] = 0.0
        upper[topology.bag_lower[1:-1, 1:-1]] = 0.0
        upper[topology.bag_upper[:-1]] = 1.0
        for lid in topology.lids:
            upper[lid] = 1.0
        return upper

    @cached_property
    def inside(self) -> Array:
        """How much of the lips' motion a vertex behind them takes part in; 1 on the skin."""
        topology = skin_topology()
        inside = np.ones(len(self.vertices))
        share = np.array([1.0, 0.92, 0.72, 0.45, 0.2, 0.08, 0.0, 0.0, 0.0])
        for bag in (topology.bag_upper, topology.bag_lower):
            inside[bag] = share[: len(BAG) + 2, None]
            inside[bag[0]] = 1.0
        return inside

    @cached_property
    def height(self) -> Array:
        """Height over the mouth's line (mm), 0 for the bag."""
        height = self.vertices[:, 1] - self.lips.line(np.clip(self.s, -1, 1))
        topology = skin_topology()
        for bag in (topology.bag_upper, topology.bag_lower):
            height[bag[1:]] = 0.0
        return height

    @cached_property
    def past(self) -> Array:
        """Distance sideways past the mouth's corner (mm)."""
        return np.maximum(np.abs(self.x) - self.lips.half_width, 0.0)

    @cached_property
    def front(self) -> Array:
        """1 on the face's front, 0 at its back."""
        return smoothstep(0.0, 22.0, self.vertices[:, 2])

    @cached_property
    def lip_row(self) -> Array:
        """0 at the lip line, 1 at the vermilion border, more beyond; large elsewhere."""
        topology = skin_topology()
        row = np.full(len(self.vertices), 9.0)
        rows = np.abs(np.arange(ROWS) - MOUTH_ROW) / LIP_ROWS
        row[topology.below] = rows[:, None]
        row[topology.above] = rows[:, None]
        for bag in (topology.bag_upper, topology.bag_lower):
            row[bag] = 0.0
        return row

    def around_mouth(self, reach: float, up: float | None = None) -> Array:
        """1 at the mouth's line, falling to 0 about ``reach`` away."""
        vertical = np.where(self.height > 0, reach if up is None else up, reach)
        distance = np.hypot(self.past / reach, self.height / vertical)
        return bell(distance, 0.62) * self.inside * self.front

    def corner(self, reach: float, side: int = 1) -> Array:
        """1 at one corner of the mouth."""
        corner = self.vertices[skin_topology().lip_upper[-1 if side > 0 else 0]]
        d = (self.vertices - corner) / (reach, reach, reach * 1.2)
        return bell(np.sqrt((d * d).sum(-1)), 0.75) * self.inside

    def at(self, x: float, y: float, z: float, width: float, height: float | None = None) -> Array:
        """A smooth patch around a place and, with x > 0, its mirror."""
        rx, ry = width, width if height is None else height
        d = np.stack([np.abs(self.x) - x, self.vertices[:, 1] - y, self.vertices[:, 2] - z], -1)
        q = d / (rx, ry, 1.3 * max(rx, ry))
        return np.asarray(bell(np.sqrt((q * q).sum(-1)), 1.0) * (self.inside == 1.0))

    # Jaw ------------------------------------------------------------------------------------

    @cached_property
    def jaw(self) -> Array:
        """[V] how much a vertex follows the jaw, 0..1."""
        corner = 0.40
        reach = 11.0 + 0.8 * self.past
        u = np.abs(self.height) / reach
        fall = np.exp(-(u**1.6))
        s = np.clip(np.abs(self.s), 0, 1)
        lower_line = corner + (1 - corner) * (1 - s**2.6)
        upper_line = corner * s**4
        lower = 1 - (1 - lower_line) * fall
        upper = upper_line * fall
        weight = np.where(self.upper > 0, upper, lower)
        topology = skin_topology()
        for bag, own in (
            (topology.bag_upper, upper_line),
            (topology.bag_lower, lower_line),
        ):
            deep = np.linspace(0, 1, len(bag))[:, None] ** 1.5
            mean = 0.45
            weight[bag[1:]] = (own[bag] + (mean - own[bag]) * deep)[1:]
        y, z = self.vertices[:, 1], self.vertices[:, 2]
        hinge = smoothstep(-20.0, 32.0, z)
        under = 1.0 - smoothstep(0.0, 34.0, -(y + 92.0) + 0.55 * np.maximum(30.0 - z, 0.0))
        under = np.where(self.upper > 0, 1.0, under)
        inside = np.isin(
            np.arange(len(y)),
            np.concatenate([topology.bag_upper[1:].ravel(), topology.bag_lower[1:].ravel()]),
        )
        return np.where(inside, weight, weight * hinge * under)

    def jaw_open(self) -> Array:
        arm = self.vertices - JAW_HINGE
        return np.asarray(self.jaw[:, None] * (arm @ rotation_about_x(JAW_OPEN_RADIANS).T - arm))

    # Building blocks ------------------------------------------------------------------------

    def _vector(
        self, field: Array, dx: float | Array, dy: float | Array, dz: float | Array
    ) -> Array:
        return np.stack([field * dx, field * dy, field * dz], -1)

    def _two_sided(self, name: str, shape: Array) -> dict[str, Array]:
        return {
            f"{name}Left": shape * self.left[:, None],
            f"{name}Right": shape * (1.0 - self.left)[:, None],
        }

    def _side(self) -> Array:
        return np.sign(self.x)

    # All shapes -----------------------------------------------------------------------------

    def all(self) -> dict[str, Array]:
        shapes = {**self._mouth(), **self._brows_and_cheeks(), **self._eyelids()}
        return shapes

    def _mouth(self) -> dict[str, Array]:
        shapes: dict[str, Array] = {}
        upper, lower = self.upper, 1.0 - self.upper
        s = np.clip(self.s, -1.0, 1.0)
        middle = np.clip(1.0 - s**2, 0, 1)
        near = self.around_mouth(24.0, up=20.0)
        wide = self.around_mouth(34.0, up=24.0)
        side = self._side()
        vermilion = 1.0 - smoothstep(0.7, 1.9, self.lip_row)
        vermilion = vermilion * (self.past <= 0.5) * self.inside
        sign = np.where(upper > 0, 1.0, -1.0)

        jaw_open = self.jaw_open()
        shapes["jawOpen"] = jaw_open
        shapes["jawForward"] = self._vector(self.jaw, 0, -0.5, 6.0)
        shapes["jawLeft"] = self._vector(self.jaw, 7.0, 0.0, 0.0)
        shapes["jawRight"] = self._vector(self.jaw, -7.0, 0.0, 0.0)

        # Closing over an open jaw: both lip lines meet three tenths of the way down.
        topology = skin_topology()
        fall_upper = jaw_open[topology.lip_upper]
        fall_lower = jaw_open[topology.lip_lower]
        meeting = 0.72 * fall_upper + 0.28 * fall_lower
        s_line = self.s[topology.lip_upper]
        reach = bell(np.abs(self.height) / 17.0, 1.0) * self.inside * (self.past <= 0) * self.front
        close = np.zeros_like(jaw_open)
        for k in range(3):
            to_upper = np.interp(self.s, s_line, (meeting - fall_upper)[:, k])
            to_lower = np.interp(self.s, s_line, (meeting - fall_lower)[:, k])
            close[:, k] = np.where(upper > 0, to_upper, to_lower) * reach
        shapes["mouthClose"] = close

        drawn_in = -0.40 * self.x
        pucker = self._vector(self.around_mouth(26.0, up=22.0), drawn_in, 0.0, 0.0)
        pucker += self._vector(near * (0.35 + 0.65 * middle), 0, 0, 7.0)
        pucker += self._vector(near * middle, 0, 0.9 * sign, 0)
        pucker += self._vector(
            vermilion * middle * np.minimum(self.lip_row, 1.0), 0, 1.2 * sign, 0.4
        )
        shapes["mouthPucker"] = pucker

        funnel = self._vector(self.around_mouth(26.0, up=22.0), -0.24 * self.x, 0.0, 0.0)
        open_line = middle * np.where(upper > 0, 3.6, -5.0)
        funnel += self._vector(
            self.around_mouth(22.0, up=19.0), 0, open_line, 5.5 * (0.4 + 0.6 * middle)
        )
        flare = vermilion * (1.0 - np.minimum(self.lip_row, 1.0))
        funnel += self._vector(flare * middle, 0, 0.0, 1.2)
        shapes["mouthFunnel"] = funnel

        press = self._vector(
            vermilion * np.minimum(self.lip_row, 1.0) * middle**0.5,
            0,
            -1.7 * sign,
            -1.0,
        )
        press += self._vector(near * middle, 0, 0, -1.3)
        press += self._vector(self.corner(11.0) + self.corner(11.0, -1), 0.6 * side, 0.3, -0.8)
        shapes |= self._two_sided("mouthPress", press)

        # Rolling: the lip turns in over the teeth, its border follows.
        for name, which, rise in (
            ("mouthRollLower", lower, 1.0),
            ("mouthRollUpper", upper, -1.0),
        ):
            turn = np.interp(
                self.lip_row,
                [0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.2],
                [-4.6, -4.4, -3.4, -2.0, -1.0, -0.5, 0],
            )
            lift = np.interp(
                self.lip_row,
                [0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.2],
                [0.3, 1.2, 2.2, 2.6, 2.4, 1.3, 0],
            )
            field = which * middle**0.7 * self.inside * (self.past <= 0)
            shapes[name] = self._vector(field, 0, rise * lift, turn)

        # The lower lip and chin push up, and the upper lip gives way.
        shrug = self._vector(lower * self.around_mouth(30.0) * middle, 0, 3.4, 1.5)
        shrug += self._vector(upper * self.around_mouth(20.0, up=13.0) * middle, 0, 3.4, 0.8)
        shrug += self._vector(self.at(0, -86, 66, 15, 13), 0, 3.0, 1.0)
        shapes["mouthShrugLower"] = shrug
        shrug = self._vector(upper * self.around_mouth(22.0, up=19.0) * middle, 0, 3.0, 1.0)
        shrug += self._vector(lower * self.around_mouth(14.0) * middle, 0, 3.0, 0.4)
        shapes["mouthShrugUpper"] = shrug

        # One-sided opening of a lip, strongest between middle and corner.
        lip_profile = np.clip(1.0 - np.abs(s) ** 2.4, 0, 1)
        lower_down = self._vector(lower * self.around_mouth(30.0) * lip_profile, 0, -7.5, -0.4)
        lower_down += self._vector(
            lower * vermilion * lip_profile * (1 - np.minimum(self.lip_row, 1)),
            0,
            0,
            0.6,
        )
        shapes |= self._two_sided("mouthLowerDown", lower_down)
        upper_up = self._vector(upper * self.around_mouth(26.0, up=22.0) * lip_profile, 0, 6.5, 0.2)
        upper_up += self._vector(self.at(19, -36, 68, 9), 0.8 * side, 2.0, 0.8)
        shapes |= self._two_sided("mouthUpperUp", upper_up)

        corners = self.corner(24.0) + self.corner(24.0, -1)
        tight = self.corner(13.0) + self.corner(13.0, -1)
        smile = self._vector(corners, 7.2 * side, 6.6, -3.6)
        smile += self._vector(self.at(34, -26, 58, 17, 15), 0.8 * side, 3.6, 3.0)
        smile += self._vector(near * (1 - middle), 0, 0.8, 0)
        shapes |= self._two_sided("mouthSmile", smile)
        frown = self._vector(corners, 1.5 * side, -6.2, -1.0)
        shapes |= self._two_sided("mouthFrown", frown)
        stretch = self._vector(corners, 8.0 * side, -1.4, -4.0)
        stretch += self._vector(lower * near * middle, 0, -0.8, -1.2)
        shapes |= self._two_sided("mouthStretch", stretch)
        dimple = self._vector(tight, 3.0 * side, 0.8, -3.6)
        dimple += self._vector(self.at(33, -52, 56, 9), 0, 0, 1.0)
        shapes |= self._two_sided("mouthDimple", dimple)
        shapes["mouthLeft"] = self._vector(wide, 8.0, 0.0, -0.15 * self.s * 8.0)
        shapes["mouthRight"] = self._vector(wide, -8.0, 0.0, 0.15 * self.s * 8.0)

        puff = self._vector(self.at(40, -50, 42, 19, 20), 8.0 * side, 0.0, 5.0)
        puff += self._vector(self.at(16, -44, 72, 9, 6), 0.5 * side, 0, 2.2)
        puff += self._vector(self.at(14, -74, 66, 10, 6), 0.5 * side, 0, 1.8)
        shapes["cheekPuff"] = puff
        shapes["tongueOut"] = np.zeros_like(self.vertices)
        return shapes

    def _brows_and_cheeks(self) -> dict[str, Array]:
        shapes: dict[str, Array] = {}
        side = self._side()
        calm = 1.0 - 0.8 * self.near_lids(9.0)  # the lids' margins stay where they are
        brow = self.at(30, 24, 58, 27, 12) * calm
        inner = self.at(9, 23, 70, 13, 13) * calm
        outer = self.at(44, 24, 48, 17, 15) * calm
        fore = self.at(18, 44, 62, 30, 16)
        shapes["browInnerUp"] = self._vector(inner, -0.8 * side, 7.0, 0.6) + self._vector(
            fore, 0, 1.8, 0
        )
        outer_up = self._vector(outer, 0.5 * side, 7.0, 0.3) + self._vector(0.35 * brow, 0, 2.0, 0)
        shapes |= self._two_sided("browOuterUp", outer_up)
        down = self._vector(brow, -1.6 * side, -3.6, 0.9) + self._vector(
            inner, -1.2 * side, -2.8, 1.0
        )
        shapes |= self._two_sided("browDown", down)
        cheek = self._vector(self.at(31, -17, 60, 18, 13) * calm, 0, 4.2, 1.8)
        shapes |= self._two_sided("cheekSquint", cheek)
        sneer = self._vector(self.at(10, -22, 80, 8, 11), 0.5 * side, 3.4, 0.6)
        sneer += self._vector(self.at(14, -40, 74, 9, 7), 0.0, 2.4, 0.6)
        sneer += self._vector(self.at(8, 10, 72, 8, 9) * calm, 0, -1.4, 0.8)
        shapes |= self._two_sided("noseSneer", sneer)
        return shapes

    # Eyes -----------------------------------------------------------------------------------

    def near_lids(self, reach: float) -> Array:
        """1 at the lids' margins."""
        topology = skin_topology()
        distance = np.full(len(self.vertices), 1e3)
        for side in (1, -1):
            for margin in (topology.lid_upper(side), topology.lid_lower(side)):
                gap = np.linalg.norm(self.vertices[:, None] - self.vertices[margin], axis=-1)
                distance = np.minimum(distance, gap.min(1))
        return bell(distance, reach)

    def lid_fields(self) -> tuple[Array, Array, Array]:
        """Place along the eye opening 0..1, and how much a vertex belongs to each lid."""
        topology = skin_topology()
        eye = Sculpture(self.identity).eye
        first, last = FRONT_X[list(EYE_COLUMNS)] + eye.center[0] - 30.8
        e = (np.abs(self.x) - first) / (last - first)
        lids = Lids(self.identity)
        y = self.vertices[:, 1]
        is_upper = np.zeros(len(y))
        rows = np.zeros(len(y))
        is_upper[topology.above[: EYE_ROW + 1]] = 1.0
        is_upper[topology.lid_lower(1)[1:-1]] = 0.0
        is_upper[topology.lid_lower(-1)[1:-1]] = 0.0
        rows[topology.below] = (np.arange(ROWS) - EYE_ROW)[:, None]
        rows[topology.above] = (np.arange(ROWS) - EYE_ROW)[:, None]
        for index, upper in zip(topology.lids, (1.0, 0.0, 1.0, 0.0), strict=True):
            is_upper[index[1:, 1:-1]] = upper
            rows[index[1:]] = 0
        beyond = np.maximum(np.maximum(-e, e - 1), 0) * (last - first)
        over = np.maximum(y - lids.upper(e), 0)
        under = np.maximum(lids.lower(e) - y, 0)
        front = self.vertices[:, 2] > 25.0
        outer = bell(beyond, 5.0) * front
        upper_field = is_upper * outer * (1 - smoothstep(0.5, 12.5, over))
        lower_field = (1 - is_upper) * outer * (1 - smoothstep(0.0, 12.0, under))
        return np.clip(e, 0, 1), upper_field, lower_field

    def _eyelids(self) -> dict[str, Array]:
        eye = Sculpture(self.identity).eye
        lids = Lids(self.identity)
        e, upper_field, lower_field = self.lid_fields()
        side = self._side()
        side[side == 0] = 1.0
        center = np.stack(
            [side * eye.center[0], 0 * side + eye.center[1], 0 * side + eye.center[2]],
            -1,
        )
        top, bottom = lids.upper(e), lids.lower(e)
        opening = top - bottom
        closed = bottom + 0.18 * opening  # where the closed lids meet

        def turned(dy: Array) -> Array:
            """Displacement of lid skin that slides over the ball until its height changed by dy."""
            arm = self.vertices - center
            level = np.hypot(arm[:, 1], arm[:, 2])
            target = np.clip(arm[:, 1] + dy, -0.98 * level, 0.98 * level)
            forward = np.sqrt(level**2 - target**2)
            slide = np.stack([0 * dy, target - arm[:, 1], forward - arm[:, 2]], -1)
            return np.where((dy != 0)[:, None], slide, 0.0)

        def lid_shape(upper_dy: Array, lower_dy: Array) -> Array:
            return turned(upper_dy * upper_field) + turned(lower_dy * lower_field)

        zero = 0 * e
        shapes: dict[str, Array] = {}
        shapes |= self._two_sided("eyeBlink", lid_shape(closed - top, closed - bottom))
        squint = lid_shape(-0.16 * opening, 0.30 * opening)
        squint += self._vector(self.at(30, -14, 60, 18, 9) * (1 - lower_field), 0, 2.0, 1.2)
        shapes |= self._two_sided("eyeSquint", squint)
        shapes |= self._two_sided("eyeWide", lid_shape(0.24 * opening, -0.07 * opening))
        shapes |= self._two_sided("eyeLookDown", lid_shape(-0.34 * opening, -0.10 * opening))
        shapes |= self._two_sided("eyeLookUp", lid_shape(0.13 * opening, 0.08 * opening))
        shapes |= self._two_sided("eyeLookIn", lid_shape(zero, zero))
        shapes |= self._two_sided("eyeLookOut", lid_shape(zero, zero))
        return shapes


@lru_cache(maxsize=1)
def lid_vertices() -> dict[int, NDArray[np.int64]]:
    """Skin vertices that must not enter the eyeball, for the left (+1) and right (-1) eye."""
    topology = skin_topology()
    found = {}
    for side, pair in ((1, topology.lids[:2]), (-1, topology.lids[2:])):
        columns = [column(side * x) for x in range(5, 23)]
        rows = range(EYE_ROW - 8, EYE_ROW + 8)
        skin = np.concatenate(
            [
                topology.above[rows][:, columns].ravel(),
                topology.below[rows][:, columns].ravel(),
            ]
        )
        found[side] = np.unique(np.concatenate([skin, pair[0][0], pair[1][0]]))
    return found
