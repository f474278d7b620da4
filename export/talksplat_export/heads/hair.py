"""Hair: a sculpted shell over the scalp and a curtain below it, one topology for every style.

Rows run from the crown along the strands, so that the columns of the grid are the strands'
direction for shading. A bald head keeps the shell inside its skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.identity import HairStyle, Identity
from talksplat_export.heads.model import Region
from talksplat_export.heads.parts import (
    Chart,
    Part,
    bell,
    grid_part,
    ring_index,
    smoothstep,
)
from talksplat_export.heads.sculpture import Sculpture

Array = NDArray[np.float64]

HAIR_CHART = Chart(0.702, 0.002, 0.998, 0.328)
SEGMENTS = 80
CAP_ROWS = 18
CURTAIN_ROWS = 10
RETURN_ROWS = 3
ROWS = CAP_ROWS + CURTAIN_ROWS + RETURN_ROWS
SCALP_CENTER = np.array([0.0, 25.0, -12.0])

# Hairline: degrees around from the front, degrees down from the crown.
HAIRLINE = np.array(
    [(0, 57), (18, 56), (32, 57), (44, 60), (54, 67), (62, 80), (69, 96), (76, 107), (86, 108),
     (94, 101), (104, 101), (115, 116), (132, 131), (155, 137), (180, 138)], float
)  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """A hair style: thicknesses in mm."""

    top: float
    sides: float
    nape: float
    quiff: float = 0.0  # extra at the front
    locks: float = 1.0  # depth of the grooves between locks
    curl: float = 0.0  # depth of bumps
    length: float | None = None  # height at which the curtain ends
    fullness: float = 0.0  # the curtain's distance from the head
    bun: bool = False
    recede: float = 0.0  # degrees that the hairline stands higher
    fringe: float = 0.0  # degrees that hair sweeps down over one side of the forehead


CUTS: dict[HairStyle, Cut | None] = {
    "bald": None,
    "short": Cut(top=13, sides=6.5, nape=4, quiff=9, locks=1.5),
    "crop": Cut(top=6, sides=4, nape=3, locks=0.5, curl=0.7, recede=2),
    "bob": Cut(
        top=12,
        sides=14,
        nape=14,
        quiff=4,
        locks=1.6,
        length=-84.0,
        fullness=18,
        fringe=11,
    ),
    "bun": Cut(top=6, sides=4.5, nape=5, quiff=2, locks=0.9, bun=True),
    "curls": Cut(top=26, sides=22, nape=16, quiff=2, locks=0.0, curl=3.4),
}


@lru_cache(maxsize=1)
def hair_part() -> Part:
    return grid_part(ring_index(ROWS, SEGMENTS, pole=True), HAIR_CHART, Region.HAIR)


@lru_cache(maxsize=1)
def strand_neighbours() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every hair vertex the vertices before and after it along its strand."""
    rows = ring_index(ROWS, SEGMENTS, pole=True)[:, :-1]
    before = np.concatenate([rows[:1], rows[:-1]])
    after = np.concatenate([rows[1:], rows[-1:]])
    first = np.zeros(hair_part().vertex_count, np.int64)
    second = first.copy()
    first[rows], second[rows] = before, after
    second[0] = rows[1, 0]
    return first, second


def hairline_degrees(around: Array, identity: Identity) -> Array:
    """Degrees down from the crown at which hair ends, ``around`` in radians from the front."""
    cut = CUTS[identity.hair_style]
    degrees = np.degrees(np.abs(around))
    line = np.interp(degrees, HAIRLINE[:, 0], HAIRLINE[:, 1])
    # The table's corners are rounded off.
    for shift in (-6, 6):
        line = line + 0.5 * np.interp(np.abs(degrees + shift), HAIRLINE[:, 0], HAIRLINE[:, 1])
    recede = cut.recede if cut else 0.0
    fringe = cut.fringe if cut else 0.0
    swept = bell(np.degrees(around) + 34.0, 34) - 0.25 * bell(np.degrees(around) - 22.0, 16)
    return np.asarray(line / 2 - recede * bell(degrees, 60) + fringe * swept)


def _locks(around: Array, along: Array | float, seed: int) -> Array:
    """Locks: ridges along the strands, about -1..1, periodic around the head."""
    rng = np.random.default_rng(seed)
    total = np.zeros(np.broadcast(around, along).shape)
    for waves, weight in ((5, 0.5), (8, 0.7), (13, 0.8), (17, 0.6)):
        phase, twist = rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5)
        total += weight * np.cos(waves * around + phase + twist * along)
    return total / 1.5


def place_hair(identity: Identity) -> Array:
    """[V,3] vertices of the hair."""
    cut = CUTS[identity.hair_style]
    around = np.pi + 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    around = np.arctan2(np.sin(around), np.cos(around))[None, :]
    line = hairline_degrees(around, identity)
    if cut is not None and cut.length is not None:
        line = np.minimum(line, 100.0)  # below hangs the curtain
    line = np.radians(line)
    along = np.arange(1, CAP_ROWS)[:, None] / (CAP_ROWS - 2)
    polar = np.where(along <= 1.0, np.minimum(along, 1.0) ** 0.92 * line, line + np.radians(2.5))
    level = np.sin(polar)
    outward = np.stack(
        [level * np.sin(around), np.cos(polar) + 0 * around, level * np.cos(around)], -1
    )
    scalp = Sculpture(identity).surface(np.broadcast_to(SCALP_CENTER, outward.shape), outward)

    if cut is None:
        cap = scalp - 7.0 * outward
        curtain = _hidden(cap[-1] - 2.0 * outward[-1], outward[-1])
    else:
        cap = _cap(cut, identity, scalp, outward, around, along, polar)
        curtain = _hidden(scalp[-1] - 9.0 * outward[-1], outward[-1])
        if cut.bun:
            curtain = _bun(around)
        elif cut.length is not None:
            # Columns over the face keep no curtain: it slips under the skin there.
            shown = smoothstep(0.0, 0.5, _has_curtain(around[0]))[:, None]
            curtain = curtain + (_curtain(cut, identity, cap[-1], around[0]) - curtain) * shown
    pole = cap[:1].mean(1)
    return np.concatenate([pole, cap.reshape(-1, 3), curtain.reshape(-1, 3)])


