"""Videos and pictures hold what was written, and appear complete or not at all."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talksplat.atomic import atomic_file, write_bytes
from talksplat.errors import InputError, OutputError
from talksplat.video import (
    Mp4Writer,
    PngSequence,
    contact_sheet,
    encode_png,
    read_image,
    resize,
)

RATE = 16000


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0], image[:, :, 1], image[:, :, 2] = 200, 30 + 5 * (number % 30), 60
    return image


def write_clip(path: Path, frames: int, fps: int = 25) -> None:
    with Mp4Writer(path, 64, 48, Fraction(fps), RATE) as writer:
        for number in range(frames):
            samples = (number + 1) * RATE // fps - number * RATE // fps
            writer.write(picture(number), np.full(samples, 0.1, np.float32))


@pytest.mark.parametrize(("frames", "fps"), [(1, 25), (2, 25), (77, 25), (61, 30), (10, 10)])
def test_mp4_has_every_frame_and_sound_of_equal_length(
    tmp_path: Path, frames: int, fps: int
) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames, fps)
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.pix_fmt) == (64, 48, "yuv420p")
        assert video.average_rate == fps
        assert video.frames == frames
        durations = [float(stream.duration * stream.time_base) for stream in (video, sound)]
        assert abs(durations[0] - frames / fps) < 1e-3
        assert abs(durations[0] - durations[1]) <= 1 / fps
        colours = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Lossy coding: flat colours come back within a few steps.
    assert all(
        np.abs(colour.astype(int) - picture(number)).max() <= 8
        for number, colour in enumerate(colours)
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_mp4_of_a_failed_run_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the clip of yesterday")
    with pytest.raises(RuntimeError), Mp4Writer(path, 64, 48, Fraction(25), RATE) as writer:
        writer.write(picture(0), np.zeros(640, np.float32))
        raise RuntimeError("the renderer failed")
    assert path.read_bytes() == b"the clip of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_mp4_needs_frames_and_even_sizes(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="no frame"),
        Mp4Writer(tmp_path / "clip.mp4", 64, 48, Fraction(25), RATE),
    ):
        pass
    with pytest.raises(InputError, match="even"):
        Mp4Writer(tmp_path / "clip.mp4", 63, 48, Fraction(25), RATE)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB, as on a full disk.

    Not a fixture: pytest writes its own report before fixtures end, perhaps to a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_while_writing_mp4(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with (
        small_disk(),
        pytest.raises(OutputError, match=r"clip\.mp4"),
        Mp4Writer(tmp_path / "clip.mp4", 64, 48, Fraction(25), RATE) as writer,
    ):
        for _ in range(50):
            noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            writer.write(noise, np.zeros(640, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_writing_pictures(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with (
        small_disk(),
        pytest.raises(OutputError),
        PngSequence(tmp_path / "frames") as sequence,
    ):
        sequence.write(noise, np.zeros(640, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_at_the_last_byte(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space"), atomic_file(tmp_path / "x.json") as staging:
        staging.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_output_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "file" / "below.json", b"{}")


def test_png_is_lossless(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(encode_png(image))
    np.testing.assert_array_equal(read_image(path), image)


def test_png_sequence(tmp_path: Path) -> None:
    with PngSequence(tmp_path / "frames") as sequence:
        for number in range(3):
            sequence.write(picture(number), np.zeros(640, np.float32))
        assert not (tmp_path / "frames").exists()
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(read_image(tmp_path / "frames" / "000002.png"), picture(2))
    with pytest.raises(OutputError, match="exists"), PngSequence(tmp_path / "frames"):
        pass


def test_pictures_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for data in (b"", b"not a picture", encode_png(picture(0))[:60]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x\.png"):
            read_image(path)
    with pytest.raises(InputError):
        read_image(tmp_path / "none.png")


def test_contact_sheet_places_pictures_in_rows() -> None:
    sheet = contact_sheet([picture(number) for number in range(5)], columns=3, gap=2)
    assert sheet.shape == (2 * 50 + 2, 3 * 66 + 2, 3)
    np.testing.assert_array_equal(sheet[52:100, 68:132], picture(4))
    with pytest.raises(InputError):
        contact_sheet([], columns=3)


def test_resize_keeps_flat_colours() -> None:
    assert np.abs(resize(picture(0), 32, 24).astype(int) - picture(0)[:24, :32]).max() <= 1


def test_file_names_are_never_read_as_protocols(tmp_path: Path) -> None:
    """FFmpeg would open ``http:``, ``pipe:`` and such; talksplat opens files only."""
    code = (
        "from pathlib import Path; from talksplat.video import read_image\n"
        "read_image(Path('data:image/png;base64,AAAA'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "InputError" in result.stderr and "No such file" in result.stderr
