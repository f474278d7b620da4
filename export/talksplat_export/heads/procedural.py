"""The procedural head: a licence-free parametric head that plays FLAME's role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads import appearance, expressions, features, hair, skin
from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES
from talksplat_export.heads.identity import Identity
from talksplat_export.heads.model import JOINT_NAMES, FloatArray, IntArray, Region
from talksplat_export.heads.parts import smoothstep
from talksplat_export.heads.pieces import PIECES, head_topology, piece_vertices
from talksplat_export.heads.sculpture import Sculpture

Array = NDArray[np.float64]

ROOT, NECK, JAW, EYE_LEFT, EYE_RIGHT = range(len(JOINT_NAMES))
JOINT_PARENTS = (-1, ROOT, NECK, NECK, NECK)
GAZE_RADIANS = {
    "In": np.radians(28),
    "Out": np.radians(28),
    "Up": np.radians(22),
    "Down": np.radians(24),
}


@dataclass(frozen=True)
class _Shape:
    """What an identity fixes, in metres."""

    template: FloatArray
    basis: FloatArray  # [52,V,3]
    joints: Array  # [J,3] rest positions
    eye_radius: float


@lru_cache(maxsize=8)
def _shape(identity: Identity) -> _Shape:
    pieces = piece_vertices()
    topology = skin.skin_topology()
    surface = skin.skin_vertices(identity)
    middle = surface[topology.lip_upper[skin.MOUTH_COLUMN]]
    placed = {"skin": surface}
    for side, name in ((1, "left"), (-1, "right")):
        placed[f"eye_{name}"] = features.place_eye(identity, side)
        margin = surface[topology.lid_upper(side)]
        placed[f"lashes_{name}"] = features.place_lashes(identity, side, margin)
        placed[f"ear_{name}"] = features.place_ear(identity, side)
    placed["teeth_upper"] = features.place_teeth(identity, 1, middle)
    placed["teeth_lower"] = features.place_teeth(identity, -1, middle)
    placed["tongue"] = features.place_tongue(identity, middle)
    placed["hair"] = hair.place_hair(identity)
    placed["clothes"] = features.place_clothes(identity)
    template = np.concatenate([placed[name] for name in PIECES])

    basis = np.zeros((len(ARKIT_NAMES), len(template), 3))
    shapes = expressions.SkinShapes(identity, surface)
    for name, displacement in shapes.all().items():
        basis[ARKIT_INDEX[name], pieces["skin"]] = displacement
    _carry_lashes(basis, pieces)
    _carry_jaw(basis, pieces, template)
    _tongue_out(basis, pieces)

    eye = Sculpture(identity).eye
    left = np.array(eye.center)
    joints = np.array(
        [(0, -160, -34), (0, -92, -34), expressions.JAW_HINGE, left, left * (-1, 1, 1)]
    )
    scale = 1e-3
    return _Shape(
        (template * scale).astype(np.float32),
        (basis * scale).astype(np.float32),
        joints * scale,
        eye.radius * scale,
    )


@lru_cache(maxsize=8)
def _texture(identity: Identity) -> FloatArray:
    return appearance.texture(identity, _shape(identity).template * 1e3)


def _carry_lashes(basis: Array, pieces: Mapping[str, slice]) -> None:
    """Lashes ride on the upper lid's margin and turn down with it."""
    weights = features.lash_margin()
    for side, name in ((1, "left"), (-1, "right")):
        margin = skin.skin_topology().lid_upper(side)
        moved = np.einsum("lm,emk->elk", weights, basis[:, margin])
        count = features.LASH_COLUMNS
        target = basis[:, pieces[f"lashes_{name}"]]
        turn = moved[..., 1:2] * np.array([0.0, 0.42, 0.12])
        turn = np.where(moved[..., 1:2] < 0, turn, 0.0) * (1, 1, -0.5)
        for row, share in ((0, 0.0), (1, 0.35), (2, 1.0)):
            target[:, row * count : (row + 1) * count] = moved + share * turn


def _carry_jaw(basis: Array, pieces: Mapping[str, slice], template: Array) -> None:
    """Lower teeth and tongue are fixed to the jaw."""
    rotation = expressions.rotation_about_x(expressions.JAW_OPEN_RADIANS)
    for name, share in (("teeth_lower", 1.0), ("tongue", 0.88)):
        arm = template[pieces[name]] - expressions.JAW_HINGE
        basis[ARKIT_INDEX["jawOpen"], pieces[name]] = share * (arm @ rotation.T - arm)
        for shape, motion in (
            ("jawForward", (0, -0.5, 6)),
            ("jawLeft", (7, 0, 0)),
            ("jawRight", (-7, 0, 0)),
        ):
            basis[ARKIT_INDEX[shape], pieces[name]] = motion


