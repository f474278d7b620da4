"""The tests that need a GPU, as the test suite has them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.result import Findings, Table
from benchmarks.gpu.settings import ROOT, Settings

LIMIT_S = 400.0


def files() -> list[Path]:
    """``test_…_on_a_gpu.py``, all over the tests."""
    return sorted((ROOT / "tests").rglob("test_*_on_a_gpu.py"))


def measure(settings: Settings) -> Findings:
    """Run them, and say of each whether it passed, or why it was skipped."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={written}"]
        command += [str(file.relative_to(ROOT)) for file in files()]
        process = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        if not written.is_file():
            raise RuntimeError(f"pytest ended with {process.returncode}: {process.stdout[-500:]}")
        outcomes = read_outcomes(written)
    failed = [f"{name}: {said}" for name, verdict, said in outcomes if verdict == "failed"]
    return Findings(
        tables=[Table("Each of them", ("test", "", ""), outcomes, text_columns=3)],
        figures={"output": process.stdout},
        notes=[f"`{' '.join(command[1:4])} " + " ".join(command[5:]) + "`"],
        failures=failed,
    )


def read_outcomes(file: Path) -> list[tuple[str, str, str]]:
    """Name, verdict and the first line of what was said, from pytest's XML."""
    found = []
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        verdict, said = "passed", ""
        for kind, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            if (told := case.find(kind)) is not None:
                verdict, said = word, (told.get("message") or "").split("\n")[0]
        found.append((case.get("name", ""), verdict, said))
    return found
