"""How much work the timed scenes are, counted once by the oracle and kept beside this file.

``python -m benchmarks.gpu.scene_work`` counts again; scenes are the same numbers everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.rasterizer.scenes import head
from benchmarks.rasterizer.work import Work, count_work

FILE = Path(__file__).with_name("scene_work.json")


def work_of(gaussians: int, side: int) -> Work:
    """Of ``head(gaussians, side, side)``: from the file, or counted now."""
    counted = json.loads(FILE.read_text()) if FILE.is_file() else {}
    known = counted.get(_key(gaussians, side))
    return Work(**known) if known else count_work(head(gaussians, side, side))


def _key(gaussians: int, side: int) -> str:
    return f"{gaussians} Gaussians, {side} pixels"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.scene_work")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000, 176_000])
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--output", type=Path, default=FILE)
    args = parser.parse_args(arguments)
    counted = {}
    for side in args.sides:
        for size in args.sizes:
            print(f"counting {size} Gaussians on {side} pixels", file=sys.stderr)
            counted[_key(size, side)] = asdict(count_work(head(size, side, side)))
    args.output.write_text(json.dumps(counted, indent=1) + "\n")


if __name__ == "__main__":
    main()
