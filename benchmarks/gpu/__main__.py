"""``python -m benchmarks.gpu [PART ...]``: measure on a GPU, write the results and the report."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import machine, report
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.result import Result
from benchmarks.gpu.settings import ROOT, Settings
from talksplat.errors import TalksplatError

QUICK = {"rounds": 5, "calls": 5, "frames": 30, "seconds": 2.0, "sessions": 16}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    usual = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description="Measure on a GPU; each part in a process of its own, so that one cannot take "
        "the others with it. Results are added to those already in the folder.",
        epilog="parts: " + "; ".join(f"{name}: {part.title}" for name, part in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="which parts (default: all)")
    parser.add_argument("--output", type=Path, default=usual.output, help="folder of the results")
    parser.add_argument("--ada", type=Path, default=usual.ada, help="bundle of the shipped avatar")
    parser.add_argument(
        "--sdtalk", type=Path, default=usual.sdtalk, help="folder of SDTalk at full size"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=usual.sizes, help="Gaussians")
    parser.add_argument("--channels", type=int, nargs="+", default=usual.channels)
    parser.add_argument("--sides", type=int, nargs="+", default=usual.sides, help="pixels")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument("--commit", default="", help="of these sources, where git does not know")
    parser.add_argument("--document", type=Path, help="put the report into this Markdown page")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; expected some of {', '.join(PARTS)}")
    return args


def settings_of(args: argparse.Namespace) -> Settings:
    """What the command line asks for."""
    settings = Settings(
        output=args.output,
        ada=args.ada,
        sdtalk=args.sdtalk,
        sizes=tuple(args.sizes),
        channels=tuple(args.channels),
        sides=tuple(args.sides),
    )
    return replace(settings, **QUICK) if args.quick else settings


def flags(args: argparse.Namespace) -> list[str]:
    """What of a command line changes the figures."""
    usual, found = Settings(), []
    for name in ("sizes", "channels", "sides"):
        values = getattr(args, name)
        if tuple(values) != tuple(getattr(usual, name)):
            found += [f"--{name}", *map(str, values)]
    return found + (["--quick"] if args.quick else [])


def run_part(
    name: str, settings: Settings, given: str, commit: str, where: dict[str, Any]
) -> Result:
    """One part in a process of its own; a crash or a hang is a result too.

    Args:
        name: of the part.
        settings: what is measured.
        given: the command, for the report.
        commit: see :func:`benchmarks.gpu.parts.run`.
        where: the machine, for a part that cannot say itself.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.parts", name, "--command", given]
    command += ["--settings", json.dumps(settings.as_dict()), "--commit", commit]
    file = settings.output / f"{name}.json"
    file.unlink(missing_ok=True)
    limit = PARTS[name].limit_s
    code = wait(command, limit)
    message = f"its process ended with {code} and left no result; see its output"
    if code is None:
        message = f"not done after {limit:g} s, ended"
    if not file.is_file():
        failed = Result(name, "failed", given, where, limit, message=message)
        failed.write(settings.output)
    return Result.read(file)


def wait(command: Sequence[str], limit: float) -> int | None:
    """Run a command to its end; None when it took too long and was ended with all it started."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line per part and the report; 1 when something failed or there is no GPU."""
    args = parse(arguments)
    settings = settings_of(args)
    settings = replace(settings, output=settings.output.absolute())
    try:
        where = machine.describe(args.commit).as_dict()
    except TalksplatError as error:
        print(f"No figures without a GPU: {error}", file=sys.stderr)
        return 1
    results = []
    for name in args.parts or PARTS:
        print(f"== {name}: {PARTS[name].title}", flush=True)
        given = " ".join(["python -m benchmarks.gpu", name, *flags(args)])
        result = run_part(name, settings, given, args.commit, where)
        print(f"== {name}: {result.status}, {result.seconds:.0f} s. {result.message}", flush=True)
        results.append(result)
    report.main(
        [str(settings.output), *(["--document", str(args.document)] if args.document else [])]
    )
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
