"""Pictures behind an avatar: one, or one per frame, such as its torso."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talksplat.errors import InputError
from talksplat.tracks import as_array, forth_and_back
from talksplat.video import read_image, read_image_with_alpha, resize

ByteImage = NDArray[np.uint8]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Backdrop(Protocol):
    """Background pictures, played forth and back like the camera track."""

    def at(self, frame: int) -> ByteImage:
        """The picture [H,W,3] of a frame.

        Raises:
            InputError: it cannot be read.
        """
        ...


class Pictures:
    """Pictures in memory, [T,H,W,3] uint8."""

    def __init__(self, pictures: ByteImage) -> None:
        self._pictures: list[ByteImage] = list(pictures)

    def at(self, frame: int) -> ByteImage:
        """See :meth:`Backdrop.at`."""
        return self._pictures[forth_and_back(frame, len(self._pictures))]


class PictureFolder:
    """Pictures in a folder, read when they are shown, in the order of their names or numbers.

    A picture with an alpha channel, such as a torso without its head, is laid over the plate, and
    the result truncated to bytes, as TalkingGaussian's loader does.

    Args:
        folder: holds ``.png``, ``.jpg``, ``.webp`` or ``.bmp`` files.
        plate: [H,W,3] uint8, what lies behind transparent pictures; every picture has its size.
        numbers: frames of the recording whose pictures are shown, if they are named by number; by
            default all of them.

    Raises:
        InputError: the folder holds no picture, or not that of one of these frames.
    """

    def __init__(
        self, folder: Path, plate: ByteImage, numbers: Sequence[int] | None = None
    ) -> None:
        try:
            paths = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be read: {error}.") from error
        if not paths:
            raise InputError(
                f"Expected pictures ({', '.join(_SUFFIXES)}) in the folder {folder}, found none."
            )
        numbered = all(path.stem.isdecimal() and path.stem.isascii() for path in paths)
        self._paths = sorted(paths, key=lambda path: (int(path.stem) if numbered else 0, path.name))
        if numbered and numbers is not None:
            by_number = {int(path.stem): path for path in self._paths}
            missing = [number for number in numbers if number not in by_number]
            if missing:
                raise InputError(
                    f"The camera track belongs to frames of a recording: expected a picture "
                    f"{missing[0]} in {folder}, found none ({len(missing)} of {len(numbers)} are "
                    "missing)."
                )
            self._paths = [by_number[number] for number in numbers]
        self._plate = plate
        self._shown: tuple[int, ByteImage] | None = None

    def at(self, frame: int) -> ByteImage:
        """See :meth:`Backdrop.at`."""
        number = forth_and_back(frame, len(self._paths))
        if self._shown is None or self._shown[0] != number:
            self._shown = (number, self._read(self._paths[number]))
        return self._shown[1]

    def _read(self, path: Path) -> ByteImage:
        picture = read_image_with_alpha(path)
        if picture.shape[:2] != self._plate.shape[:2]:
            raise InputError(
                f"{path} must be {self._plate.shape[1]}x{self._plate.shape[0]} pixels, as the "
                f"avatar's video, found {picture.shape[1]}x{picture.shape[0]}."
            )
        alpha = picture[..., 3:].astype(np.float32) / np.float32(255)
        over = picture[..., :3] * alpha + self._plate * (1 - alpha)
        return over.astype(np.uint8)


def open_backdrop(
    background: str | os.PathLike[str] | ByteImage,
    width: int,
    height: int,
    plate: ByteImage,
    numbers: Sequence[int] | None = None,
) -> Backdrop:
    """A backdrop from a picture file (scaled to fit), a folder of pictures, or arrays.

    Args:
        background: a file, a folder, [H,W,3] or [T,H,W,3] uint8.
        width: of the avatar's video, pixels.
        height: of the avatar's video, pixels.
        plate: what lies behind transparent pictures of a folder.
        numbers: as for :class:`PictureFolder`.

    Raises:
        InputError: not such a thing, or of another size.
    """
    if isinstance(background, str | os.PathLike):
        path = Path(background)
        if path.is_dir():
            return PictureFolder(path, plate, numbers)
        return Pictures(resize(read_image(path), width, height)[None])
    pictures = as_array("background", background)
    fits = pictures.ndim in (3, 4) and pictures.shape[-3:] == (height, width, 3) and pictures.size
    if not fits or pictures.dtype != np.uint8:
        raise InputError(
            f"The background must be uint8 [{height}, {width}, 3] or [T, {height}, {width}, 3], "
            f"found {pictures.dtype} {list(pictures.shape)}."
        )
    return Pictures(pictures.reshape(-1, height, width, 3))