def _tongue_out(basis: Array, pieces: Mapping[str, slice]) -> None:
    along = features.tongue_along()
    tip = 1 - smoothstep(0.0, 0.95, along)
    basis[ARKIT_INDEX["tongueOut"], pieces["tongue"]] = np.stack(
        [0 * tip, 7.0 * tip, 26.0 * tip], -1
    )


def rotation_matrix(axis_angle: Array) -> Array:
    """Rotation [3,3] of a vector whose length is the angle in radians (Rodrigues)."""
    angle = float(np.linalg.norm(axis_angle))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis_angle / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k))


class ProceduralHead:
    """A :class:`~talksplat_export.heads.model.HeadModel` of :class:`Identity` parameters.

    Expressions are the 52 ARKit weights. The eyeLook weights turn the eyeballs, too: they add to
    the eyes' joints. Lids slide over the eyeballs: where the sum of blendshapes would enter a
    ball, the skin is kept outside.
    """

    expression_names = ARKIT_NAMES
    joint_names = JOINT_NAMES
    joint_parents = JOINT_PARENTS

    def __init__(self) -> None:
        topology = head_topology()
        self.faces: IntArray = topology.faces.astype(np.int32)
        self.uvs: FloatArray = topology.uvs.astype(np.float32)
        self.uv_faces: IntArray = topology.uv_faces.astype(np.int32)
        self.face_regions = topology.face_regions.astype(np.uint8)
        vertex_regions = np.zeros(topology.vertex_count, np.uint8)
        # Where regions meet the lips win, then the later region.
        for region in (*Region, Region.LIPS):
            vertex_regions[self.faces[self.face_regions == region]] = region
        self.vertex_regions = vertex_regions
        self.skin_weights = _skin_weights()
        self.landmarks = _landmarks()
        self.strand_neighbours = _strand_neighbours()

    def template(self, identity: Identity) -> FloatArray:
        """[V,3] vertices at rest, metres."""
        return _shape(identity).template

    def expression_basis(self, identity: Identity) -> FloatArray:
        """[52,V,3] displacements, metres; the turn of the eyeballs is not in them."""
        return _shape(identity).basis

    def joint_positions(self, identity: Identity) -> Array:
        """[J,3] joints at rest, metres."""
        return _shape(identity).joints

    def vertices(
        self,
        identity: Identity,
        expression: NDArray[np.floating] | None = None,
        joints: NDArray[np.floating] | None = None,
    ) -> FloatArray:
        """[V,3] vertices of an expression [52] under joint rotations [5,3], metres."""
        shape = _shape(identity)
        weights = np.zeros(len(ARKIT_NAMES)) if expression is None else np.asarray(expression)
        rotations = np.zeros((len(JOINT_NAMES), 3)) if joints is None else np.array(joints, float)
        active = np.flatnonzero(weights)
        vertices = shape.template.astype(np.float64)
        if len(active):
            vertices += np.tensordot(weights[active], shape.basis[active], 1)
            self._keep_lids_outside(vertices, shape)
        rotations = rotations + _gaze(weights)
        if not rotations.any():
            return vertices.astype(np.float32)
        return self._skinned(vertices, shape, rotations).astype(np.float32)

    def texture(self, identity: Identity) -> FloatArray:
        """[1024,1024,3] colours of the atlas, sRGB 0..1, first row at v = 1."""
        return _texture(identity)

    @staticmethod
    def _keep_lids_outside(vertices: Array, shape: _Shape) -> None:
        for side, lids in expressions.lid_vertices().items():
            center = shape.joints[EYE_LEFT if side > 0 else EYE_RIGHT]
            rest = np.linalg.norm(shape.template[lids] - center, axis=-1)
            clearance = np.minimum(rest, shape.eye_radius * 1.085)
            arm = vertices[lids] - center
            length = np.linalg.norm(arm, axis=-1)
            push = np.maximum(clearance / length, 1.0)
            vertices[lids] = center + arm * push[:, None]

    def _skinned(self, vertices: Array, shape: _Shape, rotations: Array) -> Array:
        transforms: list[tuple[Array, Array]] = []
        for joint, parent in enumerate(JOINT_PARENTS):
            rotation = rotation_matrix(rotations[joint])
            position = shape.joints[joint]
            offset = position - rotation @ position
            if parent >= 0:
                above, shift = transforms[parent]
                rotation, offset = above @ rotation, above @ offset + shift
            transforms.append((rotation, offset))
        result = np.zeros_like(vertices)
        for joint, (rotation, offset) in enumerate(transforms):
            weight = self.skin_weights[:, joint, None]
            moved = np.flatnonzero(weight)
            result[moved] += weight[moved] * (vertices[moved] @ rotation.T + offset)
        return result


