"""Timing: all cases in turn, round after round, so that a slow minute falls on all alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch

import talksplat
from benchmarks.rasterizer import machine, torch_baseline
from benchmarks.rasterizer.scenes import head, in_morton_order
from benchmarks.rasterizer.work import Work, count_work
from talksplat.rasterization import (
    InstructionSet,
    StageTimes,
    Workspace,
    allocate_images,
    choose_instruction_set,
    instruction_set,
)

SECONDS_PER_TURN = 0.1  # of one case in one round; at least one call


@dataclass(frozen=True)
class Case:
    """What is timed: one picture of a head, from world-space Gaussians to colours and alphas."""

    gaussians: int
    channels: int
    threads: int
    instructions: InstructionSet
    in_morton_order: bool = False
    """Whether the Gaussians lie in memory along a space-filling curve, or at random."""


@dataclass
class Timing:
    """Milliseconds per picture."""

    case: Case
    samples: list[float] = field(default_factory=list)
    stages: list[StageTimes] = field(default_factory=list)
    """Of the same calls."""

    @property
    def least(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def least_of(self, stage: str) -> float:
        """The least time of one stage."""
        return min(float(getattr(times, stage)) for times in self.stages)


@dataclass
class Peer:
    """Another renderer of the same scene; milliseconds per picture."""

    name: str
    gaussians: int
    samples: list[float]
    psnr: float
    """Of its picture against ours under the same rules, dB: it does the same work."""


@dataclass
class Results:
    machine: dict[str, str | int | float]
    load_after: float
    threads: int
    best: InstructionSet
    rounds: int
    timings: list[Timing]
    work: dict[int, Work]
    peers: list[Peer]

    def timing(self, gaussians: int, channels: int, **other: object) -> Timing | None:
        """That of the case, by default with all threads, the best instructions, random order."""
        usual = {"threads": self.threads, "instructions": self.best, "in_morton_order": False}
        wanted = usual | other
        for timing in self.timings:
            case = timing.case
            if (case.gaussians, case.channels) == (gaussians, channels) and all(
                getattr(case, name) == value for name, value in wanted.items()
            ):
                return timing
        return None


def measure(
    *,
    sizes: list[int],
    channels: list[int],
    threads: int,
    rounds: int,
    torch_size: int,
    torch_rounds: int,
) -> Results:
    """Time every case ``rounds`` times, count the work of every scene, run the peers."""
    best = instruction_set()
    described = machine.describe()
    cases = [
        case
        for size, depth in product(sizes, channels)
        for case in (
            Case(size, depth, threads, best),
            Case(size, depth, 1, best),
            Case(size, depth, threads, best, in_morton_order=True),
            *(Case(size, depth, threads, other) for other in _others(best)),
        )
    ]
    workspaces = {case: Workspace() for case in cases}
    draws = {case: _draw(case, workspaces[case]) for case in cases}
    timings = {case: Timing(case) for case in cases}
    for turn in range(rounds):
        _say(f"round {turn + 1} of {rounds}")
        for case in cases:
            choose_instruction_set(case.instructions)
            draws[case]()  # warms the caches; not counted
            end = time.perf_counter_ns() + SECONDS_PER_TURN * 1e9
            while True:
                start = time.perf_counter_ns()
                draws[case]()
                now = time.perf_counter_ns()
                timings[case].samples.append((now - start) / 1e6)
                timings[case].stages.append(workspaces[case].times)
                if now >= end:
                    break
    choose_instruction_set(best)
    peers = _peers(torch_size, threads, torch_rounds) if torch_rounds else []
    work = {}
    for size in sizes:
        _say(f"counting the work of {size} Gaussians")
        work[size] = count_work(head(size))
    _say("")
    return Results(
        described, machine.load(), threads, best, rounds, list(timings.values()), work, peers
    )


def _others(best: InstructionSet) -> list[InstructionSet]:
    """AVX2 where there is better: how much of the speed a machine without AVX-512 gets."""
    return ["avx2"] if best == "avx512" else []


def _draw(case: Case, workspace: Workspace) -> Callable[[], object]:
    """A frame as an application draws it: into its own memory, with a workspace that is kept."""
    scene = head(case.gaussians, channels=case.channels)
    if case.in_morton_order:
        scene = in_morton_order(scene)
    colors, alphas = (
        allocate_images(1, scene.height, scene.width, depth) for depth in (case.channels, 1)
    )
    return lambda: talksplat.rasterize(
        *scene.arrays,
        scene.width,
        scene.height,
        out=(colors, alphas),
        workspace=workspace,
        threads=case.threads,
    )


def _peers(size: int, threads: int, rounds: int) -> list[Peer]:
    scene = head(size)
    ours, _ = talksplat.rasterize(*scene.arrays, scene.width, scene.height, dialect="gsplat-1.5")
    functions = {
        "gsplat 1.5.3's torch functions": torch_baseline.draw_with_gsplat,
        "vectorised torch": torch_baseline.draw_vectorized,
    }
    before = torch.get_num_threads()
    peers: dict[str, Peer] = {}
    for turn, (name, function) in product(range(rounds), functions.items()):
        _say(f"{name}, {turn + 1} of {rounds}")
        # Small tensors: a second thread may cost more than it brings. Its best is reported.
        torch.set_num_threads(threads if turn % 2 == 0 else 1)
        start = time.perf_counter_ns()
        colors, _ = function(scene)
        elapsed = (time.perf_counter_ns() - start) / 1e6
        error = float(np.mean((colors.numpy().astype(np.float64) - ours) ** 2))
        peer = peers.setdefault(name, Peer(name, size, [], -10 * np.log10(error)))
        peer.samples.append(elapsed)
    torch.set_num_threads(before)
    return list(peers.values())


def _say(text: str) -> None:
    """Progress, on one line that is written over."""
    print(f"\r\x1b[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)
