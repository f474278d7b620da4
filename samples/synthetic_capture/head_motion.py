"""Small head motion: slow sway, and nods on stressed syllables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mouth import frame_count, frame_times
from .speech import Speech
from .upper_face import bumps, drift

_PITCH_DEGREES = 1.8
_YAW_DEGREES = 3.5
_ROLL_DEGREES = 1.5
_NOD_DEGREES = 1.4


def neck_rotations(speech: Speech, seed: int) -> NDArray[np.float32]:
    """How the head turns on its neck, [T,3] axis-angle in radians, world axes.

    Positive x nods down, positive y turns to the subject's left, positive z tilts to the
    subject's right shoulder.
    """
    random = np.random.default_rng([seed, 7])
    times = frame_times(frame_count(len(speech.pcm)))
    yaw = _YAW_DEGREES * drift(times, random, (0.05, 0.35))
    pitch = _PITCH_DEGREES * drift(times, random, (0.08, 0.4))
    roll = _ROLL_DEGREES * drift(times, random, (0.05, 0.3))
    accents = [p.start_s for p in speech.phonemes if p.stress == 2 and random.uniform() < 0.5]
    nods = _NOD_DEGREES * np.clip(bumps(times, accents, 0.14), 0.0, 1.2)
    return np.radians(np.stack([pitch + nods, yaw, roll], axis=1)).astype(np.float32)


def rigid_transforms(
    rotations: NDArray[np.float32], pivot: NDArray[np.floating]
) -> NDArray[np.float64]:
    """[T,4,4]: a point x of the resting head moves to R (x - pivot) + pivot.

    ``rotations`` [T,3] axis-angle (Rodrigues), ``pivot`` [3] the neck joint.
    """
    transforms = np.tile(np.eye(4), (len(rotations), 1, 1))
    for transform, vector in zip(transforms, rotations.astype(np.float64), strict=True):
        angle = float(np.linalg.norm(vector))
        x, y, z = vector / max(angle, 1e-12)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        rotation = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
        transform[:3, :3] = rotation
        transform[:3, 3] = pivot - rotation @ pivot
    return transforms
