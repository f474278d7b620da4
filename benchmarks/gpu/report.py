"""The results of a run as a page, and into the documentation; every number comes from the run.

``python -m benchmarks.gpu.report out/gpu [--document docs/gpu.md]``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.result import Result, Table

BEGIN = "<!-- written by `python -m benchmarks.gpu.report --document`: begin -->"
END = "<!-- end -->"


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, in the order of the parts.

    Raises:
        SystemExit: there are none.
    """
    files = [folder / f"{name}.json" for name in PARTS]
    results = [Result.read(file) for file in files if file.is_file()]
    if not results:
        raise SystemExit(f"{folder}: expected results such as rasterizer.json, found none.")
    return results


def render(results: Sequence[Result]) -> str:
    """Markdown, a section per part, under a line for each machine the parts ran on."""
    machines: list[dict[str, Any]] = []
    for result in results:
        if result.machine not in machines:
            machines.append(result.machine)
    sections = []
    for machine in machines:
        sections.append(machine_line(machine))
        sections += [section(result) for result in results if result.machine == machine]
    return "\n\n".join(sections)


def machine_line(machine: dict[str, Any]) -> str:
    """Device, driver, versions and commit as one paragraph."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    nvcc = machine["nvcc"] or "none"
    return (
        f"**{machine['device']}**, compute capability {machine['compute_capability']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB; driver {machine['driver']}; nvcc {nvcc}; "
        f"{machine['processor']}; {machine['system']}; {packages}; commit `{machine['commit']}`."
    )


def section(result: Result) -> str:
    """One part."""
    lines = [f"### {PARTS[result.part].title}", f"`{result.command}` ({result.seconds:.0f} s)"]
    if result.status == "missing":
        lines.append(f"Not measured: {result.message}")
    elif result.message:
        lines.append(f"**Failed**: {result.message}")
    lines += [f"**Does not hold**: {failure}" for failure in result.findings.failures]
    lines += result.findings.notes
    lines += [f"{table.title}:\n\n{markdown(table)}" for table in result.findings.tables]
    return "\n\n".join(lines)


def markdown(table: Table) -> str:
    """A table; columns of words to the left, figures to the right."""
    numbers = len(table.columns) - table.text_columns
    ruler = ["---"] * table.text_columns + ["---:"] * numbers
    return "\n".join(_row(cells) for cells in (table.columns, ruler, *table.rows))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def replace_section(document: Path, text: str) -> None:
    """Put ``text`` between the marks in ``document``.

    Raises:
        SystemExit: the marks are not there.
    """
    page = document.read_text(encoding="utf-8")
    if BEGIN not in page or END not in page.split(BEGIN, 1)[1]:
        raise SystemExit(f"{document}: expected the lines {BEGIN!r} and {END!r}; add them.")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("out/gpu"))
    parser.add_argument("--document", type=Path, help="replace the section in this Markdown page")
    args = parser.parse_args(arguments)
    text = render(read_results(args.folder))
    print(text)
    (args.folder / "report.md").write_text(text + "\n", encoding="utf-8")
    if args.document:
        replace_section(args.document, text)


if __name__ == "__main__":
    main()
