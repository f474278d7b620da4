"""Triangle meshes on the screen: a z-buffer with triangle ids and barycentrics.

The rules are those of graphics hardware: pixel (i, j) is sampled at (i + 0.5, j + 0.5) with y
down, x and y are snapped to 1/256 pixel, a pixel centre on a shared edge belongs to exactly one
of the two triangles (top-left rule), both windings are drawn. The smaller depth wins, at equal
depths the smaller face index. Same input, same output, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat import _native
from talksplat.errors import InputError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


def rasterize_mesh(
    positions: ArrayLike, faces: ArrayLike, width: int, height: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Find the nearest triangle of every pixel.

    Args:
        positions: [V,3] x and y in pixels, z depth (smaller is nearer); or [V,4] with w > 0 (the
            distance along the camera's axis), then barycentrics and depth are
            perspective-correct. Nothing is clipped: leave out what is behind the camera.
        faces: [F,3] vertex indices.
        width, height: size of the image in pixels.

    Returns:
        ``face_ids`` [H,W] int32, -1 where empty; ``barycentrics`` [H,W,3] float32, 0 where empty;
        ``depth`` [H,W] float32, z interpolated with the barycentrics, infinity where empty.

    Raises:
        InputError: a shape, a size, an index or a coordinate is out of range.
    """
    positions, faces = _checked_mesh(positions, faces)
    _check_size(width, height)
    face_ids = np.empty((height, width), np.int32)
    barycentrics = np.empty((height, width, 3), np.float32)
    depth = np.empty((height, width), np.float32)
    _native.mesh_rasterize(positions, faces, face_ids, barycentrics, depth)
    return face_ids, barycentrics, depth


def interpolate(
    faces: ArrayLike, face_ids: ArrayLike, barycentrics: ArrayLike, attributes: ArrayLike
) -> FloatArray:
    """Per-vertex attributes at places of the mesh, such as the covered pixels of an image.

    Args:
        faces: [F,3] vertex indices.
        face_ids: [N] the face of every place, 0..F-1.
        barycentrics: [N,3].
        attributes: [V,D] float32.

    Returns:
        [N,D] float32.

    Raises:
        InputError: shapes do not belong together, or an index is out of range.
    """
    faces = np.ascontiguousarray(faces, np.int32)
    face_ids = np.ascontiguousarray(face_ids, np.int32)
    barycentrics = np.ascontiguousarray(barycentrics, np.float32)
    attributes = np.ascontiguousarray(attributes, np.float32)
    if faces.ndim != 2 or faces.shape[1] != 3 or attributes.ndim != 2:
        raise InputError(
            f"faces must be [F,3] and attributes [V,D], found {faces.shape} and {attributes.shape}."
        )
    if face_ids.ndim != 1 or barycentrics.shape != (len(face_ids), 3):
        raise InputError(
            "face_ids must be [N] and barycentrics [N,3], found "
            f"{face_ids.shape} and {barycentrics.shape}."
        )
    if faces.size and not (faces.min() >= 0 and faces.max() < len(attributes)):
        raise InputError(f"faces must index {len(attributes)} vertices.")
    if face_ids.size and not (face_ids.min() >= 0 and face_ids.max() < len(faces)):
        raise InputError(f"face_ids must lie in 0..{len(faces) - 1}; leave out empty pixels.")
    out = np.empty((len(face_ids), attributes.shape[1]), np.float32)
    _native.mesh_interpolate(faces, face_ids, barycentrics, attributes, out)
    return out


def render_attributes(
    positions: ArrayLike,
    faces: ArrayLike,
    attributes: ArrayLike,
    width: int,
    height: int,
    background: ArrayLike = 0.0,
) -> FloatArray:
    """Interpolate per-vertex attributes over the nearest triangle of every pixel.

    Args:
        positions, faces, width, height: as in :func:`rasterize_mesh`.
        attributes: [V,D] float32.
        background: what empty pixels hold; anything that broadcasts to [H,W,D].

    Returns:
        [H,W,D] float32.

    Raises:
        InputError: as in :func:`rasterize_mesh`, or attributes do not belong to the vertices.
    """
    positions, faces = _checked_mesh(positions, faces)
    _check_size(width, height)
    attributes = np.ascontiguousarray(attributes, np.float32)
    if attributes.ndim != 2 or len(attributes) != len(positions):
        raise InputError(
            f"attributes must be [V,D] with V = {len(positions)} vertices, found shape "
            f"{attributes.shape}."
        )
    image = np.empty((height, width, attributes.shape[1]), np.float32)
    try:
        image[:] = background
    except ValueError:
        raise InputError(
            f"background must broadcast to {image.shape}, found shape {np.shape(background)}."
        ) from None
    _native.mesh_render_attributes(positions, faces, attributes, image)
    return image


def _checked_mesh(positions: ArrayLike, faces: ArrayLike) -> tuple[FloatArray, IntArray]:
    positions = np.ascontiguousarray(positions, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    if positions.ndim != 2 or positions.shape[1] not in (3, 4):
        raise InputError(f"positions must be [V,3] or [V,4], found shape {positions.shape}.")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise InputError(f"faces must be [F,3], found shape {faces.shape}.")
    if faces.size and not (faces.min() >= 0 and faces.max() < len(positions)):
        raise InputError(
            f"faces must index {len(positions)} vertices, found indices from {faces.min()} to "
            f"{faces.max()}."
        )
    limit = _native.mesh_max_coordinate
    if not (np.abs(positions[:, :2]) <= limit).all() or not np.isfinite(positions).all():
        raise InputError(
            f"positions must be finite with x and y within ±{limit:.0f} pixels; leave out "
            "triangles that are behind the camera or far outside the image."
        )
    if positions.shape[1] == 4 and not (positions[:, 3] > 0).all():
        raise InputError("w must be positive; leave out triangles that are behind the camera.")
    return positions, faces


def _check_size(width: int, height: int) -> None:
    if not (0 < width <= 16384 and 0 < height <= 16384):
        raise InputError(f"width and height must be 1..16384, found {width} x {height}.")
