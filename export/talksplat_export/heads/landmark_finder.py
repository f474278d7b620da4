"""Finds the 68 landmarks of a head in a picture by cascaded linear regression.

A first step guesses the landmarks from the whole crop, and every further one from what is seen at
the landmarks of the step before (X. Xiong and F. De la Torre, "Supervised Descent Method and its
Applications to Face Alignment", CVPR 2013). The landmarks move in the linear space of those that
the training saw. ``landmark_training.py`` makes ``landmarks.npz`` from pictures of the procedural
heads: those are the heads that this knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat.errors import InputError

Array = NDArray[np.float64]

LANDMARKS = 68
CROP = 192
"""Side in pixels of the square that landmarks are looked for in."""

_OVERVIEW = 24  # cells per side of the first look
_PATCH = np.linspace(-0.32, 0.32, 5)  # around a landmark, in radii of the face
_STARTS = tuple(
    (x, y, size) for size in (1.0, 0.85, 1.18) for x, y in ((0, 0), (0.05, 0), (-0.05, 0))
)
"""Shifts, in sides of the crop, and sizes that the first look's guess is changed by."""


@dataclass(frozen=True)
class LandmarkFinder:
    """A trained cascade.

    Attributes:
        mean: [136], x and y of every landmark in 0..1 of the crop.
        basis: [P,136], the directions in which landmarks move, of unit length.
        steps: the regressions [features + 1, P]; the last row is the constant.
        typical: [68·50], mean of what is seen at the landmarks of heads.
        likeness: least correlation with ``typical`` that counts as a head.
    """

    mean: Array
    basis: Array
    steps: tuple[Array, ...]
    typical: Array
    likeness: float

    def find(self, crop: Array) -> Array:
        """[68,2] x and y in 0..1 of a crop [192,192], grey in 0..1, the background 0.

        Raises:
            InputError: no head that this knows is seen.
        """
        landmarks, likeness = self.search(Gradients(crop))
        inside = (landmarks > -0.1).all() and (landmarks < 1.1).all()
        if likeness < self.likeness or not inside:
            raise InputError(
                "no face found: expected a likeness to the heads of this project of at least "
                f"{self.likeness:.2f}, found {likeness:.2f}"
            )
        return landmarks

    def search(self, picture: Gradients) -> tuple[Array, float]:
        """Landmarks [68,2] and their likeness, the best of several starts."""
        found = [self._descend(picture, *start) for start in _STARTS]
        return max(((one, self.alike(picture, one)) for one in found), key=lambda pair: pair[1])

    def alike(self, picture: Gradients, landmarks: Array) -> float:
        """Correlation of what is at the landmarks with what usually is."""
        seen = picture.at(landmarks)
        lengths = float(np.linalg.norm(seen) * np.linalg.norm(self.typical))
        return float(seen @ self.typical) / max(lengths, 1e-12)

    def _descend(self, picture: Gradients, x: float, y: float, size: float) -> Array:
        weights = _with_one(picture.overview()) @ self.steps[0]
        first = self._landmarks(weights)
        moved = (first - first.mean(axis=0)) * size + first.mean(axis=0) + (x, y)
        weights = self.basis @ (moved.ravel() - self.mean)
        for step in self.steps[1:]:
            weights = weights + _with_one(picture.at(self._landmarks(weights))) @ step
        return self._landmarks(weights)

    def _landmarks(self, weights: Array) -> Array:
        return (self.mean + weights @ self.basis).reshape(LANDMARKS, 2)


class Gradients:
    """Directions of a crop's brightness, of length near one on edges and zero on even ground."""

    def __init__(self, crop: Array) -> None:
        smooth = _smooth(_smooth(crop))
        y, x = np.gradient(smooth)
        length = np.hypot(x, y)
        self.field = np.stack([x, y], -1) / (length + length.mean() + 1e-6)[..., None]
        self._cells = smooth.reshape(_OVERVIEW, CROP // _OVERVIEW, _OVERVIEW, -1).mean(axis=(1, 3))

    def overview(self) -> Array:
        """The whole crop in cells: brightness, silhouette and gradients."""
        side = CROP // _OVERVIEW
        gradients = self.field.reshape(_OVERVIEW, side, _OVERVIEW, side, 2).mean(axis=(1, 3))
        grey = self._cells - self._cells.mean()
        scale = float(np.linalg.norm(grey)) / _OVERVIEW + 1e-6
        return np.concatenate(
            [grey.ravel() / scale, 4 * gradients.ravel(), (self._cells > 0).ravel()]
        )

    def at(self, landmarks: Array) -> Array:
        """Around every landmark [68,2]: 5×5 samples of the gradients, [68·50]."""
        offsets = np.stack(np.meshgrid(_PATCH, _PATCH), -1).reshape(-1, 2)
        radius = face_radius(landmarks)
        points = landmarks[:, None] + radius * offsets
        return _sample(self.field, CROP * points.reshape(-1, 2) - 0.5).ravel()


@lru_cache(maxsize=1)
def landmark_finder() -> LandmarkFinder:
    """The cascade that is shipped."""
    with np.load(Path(__file__).with_name("landmarks.npz"), allow_pickle=False) as arrays:
        count = int(arrays["count"])
        return LandmarkFinder(
            mean=arrays["mean"].astype(np.float64),
            basis=arrays["basis"].astype(np.float64),
            steps=tuple(
                arrays[f"step{i}"].astype(np.float64) * arrays["scales"][i] for i in range(count)
            ),
            typical=arrays["typical"].astype(np.float64),
            likeness=float(arrays["likeness"]),
        )


def face_radius(landmarks: Array) -> float:
    """Root mean square distance of landmarks from their middle."""
    centred = landmarks - landmarks.mean(axis=0)
    return float(np.sqrt((centred**2).sum(axis=-1).mean()))


def _with_one(features: Array) -> Array:
    return np.append(features, 1.0)


def _smooth(image: Array) -> Array:
    for axis in (0, 1):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def _sample(image: Array, points: Array) -> Array:
    """Bilinear, edges repeated; points [N,2] as x, y in pixels."""
    height, width = image.shape[:2]
    x, y = np.clip(points[:, 0], 0, width - 1.001), np.clip(points[:, 1], 0, height - 1.001)
    left, top = x.astype(int), y.astype(int)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = image[top, left] * (1 - fx) + image[top, left + 1] * fx
    lower = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)
