"""What is seen besides speech: camera, upper face and background, over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat.backdrop import Backdrop, Pictures
from talksplat.manifest import VideoContract
from talksplat.tensor_reader import TensorReader
from talksplat.tracks import UPPER_FACE_SIZE, Track, check_viewmats

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


def read_scene(tensors: TensorReader, video: VideoContract) -> Scene:
    """The scene that a bundle holds: its tracks and the plate behind its avatar.

    Raises:
        BundleError: a tensor is missing, or has another shape.
    """
    file, size = "tracks.safetensors", (video.height, video.width, 3)
    plate = tensors.get("background.safetensors", "image", size, np.uint8)
    return Scene(
        viewmats=Track(check_viewmats(tensors.get(file, "viewmats", (-1, 4, 4)))),
        upper_face=Track(tensors.get(file, "upper_face", (-1, UPPER_FACE_SIZE))),
        background=Pictures(plate[None]),
    )
