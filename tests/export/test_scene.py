"""Cameras, background and action units of a capture, and what stands in where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from talksplat.errors import InputError
from talksplat_export.scene import Scene

WIDTH, HEIGHT = 40, 30
CAMERA = np.array([[1.0, 0, 0, 0.1], [0, 1, 0, 0.2], [0, 0, 1, 0.7], [0, 0, 0, 1]])


def write_capture(folder: Path, split: str = "val", ids: tuple[int, ...] = (2, 3)) -> Path:
    """A capture of four frames, of which a split names ``ids``."""
    folder.mkdir(exist_ok=True)
    frames = [{"img_id": i, "aud_id": i, "transform_matrix": CAMERA.tolist()} for i in ids]
    # cx and cy are off on purpose: they must be ignored.
    document = {"focal_len": 100.0, "cx": 1.0, "cy": 2.0, "frames": frames}
    (folder / f"transforms_{split}.json").write_text(json.dumps(document))
    Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(folder / "bc.png")
    (folder / "torso_imgs").mkdir(exist_ok=True)
    torso = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    torso[20:] = (200, 100, 50, 128)
    Image.fromarray(torso).save(folder / "torso_imgs" / f"{ids[0]}.png")
    units = ("01", "04", "05", "06", "07", "45")
    rows = [" ".join(["frame,", *(f"AU{unit}_r," for unit in units)]).rstrip(",")]
    rows += [f"{i}, {i}, 0.5, 7.0, -1, 4, 3.5" for i in range(4)]
    (folder / "au.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_cameras_are_turned_from_opengl_to_opencv(tmp_path: Path) -> None:
    scene = Scene.from_capture(write_capture(tmp_path / "may"))
    # A camera at (.1, .2, .7) that looks along -z: the origin is in front, below and to its left.
    origin = scene.viewmats[0] @ [0, 0, 0, 1]
    np.testing.assert_allclose(origin[:3], [-0.1, 0.2, 0.7], atol=1e-6)
    assert scene.viewmats.shape == (2, 4, 4)


def test_the_principal_point_is_the_centre_whatever_the_file_says(tmp_path: Path) -> None:
    scene = Scene.from_capture(write_capture(tmp_path / "may"))
    assert scene.K.tolist() == [[100, 0, WIDTH / 2], [0, 100, HEIGHT / 2], [0, 0, 1]]
    assert (scene.width, scene.height) == (WIDTH, HEIGHT)


def test_action_units_are_those_of_the_frame_and_blinks_end_at_two(tmp_path: Path) -> None:
    scene = Scene.from_capture(write_capture(tmp_path / "may"))
    assert scene.upper_face.tolist() == [[2, 0.5, 5, 0, 4, 2], [3, 0.5, 5, 0, 4, 2]]


def test_the_torso_lies_over_the_background_in_truncated_bytes(tmp_path: Path) -> None:
    scene = Scene.from_capture(write_capture(tmp_path / "may"))
    assert scene.background[0, 0].tolist() == [10, 20, 30]
    share = 128 / 255
    blended = [int(t * share + b * (1 - share)) for t, b in ((200, 10), (100, 20), (50, 30))]
    assert scene.background[25, 5].tolist() == blended
    assert any("torso stands still" in note for note in scene.notes)


def test_validation_cameras_come_before_those_of_the_training(tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "may", "train", (0, 1, 2))
    assert len(Scene.from_capture(folder).viewmats) == 3
    write_capture(folder, "val", (3,))
    assert len(Scene.from_capture(folder).viewmats) == 1


def test_parts_can_be_others_than_the_folders(tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "may")
    wall = tmp_path / "wall.png"
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(wall)
    assert Scene.from_capture(folder, background=wall).background[0, 0].tolist() == [1, 2, 3]


def test_cameras_alone_leave_the_rest_black_and_at_rest_and_say_so(tmp_path: Path) -> None:
    folder = write_capture(tmp_path / "may")
    scene = Scene.from_transforms(folder / "transforms_val.json")
    assert (scene.width, scene.height) == (2, 4)  # twice (cx, cy)
    assert not scene.background.any() and not scene.upper_face.any()
    assert any("black" in note for note in scene.notes)
    assert any("never blink" in note for note in scene.notes)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_a_frontal_camera_frames_the_gaussians(scale: float) -> None:
    random = np.random.default_rng(3)
    means = scale * (random.uniform(-1, 1, (5000, 3)) * (0.7, 1.0, 0.8) + (0.4, -0.2, 0.3))
    means[0] = 100 * scale  # one that flew off must not matter
    scene = Scene.framing(means)
    camera = means @ scene.viewmats[0, :3, :3].T + scene.viewmats[0, :3, 3]
    screen = camera @ scene.K.T
    pixels = (screen[1:, :2] / screen[1:, 2:]) / scene.width
    low, high = np.percentile(pixels, [1, 99], axis=0)
    assert (camera[1:, 2] > 0).all()
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=0.02)
    assert 0.5 < (high - low).max() < 0.85
    # +y is up and the subject's left is on the right.
    assert np.corrcoef(means[1:, 1], pixels[:, 1])[0, 1] < -0.9
    assert np.corrcoef(means[1:, 0], pixels[:, 0])[0, 1] > 0.9
    assert any("straight in front" in note for note in scene.notes)


def test_no_or_infinite_gaussians_cannot_be_framed() -> None:
    with pytest.raises(InputError, match=r"\[N,3\]"):
        Scene.framing(np.zeros((0, 3)))
    with pytest.raises(InputError, match="finite"):
        Scene.framing(np.full((2, 3), np.inf))


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "transforms_val.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return edit


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no cameras": (lambda f: (f / "transforms_val.json").unlink(), "transforms_train.json"),
    "not JSON": (lambda f: (f / "transforms_val.json").write_text("{"), "is not JSON"),
    "a list": (lambda f: (f / "transforms_val.json").write_text("[]"), "JSON object"),
    "deep": (lambda f: (f / "transforms_val.json").write_text("[" * 10**5), "is not JSON"),
    "no focal length": (_edit(lambda d: d.pop("focal_len")), "focal_len"),
    "negative focal": (_edit(lambda d: d.update(focal_len=-1)), "focal_len must be"),
    "no frames": (_edit(lambda d: d.update(frames=[])), "holds no cameras"),
    "frames of text": (_edit(lambda d: d.update(frames="abc")), "holds no cameras"),
    "short matrix": (
        _edit(lambda d: d["frames"][0].update(transform_matrix=[[1]])),
        "holds no cameras",
    ),
    "singular": (
        _edit(lambda d: d["frames"][0].update(transform_matrix=[[0] * 4] * 4)),
        "holds no cameras",
    ),
    "frame beyond": (_edit(lambda d: d["frames"][1].update(img_id=9)), "has 4 rows"),
    "torso missing": (lambda f: (f / "torso_imgs" / "2.png").unlink(), "torso_imgs/2.png"),
    "torso of other size": (
        lambda f: Image.new("RGBA", (3, 3)).save(f / "torso_imgs" / "2.png"),
        "as large as the background",
    ),
    "broken picture": (lambda f: (f / "bc.png").write_bytes(b"\x89PNG"), "not a picture"),
    "column missing": (
        lambda f: (f / "au.csv").write_text("frame, AU01_r\n0, 1\n"),
        "found 0 called AU04_r",
    ),
    "empty table": (lambda f: (f / "au.csv").write_text(""), "found none"),
    "words": (
        lambda f: (f / "au.csv").write_text(
            "AU01_r,AU04_r,AU05_r,AU06_r,AU07_r,AU45_r\n1,2,x,4,5,6\n"
        ),
        "line 2: expected a finite number, found 'x'",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_capture_is_one_sentence(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    folder = write_capture(tmp_path / "may")
    damage(folder)
    with pytest.raises(InputError) as refusal:
        Scene.from_capture(folder)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)
