"""Timing on a device: cases take turns, so that a slow moment falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Stopwatch(Protocol):
    """Events around work on one stream."""

    def start(self) -> None:
        """Record an event before the work."""
        ...

    def stop(self) -> float:
        """Record an event after it, wait for it, and give the milliseconds in between."""
        ...


@dataclass(frozen=True)
class Case:
    """Something to time: ``call`` puts work on the stream that ``stopwatch`` watches."""

    call: Callable[[], object]
    stopwatch: Stopwatch


@dataclass
class Times:
    """Milliseconds of every call.

    Attributes:
        device: between two events on the stream, before and after the call.
        wall: on the host's clock, from the call to the moment its work is done.
    """

    device: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the device."""
        return percentile(self.device, 50)

    @property
    def p95(self) -> float:
        """Of the device."""
        return percentile(self.device, 95)

    @property
    def wall_median(self) -> float:
        """Of the host's clock."""
        return percentile(self.wall, 50)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of the samples do not exceed, between neighbours linearly."""
    return float(np.percentile(np.asarray(samples, np.float64), percent))


def interleaved(
    cases: Mapping[str, Case], *, rounds: int, calls: int, warm_up: int = 3
) -> dict[str, Times]:
    """Call every case ``calls`` times in each of ``rounds`` rounds, after ``warm_up`` calls each.

    Each call is timed alone and waited for: what one frame costs, not how many overlap.
    """
    for case in cases.values():
        for _ in range(warm_up):
            case.stopwatch.start()
            case.call()
            case.stopwatch.stop()
    times = {name: Times() for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            for _ in range(calls):
                begin = time.perf_counter()
                case.stopwatch.start()
                case.call()
                elapsed = case.stopwatch.stop()
                times[name].wall.append((time.perf_counter() - begin) * 1e3)
                times[name].device.append(elapsed)
    return times
