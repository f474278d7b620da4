"""What verbs print: progress bars and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from talksplat.cli import interruption

Item = TypeVar("Item")

# Without markup: names and paths may hold square brackets.
console = Console(soft_wrap=True, markup=False, highlight=False)

_stderr = Console(stderr=True, markup=False, highlight=False)
_quiet = not _stderr.is_terminal  # a bar is noise in a log


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Pass ``items`` through under a progress bar on stderr.

    Raises:
        KeyboardInterrupt: somebody has asked to stop.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_stderr, transient=True, disable=_quiet) as progress:
        for item in progress.track(items, total=total, description=description):
            yield item
            interruption.check()


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, a line per step in a log; yields what to call before each step, and
    again with the same words while it goes on. Nothing is shown before that. Thread-safe."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_stderr, transient=True, disable=_quiet) as progress:
        task = progress.add_task("", total=None, visible=False)
        printed = ""

        def advance(step: str, number: int, total: int) -> None:
            nonlocal printed
            progress.update(task, description=step, completed=number, total=total, visible=True)
            if _quiet and step != printed:
                _stderr.print(step)
                printed = step

        yield advance


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1
) -> None:
    """A table; columns after the first ``text_columns`` are numbers and set to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(
            column, justify="left" if index < text_columns else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Names and values, one a line."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table)


def file_size(count: int) -> str:
    """``12.3 MB`` or ``4.5 kB``, powers of ten."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
