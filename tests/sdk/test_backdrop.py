"""Backgrounds: pictures, one per frame, transparent ones over the plate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from synthetic_bundle import HEIGHT, WIDTH, speech_like

import talksplat
from talksplat.backdrop import PictureFolder, open_backdrop
from talksplat.errors import InputError
from talksplat.speech import speak
from talksplat.video import encode_png, read_image_with_alpha

Bytes = NDArray[np.uint8]

SIZE = (8, 12)
PLATE = np.random.default_rng(9).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def torso(seed: int) -> Bytes:
    """RGBA with every kind of alpha: none, some, all."""
    picture = np.random.default_rng(seed).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    picture[:3, :, 3] = 0
    picture[-3:, :, 3] = 255
    return picture


def write_torsos(folder: Path, names: list[str]) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        Image.fromarray(torso(number)).save(folder / f"{name}.png")


def test_pictures_keep_their_alpha(tmp_path: Path) -> None:
    Image.fromarray(torso(0)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image_with_alpha(tmp_path / "a.png"), torso(0))
    (tmp_path / "b.png").write_bytes(encode_png(PLATE))
    opaque = read_image_with_alpha(tmp_path / "b.png")
    np.testing.assert_array_equal(opaque[..., :3], PLATE)
    assert (opaque[..., 3] == 255).all()


def test_transparent_pictures_lie_over_the_plate_truncated(tmp_path: Path) -> None:
    write_torsos(tmp_path / "torso_imgs", ["0", "1"])
    found = PictureFolder(tmp_path / "torso_imgs", PLATE).at(1)
    picture = torso(1).astype(np.float64)
    alpha = picture[..., 3:] / 255
    exact = picture[..., :3] * alpha + PLATE * (1 - alpha)
    # Sums within float32 rounding of a whole number may truncate to either side.
    assert (found <= exact + 1e-3).all() and (exact - found < 1 + 1e-3).all()
    np.testing.assert_array_equal(found[:3], PLATE[:3])
    np.testing.assert_array_equal(found[-3:], torso(1)[-3:, :, :3])


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["10", "9", "011"], [1, 0, 2, 0, 1]), (["b", "a10", "a9"], [1, 2, 0, 2, 1])],
)
def test_numbers_are_counted_and_names_sorted_forth_and_back(
    tmp_path: Path, names: list[str], expected: list[int]
) -> None:
    write_torsos(tmp_path / "frames", names)
    (tmp_path / "frames" / "notes.txt").write_text("not a picture")
    backdrop = PictureFolder(tmp_path / "frames", PLATE)
    for frame, number in enumerate(expected):
        np.testing.assert_array_equal(backdrop.at(frame)[-3:], torso(number)[-3:, :, :3])


def test_pictures_of_the_frames_of_a_recording(tmp_path: Path) -> None:
    write_torsos(tmp_path / "frames", ["0", "1", "2", "3"])
    backdrop = PictureFolder(tmp_path / "frames", PLATE, numbers=[2, 3, 2])
    for frame, number in enumerate([2, 3, 2, 3]):
        np.testing.assert_array_equal(backdrop.at(frame)[-3:], torso(number)[-3:, :, :3])
    with pytest.raises(InputError, match=r"expected a picture 7 in .*1 of 2 are missing"):
        PictureFolder(tmp_path / "frames", PLATE, numbers=[1, 7])


def test_arrays_play_forth_and_back() -> None:
    pictures = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in (1, 2, 3)])
    backdrop = open_backdrop(pictures, SIZE[1], SIZE[0], PLATE)
    assert [backdrop.at(frame)[0, 0, 0] for frame in range(6)] == [1, 2, 3, 2, 1, 2]


@pytest.mark.parametrize(
    "bad",
    [
        PLATE[1:],
        PLATE[None, None],
        PLATE.astype(np.float32),
        PLATE[..., :2],
        PLATE[None][:0],
        3,
        [[1], [2, 3]],
    ],
)
def test_arrays_that_are_no_background(bad: Bytes) -> None:
    with pytest.raises(InputError, match="background"):
        open_backdrop(bad, SIZE[1], SIZE[0], PLATE)


def test_folders_that_are_no_background(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    with pytest.raises(InputError, match="found none"):
        open_backdrop(folder, SIZE[1], SIZE[0], PLATE)
    (folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0\.png"):
        open_backdrop(folder, SIZE[1], SIZE[0], PLATE).at(0)
    (folder / "0.png").write_bytes(encode_png(PLATE[1:]))
    with pytest.raises(InputError, match=r"12x8 pixels.*found 12x7"):
        open_backdrop(folder, SIZE[1], SIZE[0], PLATE).at(0)
    with pytest.raises(InputError, match="missing"):
        open_backdrop(tmp_path / "missing", SIZE[1], SIZE[0], PLATE)


def test_pictures_too_large_to_decode(tmp_path: Path) -> None:
    Image.new("L", (8193, 1)).save(tmp_path / "wide.png")
    with pytest.raises(InputError, match=r"wide\.png.*8193x1"):
        read_image_with_alpha(tmp_path / "wide.png")


def test_background_and_camera_go_by_the_same_clock(family_bundles: dict[str, Path]) -> None:
    """Nothing of the avatar is in view: what is seen is the background of each frame."""
    away = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (3, 1, 1))
    away[:, 2, 3] = -5.0
    plates = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for family in ("talkinggaussian", "instag"):
        avatar = talksplat.load(family_bundles[family])
        with avatar.session(pose=away, background=plates) as session:
            first = list(speak(session, speech_like(640 * 2)))
            second = list(speak(session, speech_like(640 * 3)))  # time goes on
        for frame, number in zip([*first, *second], [0, 1, 2, 1, 0], strict=True):
            assert not frame.alpha.any()
            # A byte divided by 255 and multiplied again may truncate to the one below.
            difference = plates[number].astype(int) - frame.image
            assert difference.min() >= 0 and difference.max() <= 1
