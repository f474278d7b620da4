"""Pose and blinks over time: rows per frame, played forth and back without a jump."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat import schema
from talksplat.errors import InputError

FloatArray = NDArray[np.float32]

UPPER_FACE_SIZE = 6
"""Action units 1, 4, 5, 6, 7 and 45."""

_MAX_POSE_BYTES = 256 * 2**20


class Track:
    """Rows [T, ...] read at any frame number: 0, 1, … T-1, T-2, … 1, 0, 1, …"""

    def __init__(self, rows: ArrayLike) -> None:
        self.rows = np.ascontiguousarray(rows, np.float32)
        if not len(self.rows):
            raise InputError("A track needs at least one frame.")

    def at(self, frame: int) -> FloatArray:
        """The row of a frame."""
        last = len(self.rows) - 1
        position = frame % (2 * last) if last else 0
        row: FloatArray = self.rows[min(position, 2 * last - position)]
        return row


def read_pose(path: Path) -> Track:
    """Camera track from a file.

    ``.json``: a NeRF-style transforms file, ``frames[i].transform_matrix`` camera to world in
    OpenGL axes, frames in the order of the file. ``.npz``: ``viewmats`` [T,4,4], world to camera
    in OpenCV axes.

    Raises:
        InputError: not such a file, or not rigid finite matrices.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > _MAX_POSE_BYTES:
            raise InputError(
                f"{path} is not a pose file of at most {_MAX_POSE_BYTES} bytes (it has {size})."
            )
        if path.suffix == ".json":
            viewmats = _opengl_to_viewmats(_transform_matrices(path))
        elif path.suffix == ".npz":
            viewmats = _stored_viewmats(path)
        else:
            raise InputError(f"{path} is not a pose file; expected .json or .npz.")
        return Track(check_viewmats(viewmats))
    except InputError as error:
        raise InputError(f"Pose file {path}: {error}") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a pose file that can be read: {error}. Expected a transforms .json "
            "with frames[i].transform_matrix, or an .npz with viewmats [T,4,4]."
        ) from error


def check_upper_face(upper_face: ArrayLike) -> FloatArray:
    """Action units [T,6], checked.

    Raises:
        InputError: another shape, or values that are not finite.
    """
    rows = np.asarray(upper_face, np.float32)
    if rows.ndim != 2 or rows.shape[1] != UPPER_FACE_SIZE or not np.isfinite(rows).all():
        raise InputError(
            f"upper_face expects finite numbers [T,{UPPER_FACE_SIZE}], found {list(rows.shape)}"
            f"{'' if np.isfinite(rows).all() else ' with NaN or infinity'}."
        )
    return rows


def check_viewmats(viewmats: ArrayLike) -> NDArray[np.float64]:
    """``viewmats`` as float64 [T,4,4], T at least 1.

    Raises:
        InputError: another shape, not finite, or not rigid (rotation and translation).
    """
    matrices = np.asarray(viewmats, np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not len(matrices):
        raise InputError(f"expected viewmats [T,4,4], found shape {list(matrices.shape)}.")
    if not np.isfinite(matrices).all():
        raise InputError("expected finite viewmats, found NaN or infinity.")
    rotations = matrices[:, :3, :3]
    orthonormal = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-2
    if not orthonormal or np.abs(matrices[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError("expected rigid viewmats (a rotation and a translation), found others.")
    return matrices


def _transform_matrices(path: Path) -> NDArray[np.float64]:
    document: Any = schema.parse(path.read_text(encoding="utf-8"))
    return np.array([frame["transform_matrix"] for frame in document["frames"]], np.float64)


def _stored_viewmats(path: Path) -> NDArray[np.float64]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_POSE_BYTES:
            raise ValueError(f"its arrays take {size} bytes, at most {_MAX_POSE_BYTES} are read")
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays["viewmats"], np.float64)
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged archives
        raise ValueError(str(error)) from error


def _opengl_to_viewmats(camera_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenGL cameras look along -z with y up; OpenCV cameras along +z with y down."""
    if camera_to_world.ndim != 3 or camera_to_world.shape[1:] != (4, 4):
        raise InputError(
            f"expected transform matrices [T,4,4], found shape {list(camera_to_world.shape)}."
        )
    return np.linalg.inv(camera_to_world * [1.0, -1.0, -1.0, 1.0]).astype(np.float64)
