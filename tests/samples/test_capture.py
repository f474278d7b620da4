"""A capture on disk: the layout, its cameras, the still torso, and going on after a stop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthetic_capture.camera import Camera, opengl_camera_to_world
from synthetic_capture.corpus import AVATAR_VOICE
from synthetic_capture.layout import parsing_image
from synthetic_capture.recording import Recording, Scene
from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.model import Region
from talksplat_export.heads.procedural import ProceduralHead

SIZE = 96
SCENE = Scene("ada", AVATAR_VOICE, 1.0, 1.0, SIZE, 0)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The tracks and two frames, the ones whose heads are turned apart the most."""
    recording = Recording(SCENE, tmp_path_factory.mktemp("capture"))
    recording.write_tracks()
    for frame in turned_apart(recording):
        recording.write_frame(frame)
    return recording


def turned_apart(recording: Recording) -> tuple[int, int]:
    yaw = recording.performance.neck_rotations[:, 1]
    return int(yaw.argmin()), int(yaw.argmax())


def folder(recording: Recording) -> Path:
    return recording.folder.path


def read(path: Path, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(path).convert(mode))


def viewmats_of(recording: Recording) -> dict[int, np.ndarray]:
    """World → camera, OpenCV, by frame, from the transforms files as their readers do it."""
    viewmats = {}
    for part in ("train", "val"):
        content = json.loads((folder(recording) / f"transforms_{part}.json").read_text())
        for frame in content["frames"]:
            camera_to_world = np.array(frame["transform_matrix"])
            camera_to_world[:3, 1:3] *= -1
            viewmats[frame["img_id"]] = np.linalg.inv(camera_to_world)
    return viewmats


def test_every_part_of_a_frame_is_there(recording: Recording) -> None:
    for frame in turned_apart(recording):
        assert read(folder(recording) / "gt_imgs" / f"{frame}.jpg").shape == (SIZE, SIZE, 3)
        assert read(folder(recording) / "ori_imgs" / f"{frame}.jpg").shape == (SIZE, SIZE, 3)
        torso = read(folder(recording) / "torso_imgs" / f"{frame}.png", "RGBA")
        assert torso.shape == (SIZE, SIZE, 4) and 0 < np.mean(torso[..., 3] > 0) < 0.5
        mask = np.load(folder(recording) / "teeth_mask" / f"{frame}.npy")
        assert mask.dtype == bool and mask.shape == (SIZE, SIZE)
        landmarks = np.loadtxt(folder(recording) / "ori_imgs" / f"{frame}.lms")
        assert landmarks.shape == (68, 2) and landmarks.min() > 0 and landmarks.max() < SIZE
    for name in ("bc.jpg", "aud.wav", "au.csv", "expression.npz", "phonemes.json"):
        assert (folder(recording) / name).is_file()


def test_training_and_held_out_frames_follow_each_other(recording: Recording) -> None:
    ids = {}
    for part in ("train", "val"):
        content = json.loads((folder(recording) / f"transforms_{part}.json").read_text())
        ids[part] = [frame["img_id"] for frame in content["frames"]]
        assert content["focal_len"] == 1200 * SIZE / 512
        assert content["cx"] == content["cy"] == SIZE / 2
    assert ids["train"] == list(range(25)) and ids["val"] == list(range(25, 50))


def test_the_cameras_see_the_resting_head_where_the_picture_shows_it(recording: Recording) -> None:
    model = ProceduralHead()
    nose_bridge = model.template(NAMED["ada"])[model.landmarks[27:31]]
    viewmats = viewmats_of(recording)
    for frame in turned_apart(recording):
        expected = Camera(SIZE).project(nose_bridge, viewmats[frame])
        written = np.loadtxt(folder(recording) / "ori_imgs" / f"{frame}.lms")[27:31]
        # Written with three decimals; noses hardly move when mouths speak.
        np.testing.assert_allclose(written, expected, atol=0.05)


def test_opengl_cameras_look_along_minus_z() -> None:
    camera_to_world = opengl_camera_to_world(Camera(512).viewmat[None])[0]
    np.testing.assert_allclose(camera_to_world[:3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(camera_to_world[:3, 3], [0, 0, 0.7], atol=1e-12)


def test_the_torso_stands_still_while_the_head_moves(recording: Recording) -> None:
    first, second = (
        read(folder(recording) / "gt_imgs" / f"{frame}.jpg").astype(int)
        for frame in turned_apart(recording)
    )
    parsing = [
        read(folder(recording) / "parsing" / f"{frame}.png") for frame in turned_apart(recording)
    ]
    clothes = np.all([np.all(p == (255, 0, 0), axis=-1) for p in parsing], axis=0)
    clothes[:-4] = False  # away from the neck, where JPEG blocks mix both
    assert clothes.sum() > 50
    assert np.abs(first - second)[clothes].mean() < 2.0
    face = np.all(parsing[0] == (0, 0, 255), axis=-1)
    assert np.abs(first - second)[face].mean() > 4.0


def test_regions_have_the_colours_that_readers_look_for() -> None:
    regions = np.array([[int(region) for region in Region]], np.uint8)
    colors = dict(zip(Region, parsing_image(regions)[0].tolist(), strict=True))
    assert colors[Region.SKIN] == colors[Region.LIPS] == colors[Region.EYEBALLS] == [0, 0, 255]
    assert colors[Region.HAIR] == [0, 0, 0]
    assert colors[Region.TEETH] == colors[Region.MOUTH_INTERIOR] == [100, 100, 100]
    assert colors[Region.NECK] == [0, 255, 0] and colors[Region.CLOTHES] == [255, 0, 0]
    assert colors[Region.BACKGROUND] == [255, 255, 255]


def test_a_stopped_recording_goes_on_with_the_same_pictures(recording: Recording) -> None:
    frame, other = turned_apart(recording)
    path = folder(recording) / "gt_imgs" / f"{frame}.jpg"
    before = path.read_bytes()
    path.unlink()
    again = Recording(SCENE, folder(recording))
    assert frame in again.missing_frames() and other not in again.missing_frames()
    again.write_frame(frame)
    assert path.read_bytes() == before


def test_another_recording_does_not_mix_into_a_folder(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "samples/synthetic_capture/make_capture.py"
    (tmp_path / "scene.json").write_text("{}\n")
    process = subprocess.run(
        [sys.executable, script, "--seconds", "1", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "Choose another folder" in process.stderr and "Traceback" not in process.stderr
