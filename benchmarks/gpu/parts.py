"""The parts of a run, in the order of their worth: what must hold before what is fast."""

from __future__ import annotations

import argparse
import importlib
import json
import time
import traceback
from dataclasses import dataclass

from benchmarks.gpu import machine
from benchmarks.gpu.result import Findings, MissingError, Result, Status
from benchmarks.gpu.settings import Settings
from talksplat.errors import BackendError


@dataclass(frozen=True)
class Part:
    """A module with ``measure(settings) -> Findings``, run in a process of its own.

    Attributes:
        title: in the report.
        limit_s: seconds after which it is ended.
    """

    title: str
    limit_s: float


PARTS = {
    "probes": Part("What works on this device", 1500),
    "parity": Part("Rasterizer: the CPU's picture, replay, overflow", 300),
    "device_tests": Part("Tests that need a GPU", 450),
    "rasterizer": Part("Rasterizer: speed", 400),
    "sanitizer": Part("Rasterizer: compute-sanitizer", 500),
    "ada": Part("Whole frames: ada", 900),
    "sdtalk": Part("Whole frames: SDTalk at its published size, random weights", 1200),
}


def run(name: str, settings: Settings, command: str, commit: str = "") -> Result:
    """Measure one part here and now; whatever goes wrong is in the result.

    Args:
        name: of the part.
        settings: what is measured.
        command: that was given.
        commit: of these sources, where git does not know.

    Raises:
        BackendError: there is no GPU.
    """
    where = machine.describe(commit).as_dict()
    begin = time.perf_counter()
    status: Status = "measured"
    message, findings = "", Findings((), {})
    try:
        findings = importlib.import_module(f"benchmarks.gpu.{name}").measure(settings)
    except MissingError as error:
        status, message = "missing", str(error)
    except BackendError as error:
        status, message = "failed", str(error)
    except Exception as error:  # a part that breaks must not take the others with it
        traceback.print_exc()
        status, message = "failed", f"{type(error).__name__}: {error}"
    if findings.failures:
        status = "failed"
    seconds = time.perf_counter() - begin
    return Result(name, status, command, where, seconds, findings, message)


def main() -> None:
    """One part, as :mod:`benchmarks.gpu.__main__` starts it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--settings", required=True, help="as JSON")
    parser.add_argument("--command", required=True, help="that was given")
    parser.add_argument("--commit", default="")
    args = parser.parse_args()
    settings = Settings.from_dict(json.loads(args.settings))
    run(args.part, settings, args.command, args.commit).write(settings.output)


if __name__ == "__main__":
    main()
