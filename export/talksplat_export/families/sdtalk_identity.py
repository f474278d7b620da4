"""A person for SDTalk: one tracked picture, as ``person.npz`` holds it.

================  =================  ==========================================================
``image``         uint8 [S,S,3]      the head on black, RGB; S is 512 for published checkpoints
``transform``     float [3,4]        [R | T] of the tracked camera in PyTorch3D's convention:
                                     row vectors, ``x_camera = x · R + T``, +x left, +y up
``head_points``   float [V,3]        tracked FLAME vertices, five times enlarged; V is 5023
``mask``          int [M]            which vertices are drawn: left eyeball, right eyeball, right
                                     eye region, lips, left eye region, in this order
``plane_size``    int, may be        S of the planes' S² Gaussians; the encoder's own, 296, if
                  left out           left out
================  =================  ==========================================================
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from talksplat.errors import InputError
from talksplat_export.scene import Scene

FOCAL = 12.0
"""Focal length of the tracker's camera in half picture sides."""

HEAD_SCALE = 5.0
"""By which tracked FLAME vertices, in metres, are enlarged."""

_EYE_OPENING, _EYE_WIDTH = 0.009, 0.03  # metres, of an adult's open eye
_LARGEST_SIDE = 4096
_MOST_BYTES = 2**30

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """What identifies a person to SDTalk.

    Attributes:
        image: uint8 [S,S,3].
        transform: float64 [3,4].
        head_points: float64 [V,3].
        mask: int64 [M]; may name a vertex twice, which is then drawn twice.
        plane_size: Gaussians per row and column of a plane; None for the encoder's own.
    """

    image: NDArray[np.uint8]
    transform: FloatArray
    head_points: FloatArray
    mask: NDArray[np.int64]
    plane_size: int | None = None

    def __post_init__(self) -> None:
        shape = self.image.shape
        square = len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3
        if not square or self.image.dtype != np.uint8 or not 0 < shape[0] <= _LARGEST_SIDE:
            raise _unfit("image", "uint8 [512,512,3]", _outline(self.image))
        _check_numbers("transform", self.transform, (3, 4))
        rotation = self.transform[:, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
            raise _unfit(
                "transform", "[R | T] with a rotation R", f"R of determinant {_volume(rotation)}"
            )
        if np.linalg.det(rotation) < 0:
            raise _unfit("transform", "[R | T] with a rotation R", "a mirrored R")
        _check_numbers("head_points", self.head_points, (len(self.head_points), 3))
        if self.mask.ndim != 1 or self.mask.dtype.kind not in "iu" or not len(self.mask):
            raise _unfit("mask", "integers [M], at least one", _outline(self.mask))
        lowest, highest = int(self.mask.min()), int(self.mask.max())
        if lowest < 0 or highest >= len(self.head_points):
            raise _unfit(
                "mask", f"indices of {len(self.head_points)} vertices", f"{lowest} to {highest}"
            )
        if self.plane_size is not None and not 2 <= self.plane_size <= _LARGEST_SIDE:
            raise _unfit("plane_size", f"2 to {_LARGEST_SIDE}", str(self.plane_size))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ``person.npz``; nothing in it is executed.

        Raises:
            InputError: missing, damaged, incomplete, or a value that does not fit; names it.
        """
        arrays = _read(path)
        needed = ("image", "transform", "head_points", "mask")
        if missing := [name for name in needed if name not in arrays]:
            raise InputError(
                f"{path} is not a person: it lacks {', '.join(missing)}. Expected the arrays "
                f"{', '.join(needed)} and, if wanted, plane_size."
            )
        try:
            return cls(
                image=arrays["image"],
                transform=_floats("transform", arrays["transform"]),
                head_points=_floats("head_points", arrays["head_points"]),
                mask=_integers("mask", arrays["mask"]),
                plane_size=_plane_size(arrays),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write a ``person.npz``."""
        arrays: dict[str, Any] = {
            "image": self.image,
            "transform": self.transform,
            "head_points": self.head_points,
            "mask": self.mask,
        }
        if self.plane_size is not None:
            arrays["plane_size"] = np.array(self.plane_size)
        np.savez_compressed(path, **arrays)

    @property
    def direction(self) -> FloatArray:
        """[3], unit vector in which the camera looks."""
        return self.transform[:, 2]

    def plane_points(self, size: int) -> FloatArray:
        """[size²,3], row by row: the source picture's pixels on the plane through the origin.

        The plane is perpendicular to the direction; its first and last points lie on the picture's
        very edges.
        """
        rotation, translation = self.transform[:, :3], self.transform[:, 3]
        slopes = (1 - 2 * np.arange(size) / (size - 1)) / FOCAL  # +x left, +y up
        y, x = np.meshgrid(slopes, slopes, indexing="ij")
        rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ rotation.T
        centre = -rotation @ translation
        distance = abs(centre @ self.direction)
        return centre + distance * rays

    @property
    def viewmat(self) -> FloatArray:
        """[4,4]: the source picture's camera."""
        return viewmats(self.transform[None])[0]

    @property
    def eyes_at_rest(self) -> FloatArray:
        """[6]: what open eyes of average size measure in the source picture, whole pixels.

        Two lid openings and one width, of the right eye and of the left one.
        """
        pixels_per_metre = HEAD_SCALE * FOCAL * len(self.image) / 2 / abs(self.transform[2, 3])
        opening, width = np.trunc(pixels_per_metre * np.array([_EYE_OPENING, _EYE_WIDTH]))
        return np.array([opening, opening, width] * 2)

    def scene(self) -> Scene:
        """The source picture's camera, standing still, and open eyes: for lack of a track."""
        size = len(self.image)
        return Scene(
            viewmats=self.viewmat[None].astype(np.float32),
            K=intrinsics(size),
            width=size,
            height=size,
            background=np.zeros((size, size, 3), np.uint8),
            upper_face=self.eyes_at_rest[None].astype(np.float32),
            notes=(
                "no camera track given: the camera stands still where the picture was taken",
                "no eye track given: the eyes are open, of average size, and never blink",
            ),
        )


def viewmats(transforms: FloatArray) -> FloatArray:
    """World → camera in OpenCV's axes [T,4,4], from PyTorch3D's [R | T], [T,3,4]."""
    flip = np.array([-1.0, -1.0, 1.0])[:, None]
    out = np.tile(np.eye(4), (len(transforms), 1, 1))
    out[:, :3, :3] = flip * transforms[:, :, :3].transpose(0, 2, 1)
    out[:, :3, 3:] = flip * transforms[:, :, 3:]
    return out


def intrinsics(size: int) -> FloatArray:
    """K [3,3] of the tracker's camera for pictures of ``size`` pixels, pixel centres at +0.5."""
    focal = FOCAL * size / 2
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def _read(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"Expected a person.npz at {path}, found {found}.")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise InputError(f"{path} unpacks to more than {_MOST_BYTES} bytes.")
            return {
                name.removesuffix(".npy"): _array(archive.read(name)) for name in _names(archive)
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a person.npz that can be read: {error}. Expected what numpy.savez "
            "writes of plain arrays."
        ) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.endswith(".npy")]


