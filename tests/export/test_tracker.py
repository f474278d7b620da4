"""From a picture of a procedural head to a person, and refusals where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from talksplat.errors import InputError
from talksplat_export.families.sdtalk_identity import HEAD_SCALE, Person, intrinsics
from talksplat_export.heads.head_points import HEAD_POINTS, SKIN_POINTS
from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.landmark_finder import face_radius
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.heads.rendering import intrinsics as capture_intrinsics
from talksplat_export.heads.rendering import look_at, render
from talksplat_export.tracker import load_tracker, track

HEAD = ProceduralHead()
ADA = NAMED["ada"]
SIZE = 320


def portrait(yaw: float = 0.0, pitch: float = 0.0, focal: float = 1200.0) -> np.ndarray:
    """RGBA, uint8."""
    K = capture_intrinsics(SIZE, focal)
    drawn = render(HEAD, ADA, None, None, look_at(yaw, pitch), K, SIZE, SIZE)
    return (np.clip(drawn.rgba, 0, 1) * 255).astype(np.uint8)


def on_backdrop(rgba: np.ndarray) -> np.ndarray:
    """RGB before a wall that gets darker from top to bottom."""
    wall = np.linspace(190, 130, SIZE)[:, None, None] * np.array([0.95, 1.0, 1.05])
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + wall * (1 - alpha)).astype(np.uint8)


def tracked(picture: np.ndarray, folder: Path) -> Person:
    path = folder / "photo.png"
    Image.fromarray(picture).save(path)
    return track(path)


def angle(left: np.ndarray, right: np.ndarray) -> float:
    """Degrees between two rotations."""
    cosine = (np.trace(left @ right.T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def in_pixels(person: Person, points: np.ndarray) -> np.ndarray:
    """Where the person's own camera sees points, [N,2]."""
    camera = points @ person.viewmat[:3, :3].T + person.viewmat[:3, 3]
    screen = camera @ intrinsics(len(person.image)).T
    return np.asarray(screen[:, :2] / screen[:, 2:])


@pytest.mark.parametrize(
    ("yaw", "pitch", "focal"), [(0, 0, 1200), (15, -5, 1200), (-20, 8, 1500), (8, 5, 800)]
)
@pytest.mark.parametrize("backdrop", [False, True])
def test_the_pose_is_estimated_from_the_picture(
    yaw: float, pitch: float, focal: float, backdrop: bool, tmp_path: Path
) -> None:
    rgba = portrait(yaw, pitch, focal)
    person = tracked(on_backdrop(rgba) if backdrop else rgba, tmp_path)
    # The picture was taken from 0.7 m, which the tracker's long lens cannot tell from turning:
    # a few degrees.
    assert angle(person.viewmat[:3, :3], look_at(yaw, pitch)[:3, :3]) < 6
    truth = HEAD_SCALE * HEAD.vertices(ADA)[HEAD.landmarks[36:48]]
    seen = in_pixels(person, truth)
    assert (seen > 100).all() and (seen < 412).all()


def test_points_lie_on_what_they_are_named_after(tmp_path: Path) -> None:
    person = tracked(portrait(10, 3), tmp_path)
    assert person.head_points.shape == (HEAD_POINTS, 3)
    assert person.image.shape == (512, 512, 3)
    picture = person.image.astype(np.float64) / 255
    left_eye = in_pixels(person, person.head_points[SKIN_POINTS:][:546])
    right_eye = in_pixels(person, person.head_points[SKIN_POINTS + 546 :])
    assert left_eye[:, 0].mean() > right_eye[:, 0].mean() + 40  # the subject's left is our right
    iris = picture[*np.round(left_eye.mean(axis=0)).astype(int)[::-1]]
    skin = picture[*np.round(left_eye.mean(axis=0) + np.array([0, 60])).astype(int)[::-1]]
    assert iris.mean() < skin.mean()
    lips = person.mask[2 * 546 :]
    rows = in_pixels(person, person.head_points[lips])[:, 1]
    assert rows.max() > left_eye[:, 1].mean() + 40
    assert person.mask.max() < HEAD_POINTS


def test_the_background_is_black(tmp_path: Path) -> None:
    person = tracked(on_backdrop(portrait()), tmp_path)
    assert (person.image[:8] == 0).all() and (person.image[:, :8] == 0).mean() > 0.9
    assert person.image[256, 256].mean() > 60


def _noise() -> Image.Image:
    picture = np.full((SIZE, SIZE, 3), 200, np.uint8)
    picture[60:260, 80:240] = np.random.default_rng(0).integers(0, 255, (200, 160, 3))
    return Image.fromarray(picture)


def _ball() -> Image.Image:
    picture = Image.new("RGB", (SIZE, SIZE), (180, 180, 190))
    ImageDraw.Draw(picture).ellipse((90, 60, 230, 260), fill=(200, 150, 120))
    return picture


def _empty() -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), (90, 120, 90))


def _upside_down() -> Image.Image:
    return Image.fromarray(portrait()[::-1].copy())


def _from_behind() -> Image.Image:
    return Image.fromarray(portrait(180))


@pytest.mark.parametrize("draw", [_noise, _ball, _empty, _upside_down, _from_behind])
def test_what_is_not_a_face_is_refused(draw: Callable[[], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    draw().save(path)
    with pytest.raises(InputError, match=r"photo\.png cannot be tracked: no (face|head)"):
        track(path)


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG and then nothing")
    with pytest.raises(InputError, match="not a picture"):
        track(path)


def test_another_tracker_is_found_by_its_name() -> None:
    assert load_tracker("talksplat_export.tracker:track") is track
    with pytest.raises(InputError, match="module:function"):
        load_tracker("talksplat_export.tracker:nothing")
    with pytest.raises(InputError, match="expects a function"):
        load_tracker("talksplat_export.tracker:IMAGE_SIZE")


def test_the_radius_of_a_face_is_a_length() -> None:
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
    assert face_radius(3 * square) == pytest.approx(3 * 2**0.5)
