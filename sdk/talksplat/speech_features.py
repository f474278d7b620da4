"""Precomputed speech features: ``.npy`` files, and the window of a frame that a family eats.

Whoever trained an avatar has its features on disk. Two kinds of array are understood:

* windows per frame [T,W,D], 25 a second: DeepSpeech [T,16,29], HuBERT [T,2,1024] as TalkingGaussian
  and InsTaG read them; AVE is stored as [T,512,1] there, which is taken as [T,1,512];
* tokens [L,D] at the avatar's own feature rate, from which windows are cut.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat.audio import MAX_SECONDS
from talksplat.errors import InputError
from talksplat.manifest import WindowContract

FloatArray = NDArray[np.float32]

MAX_BYTES = 4 * 2**30
MAX_TOKENS = MAX_SECONDS * 200
"""Rows of an array: the longest clip at the highest feature rate of a manifest."""

_HEADER_BYTES = 2**16
_FLOATS = ("float16", "float32", "float64")
_ROWS = 4096


def read_features(path: str | Path) -> FloatArray:
    """Read features from a ``.npy`` file. Nothing in it is executed.

    Returns:
        [T,W,D] or [L,D] float32, finite, at least one row.

    Raises:
        InputError: missing, damaged, larger than :data:`MAX_BYTES`, not an array of floats (objects
            are never unpickled), of another number of dimensions, NaN or infinite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"Expected speech features (.npy) at {path}, found nothing there to read.")
    try:
        with path.open("rb") as stream:
            shape, by_columns, dtype, begin = _header(stream.read(_HEADER_BYTES), path)
            count = _count(shape, str(path))
            size = path.stat().st_size
            if size != begin + count * dtype.itemsize or size > MAX_BYTES:
                raise InputError(
                    f"{path} is damaged or too large: {list(shape)} {dtype} takes "
                    f"{begin + count * dtype.itemsize} bytes, found {size}, at most {MAX_BYTES} "
                    "are read. Compute the features again."
                )
            stream.seek(begin)
            values = np.fromfile(stream, dtype, count)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    array = values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)
    return _finite(array, str(path))


def check_features(features: ArrayLike) -> FloatArray:
    """Features given as an array, checked as :func:`read_features` checks a file.

    Raises:
        InputError: as there.
    """
    array = np.asarray(features)
    if array.dtype.name not in _FLOATS:
        raise InputError(f"Speech features must be {', '.join(_FLOATS)}; found {array.dtype}.")
    _count(array.shape, "Speech features")
    return _finite(array, "Speech features")


class FeatureWindows:
    """Windows over the features of one clip.

    Args:
        features: [T,W,D], one window per frame, or [L,D] tokens; where W is 1 also [T,D,1].
        window: which frames, and which tokens of each, a frame of the avatar hears.
        feature_size: D.
        frame_tokens: tokens per frame, ``feature_rate / fps``.

    Raises:
        InputError: the features have another shape; says which shapes fit.
    """

    def __init__(
        self, features: ArrayLike, window: WindowContract, feature_size: int, frame_tokens: int
    ) -> None:
        array = check_features(features)
        self.window = window
        self.feature_size = feature_size
        self.frame_tokens = frame_tokens
        if array.shape[1:] == (feature_size, 1) and window.tokens == 1:
            array = array.transpose(0, 2, 1)
        fits = array.shape[1:] in ((feature_size,), (window.tokens, feature_size))
        if not fits:
            raise InputError(
                f"This avatar hears windows [T,{window.tokens},{feature_size}], 25 a second, or "
                f"tokens [L,{feature_size}], {25 * frame_tokens} a second; found features of shape "
                f"{list(array.shape)}. Compute them with the encoder that the avatar was trained "
                "with."
            )
        self._array = array

    @property
    def frames(self) -> int:
        """Frames of the clip; one begun counts."""
        rows = len(self._array)
        return rows if self._array.ndim == 3 else -(-rows // self.frame_tokens)

    def at(self, frame: int) -> FloatArray:
        """What ``frame`` hears, [frames_before + 1 + frames_after, tokens, D], the caller's.

        Frames beyond the clip are zero, and so are tokens beyond it within a frame's window.
        """
        window = self.window
        first = frame - window.frames_before
        count = window.frames_before + 1 + window.frames_after
        heard = np.zeros((count, window.tokens, self.feature_size), np.float32)
        for row in range(max(0, -first), min(count, self.frames - first)):
            if self._array.ndim == 3:
                heard[row] = self._array[first + row]
                continue
            begin = (first + row) * self.frame_tokens - window.tokens_before
            missing = max(0, -begin)
            tokens = self._array[begin + missing : begin + window.tokens]
            heard[row, missing : missing + len(tokens)] = tokens
        return heard


def _header(start: bytes, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether columns come first, dtype, and where the numbers begin."""
    stream = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, by_columns, dtype = readers[version](stream)
    except Exception as error:  # NumPy's parser of damaged headers raises many kinds
        raise InputError(
            f"{path} is not a NumPy array file: {error}. Save the features with numpy.save."
        ) from error
    if dtype.name not in _FLOATS:
        raise InputError(
            f"{path} must hold {', '.join(_FLOATS)}; found {dtype}. "
            "Save the features as one array of float32."
        )
    return shape, by_columns, dtype, stream.tell()


def _count(shape: tuple[int, ...], where: str) -> int:
    """Numbers in an array of this shape, refused before anything is allocated for it."""
    limits = (MAX_TOKENS, 4096) if len(shape) == 2 else (MAX_TOKENS, 4096, 4096)
    if len(shape) != len(limits) or not all(
        0 < size <= limit for size, limit in zip(shape, limits, strict=True)
    ):
        raise InputError(
            f"{where} must have the shape [frames, tokens, size] or [tokens, size], with 1 to "
            f"{MAX_TOKENS} rows of at most 4096; found {list(shape)}."
        )
    count = 1
    for size in shape:
        count *= size
    return count


def _finite(array: NDArray[np.floating], where: str) -> FloatArray:
    with np.errstate(over="ignore"):
        values: FloatArray = np.ascontiguousarray(array, np.float32)
    for start in range(0, len(values), _ROWS):
        finite = np.isfinite(values[start : start + _ROWS])
        if not finite.all():
            row = start + int(np.argwhere(~finite)[0, 0])
            raise InputError(
                f"{where}: row {row} holds NaN or infinity; expected finite numbers that fit "
                "float32."
            )
    return values
