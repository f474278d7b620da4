"""What a family offers the session: windows over pushed audio, and frames made from them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talksplat.ring import Ring
from talksplat.timings import Timings
from talksplat.tracks import Track

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class Stream(Protocol):
    """The state of one speaking avatar: made once per session, reset for each utterance."""

    def reset(self, pcm: Ring) -> None:
        """Begin an utterance whose samples will be appended to ``pcm``."""
        ...

    def samples_needed(self, frame: int) -> int:
        """Samples of the utterance that must be there before ``frame`` can be rendered."""
        ...

    def render(
        self,
        frame: int,
        frames: int | None,
        viewmat: FloatArray,
        upper_face: FloatArray,
        timings: Timings,
    ) -> tuple[ByteImage, FloatArray]:
        """Make one frame; frame numbers must not decrease within an utterance.

        Args:
            frame: number of the frame in the utterance, at the model's rate.
            frames: how many the utterance has, or None while it goes on.
            viewmat: [4,4] world to camera.
            upper_face: [6] action units 1, 4, 5, 6, 7, 45.
            timings: where to add the time of each stage.

        Returns:
            image [H,W,3] uint8 and alpha [H,W] float32 (what the avatar covers), both the caller's.
        """
        ...

    def oldest_sample(self) -> int:
        """Samples of ``pcm`` before this one are not read any more."""
        ...

    def close(self) -> None:
        """Free what the stream holds."""
        ...


class Family(Protocol):
    """A loaded avatar of one published system; shared by its sessions."""

    frame_samples: int
    """Samples per frame at the model's rate."""
    look_ahead_samples: int
    """Most audio after the end of a frame's own samples that any frame waits for."""
    viewmats: Track
    """Default camera track."""
    upper_face: Track
    """Default action units: blinks."""

    def stream(self, background: ByteImage | None) -> Stream:
        """A new stream, warmed up; ``background`` [H,W,3] replaces the avatar's own."""
        ...
