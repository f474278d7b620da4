"""All pieces of the procedural head, and their one topology."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType

from talksplat_export.heads import features, hair, skin
from talksplat_export.heads.parts import Part, joined

PIECES: MappingProxyType[str, Callable[[], Part]] = MappingProxyType(
    {
        "skin": lambda: skin.skin_topology().part,
        "eye_left": lambda: features.eye_part(1),
        "eye_right": lambda: features.eye_part(-1),
        "lashes_left": lambda: features.lash_part(1),
        "lashes_right": lambda: features.lash_part(-1),
        "teeth_upper": lambda: features.teeth_part(1),
        "teeth_lower": lambda: features.teeth_part(-1),
        "tongue": features.tongue_part,
        "ear_left": lambda: features.ear_part(1),
        "ear_right": lambda: features.ear_part(-1),
        "hair": hair.hair_part,
        "clothes": features.clothes_part,
    }
)
"""In the order of their vertices and faces."""


@lru_cache(maxsize=1)
def head_topology() -> Part:
    """The whole head: the pieces' vertices, faces and texture coordinates counted through."""
    return joined([part() for part in PIECES.values()])


@lru_cache(maxsize=1)
def piece_vertices() -> MappingProxyType[str, slice]:
    """Vertices of every piece."""
    slices, start = {}, 0
    for name, part in PIECES.items():
        stop = start + part().vertex_count
        slices[name] = slice(start, stop)
        start = stop
    return MappingProxyType(slices)


@lru_cache(maxsize=1)
def piece_faces() -> MappingProxyType[str, slice]:
    """Faces of every piece."""
    slices, start = {}, 0
    for name, part in PIECES.items():
        stop = start + len(part().faces)
        slices[name] = slice(start, stop)
        start = stop
    return MappingProxyType(slices)
