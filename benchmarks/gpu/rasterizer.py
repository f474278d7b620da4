"""How long our CUDA rasterizer takes, next to gsplat's on the same GPU and to the floors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.gpu import floors
from benchmarks.gpu.device_timing import StreamStopwatch, TorchStopwatch
from benchmarks.gpu.drawing import Drawing, Replay
from benchmarks.gpu.floors import Rates
from benchmarks.gpu.gsplat_peer import GsplatDrawing, dialect_of, gsplat_version
from benchmarks.gpu.kernel_times import kernel_times
from benchmarks.gpu.parity import psnr_db
from benchmarks.gpu.rates import measure_rates
from benchmarks.gpu.rates import table as rates_table
from benchmarks.gpu.result import Findings, MissingError, Table
from benchmarks.gpu.scene_work import work_of
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.timing import Case, Times, interleaved
from benchmarks.rasterizer.scenes import head
from talksplat.cuda import Device, Stream, open_device
from talksplat.cuda.kernels import KernelModule
from talksplat.rasterization import Dialect

GOAL = 2.0
GOALS = {(50_000, 3, 512), (176_000, 32, 512)}
"""Where gsplat is to be beaten by :data:`GOAL` times, (Gaussians, channels, side)."""

LEAST_DB = 60.0
"""To gsplat's picture: it computes exp and tile lists by other arithmetic, but the same picture."""

OURS, EAGER, HALF = "ours, replayed", "ours, eager", "ours, half colours, replayed"
PEERS = {"gsplat, packed": True, "gsplat": False}


@dataclass(frozen=True)
class Size:
    """What is drawn: a head of so many Gaussians, channels and pixels."""

    gaussians: int
    channels: int
    side: int

    def __str__(self) -> str:
        return f"{self.gaussians:,} × {self.channels}, {self.side}²"


