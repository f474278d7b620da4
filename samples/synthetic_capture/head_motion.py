"""Small head motion: slow sway, and nods on stressed syllables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mouth import frame_count, frame_times
from .speech import Speech
from .upper_face import bumps, drift

_SWAY_DEGREES = {"yaw": 3.0, "pitch": 1.6, "roll": 1.3}
_SHIFT = (0.0012, 0.0008, 0.0015)  # head-space units; a head is about 0.2 high
_NOD_DEGREES = 1.3
_PIVOT = np.array([0.0, -0.085, -0.02])  # where the skull sits on the neck


def head_poses(speech: Speech, seed: int) -> NDArray[np.float32]:
    """Rigid motion of the head relative to the resting one, [T,4,4], world (head) axes.

    ``x_moved = pose @ x`` for a homogeneous point of the head at rest.
    """
    random = np.random.default_rng([seed, 7])
    times = frame_times(frame_count(len(speech.pcm)))
    yaw = _SWAY_DEGREES["yaw"] * drift(times, random, (0.05, 0.35))
    pitch = _SWAY_DEGREES["pitch"] * drift(times, random, (0.08, 0.4))
    roll = _SWAY_DEGREES["roll"] * drift(times, random, (0.05, 0.3))
    accents = [p.start_s for p in speech.phonemes if p.stress == 2 and random.uniform() < 0.5]
    pitch = pitch + _NOD_DEGREES * np.clip(bumps(times, accents, 0.14), 0.0, 1.2)
    shift = np.stack([size * drift(times, random, (0.05, 0.3)) for size in _SHIFT], axis=1)
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = _rotations(np.radians(yaw), np.radians(pitch), np.radians(roll))
    poses[:, :3, 3] = shift + _PIVOT - poses[:, :3, :3] @ _PIVOT
    return poses.astype(np.float32)


def _rotations(
    yaw: NDArray[np.float64], pitch: NDArray[np.float64], roll: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[T,3,3]: roll about +z first, then pitch about +x (positive nods down), then yaw about +y."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def matrix(*rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    cy, sy, cx, sx = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cz, sz = np.cos(roll), np.sin(roll)
    about_y = matrix([cy, zero, sy], [zero, one, zero], [-sy, zero, cy])
    about_x = matrix([one, zero, zero], [zero, cx, -sx], [zero, sx, cx])
    about_z = matrix([cz, -sz, zero], [sz, cz, zero], [zero, zero, one])
    return about_y @ about_x @ about_z
