"""Where the build gets ONNX Runtime's headers from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOUND_BY = ("ONNXRUNTIME_INCLUDE_DIR", "ONNXRUNTIME_ROOT")


def steps(build: Path, **variables: str) -> str:
    """What ``make native`` would do, were its downloads to go to ``build``."""
    environment = {name: value for name, value in os.environ.items() if name not in FOUND_BY}
    done = subprocess.run(
        ["make", "--dry-run", "native", f"HEADERS={build}"],
        cwd=REPOSITORY,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cmake --build" in done.stdout
    return done.stdout


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def test_headers_are_downloaded_once(tmp_path: Path) -> None:
    assert f"fetch_headers.py {tmp_path}" in steps(tmp_path)
    (tmp_path / "onnxruntime_c_api.h").touch()
    assert "fetch_headers.py" not in steps(tmp_path)


@pytest.mark.parametrize("variable", FOUND_BY)
def test_headers_of_the_users_own_are_not_downloaded(tmp_path: Path, variable: str) -> None:
    assert "fetch_headers.py" not in steps(tmp_path, **{variable: str(tmp_path / "own")})