@dataclass
class Measured:
    """One size.

    Attributes:
        times: by who drew it.
        kernels: milliseconds of each kernel within a replay.
        workspace_bytes: of ours, besides inputs and outputs.
        psnr_db: of our picture to gsplat's; None where they are equal or there is none.
    """

    size: Size
    times: dict[str, Times]
    kernels: dict[str, float]
    workspace_bytes: int
    psnr_db: float | None

    @property
    def peer(self) -> float | None:
        """The quicker of gsplat's two layouts, median milliseconds."""
        medians = [self.times[name].median for name in PEERS if name in self.times]
        return min(medians, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times ours is quicker."""
        return None if self.peer is None else self.peer / self.times[OURS].median


def measure(settings: Settings) -> Findings:
    """Time every size, all who draw it taking turns."""
    notes = [
        "One call, from Gaussians in the GPU's memory to colours and alphas there; forward only. "
        "Times lie between two events on the stream around one call that is waited for, the "
        f"median of {settings.rounds} rounds of {settings.calls} calls taken in turns (95th "
        "percentile in brackets). Inputs are the same in every call, as far as the cache holds "
        "them they come from there: in a frame, motion has just written them. gsplat waits for "
        "the GPU in the middle of a call to learn how many pairs there are; that belongs to it.",
    ]
    version, dialect = None, Dialect.__args__[0]  # type: ignore[attr-defined]
    try:
        version = gsplat_version()
        dialect = dialect_of(version)
        notes.append(f"gsplat {version}; both draw by the rules {dialect!r}.")
    except MissingError as error:
        notes.append(f"Ours alone: {error}")
    with open_device() as device:
        rates = measure_rates(device)
        found = list(measure_sizes(device, settings, dialect, with_peers=version is not None))
    return Findings(
        tables=[
            speed_table(found),
            floor_table(found, rates),
            kernel_table(found),
            rates_table(rates),
        ],
        figures=figures(found, rates),
        notes=notes,
        failures=judge(found),
    )


def measure_sizes(
    device: Device, settings: Settings, dialect: Dialect, *, with_peers: bool
) -> Iterator[Measured]:
    """Every combination of sizes."""
    with Stream(device) as stream, KernelModule(device, "gaussian_rasterizer") as kernels:
        for side, gaussians, channels in product(settings.sides, settings.sizes, settings.channels):
            size = Size(gaussians, channels, side)
            yield _measure(device, stream, kernels, settings, size, dialect, with_peers)


def _measure(
    device: Device,
    stream: Stream,
    kernels: KernelModule,
    settings: Settings,
    size: Size,
    dialect: Dialect,
    with_peers: bool,
) -> Measured:
    scene = head(size.gaussians, size.side, size.side, channels=size.channels)
    with ExitStack() as stack:
        enter = stack.enter_context
        drawing = enter(Drawing(kernels, stream, scene, dialect=dialect))
        half = enter(Drawing(kernels, stream, scene, dialect=dialect, half_colors=True))
        watch = enter(StreamStopwatch(device, stream))
        cases = {
            OURS: Case(enter(Replay(drawing)).launch, watch),
            HALF: Case(enter(Replay(half)).launch, watch),
            EAGER: Case(drawing.enqueue, watch),
        }
        psnr = None
        if with_peers:
            drawing.enqueue()
            ours, _ = drawing.picture()
            for name, packed in PEERS.items():
                peer = GsplatDrawing(scene, packed=packed)
                cases[name] = Case(peer.draw, TorchStopwatch())
                psnr = psnr_db(ours, peer.draw()[0][0].cpu().numpy())
        times = interleaved(cases, rounds=settings.rounds, calls=settings.calls)
        stream.synchronize()
        drawing.rasterizer.check()
        each = kernel_times(device, drawing, settings.rounds)
        return Measured(size, times, each, drawing.rasterizer.workspace_bytes, psnr)


def judge(found: Sequence[Measured]) -> list[str]:
    """What does not hold."""
    failures = []
    for one in found:
        if one.psnr_db is not None and not one.psnr_db >= LEAST_DB:
            failures.append(
                f"{one.size}: PSNR to gsplat's picture {one.psnr_db:.1f} dB, expected "
                f"{LEAST_DB:.0f} dB"
            )
        size = (one.size.gaussians, one.size.channels, one.size.side)
        if size in GOALS and one.ratio is not None and one.ratio < GOAL:
            failures.append(
                f"{one.size}: {one.ratio:.2f} times as fast as gsplat, expected {GOAL:g} times"
            )
    return failures


def floor_of(size: Size) -> tuple[floors.Work, floors.Work]:
    """What cannot be left out, and what remains where 32 pixels go together."""
    work = work_of(size.gaussians, size.side)
    least = floors.rasterization(
        gaussians=size.gaussians,
        channels=size.channels,
        width=size.side,
        height=size.side,
        pairs=work.pairs,
    )
    by_warps = floors.warp_steps(steps=work.steps_8x4, channels=size.channels)
    return least, floors.Work(least.bytes, by_warps.flops)


def speed_table(found: Sequence[Measured]) -> Table:
    """Milliseconds of everyone."""
    peers = [name for name in PEERS if any(name in one.times for one in found)]
    names = [OURS, EAGER, HALF, *peers]
    rows = []
    for one in found:
        row = [str(one.size)]
        for name in names:
            times = one.times[name]
            row.append(f"{times.median:.3f} ({times.p95:.3f})")
        if peers:
            row.append("" if one.ratio is None else f"{one.ratio:.2f}")
            row.append("equal" if one.psnr_db is None else f"{one.psnr_db:.1f} dB")
        rows.append(row)
    more = ["times as fast as gsplat", "PSNR to gsplat"] if peers else []
    return Table("Milliseconds per call", ["scene", *names, *more], rows)


def floor_table(found: Sequence[Measured], rates: Rates) -> Table:
    """Our time next to what counted work allows."""
    rows = []
    for one in found:
        least, by_warps = floor_of(one.size)
        median = one.times[OURS].median
        started = floors.launches_ms(len(one.kernels), rates)
        reachable = max(floors.floor_ms(by_warps, rates), started)
        rows.append(
            [
                str(one.size),
                f"{least.bytes / 1e6:.1f}",
                f"{least.flops / 1e9:.3f}",
                f"{floors.floor_ms(least, rates):.4f}",
                f"{floors.floor_ms(by_warps, rates):.4f}",
                f"{started:.4f}",
                f"{median:.3f}",
                f"{median / reachable:.1f}",
                f"{one.workspace_bytes / 1e6:.1f}",
            ]
        )
    columns = (
        "scene",
        "MB",
        "GFLOP",
        "floor ms",
        "floor by warps ms",
        "as many empty kernels ms",
        "ours, replayed ms",
        "times the highest floor",
        "workspace MB",
    )
    return Table("Ours next to its floors", columns, rows)


def kernel_table(found: Sequence[Measured]) -> Table:
    """Where the time of a replay goes."""
    names = list(dict.fromkeys(name for one in found for name in one.kernels))
    rows = [
        [str(one.size)]
        + [f"{one.kernels[name]:.4f}" if name in one.kernels else "" for name in names]
        for one in found
    ]
    return Table("Milliseconds of each kernel within a replay, medians", ["scene", *names], rows)


def figures(found: Sequence[Measured], rates: Rates) -> dict[str, Any]:
    """Everything, as JSON takes it."""
    return {
        "rates": vars(rates),
        "sizes": [
            {
                **vars(one.size),
                "device_ms": {name: times.device for name, times in one.times.items()},
                "wall_ms": {name: times.wall for name, times in one.times.items()},
                "kernels_ms": one.kernels,
                "workspace_bytes": one.workspace_bytes,
                "psnr_db": one.psnr_db,
                "ratio": one.ratio,
            }
            for one in found
        ],
    }
