"""Which vertices of the procedural head stand for the 5023 points that SDTalk is given.

SDTalk takes the vertices of FLAME, whose model is licensed and not part of this project. FLAME's
order is 3931 vertices of skin and then 546 of each eyeball, the subject's left one first; the
points here keep those counts and that order. Among the skin's, vertices of the procedural head's
face, lips, lids and neck are taken evenly in their own order. What is alike is where a point lies:
on the eyeball, the lips, the lids. Which of FLAME's vertices it is nobody can say, so a published
checkpoint, which has learned something about every vertex, needs a person tracked with FLAME.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.model import FloatArray, Region
from talksplat_export.heads.pieces import piece_vertices
from talksplat_export.heads.procedural import ProceduralHead

SKIN_POINTS, EYEBALL_POINTS = 3931, 546
HEAD_POINTS = SKIN_POINTS + 2 * EYEBALL_POINTS

_EYE_REGION = 0.024  # metres around the eyeball's centre


@dataclass(frozen=True)
class HeadPoints:
    """``vertices`` [5023] of the procedural head; ``mask`` [M], those that SDTalk draws: left
    eyeball, right eyeball, right eye region, lips, left eye region."""

    vertices: NDArray[np.int64]
    mask: NDArray[np.int64]


def select_points(head: ProceduralHead, template: FloatArray) -> HeadPoints:
    """The correspondence; ``template`` [V,3] is a head at rest."""
    pieces = piece_vertices()
    outside = np.isin(head.vertex_regions, [Region.SKIN, Region.LIPS, Region.NECK])
    skin = np.flatnonzero(outside)
    kept = skin[_evenly(len(skin), SKIN_POINTS)]
    eyes = [np.arange(pieces[name].start, pieces[name].stop) for name in ("eye_left", "eye_right")]
    balls = [eye[_evenly(len(eye), EYEBALL_POINTS)] for eye in eyes]
    vertices = np.concatenate([kept, *balls])
    left, right = (
        np.arange(SKIN_POINTS + i * EYEBALL_POINTS, SKIN_POINTS + (i + 1) * EYEBALL_POINTS)
        for i in range(2)
    )
    around = [
        np.flatnonzero(
            np.linalg.norm(template[kept] - template[eye].mean(axis=0), axis=1) < _EYE_REGION
        )
        for eye in eyes
    ]
    lips = np.flatnonzero(head.vertex_regions[kept] == Region.LIPS)
    return HeadPoints(vertices, np.concatenate([left, right, around[1], lips, around[0]]))


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """``wanted`` indices of ``count``, in order; some twice where there are fewer."""
    return np.arange(wanted) * count // wanted
