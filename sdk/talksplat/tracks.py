"""Pose and blinks over time: rows per frame, played forth and back without a jump."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat import schema
from talksplat.errors import InputError

FloatArray = NDArray[np.float32]

UPPER_FACE_SIZE = 6
"""Action units 1, 4, 5, 6, 7 and 45; or two lid openings and a width of each eye."""

ACTION_UNITS = (1, 4, 5, 6, 7, 45)
"""Columns ``AU01_r`` … ``AU45_r`` of OpenFace that make an upper face, in this order."""

OPENFACE_CEILING: Final[FloatArray] = np.array([5, 5, 5, 5, 5, 2], np.float32)
"""OpenFace's intensities end at 5; of the blink, the lineage of TalkingGaussian uses up to 2."""

_MAX_POSE_BYTES = 256 * 2**20
_MAX_LINE = 65536
_FLOATS = (np.float16, np.float32, np.float64)


def forth_and_back(frame: int, count: int) -> int:
    """Which of ``count`` rows a frame shows: 0, 1, … count-1, count-2, … 1, 0, 1, …"""
    last = count - 1
    position = frame % (2 * last) if last else 0
    return min(position, 2 * last - position)


class Track:
    """Rows [T, ...] read at any frame number, played :func:`forth_and_back`.

    Args:
        rows: one per frame.
        numbers: which frames of a recording the rows belong to, where that is known; other files
            of the recording are then read at these.
    """

    def __init__(self, rows: ArrayLike, numbers: Sequence[int] | None = None) -> None:
        self.rows = np.ascontiguousarray(rows, np.float32)
        self.numbers = None if numbers is None else tuple(numbers)
        if not len(self.rows):
            raise InputError("A track needs at least one frame.")

    def at(self, frame: int) -> FloatArray:
        """The row of a frame."""
        row: FloatArray = self.rows[forth_and_back(frame, len(self.rows))]
        return row