def _array(data: bytes) -> NDArray[Any]:
    """One ``.npy``; memory is taken only for what is there, whatever its header says."""
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    found, expected = len(data) - stream.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject or found != expected:
        raise ValueError(f"an array of {dtype} {list(shape)} in {found} bytes")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _floats(name: str, array: NDArray[Any]) -> FloatArray:
    if array.dtype.kind != "f":
        raise _unfit(name, "floating-point numbers", _outline(array))
    return array.astype(np.float64)


def _integers(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise _unfit(name, "integers", _outline(array))
    return array.astype(np.int64)


def _plane_size(arrays: dict[str, NDArray[Any]]) -> int | None:
    if "plane_size" not in arrays:
        return None
    size = _integers("plane_size", arrays["plane_size"])
    if size.size != 1:
        raise _unfit("plane_size", "one integer", _outline(size))
    return int(size.item())


def _check_numbers(name: str, array: FloatArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise _unfit(name, f"{list(shape)}", _outline(array))
    if not np.isfinite(array).all():
        raise _unfit(name, "finite numbers", "NaN or infinity")


def _volume(rotation: FloatArray) -> str:
    return f"{np.linalg.det(rotation):.3g}"


def _outline(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _unfit(name: str, expected: str, found: str) -> InputError:
    return InputError(f"{name} of a person expects {expected}, found {found}.")
