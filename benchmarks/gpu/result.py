"""What a part of the benchmark found, as a file that the report is made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

Status = Literal["measured", "missing", "failed"]


class MissingError(Exception):
    """Something that a part needs is not on this machine; the text says what, and what to do."""


@dataclass(frozen=True)
class Table:
    """Figures as they are shown; the first ``text_columns`` columns are words."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass(frozen=True)
class Findings:
    """What a part returns.

    Attributes:
        tables: for the report, made from ``figures``.
        figures: everything that was measured, as JSON takes it.
        notes: plain lines: what the timer covers, what was missing.
        failures: what does not hold though it should, a line each.
    """

    tables: Sequence[Table]
    figures: dict[str, Any]
    notes: Sequence[str] = ()
    failures: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """One part of one run.

    Attributes:
        part: its name.
        status: ``"missing"`` when the machine lacks what the part needs, ``"failed"`` when it broke
            or what it found does not hold.
        command: what makes it again.
        machine: see :class:`benchmarks.gpu.machine.Machine`.
        seconds: wall-clock time of the whole part.
        findings: what was measured, as far as it went.
        message: why nothing was measured, or what broke; empty otherwise.
    """

    part: str
    status: Status
    command: str
    machine: dict[str, Any]
    seconds: float
    findings: Findings = field(default_factory=lambda: Findings((), {}))
    message: str = ""

    def write(self, folder: Path) -> None:
        """Write ``<part>.json`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.part}.json"
        file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        """The inverse of :meth:`write`."""
        stored = json.loads(file.read_text(encoding="utf-8"))
        found = stored.pop("findings")
        tables = [Table(**table) for table in found.pop("tables")]
        return cls(**stored, findings=Findings(tables, **found))