def _gaze(weights: Array) -> Array:
    """Rotations [J,3] of the eyes from the eyeLook weights."""
    rotations = np.zeros((len(JOINT_NAMES), 3))
    for joint, name, outward in ((EYE_LEFT, "Left", 1.0), (EYE_RIGHT, "Right", -1.0)):
        amount = {
            way: weights[ARKIT_INDEX[f"eyeLook{way}{name}"]] * GAZE_RADIANS[way]
            for way in GAZE_RADIANS
        }
        rotations[joint] = (
            amount["Down"] - amount["Up"],
            outward * (amount["Out"] - amount["In"]),
            0.0,
        )
    return rotations


@lru_cache(maxsize=1)
def _skin_weights() -> FloatArray:
    """[V,5] of the average head."""
    pieces = piece_vertices()
    shape = Identity()
    surface = skin.skin_vertices(shape)
    weights = np.zeros((head_topology().vertex_count, len(JOINT_NAMES)))
    weights[:, NECK] = 1.0
    y = surface[:, 1]
    neck = smoothstep(-150.0, -100.0, y)
    jaw = expressions.SkinShapes(shape, surface).jaw
    weights[pieces["skin"]] = 0.0
    weights[pieces["skin"], ROOT] = 1.0 - neck
    weights[pieces["skin"], JAW] = neck * jaw
    weights[pieces["skin"], NECK] = neck * (1.0 - jaw)
    for name, joint in (
        ("eye_left", EYE_LEFT),
        ("eye_right", EYE_RIGHT),
        ("teeth_lower", JAW),
        ("tongue", JAW),
        ("clothes", ROOT),
    ):
        weights[pieces[name]] = np.eye(len(JOINT_NAMES))[joint]
    weights /= weights.sum(1, keepdims=True)
    return weights.astype(np.float32)


@lru_cache(maxsize=1)
def _strand_neighbours() -> IntArray:
    neighbours = np.repeat(np.arange(head_topology().vertex_count)[:, None], 2, axis=1)
    strands = piece_vertices()["hair"]
    neighbours[strands] = np.stack(hair.strand_neighbours(), -1) + strands.start
    return neighbours.astype(np.int32)


@lru_cache(maxsize=1)
def _landmarks() -> IntArray:
    """The 68 points of iBUG 300-W as vertices of the skin, the nearest to where they belong."""
    topology = skin.skin_topology()
    surface = skin.skin_vertices(Identity())
    outside = np.unique(np.concatenate([topology.above.ravel(), topology.below.ravel()]))

    def nearest(x: float, y: float, z: float | None = None) -> int:
        points = surface[outside]
        d = (points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2
        d = d + ((points[:, 2] - z) ** 2 if z is not None else 1e6 * (points[:, 2] < 20))
        return int(outside[np.argmin(d)])

    found: list[int] = []
    jaw = [
        (66, 4, 2),
        (65, -12, 3),
        (63, -28, 6),
        (59, -44, 10),
        (53, -60, 18),
        (45, -75, 28),
        (33, -88, 40),
        (17, -97, 54),
    ]
    found += (
        [nearest(-x, y, z) for x, y, z in jaw]
        + [nearest(0, -99, 60)]
        + [nearest(*p) for p in jaw[::-1]]
    )
    brow = [(48, 20), (41, 24), (33, 26), (24, 25), (15, 22)]
    found += [nearest(-x, y) for x, y in brow] + [nearest(x, y) for x, y in brow[::-1]]
    found += [nearest(0, y) for y in (8, -3, -14, -25)]
    found += [nearest(x, -34) for x in (-13, -7, 0, 7, 13)]
    for side in (-1, 1):
        upper, lower = topology.lid_upper(side), topology.lid_lower(side)
        n = len(upper) - 1
        # From the image's left to its right: the right eye starts at its outer corner.
        ring = [
            upper[n],
            upper[2 * n // 3],
            upper[n // 3],
            upper[0],
            lower[n // 3],
            lower[2 * n // 3],
        ]
        if side > 0:
            ring = [
                upper[0],
                upper[n // 3],
                upper[2 * n // 3],
                upper[n],
                lower[2 * n // 3],
                lower[n // 3],
            ]
        found += [int(v) for v in ring]
    c = skin.column
    border = skin.LIP_ROWS
    m = skin.MOUTH_COLUMN
    found += [int(topology.above[skin.MOUTH_ROW, c(-m)])]
    found += [int(topology.above[skin.MOUTH_ROW - border, c(x)]) for x in (-7, -3, 0, 3, 7)]
    found += [int(topology.above[skin.MOUTH_ROW, c(m)])]
    found += [int(topology.above[skin.MOUTH_ROW + border, c(x)]) for x in (7, 3, 0, -3, -7)]
    found += [int(topology.lip_upper[m + x]) for x in (-9, -4, 0, 4, 9)]
    found += [int(topology.lip_lower[m + x]) for x in (4, 0, -4)]
    return np.array(found, np.int32)
