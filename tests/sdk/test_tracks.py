"""Tracks play forth and back; pose files become OpenCV view matrices."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talksplat.errors import InputError
from talksplat.tracks import (
    OPENFACE_CEILING,
    Track,
    check_viewmats,
    read_pose,
    read_upper_face,
)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (4, [0, 1, 2, 3, 2, 1, 0, 1, 2])],
)
def test_forth_and_back_without_a_jump(length: int, expected: list[int]) -> None:
    track = Track(np.arange(length))
    assert [int(track.at(frame)) for frame in range(len(expected))] == expected


def camera_to_world() -> np.ndarray:
    """OpenGL axes: at (0.1, 0.2, 0.7), upright, looking at the origin along world -z."""
    matrix = np.eye(4)
    matrix[:3, 3] = [0.1, 0.2, 0.7]
    return matrix


def test_transforms_file_is_turned_into_opencv(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    frames = [{"transform_matrix": camera_to_world().tolist(), "img_id": 0}] * 3
    path.write_text(json.dumps({"focal_len": 1200, "frames": frames}))
    track = read_pose(path)
    assert track.rows.shape == (3, 4, 4)
    # A point above and to the right of the camera's axis, in front of it: x > 0, y < 0, z > 0.
    point = track.at(0) @ [0.15, 0.3, 0.0, 1.0]
    np.testing.assert_allclose(point, [0.05, -0.1, 0.7, 1.0], atol=1e-6)


def test_viewmats_file(tmp_path: Path) -> None:
    viewmats = np.tile(np.eye(4), (2, 1, 1))
    viewmats[1, 2, 3] = 0.7
    np.savez(tmp_path / "pose.npz", viewmats=viewmats)
    found = read_pose(tmp_path / "pose.npz").rows
    np.testing.assert_array_equal(found, viewmats.astype(np.float32))


def test_viewmats_must_be_rigid_and_finite() -> None:
    good = np.tile(np.eye(4), (2, 1, 1))
    check_viewmats(good)
    for bad in (good * 2, good * np.nan, good[0], good[:0], good[:, :3], "x", [[1], [2, 3]]):
        with pytest.raises(InputError):
            check_viewmats(bad)


@pytest.mark.parametrize(
    "document",
    [
        [], {}, {"frames": []}, {"frames": [{}]}, {"frames": [{"transform_matrix": "x"}]},
        {"frames": 3}, {"frames": [{"transform_matrix": [[0] * 4] * 4}]},
        {"frames": [{"transform_matrix": [[1]]}]}, None,
    ],
)  # fmt: skip
def test_files_without_poses(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "pose.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"pose\.json"):
        read_pose(path)


def test_other_files(tmp_path: Path) -> None:
    for name, data in [
        ("pose.npz", b""),
        ("pose.npz", b"PK\x03\x04 broken"),
        ("pose.npz", pickle.dumps([1, 2])),
        ("pose.txt", b"1 2 3"),
        ("pose.json", b"\xff"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_pose(tmp_path / name)
    with pytest.raises(InputError):
        read_pose(tmp_path / "none.json")
    with pytest.raises(InputError):
        read_pose(tmp_path)


def test_arrays_that_would_unpickle_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pose.npz", viewmats=np.array([{"a": 1}], object))
    with pytest.raises(InputError):
        read_pose(tmp_path / "pose.npz")


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(position=st.floats(0, 1), junk=st.binary(max_size=6), cut=st.integers(0, 12))
def test_any_change_of_a_pose_file(tmp_path: Path, position: float, junk: bytes, cut: int) -> None:
    np.savez_compressed(tmp_path / "whole.npz", viewmats=np.tile(np.eye(4), (2, 1, 1)))
    text = json.dumps({"frames": [{"transform_matrix": camera_to_world().tolist()}]})
    (tmp_path / "whole.json").write_text(text)
    for suffix in (".npz", ".json"):
        data = (tmp_path / f"whole{suffix}").read_bytes()
        start = int(position * len(data))
        path = tmp_path / f"changed{suffix}"
        path.write_bytes(data[:start] + junk + data[start + cut :])
        try:
            assert np.isfinite(read_pose(path).rows).all()
        except InputError as error:
            assert str(error)


# Upper faces.

UNITS = np.array([[0.0, 1.25, 5.0, 0.3, 2.5, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5, 2.6]])
OPENFACE = """frame, face_id, timestamp, confidence, success, AU01_r, AU02_r, AU04_r, AU05_r, \
AU06_r, AU07_r, AU45_r, AU01_c, AU45_c
1, 0, 0.000, 0.98, 1, 0.00, 9.99, 1.25, 5.00, 0.30, 2.50, 0.70, 1, 0
2, 0, 0.040, 0.98, 1, 0.10, 9.99, 0.20, 0.30, 0.40, 0.50, 2.60, 1, 1
"""
RAW = np.ones(6, np.float32)


def test_openface_tables_are_cut_off_and_scaled(tmp_path: Path) -> None:
    path = tmp_path / "au.csv"
    path.write_text(OPENFACE)
    expected = np.minimum(UNITS, [5, 5, 5, 5, 5, 2]).astype(np.float32)
    np.testing.assert_allclose(read_upper_face(path, RAW).rows, expected, rtol=1e-6)
    path.write_bytes(OPENFACE.replace("\n", "\r\n").encode() + b"\r\n")
    scaled = read_upper_face(path, np.float32(1) / OPENFACE_CEILING).rows
    np.testing.assert_allclose(scaled, expected / [5, 5, 5, 5, 5, 2], rtol=1e-6)
    assert scaled.max() == 1


def test_a_table_is_read_at_the_frames_of_the_camera_track(tmp_path: Path) -> None:
    path, pose = tmp_path / "au.csv", tmp_path / "transforms_val.json"
    path.write_text(OPENFACE)
    frames = [{"transform_matrix": camera_to_world().tolist(), "img_id": n} for n in (1, 0, 1)]
    pose.write_text(json.dumps({"frames": frames}))
    numbers = read_pose(pose).numbers
    assert numbers == (1, 0, 1)
    rows = read_upper_face(path, RAW).rows
    np.testing.assert_array_equal(read_upper_face(path, RAW, numbers).rows, rows[[1, 0, 1]])
    with pytest.raises(InputError, match=r"frames up to 2.*found 2 rows"):
        read_upper_face(path, RAW, [0, 2])
    for img_id in (None, -1, True, "3", 2**31):
        frames[1]["img_id"] = img_id
        pose.write_text(json.dumps({"frames": frames}))
        assert read_pose(pose).numbers is None


def test_upper_face_arrays(tmp_path: Path) -> None:
    path = tmp_path / "eyes.npy"
    for dtype in (np.float32, np.float64, np.float16):
        np.save(path, UNITS.astype(dtype))
        np.testing.assert_array_equal(
            read_upper_face(path, None).rows, UNITS.astype(dtype).astype(np.float32)
        )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "found none"),
        ("frame, AU01_r\n1, 2\n", "0 called AU04_r"),
        (OPENFACE.replace("AU02_r", "AU01_r"), "2 called AU01_r"),
        (OPENFACE.splitlines()[0], "found none"),
        (OPENFACE.replace("5.00", "nan"), "line 2.*'nan'"),
        (OPENFACE.replace("5.00", "1e999"), "line 2.*finite"),
        (OPENFACE.replace("5.00", "__import__('os')"), "line 2.*found .__import__"),
        (OPENFACE + "3, 0, 0.08\n", "line 4 has 3 cells"),
    ],
)
def test_tables_that_are_not_openfaces(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "au.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"au\.csv: .*{reason}"):
        read_upper_face(path, RAW)


def test_upper_face_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "au.csv").write_text(OPENFACE)
    with pytest.raises(InputError, match="lid openings"):
        read_upper_face(tmp_path / "au.csv", None)
    for name, data in [
        ("a.npy", b""),
        ("a.npy", b"\x93NUMPY broken"),
        ("a.npy", pickle.dumps([1.0])),
        ("a.txt", OPENFACE.encode()),
        ("a.csv", b"\xff\xfe"),
        ("none.csv", None),
    ]:
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_upper_face(tmp_path / name, RAW)
    for rows in (
        UNITS[:, :5],
        UNITS[:0],
        UNITS[0],
        UNITS * np.nan,
        UNITS * 1e300,
        UNITS.astype(int),
        np.array([[{}] * 6], object),
    ):
        np.save(tmp_path / "a.npy", rows, allow_pickle=True)
        with pytest.raises(InputError, match=r"a\.npy"):
            read_upper_face(tmp_path / "a.npy", RAW)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(position=st.floats(0, 1), junk=st.binary(max_size=6), cut=st.integers(0, 12))
def test_any_change_of_an_upper_face_file(
    tmp_path: Path, position: float, junk: bytes, cut: int
) -> None:
    np.save(tmp_path / "whole.npy", UNITS)
    (tmp_path / "whole.csv").write_text(OPENFACE)
    for suffix in (".npy", ".csv"):
        data = (tmp_path / f"whole{suffix}").read_bytes()
        start = int(position**2 * len(data))
        path = tmp_path / f"changed{suffix}"
        path.write_bytes(data[:start] + junk + data[start + cut :])
        try:
            rows = read_upper_face(path, RAW).rows
            assert np.isfinite(rows).all() and rows.shape[1] == 6
        except InputError as error:
            assert str(error)
