"""How a backend is to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16"]
"""Of the numbers inside engines; ``fp16`` keeps in float32 what the pictures need so."""

Progress = Callable[[str, int, int], None]
"""Told before each step of something long: what it is, its number from 0, how many there are.

One call at a time, in order, but not always from the thread that asked: an engine's builder calls
from threads of its own. What it raises ends the work, and is raised where that was asked for."""


@dataclass(frozen=True)
class Options:
    """How a backend is to work.

    Attributes:
        threads: CPU threads that a graph or the rasterizer may use.
        precision: of engines; backends without engines compute in float32 only.
        progress: told of engines being built.
        stage_times: where a frame is one piece of work on a GPU, time its stages there with events,
            which costs some microseconds each. Backends on the CPU time them anyway.
    """

    threads: int
    precision: Precision = "fp32"
    progress: Progress | None = None
    stage_times: bool = False