def _hidden(start: Array, outward: Array) -> Array:
    """Rows of a curtain that is not worn, kept small inside the head."""
    rows = np.arange(CURTAIN_ROWS + RETURN_ROWS)[:, None, None]
    return np.asarray(start - 0.001 * rows * outward)


def _has_curtain(around: Array) -> Array:
    return smoothstep(50, 66, np.degrees(np.abs(around)))


def _cap(
    cut: Cut,
    identity: Identity,
    scalp: Array,
    outward: Array,
    around: Array,
    along: Array,
    polar: Array,
) -> Array:
    """The shell over the scalp: thickness by place, locks and curls, and a rounded edge."""
    down = np.degrees(polar)
    thickness = cut.sides + (cut.top - cut.sides) * (1 - smoothstep(35, 75, down))
    nape = smoothstep(90, 125, np.degrees(np.abs(around)))
    thickness = thickness + (cut.nape - cut.sides) * nape * smoothstep(60, 110, down)
    front = bell(np.degrees(around) - 10.0, 45)
    thickness = thickness + cut.quiff * front * smoothstep(15, 42, down)
    locks = _locks(around, 2.5 * along, identity.seed + 1)
    thickness = thickness + cut.locks * locks * smoothstep(0.1, 0.5, along)
    if cut.curl:
        bumps = np.cos(15 * around + 2.0 * np.sin(9 * along)) * np.cos(
            22 * along + 1.5 * np.sin(5 * around)
        )
        bumps = bumps + 0.6 * np.cos(9 * around + 31 * along)
        thickness = thickness + cut.curl * bumps * smoothstep(0.05, 0.25, along)
    edge = np.sqrt(np.clip(1 - np.minimum(along, 1.0) ** 7, 0, 1))
    open_below = np.zeros_like(around) if cut.length is None else _has_curtain(around)
    edge = edge + (1 - edge) * open_below
    # The last row dives under the skin where no curtain follows.
    thickness = thickness * edge + np.where(along > 1, -4.0 * (1 - open_below), 0.6)
    return np.asarray(scalp + thickness[..., None] * outward)


def _curtain(cut: Cut, identity: Identity, start: Array, around: Array) -> Array:
    """Hair that hangs from the cap's last row, on an ellipse around the neck, and turns in."""
    assert cut.length is not None
    end = cut.length + 5 * np.abs(np.sin(2.0 * around))
    rows = []
    for fall in np.arange(1, CURTAIN_ROWS + 1) / CURTAIN_ROWS:
        swell = np.sin(np.pi * np.minimum(fall * 0.95 + 0.05, 1.0)) ** 0.7
        tuck = -7.0 * smoothstep(0.75, 1.0, fall)
        radius_x = 64 + cut.fullness * (0.75 + 0.25 * swell) + tuck
        radius_z = 72 + cut.fullness * (0.6 + 0.2 * swell) + tuck - 14 * fall
        groove = 1.0 + 0.020 * cut.locks * _locks(around, 2.5 + 1.2 * fall, identity.seed + 1)
        hang = smoothstep(0, 0.5, fall)
        x = start[:, 0] + (radius_x * np.sin(around) * groove - start[:, 0]) * hang
        y = start[:, 1] + (end - start[:, 1]) * fall
        z = start[:, 2] + (-14.0 + radius_z * np.cos(around) * groove - start[:, 2]) * hang
        rows.append(np.stack([x, y, z], -1))
    hem = rows[-1]
    for inward, rise in ((0.90, 4.0), (0.80, 16.0), (0.72, 40.0)):
        axis = np.array([0.0, 0.0, -14.0])
        rows.append(axis + (hem - axis) * (inward, 1, inward) + (0, rise, 0))
    return np.stack(rows)


def _bun(around: Array) -> Array:
    """The curtain's rows rolled to a knot at the back of the crown."""
    rows = CURTAIN_ROWS + RETURN_ROWS
    center = np.array([0.0, 102.0, -58.0])
    axis = np.array([0.0, 0.80, -0.60])
    right = np.array([1.0, 0, 0])
    up = np.cross(right, axis)
    # All but a point at the end, so that no face is without area.
    angle = np.linspace(-0.35 * np.pi, 0.499 * np.pi, rows)[:, None]
    spiral = 1.0 + 0.05 * np.cos(5 * around + 6 * angle)
    radius = 24.0 * np.cos(angle) * spiral
    height = 17.0 * np.sin(angle)
    across = np.cos(around)[..., None] * right + np.sin(around)[..., None] * up
    return np.asarray(center + radius[..., None] * across + (height + 0 * around)[..., None] * axis)
