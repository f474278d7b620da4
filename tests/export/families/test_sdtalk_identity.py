"""person.npz: geometry of camera and planes, and what is refused."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.export.checkpoints.sdtalk_files import make_person, transform

from talksplat.errors import InputError
from talksplat_export.families.sdtalk_identity import Person, intrinsics, viewmats

PERSON = make_person()


def _project(person: Person, points: np.ndarray) -> np.ndarray:
    """Pixels as the published camera says, centres of pixels at whole numbers; and depth."""
    rotation, translation = person.transform[:, :3], person.transform[:, 3]
    seen = points @ rotation + translation  # row vectors; +x left, +y up
    half = len(person.image) / 2
    pixels = 12 * half * -seen[:, :2] / seen[:, 2:] + (half - 0.5)
    return np.concatenate([pixels, seen[:, 2:]], axis=1)


def test_view_matrix_and_intrinsics_are_the_published_camera() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    camera = points @ PERSON.viewmat[:3, :3].T + PERSON.viewmat[:3, 3]
    K = intrinsics(len(PERSON.image))
    pixels = camera @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:] - 0.5  # ours have their centres at +0.5
    expected = _project(PERSON, points)
    np.testing.assert_allclose(pixels, expected[:, :2], atol=1e-9)
    np.testing.assert_allclose(camera[:, 2], expected[:, 2], atol=1e-12)
    assert np.linalg.det(PERSON.viewmat[:3, :3]) == pytest.approx(1)


def test_published_focal_length() -> None:
    np.testing.assert_array_equal(intrinsics(512), [[3072, 0, 256], [0, 3072, 256], [0, 0, 1]])


def test_many_transforms_at_once() -> None:
    several = np.stack([transform(yaw) for yaw in (0.0, 0.2)])
    np.testing.assert_array_equal(viewmats(several)[1], viewmats(several[1:])[0])


@pytest.mark.parametrize("size", [2, 40, 296])
def test_plane_is_the_source_picture_through_the_origin(size: int) -> None:
    points = PERSON.plane_points(size)
    np.testing.assert_allclose(points @ PERSON.direction, 0, atol=1e-9)
    pixels = _project(PERSON, points)[:, :2].reshape(size, size, 2)
    edges = np.linspace(-0.5, len(PERSON.image) - 0.5, size)
    np.testing.assert_allclose(pixels[:, :, 0], np.tile(edges, (size, 1)), atol=1e-6)
    np.testing.assert_allclose(pixels[:, :, 1], np.tile(edges[:, None], (1, size)), atol=1e-6)


def test_direction_points_from_the_camera_into_the_scene() -> None:
    centre = -PERSON.transform[:, :3] @ PERSON.transform[:, 3]
    assert float(PERSON.direction @ (np.zeros(3) - centre)) > 8


def test_eyes_at_rest_are_whole_pixels_two_openings_and_a_width_each() -> None:
    at_512 = replace(PERSON, image=np.zeros((512, 512, 3), np.uint8)).eyes_at_rest
    np.testing.assert_array_equal(at_512, np.trunc(at_512))
    assert at_512[:3].tolist() == at_512[3:].tolist()
    assert 10 < at_512[0] == at_512[1] < 20 < 40 < at_512[2] < 60


def test_scene_stands_still_where_the_picture_was_taken() -> None:
    scene = PERSON.scene()
    np.testing.assert_allclose(scene.viewmats[0], PERSON.viewmat, atol=1e-6)
    assert scene.width == scene.height == len(PERSON.image)
    assert len(scene.notes) == 2


@pytest.mark.parametrize("plane_size", [None, 24])
def test_round_trip(tmp_path: Path, plane_size: int | None) -> None:
    person = make_person(plane_size=plane_size)
    person.save(tmp_path / "person.npz")
    found = Person.load(tmp_path / "person.npz")
    for name in ("image", "transform", "head_points", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(person, name))
    assert found.plane_size == plane_size


def _arrays(**changes: Any) -> dict[str, Any]:
    names = ("image", "transform", "head_points", "mask")
    arrays = {name: getattr(PERSON, name) for name in names} | changes
    return {name: array for name, array in arrays.items() if array is not None}


_MIRROR = np.diag([-1.0, 1.0, 1.0]) @ PERSON.transform


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mask": None}, "it lacks mask"),
        ({"image": None, "transform": None}, "it lacks image, transform"),
        ({"image": PERSON.image.astype(np.float32)}, r"uint8 \[512,512,3\], found float32"),
        ({"image": PERSON.image[:-1]}, r"found uint8 \[63, 64, 3\]"),
        ({"transform": np.eye(4)}, r"transform of a person expects \[3, 4\]"),
        ({"transform": np.ones((3, 4))}, "a rotation R"),
        ({"transform": _MIRROR}, "a mirrored R"),
        ({"transform": PERSON.transform * np.nan}, "finite numbers"),
        ({"transform": np.ones((3, 4), int)}, "floating-point numbers"),
        ({"head_points": np.zeros((60, 2))}, r"head_points of a person expects \[60, 3\]"),
        ({"head_points": np.full((60, 3), np.inf)}, "finite numbers, found NaN or infinity"),
        ({"mask": np.array([0, 60])}, "indices of 60 vertices, found 0 to 60"),
        ({"mask": np.array([-1, 2])}, "indices of 60 vertices, found -1 to 2"),
        ({"mask": np.array([0.5])}, "mask of a person expects integers"),
        ({"mask": np.zeros(60, bool)}, "mask of a person expects integers, found bool"),
        ({"mask": np.zeros(0, int)}, "at least one"),
        ({"plane_size": np.array(1)}, "plane_size of a person expects 2 to"),
        ({"plane_size": np.array([4, 4])}, "one integer"),
        ({"image": np.array([{}], object)}, "can be read: an array of object"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = tmp_path / "person.npz"
    np.savez(path, **_arrays(**changes))
    with pytest.raises(InputError, match=expected):
        Person.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "person.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"person\.npz"):
        Person.load(path)


def test_memory_is_not_taken_on_the_word_of_a_header(tmp_path: Path) -> None:
    path, stream = tmp_path / "person.npz", BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", stream.getvalue())
    with pytest.raises(InputError, match=r"float64 \[1000000000000\] in 0 bytes"):
        Person.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        Person.load(tmp_path / "person.npz")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "person.npz"
    PERSON.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="can be read"):
        Person.load(path)
