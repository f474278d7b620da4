"""A speaking avatar: audio in, frames out, time counted in samples."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from talksplat.audio import SAMPLE_RATE
from talksplat.backends import FrameArray, FrameMemory, Picture
from talksplat.closing import Closing
from talksplat.errors import DeviceLostError, InputError
from talksplat.families.base import Family, Noise
from talksplat.ring import Ring
from talksplat.scene import Scene
from talksplat.timings import Timings

FloatArray = NDArray[np.float32]

MODEL_FPS = 25
MAX_FPS = 120


@dataclass(frozen=True)
class Frame:
    """One frame with its sound.

    Image and alpha are NumPy arrays, or, in a session with ``frames="device"``, arrays on the GPU,
    which other libraries take without a copy through ``__dlpack__`` or
    ``__cuda_array_interface__``; ``.numpy()`` copies them to the host. They are complete when the
    frame is yielded, belong to the frame and stay as they are while it, or a view of them, is held.
    On the GPU their memory holds a later frame once they are dropped: who reads them on another
    stream than the default one holds them until that is done.

    Attributes:
        image: [H,W,3] uint8 RGB.
        alpha: [H,W] float32 in 0..1, how much of a pixel is avatar rather than background.
        index: number of the frame in the session, from 0.
        pts: presentation time in samples at 16 kHz since the session's first frame.
        audio: float32 samples from ``pts`` to the next frame's.
        timings: milliseconds per stage of making this frame; the audio graphs run once per block
            and are charged to the frame that needed the block. Empty if an image is shown again.
    """

    image: FrameArray
    alpha: FrameArray
    index: int
    pts: int
    audio: FloatArray
    timings: Timings


class Session(Closing):
    """Turns pushed audio into frames. Made by :meth:`talksplat.Avatar.session`.

    ::

        with avatar.session() as session:
            session.push(pcm)                # float32 or int16, 16 kHz mono, any length
            for frame in session.frames():   # those that are ready; does not wait
                show(frame.image, frame.audio)
            session.end()                    # the utterance is over
            for frame in session.frames():   # the rest of it
                ...

    Frames depend on the audio alone, not on how it was cut into pushes. Methods may be called
    from several threads: each waits for the others, for one frame at most.

    The model runs at 25 frames per second. At another rate, frame k shows the model's frame
    ``floor(25 k / fps)``: frames are shown again or left out, sound and time stay exact.
    """

    def __init__(
        self,
        family: Family,
        *,
        fps: int,
        scene: Scene,
        features: FloatArray | None = None,
        noise: Noise | None = None,
        memory: FrameMemory = "host",
    ) -> None:
        if not 1 <= fps <= MAX_FPS:
            raise InputError(f"fps must be from 1 to {MAX_FPS}, found {fps}.")
        self.fps = fps
        self._scene = scene
        self._stream = family.stream(features, noise, memory)
        self._lock = threading.RLock()
        self._closed = False
        self._lost: DeviceLostError | None = None
        self._frames: int | None = None  # of the model in this utterance; known after end()
        self._next_index = 0  # in the session
        self._next_pts = 0
        try:
            self._stream.warm_up(scene)
        except BaseException:
            self._stream.close()
            raise
        self._begin_utterance()

    @property
    def look_ahead_samples(self) -> int:
        """Most audio after the end of a frame's own samples that any frame waits for."""
        return self._stream.look_ahead_samples

    @property
    def first_frame_samples(self) -> int:
        """Samples that must be pushed before the first frame of an utterance comes."""
        return self._stream.samples_needed(0)

    def push(self, pcm: ArrayLike) -> None:
        """Add speech.

        Args:
            pcm: [n] mono samples at 16 kHz, float32 in -1..1 or int16; n may be 0. Silence is
                zeros: the avatar keeps still and blinks.

        Raises:
            InputError: another shape or dtype, NaN or infinity, or the utterance was ended and
                its frames were not all taken yet.
        """
        samples = _as_samples(pcm)
        with self._lock:
            self._check_open()
            if self._frames is not None:
                if self._shown_frame() < self._frames:
                    raise InputError(
                        "The utterance was ended; take the rest of frames(), or interrupt(), "
                        "before pushing the next one."
                    )
                self._begin_utterance()
            self._pcm.append(samples)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are ready, each made when asked for; returns when none is.

        A frame that fails ends its utterance: nothing of it follows, the next push begins another.

        Raises:
            InputError: the session is closed, or a picture of the background cannot be read.
            BackendError: a graph failed.
            DeviceLostError: the GPU is gone, now or in an earlier call: the session can only be
                closed. Load the avatar again to go on.
        """
        while True:
            with self._lock:
                self._check_open()
                try:
                    frame = self._next_frame()
                except DeviceLostError as error:
                    self._lost = error
                    raise
                except BaseException:
                    # What is carried from frame to frame may be half-way to the next.
                    self._begin_utterance()
                    raise
            if frame is None:
                return
            yield frame

    def end(self) -> None:
        """Say that the utterance is complete: its last frames need no more audio now."""
        with self._lock:
            self._check_open()
            self._frames = -(-self._pcm.end * MODEL_FPS // SAMPLE_RATE)

    def interrupt(self) -> None:
        """Drop everything pushed and not yet yielded; the next push begins a new utterance.

        Frames already yielded are the caller's; none of the old utterance follows. Time and head
        pose go on from the last frame, so that the picture does not jump.
        """
        with self._lock:
            self._check_open()
            self._begin_utterance()

    def close(self) -> None:
        """Free what the session holds. Closing twice does no harm."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._stream.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("The session is closed; make another with avatar.session().")
        if self._lost is not None:
            raise DeviceLostError(str(self._lost)) from self._lost

    def _begin_utterance(self) -> None:
        self._pcm = Ring(())
        self._stream.reset(self._pcm)
        self._frames = None
        self._next = 0  # frame of the utterance, at the session's rate
        self._first_index, self._first_pts = self._next_index, self._next_pts
        self._shown: tuple[int, Picture] | None = None  # the model's frame

    def _shown_frame(self) -> int:
        """The model's frame that the next frame shows."""
        return self._next * MODEL_FPS // self.fps

    def _pts(self, frame: int) -> int:
        """Samples of the utterance before ``frame``, at the session's rate."""
        return frame * SAMPLE_RATE // self.fps

    def _next_frame(self) -> Frame | None:
        number = self._shown_frame()
        start, stop = self._pts(self._next), self._pts(self._next + 1)
        if self._frames is None:
            if self._pcm.end < max(self._stream.samples_needed(number), stop):
                return None
        elif number >= self._frames:
            return None
        timings = Timings()
        if self._shown is None or self._shown[0] != number:
            time = self._first_index + self._next
            pose = time * MODEL_FPS // self.fps
            moment = self._scene.at(pose)
            picture = self._stream.render(number, self._frames, moment, timings)
            self._shown = (number, picture)
        _, picture = self._shown
        frame = Frame(
            image=picture.image,
            alpha=picture.alpha,
            index=self._first_index + self._next,
            pts=self._first_pts + start,
            audio=self._pcm.zero_padded(start, stop),
            timings=timings,
        )
        self._next += 1
        self._next_index, self._next_pts = frame.index + 1, self._first_pts + stop
        self._pcm.forget(min(stop, self._stream.oldest_sample()))
        return frame


def _as_samples(pcm: ArrayLike) -> FloatArray:
    samples = np.asarray(pcm)
    if samples.ndim != 1 or samples.dtype not in (np.float32, np.float64, np.int16):
        raise InputError(
            "push expects mono samples [n], float32 in -1..1 or int16, found "
            f"{samples.dtype} {list(samples.shape)}."
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    samples = samples.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise InputError("push expects finite samples, found NaN or infinity.")
    return samples