def read_pose(path: Path) -> Track:
    """Camera track from a file.

    ``.json``: a NeRF-style transforms file, ``frames[i].transform_matrix`` camera to world in
    OpenGL axes, frames in the order of the file; ``frames[i].img_id``, if every frame has one,
    becomes :attr:`Track.numbers`. ``.npz``: ``viewmats`` [T,4,4], world to camera
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
        numbers = None
        if path.suffix == ".json":
            frames = _transform_frames(path)
            matrices = [frame["transform_matrix"] for frame in frames]
            viewmats = _opengl_to_viewmats(np.array(matrices, np.float64))
            numbers = _frame_numbers(frames)
        elif path.suffix == ".npz":
            viewmats = _stored_viewmats(path)
        else:
            raise InputError(f"{path} is not a pose file; expected .json or .npz.")
        return Track(check_viewmats(viewmats), numbers)
    except InputError as error:
        raise InputError(f"Pose file {path}: {error}") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a pose file that can be read: {error}. Expected a transforms .json "
            "with frames[i].transform_matrix, or an .npz with viewmats [T,4,4]."
        ) from error


def read_upper_face(
    path: Path, openface_scale: FloatArray | None, numbers: Sequence[int] | None = None
) -> Track:
    """Upper face track from a file.

    ``.npy``: [T,6] in the units that the avatar's network eats. ``.csv``: OpenFace's table, of
    which the columns ``AU01_r``, ``AU04_r``, ``AU05_r``, ``AU06_r``, ``AU07_r`` (0..5) and
    ``AU45_r`` (0..2, cut off above) are taken, one row per frame of the recording.

    Args:
        path: the file.
        openface_scale: [6] by which OpenFace's intensities are multiplied to become what the
            network eats; None if it does not eat action units.
        numbers: frames of the recording whose rows of a ``.csv`` are taken; by default all.

    Raises:
        InputError: not such a file, or numbers that are not finite.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > _MAX_POSE_BYTES:
            raise InputError(f"expected a file of at most {_MAX_POSE_BYTES} bytes, found {size}.")
        if path.suffix == ".npy":
            return Track(check_upper_face(_stored_rows(path)))
        if path.suffix != ".csv":
            raise InputError("expected .npy or .csv.")
        if openface_scale is None:
            raise InputError(
                "this avatar's eyes are driven by lid openings and widths in pixels, not by "
                "action units; expected an .npy with them, [T,6]."
            )
        units = np.clip(_openface_units(path), 0, OPENFACE_CEILING) * openface_scale
        if numbers is not None:
            if max(numbers) >= len(units):
                raise InputError(
                    f"the camera track belongs to frames up to {max(numbers)} of its recording; "
                    f"expected a row for each, found {len(units)} rows."
                )
            units = units[list(numbers)]
        return Track(check_upper_face(units))
    except InputError as error:
        raise InputError(f"Upper face file {path}: {error}") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not an upper face file that can be read: {error}. Expected an .npy "
            f"[T,{UPPER_FACE_SIZE}] or OpenFace's .csv."
        ) from error


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """``value`` as an array of numbers.

    Raises:
        InputError: it is ragged, or holds something else.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name}: expected an array, found {error}.") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected numbers, found dtype {array.dtype}.")
    return array


def check_upper_face(upper_face: ArrayLike) -> FloatArray:
    """An upper face track [T,6], T at least 1, checked.

    Raises:
        InputError: another shape, or values that are not finite.
    """
    with np.errstate(over="ignore"):
        rows = as_array("upper_face", upper_face).astype(np.float32)
    fits = rows.ndim == 2 and rows.shape[1] == UPPER_FACE_SIZE and len(rows)
    if not fits or not np.isfinite(rows).all():
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
    matrices = as_array("viewmats", viewmats).astype(np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not len(matrices):
        raise InputError(f"expected viewmats [T,4,4], found shape {list(matrices.shape)}.")
    if not np.isfinite(matrices).all():
        raise InputError("expected finite viewmats, found NaN or infinity.")
    rotations = matrices[:, :3, :3]
    orthonormal = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-2
    if not orthonormal or np.abs(matrices[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError("expected rigid viewmats (a rotation and a translation), found others.")
    return matrices


def _transform_frames(path: Path) -> list[dict[str, Any]]:
    document: Any = schema.parse(path.read_text(encoding="utf-8"))
    return list(document["frames"])


def _frame_numbers(frames: list[dict[str, Any]]) -> list[int] | None:
    numbers = [frame.get("img_id") for frame in frames]
    known = [number for number in numbers if type(number) is int and 0 <= number < 2**31]
    return known if len(known) == len(numbers) else None


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


def _stored_rows(path: Path) -> NDArray[Any]:
    """An array of floats; nothing is unpickled, and no more is read than the file holds."""
    try:
        rows: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser of damaged headers raises many kinds
        raise ValueError(str(error)) from error
    if not isinstance(rows, np.ndarray) or rows.dtype not in _FLOATS:
        raise InputError(f"expected floats, found {getattr(rows, 'dtype', type(rows).__name__)}.")
    return np.array(rows)  # the file may change later


def _openface_units(path: Path) -> NDArray[np.float64]:
    """[T,6] of OpenFace's table, whose header has a space before every name but the first."""
    rows = []
    columns: list[int] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE), ""), start=1):
            cells = [cell.strip() for cell in line.split(",")]
            if number == 1:
                columns = _unit_columns(cells)
            elif cells != [""]:
                if len(cells) <= max(columns):
                    raise InputError(f"line {number} has {len(cells)} cells, too few.")
                rows.append([_intensity(cells[column], number) for column in columns])
    if not rows:
        raise InputError("expected a row per frame, found none.")
    return np.array(rows, np.float64)


def _unit_columns(names: list[str]) -> list[int]:
    wanted = [f"AU{unit:02d}_r" for unit in ACTION_UNITS]
    for name in wanted:
        if names.count(name) != 1:
            raise InputError(
                f"expected OpenFace's columns {', '.join(wanted)} in the first line, found "
                f"{names.count(name)} called {name}."
            )
    return [names.index(name) for name in wanted]


def _intensity(cell: str, line: int) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"line {line}: expected a finite number, found {cell[:40]!r}.")
    return value


def _opengl_to_viewmats(camera_to_world: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenGL cameras look along -z with y up; OpenCV cameras along +z with y down."""
    if camera_to_world.ndim != 3 or camera_to_world.shape[1:] != (4, 4):
        raise InputError(
            f"expected transform matrices [T,4,4], found shape {list(camera_to_world.shape)}."
        )
    return np.linalg.inv(camera_to_world * [1.0, -1.0, -1.0, 1.0]).astype(np.float64)
