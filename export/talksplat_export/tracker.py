"""From a picture to a person: the contract of a tracker, and the one that is built in.

SDTalk shows a person whom a tracker has found in one picture. A *tracker* is a function from the
path of a picture to a :class:`~talksplat_export.families.sdtalk_identity.Person`:

===============  ================================================================================
``image``        the head on black, uint8 RGB [512,512,3], cut so that the camera below sees it
``transform``    [R | T] [3,4] of PyTorch3D's convention: ``x_camera = x · R + T``, +x left, +y up,
                 +z into the picture; focal length 12 half picture sides, principal point in the
                 middle. The subject looks along +z of the head's space, so R is near
                 diag(-1, 1, -1)
``head_points``  [5023,3], FLAME's vertices in metres, times five
``mask``         [M], which of them are drawn: left eyeball, right eyeball, right eye region, lips,
                 left eye region
===============  ================================================================================

It raises :class:`~talksplat.errors.InputError` where it finds no face. ``talksplat export
--tracker yours.module:function`` uses another one; whoever has FLAME can also run a tracker of
their own and give its result as ``--identity person.npz``.

The built-in :func:`track` removes a plain background, finds 68 landmarks and fits to them the shape
and the pose of the procedural heads of this project. It knows no other heads, has no expression,
and its points stand for FLAME's as :mod:`talksplat_export.heads.head_points` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talksplat.errors import InputError
from talksplat_export.families.sdtalk_identity import FOCAL, HEAD_SCALE, Person
from talksplat_export.heads import landmark_finder
from talksplat_export.heads.cutout import cut_out
from talksplat_export.heads.procedural import rotation_matrix
from talksplat_export.scene import open_image

Array = NDArray[np.float64]
Tracker = Callable[[Path], Person]

IMAGE_SIZE = 512

_ITERATIONS = 40
_STIFFNESS = 2.0  # pixels that one standard deviation of shape costs
_HEAD_SHARE = 0.42  # of the picture's side between the outermost landmarks, as SDTalk frames heads


@dataclass(frozen=True)
class _HeadShapes:
    """The procedural heads' points: a mean and directions of one standard deviation."""

    points: Array  # [5023,3]
    point_directions: Array  # [S,5023,3]
    landmarks: Array  # [68,3]
    landmark_directions: Array  # [S,68,3]
    mask: NDArray[np.int64]


def track(path: Path) -> Person:
    """The person in a picture of one of the procedural heads, before a plain background.

    Raises:
        InputError: no picture, no plain background or alpha, or no face that this knows.
    """
    picture = open_image(path)
    try:
        cutout = cut_out(picture)
        left, top, side = cutout.box
        landmarks = landmark_finder.landmark_finder().find(cutout.crop()) * side + (left, top)
    except InputError as error:
        raise InputError(
            f"{path} cannot be tracked: {error}. The built-in tracker knows the procedural heads "
            "only; give --identity of a FLAME tracker, or --tracker with your own."
        ) from error
    image, framed = _frame(cutout.image, landmarks)
    return _person(image, framed)


def load_tracker(name: str) -> Tracker:
    """A tracker given as ``module:function``.

    Raises:
        InputError: there is no such function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--tracker expects module:function that can be imported, found {name!r}: {error}."
        ) from error
    if not callable(found):
        raise InputError(f"--tracker expects a function, found {name!r}.")
    tracker: Tracker = found
    return tracker


def _frame(image: NDArray[np.uint8], landmarks: Array) -> tuple[NDArray[np.uint8], Array]:
    """The square of a picture in which the face is as large as SDTalk frames it, and the landmarks
    [68,2] in it."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = float((high - low).max()) / _HEAD_SHARE
    # Faces lie below the middle of heads: brows are the first landmark from above.
    left, top = (low + high) / 2 - side / 2 - (0.0, 0.06 * side)
    margin = int(np.ceil(side))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    box = (left + margin, top + margin, left + margin + side, top + margin + side)
    height, width = padded.shape[:2]
    if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
        raise InputError("The face lies outside the picture.")
    square = Image.fromarray(padded).resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, box=box
    )
    return np.array(square), (landmarks - (left, top)) * IMAGE_SIZE / side


def _person(image: NDArray[np.uint8], landmarks: Array) -> Person:
    shapes = _head_shapes()
    pose, weights = _fit(shapes, landmarks)
    points = shapes.points + np.tensordot(weights, shapes.point_directions, 1)
    # PyTorch3D's axes are OpenCV's with x and y turned round; its vectors are rows.
    flip = np.diag([-1.0, -1.0, 1.0])
    rotation = (flip @ rotation_matrix(pose[:3])).T
    translation = HEAD_SCALE * flip @ pose[3:]
    return Person(
        image=image,
        transform=np.concatenate([rotation, translation[:, None]], axis=1),
        head_points=HEAD_SCALE * points,
        mask=shapes.mask,
    )


def _fit(shapes: _HeadShapes, landmarks: Array) -> tuple[Array, Array]:
    """World → camera as (axis-angle, translation in metres) [6] and weights [S] of the shape, whose
    landmarks are seen at ``landmarks`` [68,2] pixels: Levenberg-Marquardt."""
    focal = FOCAL * IMAGE_SIZE / 2
    count = len(shapes.landmark_directions)
    size = np.linalg.norm(np.ptp(landmarks, axis=0))
    metres = np.linalg.norm(np.ptp(shapes.landmarks[:, :2], axis=0))
    depth = focal * metres / size
    centre = (landmarks.min(axis=0) + landmarks.max(axis=0)) / 2 - IMAGE_SIZE / 2
    values = np.concatenate([[np.pi, 0, 0], centre * depth / focal, [depth], np.zeros(count)])

    def residuals(values: Array) -> Array:
        points = shapes.landmarks + np.tensordot(values[6:], shapes.landmark_directions, 1)
        camera = points @ rotation_matrix(values[:3]).T + values[3:6]
        seen = focal * camera[:, :2] / camera[:, 2:] + IMAGE_SIZE / 2
        return np.concatenate([(seen - landmarks).ravel(), _STIFFNESS * values[6:]])

    damping, current = 1e-2, residuals(values)
    for _ in range(_ITERATIONS):
        jacobian = np.stack(
            [(residuals(values + step) - current) / 1e-6 for step in 1e-6 * np.eye(len(values))], 1
        )
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ current)
        tried = residuals(values + step)
        if tried @ tried < current @ current:
            values, current, damping = values + step, tried, damping / 4
        else:
            damping *= 8
    return values[:6], values[6:]


@lru_cache(maxsize=1)
def _head_shapes() -> _HeadShapes:
    path = Path(landmark_finder.__file__).with_name("landmarks.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return _HeadShapes(
            arrays["points"].astype(np.float64),
            arrays["point_directions"].astype(np.float64),
            arrays["landmark_points"].astype(np.float64),
            arrays["landmark_directions"].astype(np.float64),
            arrays["mask"].astype(np.int64),
        )
