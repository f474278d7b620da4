"""``python -m benchmarks.rasterizer``: time the rasterizer, count its work, compare with torch."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.rasterizer import machine, report
from benchmarks.rasterizer.measure import measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rasterizer", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 50_000, 176_000])
    parser.add_argument("--channels", type=int, nargs="+", default=[3, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds over all cases")
    parser.add_argument("--torch-size", type=int, default=50_000, help="Gaussians drawn by torch")
    parser.add_argument("--torch-rounds", type=int, default=4, help="0 leaves the peers out")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--document", type=Path, help="replace the tables in this Markdown page")
    arguments = parser.parse_args()

    limits = machine.measure_limits(arguments.threads)
    results = measure(
        sizes=arguments.sizes,
        channels=arguments.channels,
        threads=arguments.threads,
        rounds=arguments.rounds,
        torch_size=arguments.torch_size,
        torch_rounds=arguments.torch_rounds,
    )
    tables = report.tables(results, limits)
    print(tables)
    if arguments.json:
        figures = {"results": asdict(results), "limits": asdict(limits)}
        arguments.json.write_text(json.dumps(figures, indent=1))
    if arguments.document:
        report.replace_tables(arguments.document, tables)


if __name__ == "__main__":
    main()
