"""Frames out: MP4 with sound, PNG files, contact sheets. Nothing half-written is left behind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from talksplat.atomic import atomic_file, atomic_folder
from talksplat.errors import InputError, OutputError

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

_BT709 = 1
_MAX_SIDE = 8192


class FrameSink(Protocol):
    """Something that takes frames in order; complete when its ``with`` block ends."""

    def write(self, image: ByteImage, audio: FloatArray) -> None:
        """Add one frame: [H,W,3] uint8 and the samples of its time."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Mp4Writer:
    """H.264 (yuv420p, BT.709) and AAC in an MP4 file that appears when the ``with`` block ends.

    Args:
        path: the file to make; an existing one is replaced at the end.
        width, height: size of a frame in pixels, even.
        fps: frames per second.
        sample_rate: of the audio, in Hz.
        crf: constant rate factor of x264; smaller is better and larger on disk.

    Raises:
        InputError: odd width or height.
        OutputError: the file cannot be written (disk full included).
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: Fraction,
        sample_rate: int,
        crf: int = 18,
    ) -> None:
        if width % 2 or height % 2:
            raise InputError(f"H.264 needs an even width and height, found {width}x{height}.")
        self.path = path
        self._size = (width, height)
        self._fps = fps
        self._sample_rate = sample_rate
        self._crf = crf
        self._frames = 0
        self._samples = 0
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            staging = resources.enter_context(atomic_file(self.path))
            # A Python file reports every failed write; FFmpeg's own forgets some when closing.
            stream = resources.enter_context(staging.open("wb"))
            self._container = av.open(stream, "w", format="mp4")
            self._video = self._container.add_stream("libx264", rate=self._fps)
            self._video.width, self._video.height = self._size
            self._video.pix_fmt = "yuv420p"
            self._video.options = {"crf": str(self._crf), "preset": "veryfast"}
            context = self._video.codec_context
            context.time_base = 1 / self._fps
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = ColorRange.MPEG
            self._audio = self._container.add_stream("aac", rate=self._sample_rate, layout="mono")
            self._resources = resources.pop_all()
        return self

    def write(self, image: ByteImage, audio: FloatArray) -> None:
        """See :meth:`FrameSink.write`.

        Raises:
            OutputError: it cannot be encoded or written.
        """
        picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = self._frames, 1 / self._fps
        self._encode(self._video, picture)
        self._frames += 1
        if len(audio):
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(audio[None], np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate = self._sample_rate
            sound.pts, sound.time_base = self._samples, Fraction(1, self._sample_rate)
            self._encode(self._audio, sound)
            self._samples += len(audio)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._resources.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._resources.__exit__(kind, error, traceback)

    def _finish(self) -> None:
        if not self._frames:
            raise OutputError(f"{self.path} would hold no frame; nothing was written.")
        self._encode(self._video, None)
        self._encode(self._audio, None)
        try:
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"Cannot write {self.path}: {error}.") from error

    def _encode(self, stream: Any, frame: Any) -> None:
        try:
            self._container.mux(stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise OutputError(f"Cannot write {self.path}: {error}.") from error


class PngSequence:
    """``000000.png``, ``000001.png``, … in a folder that appears when the ``with`` block ends.

    Raises:
        OutputError: the folder exists or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames = 0
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self._staging = self._resources.enter_context(atomic_folder(self.path))
        return self

    def write(self, image: ByteImage, audio: FloatArray) -> None:
        """See :meth:`FrameSink.write`; the audio is not kept.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            (self._staging / f"{self._frames:06d}.png").write_bytes(encode_png(image))
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error}.") from error
        self._frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.__exit__(kind, error, traceback)


def encode_png(image: ByteImage) -> bytes:
    """An image [H,W,3] uint8 as the bytes of a PNG file."""
    height, width = image.shape[:2]
    encoder: Any = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def read_image(path: Path) -> ByteImage:
    """Read a picture (PNG, JPEG, WebP, …) as [H,W,3] uint8.

    Raises:
        InputError: not a picture.
    """
    return _decode(path, "rgb24")


def read_image_with_alpha(path: Path) -> ByteImage:
    """Read a picture as [H,W,4] uint8, alpha last and not multiplied in; 255 if it has none.

    Raises:
        InputError: not a picture.
    """
    return _decode(path, "rgba")


def _decode(path: Path, layout: str) -> ByteImage:
    try:
        with path.open("rb") as stream, av.open(stream, "r") as container:
            picture = container.streams.video[0]
            if max(picture.width, picture.height) > _MAX_SIDE:
                raise ValueError(
                    f"it has {picture.width}x{picture.height} pixels, at most {_MAX_SIDE} a side "
                    "are read"
                )
            frame = next(container.decode(video=0))
            return np.ascontiguousarray(frame.to_ndarray(format=layout))
    except (OSError, av.FFmpegError, StopIteration, IndexError, ValueError) as error:
        raise InputError(f"{path} is not a picture that can be read: {error}.") from error


def resize(image: ByteImage, width: int, height: int) -> ByteImage:
    """Scale an image [H,W,3] with FFmpeg's area filter."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(scaled.to_ndarray())


def contact_sheet(images: Sequence[ByteImage], columns: int, gap: int = 4) -> ByteImage:
    """Equal images in rows of ``columns``, ``gap`` pixels of dark grey between them.

    Raises:
        InputError: no image.
    """
    if not images:
        raise InputError("A contact sheet needs at least one image.")
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 32, dtype=np.uint8
    )
    for index, image in enumerate(images):
        top = gap + (index // columns) * (height + gap)
        left = gap + (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
