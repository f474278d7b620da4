"""What a family offers the session: windows over pushed audio, and frames made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talksplat.ring import Ring
from talksplat.scene import Moment, Scene
from talksplat.timings import Timings

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]

Noise = int | Mapping[str, FloatArray]
"""A seed, or noise maps by name that are the same in every frame."""


class Stream(Protocol):
    """The state of one speaking avatar: made once per session, reset for each utterance."""

    look_ahead_samples: int
    """Most audio after the end of a frame's own samples that any frame waits for."""

    def reset(self, pcm: Ring) -> None:
        """Begin an utterance whose samples will be appended to ``pcm``."""
        ...

    def samples_needed(self, frame: int) -> int:
        """Samples of the utterance that must be there before ``frame`` can be rendered."""
        ...

    def render(
        self, frame: int, frames: int | None, moment: Moment, timings: Timings
    ) -> tuple[ByteImage, FloatArray]:
        """Make one frame; frame numbers must not decrease within an utterance.

        Args:
            frame: number of the frame in the utterance, at the model's rate.
            frames: how many the utterance has, or None while it goes on.
            moment: camera, upper face and background.
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

    scene: Scene
    """Default camera, blinks and background."""
    openface_scale: FloatArray | None
    """[6] by which OpenFace's intensities become what the networks eat; None if they eat none."""

    def stream(self, features: FloatArray | None, noise: Noise | None) -> Stream:
        """A new stream, warmed up.

        Args:
            features: precomputed speech features instead of those of the audio.
            noise: for a refiner whose noise is an input.

        Raises:
            InputError: the avatar cannot use what it was given, or needs what it was not given.
        """
        ...


def make_first_frame(stream: Stream, scene: Scene) -> None:
    """Make a frame of silence, so that the first real one is not slower than the others."""
    pcm = Ring(())
    pcm.append(np.zeros(1, np.float32))
    stream.reset(pcm)
    stream.render(0, 1, scene.at(0), Timings())
    stream.reset(Ring(()))
