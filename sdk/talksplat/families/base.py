"""What a family offers the session: what it hears, and frames made from that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from talksplat.backends import Array, FrameMemory, FrameRunner, Picture
from talksplat.families.audio_features import AudioFeatures
from talksplat.ring import Ring
from talksplat.scene import Moment, Scene
from talksplat.timings import Timings

FloatArray = NDArray[np.float32]

Noise = int | Mapping[str, FloatArray]
"""A seed, or noise maps by name that are the same in every frame."""


class Stream(ABC):
    """The state of one speaking avatar: made once per session, reset for each utterance.

    Args:
        audio: what the avatar hears.
        frame: makes its pictures.
    """

    def __init__(self, audio: AudioFeatures, frame: FrameRunner) -> None:
        self._audio = audio
        self._frame = frame

    @abstractmethod
    def conditions(self, frame: int, moment: Moment) -> dict[str, Array]:
        """The inputs of the family's frame program, without camera and background.

        Args:
            frame: number of the frame in the utterance, which :meth:`hear` was told of.
            moment: camera, upper face and background.
        """
        ...

    @property
    def look_ahead_samples(self) -> int:
        """Most audio after the end of a frame's own samples that any frame waits for."""
        return self._audio.look_ahead_samples

    def reset(self, pcm: Ring) -> None:
        """Begin an utterance whose samples will be appended to ``pcm``."""
        self._audio.reset(pcm)

    def samples_needed(self, frame: int) -> int:
        """Samples of the utterance that must be there before ``frame`` can be rendered."""
        return self._audio.samples_needed(frame)

    def oldest_sample(self) -> int:
        """Samples of ``pcm`` before this one are not read any more."""
        return self._audio.oldest_sample()

    def hear(self, frame: int, frames: int | None, timings: Timings) -> None:
        """Run the audio graphs as far as ``frame`` needs; arguments as of :meth:`render`."""
        self._audio.listen(frame, frames, timings)

    def render(self, frame: int, frames: int | None, moment: Moment, timings: Timings) -> Picture:
        """Make one frame; frame numbers must not decrease within an utterance.

        Args:
            frame: number of the frame in the utterance, at the model's rate.
            frames: how many the utterance has, or None while it goes on.
            moment: camera, upper face and background.
            timings: where to add the time of each stage.
        """
        self.hear(frame, frames, timings)
        with timings.stage("motion"):
            inputs = self.conditions(frame, moment)
        inputs |= {"viewmats": moment.viewmat[None], "background": moment.background}
        picture = self._frame.run(inputs, timings)
        self._audio.forget(frame + 1)
        return picture

    def warm_up(self, scene: Scene) -> None:
        """Make a frame of silence, so that the first real one is not slower than the others."""
        pcm = Ring(())
        pcm.append(np.zeros(1, np.float32))
        self.reset(pcm)
        self.render(0, 1, scene.at(0), Timings())
        self.reset(Ring(()))

    def close(self) -> None:
        """Free what the stream holds."""
        with ExitStack() as closing:
            closing.callback(self._frame.close)
            closing.callback(self._audio.close)


class Family(Protocol):
    """A loaded avatar of one published system; shared by its sessions."""

    scene: Scene
    """Default camera, blinks and background."""
    openface_scale: FloatArray | None
    """[6] by which OpenFace's intensities become what the networks eat; None if they eat none."""

    def stream(
        self, features: FloatArray | None, noise: Noise | None, memory: FrameMemory
    ) -> Stream:
        """A new stream.

        Args:
            features: precomputed speech features instead of those of the audio.
            noise: for a refiner whose noise is an input.
            memory: where its pictures are.

        Raises:
            InputError: the avatar cannot use what it was given, or needs what it was not given.
            BackendError: what makes its frames cannot be set up.
        """
        ...
