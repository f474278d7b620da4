"""What is seen besides speech: camera, upper face and background, over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat.backdrop import Backdrop
from talksplat.tracks import Track

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Moment:
    """A scene at one time.

    Attributes:
        viewmat: [4,4] world to camera.
        upper_face: [6] in the units that the family's network eats.
        background: [H,W,3].
    """

    viewmat: FloatArray
    upper_face: FloatArray
    background: ByteImage


@dataclass(frozen=True)
class Scene:
    """Tracks that play at the model's frame rate, all by the same clock."""

    viewmats: Track
    upper_face: Track
    background: Backdrop

    def at(self, time: int) -> Moment:
        """The scene at a frame of the session, at the model's rate.

        Raises:
            InputError: a picture of the background cannot be read.
        """
        return Moment(self.viewmats.at(time), self.upper_face.at(time), self.background.at(time))
