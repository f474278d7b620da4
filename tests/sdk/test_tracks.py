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
from talksplat.tracks import Track, check_viewmats, read_pose


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
    for bad in (good * 2, good * np.nan, good[0], good[:0], good[:, :3]):
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
