"""From results to a page. The figures here are made up, to be told from those of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.result import Findings, Result, Table

from benchmarks.gpu import report

MACHINE: dict[str, Any] = {
    "device": "Imaginary GPU",
    "compute_capability": "8.9",
    "memory_bytes": 8 * 2**30,
    "driver": "1.2, CUDA 13.0",
    "processor": "a processor, 2 cores",
    "system": "Linux",
    "commit": "abc",
    "packages": {"torch": "1.0", "gsplat": "1.5.3"},
    "nvcc": "",
}


def result(part: str, **changed: Any) -> Result:
    values: dict[str, Any] = {
        "part": part,
        "status": "measured",
        "command": f"python -m benchmarks.gpu {part}",
        "machine": MACHINE,
        "seconds": 12.4,
        "findings": Findings(
            [Table("A table", ("scene", "ms"), [("a | b", "1.0"), ("c", "2.0")])],
            {"ms": [1.0, 2.0]},
            ["A note."],
        ),
    }
    return Result(**{**values, **changed})


def test_results_survive_being_written(tmp_path: Path) -> None:
    written = result("parity", findings=Findings((), {"a": [1]}, ["n"], ["f"]), message="why")
    written.write(tmp_path / "deep")
    read = Result.read(tmp_path / "deep" / "parity.json")
    assert read.findings.figures == {"a": [1]} and list(read.findings.failures) == ["f"]
    assert (read.part, read.message, read.machine) == ("parity", "why", MACHINE)
    result("rasterizer").write(tmp_path)
    (table,) = Result.read(tmp_path / "rasterizer.json").findings.tables
    assert isinstance(table, Table) and [list(row) for row in table.rows][1] == ["c", "2.0"]


def test_a_page_names_the_device_the_command_and_every_figure() -> None:
    page = report.render([result("rasterizer")])
    assert page.startswith(
        "**Imaginary GPU**, compute capability 8.9, 8 GiB; driver 1.2, CUDA 13.0; nvcc none; "
        "a processor, 2 cores; Linux; torch 1.0, gsplat 1.5.3; commit `abc`."
    )
    assert (
        f"### {PARTS['rasterizer'].title}\n\n`python -m benchmarks.gpu rasterizer` (12 s)" in page
    )
    assert "A note." in page
    assert "| scene | ms |\n| --- | ---: |\n| a \\| b | 1.0 |\n| c | 2.0 |" in page


def test_what_was_missing_or_broke_is_said() -> None:
    missing = result("sanitizer", status="missing", message="no nvcc", findings=Findings((), {}))
    failed = result("ada", status="failed", message="it fell", findings=Findings((), {}))
    wrong = result("parity", status="failed", findings=Findings((), {}, (), ["80 dB, expected 90"]))
    page = report.render([missing, failed, wrong])
    assert "Not measured: no nvcc" in page
    assert "**Failed**: it fell" in page
    assert "**Does not hold**: 80 dB, expected 90" in page
    assert "Not measured: it fell" not in page


def test_results_of_two_machines_stay_apart() -> None:
    other = {**MACHINE, "device": "Other GPU"}
    page = report.render([result("parity"), result("rasterizer", machine=other), result("ada")])
    first, second = page.index("**Imaginary GPU**"), page.index("**Other GPU**")
    assert first < page.index(PARTS["parity"].title) < page.index(PARTS["ada"].title) < second
    assert second < page.index(PARTS["rasterizer"].title)


def test_the_command_reads_a_folder_and_fills_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("rasterizer", "parity"):
        result(part).write(tmp_path)
    document = tmp_path / "gpu.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.main([str(tmp_path), "--document", str(document)])
    page = document.read_text()
    assert page.startswith(f"before\n{report.BEGIN}\n\n**Imaginary GPU**")
    assert page.endswith(f"{report.END}\nafter\n") and "old" not in page
    # In the order of the parts, whatever the order of the files.
    assert page.index(PARTS["parity"].title) < page.index(PARTS["rasterizer"].title)
    assert (tmp_path / "report.md").read_text() == capsys.readouterr().out
    report.main([str(tmp_path), "--document", str(document)])
    assert document.read_text() == page


def test_what_cannot_be_rendered_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected results"):
        report.main([str(tmp_path)])
    result("ada").write(tmp_path)
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(SystemExit, match="add them"):
        report.main([str(tmp_path), "--document", str(tmp_path / "page.md")])


def test_the_documentation_has_the_marks_once() -> None:
    page = (Path(__file__).parents[3] / "docs/gpu.md").read_text()
    assert page.count(report.BEGIN) == page.count(report.END) == 1
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert {"## Not run on a GPU", "## Not run inside full TensorRT"} <= set(headings)
