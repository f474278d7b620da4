"""What every head offers, the procedural one and heads that users bring (FLAME files)."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


class Region(IntEnum):
    """What a face of the mesh, and so a pixel of a region image, belongs to."""

    BACKGROUND = 0
    SKIN = 1
    LIPS = 2
    EYEBALLS = 3
    EYELASHES = 4
    TEETH = 5
    TONGUE = 6
    MOUTH_INTERIOR = 7
    HAIR = 8
    NECK = 9
    CLOTHES = 10


HEAD_REGIONS = frozenset(Region) - {Region.BACKGROUND, Region.CLOTHES}
"""Regions that lie inside ±0.15 of head space; clothes belong to the plate behind the head."""

INSIDE_MOUTH_REGIONS = frozenset({Region.TEETH, Region.TONGUE, Region.MOUTH_INTERIOR})
"""Regions that only an open mouth shows."""

JOINT_NAMES = ("root", "neck", "jaw", "eye_left", "eye_right")

IdentityT_contra = TypeVar("IdentityT_contra", contravariant=True)


class HeadModel(Protocol[IdentityT_contra]):
    """A head with fixed topology, deformed by identity, expression and joints.

    Space: right-handed, metres, +y up, the face looks along +z, +x is the subject's left.
    """

    def __hash__(self) -> int:
        """Models are keys of what is worked out once per model and identity."""

    @property
    def faces(self) -> IntArray:
        """[F,3] vertex indices, counter-clockwise seen from outside."""

    @property
    def uvs(self) -> FloatArray:
        """[U,2] texture coordinates in 0..1, one atlas without overlaps, v up."""

    @property
    def uv_faces(self) -> IntArray:
        """[F,3] indices into ``uvs``, corner by corner those of ``faces``."""

    @property
    def face_regions(self) -> NDArray[np.uint8]:
        """[F] :class:`Region` of every face."""

    @property
    def vertex_regions(self) -> NDArray[np.uint8]:
        """[V] :class:`Region` of every vertex."""

    @property
    def expression_names(self) -> tuple[str, ...]:
        """Names of the E expression weights, the ARKit names where the model has them."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J joints, parents before children."""

    @property
    def skin_weights(self) -> FloatArray:
        """[V,J] weights of linear blend skinning; rows sum to one."""

    @property
    def landmarks(self) -> IntArray:
        """[68] vertex indices in the order of iBUG 300-W; the subject's right comes first."""

    @property
    def strand_neighbours(self) -> IntArray:
        """[V,2] vertices before and after a vertex along its strand of hair, else itself twice."""

    def template(self, identity: IdentityT_contra) -> FloatArray:
        """[V,3] vertices at rest."""

    def expression_basis(self, identity: IdentityT_contra) -> FloatArray:
        """[E,V,3] displacement of every expression at weight one."""

    def vertices(
        self,
        identity: IdentityT_contra,
        expression: NDArray[np.floating] | None = None,
        joints: NDArray[np.floating] | None = None,
    ) -> FloatArray:
        """[V,3] vertices of an expression [E] under joint rotations [J,3] (axis-angle, radians)."""

    def texture(self, identity: IdentityT_contra) -> FloatArray:
        """[H,W,3] colours of the atlas, sRGB 0..1, first row at v = 1."""
