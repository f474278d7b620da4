"""A sample per family runs from nothing and says what is made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script as its reader starts it, from a folder that is not the repository's."""
    command = [sys.executable, str(SAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "name",
    [
        "talkinggaussian",
        pytest.param("instag", marks=pytest.mark.slow),
        pytest.param("sdtalk", marks=pytest.mark.slow),
    ],
)
def test_a_sample_without_a_checkpoint_shows_frames_of_random_weights(
    name: str, tmp_path: Path
) -> None:
    done = run(name, "-o", str(tmp_path), "--frames", "3")
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stdout and "MADE-UP FEATURES" in done.stdout
    picture = np.asarray(Image.open(tmp_path / f"random_{name}.png"))
    assert picture.std() > 10


def test_a_sample_with_a_bad_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "chkpnt.pth"
    bad.write_text("nothing")
    done = run("instag", str(bad), "-o", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
