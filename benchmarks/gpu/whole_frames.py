"""Whole frames of an avatar on every backend that has a GPU, next to torch with gsplat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import talksplat
from benchmarks.gpu import floors, probes
from benchmarks.gpu.floors import Rates, Work
from benchmarks.gpu.frame_work import work_of
from benchmarks.gpu.gsplat_peer import gsplat_version
from benchmarks.gpu.parity import decibels, psnr_db
from benchmarks.gpu.rates import measure_rates
from benchmarks.gpu.rates import table as rates_table
from benchmarks.gpu.result import Findings, MissingError, Table
from benchmarks.gpu.settings import Settings
from talksplat.backends import Precision
from talksplat.benchmark import Report
from talksplat.bundle import Bundle
from talksplat.cuda import open_device
from talksplat.errors import BackendError
from talksplat.gpu_benchmark import GpuReport, Plan, benchmark_gpu
from talksplat.speech import speak

FloatArray = NDArray[np.float32]

BACKENDS: tuple[tuple[str, Precision], ...] = (
    ("tensorrt", "fp32"),
    ("tensorrt", "fp16"),
    ("tensorrt-rtx", "fp32"),
    ("tensorrt-rtx", "fp16"),
    ("onnxruntime-cuda", "fp32"),
)
COMPARED = 10
"""Frames whose pictures are compared with the CPU's."""

FRAMES_ON_THE_CPU = 5
"""Of torch's, where gsplat is missing: one may take seconds."""

LEAST_DB = {"fp32": 50.0, "fp16": 30.0}
"""Of bytes: a frame's numbers differ in their last bits, a byte here and there by one."""

SAMPLES_PER_FRAME = 640

MakePeer = Callable[[bool], Any]
"""The published networks in torch; drawn by gsplat (True) or by the CPU's rasterizer (False)."""


@dataclass(frozen=True)
class Clip:
    """What an avatar says.

    Attributes:
        pcm: 16 kHz.
        features: of the speech, for avatars that do not hear themselves.
    """

    pcm: FloatArray
    features: FloatArray | None = None


@dataclass
class PeerTimes:
    """Torch, eagerly; milliseconds per frame.

    Attributes:
        name: what drew the Gaussians.
        wall: from the windows on the host to bytes on the host.
        stages: means, on the device, or on the host's clock without one.
    """

    name: str
    wall: list[float]
    stages: dict[str, float]

    @property
    def mean(self) -> float:
        """Of the wall clock."""
        return float(np.mean(self.wall))


@dataclass
class Measured:
    """One backend and precision.

    Attributes:
        psnr_db: lowest of the compared frames; None where all are equal.
    """

    name: str
    precision: Precision
    report: Report
    gpu: GpuReport
    psnr_db: float | None
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.label = f"{self.name}, {self.precision}"

    @property
    def frame_ms(self) -> float:
        """Mean time from the windows of a frame to its bytes, as the peer's."""
        return self.report.stages_ms["frame"]


def measure_avatar(
    path: Path, clip: Clip, settings: Settings, make_peer: MakePeer | None
) -> Findings:
    """Every backend in turn, then torch."""
    bundle = Bundle.open(path)
    work = work_of(bundle)
    notes = [
        "A frame is everything from PCM, or features where given, to RGB on the host, one frame of "
        "audio pushed at a time; `frame` is the part from windows and camera to RGB, which torch "
        f"is timed at, too. {settings.frames} frames, twice after one warm-up. Stages are timed by "
        "events on the device, within the replayed graph; with onnxruntime-cuda, which launches "
        "every frame anew, they include waiting for launches.",
    ]
    found, failures = [], []
    expected = pictures(path, "onnxruntime-cpu", "fp32", clip)
    # A library that does not know this device may end the process that asks it: not this one.
    answers = {backend: probes.ask(backend) for backend in dict.fromkeys(b for b, _ in BACKENDS)}
    for backend, precision in BACKENDS:
        if not answers[backend].works:
            notes.append(f"Not measured, {backend} {precision}: {answers[backend].found}")
            continue
        try:
            one = _measure(path, clip, settings, backend, precision, expected)
        except BackendError as error:
            notes.append(f"Not measured, {backend} {precision}: {error}")
            continue
        found.append(one)
        failures += judge(one)
    with open_device() as device:
        rates = measure_rates(device)
    peer = None
    if make_peer is not None:
        peer, said = measure_peer(make_peer, settings.frames)
        notes += said
    if not found:
        notes.append("No backend with a GPU could be measured; the reasons are above.")
    return Findings(
        tables=[
            frame_table(found, peer),
            stage_table(found, peer, work, rates),
            start_table(found),
            session_table(found),
            rates_table(rates),
        ],
        figures={
            "backends": [
                {
                    "backend": one.name,
                    "precision": one.precision,
                    "psnr_db": one.psnr_db,
                    "report": asdict(one.report),
                    "gpu": asdict(one.gpu),
                }
                for one in found
            ],
            "torch": None if peer is None else asdict(peer),
            "work": {stage: asdict(each) for stage, each in work.items()},
            "rates": asdict(rates),
        },
        notes=notes,
        failures=failures,
    )


def _measure(
    path: Path,
    clip: Clip,
    settings: Settings,
    backend: str,
    precision: Precision,
    expected: Sequence[NDArray[np.uint8]],
) -> Measured:
    plan = Plan(rounds=2, seconds=settings.seconds, sessions=settings.sessions)
    pcm = np.resize(clip.pcm, settings.frames * SAMPLES_PER_FRAME)
    report, gpu = benchmark_gpu(
        path,
        pcm,
        clip.features,
        backend=backend,
        precision=precision,
        plan=plan,
        step=partial(print, f"{backend} {precision}:", flush=True),
    )
    found = pictures(path, backend, precision, clip)
    differences = [
        psnr_db(one.astype(np.float32) / 255, other.astype(np.float32) / 255)
        for one, other in zip(found, expected, strict=True)
    ]
    known = [value for value in differences if value is not None]
    return Measured(backend, precision, report, gpu, min(known, default=None))


def pictures(path: Path, backend: str, precision: Precision, clip: Clip) -> list[NDArray[np.uint8]]:
    """The first frames of the clip."""
    pcm = clip.pcm[: COMPARED * SAMPLES_PER_FRAME]
    with (
        talksplat.load(path, backend, precision=precision) as avatar,
        avatar.session(features=clip.features) as session,
    ):
        return [frame.image for frame in speak(session, pcm)]


def judge(one: Measured) -> list[str]:
    """What does not hold of a backend."""
    least = LEAST_DB[one.precision]
    if one.psnr_db is None or one.psnr_db >= least:
        return []
    return [f"{one.label}: PSNR to the CPU's frames {one.psnr_db:.1f} dB, expected {least:.0f} dB"]


def measure_peer(make: MakePeer, frames: int) -> tuple[PeerTimes, list[str]]:
    """Torch's frames, drawn by gsplat, or plainly labelled by the CPU if that is missing."""
    try:
        name, with_gsplat, notes = f"torch eager + gsplat {gsplat_version()}", True, []
    except MissingError as error:
        name, with_gsplat = "torch eager + talksplat.rasterize on the CPU", False
        notes = [f"Torch's frames are not drawn by gsplat: {error}"]
    peer = make(with_gsplat)
    stopwatch = StageStopwatch()
    for number in range(3):
        peer.frame(number, stopwatch.mark)
    wall, stages = [], []
    for number in range(frames if with_gsplat else FRAMES_ON_THE_CPU):
        begin = time.perf_counter()
        stopwatch.begin()
        peer.frame(number, stopwatch.mark)
        stages.append(stopwatch.read())
        wall.append((time.perf_counter() - begin) * 1e3)
    means = {stage: float(np.mean([one[stage] for one in stages])) for stage in stages[0]}
    return PeerTimes(name, wall, means), notes


class StageStopwatch:
    """Moments at which the stages of torch's frames are done: events, or the host's clock where
    torch has no GPU."""

    def __init__(self) -> None:
        import torch

        self._events = torch.cuda.Event if torch.cuda.is_available() else None
        self.begin()

    def begin(self) -> None:
        """Before the first stage."""
        self._marks: list[tuple[str, Any]] = []
        self.mark("")

    def mark(self, stage: str) -> None:
        """The work of ``stage`` has been put on the stream, or is done."""
        if self._events is None:
            self._marks.append((stage, time.perf_counter()))
        else:
            event = self._events(enable_timing=True)
            event.record()
            self._marks.append((stage, event))

    def read(self) -> dict[str, float]:
        """Milliseconds of each stage; waits for them."""
        found = {}
        for (_, start), (stage, end) in zip(self._marks, self._marks[1:], strict=False):
            if self._events is None:
                found[stage] = (end - start) * 1e3
            else:
                end.synchronize()
                found[stage] = float(start.elapsed_time(end))
        return found


def frame_table(found: Sequence[Measured], peer: PeerTimes | None) -> Table:
    """Whole frames."""
    rows = []
    for one in found:
        report, on_device = one.report, one.gpu.on_device
        ratio = "" if peer is None else f"{peer.mean / one.frame_ms:.2f}"
        rows.append(
            (
                one.label,
                f"{report.frame_p50_ms:.2f}",
                f"{report.frame_p95_ms:.2f}",
                f"{report.frame_p99_ms:.2f}",
                f"{on_device.frame_p50_ms:.2f}",
                f"{one.frame_ms:.2f}",
                ratio,
                decibels(one.psnr_db),
            )
        )
    if peer is not None:
        rows.append((peer.name, "", "", "", "", f"{peer.mean:.2f}", "1.00", ""))
    columns = (
        "backend",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p50 ms, frames left on the device",
        "`frame`, mean ms",
        "times as fast as torch",
        "PSNR to the CPU",
    )
    return Table("Whole frames", columns, rows)


def stage_table(
    found: Sequence[Measured], peer: PeerTimes | None, work: dict[str, Work], rates: Rates
) -> Table:
    """Stages next to their floors."""
    names = list(work)
    for one in found:
        names += [name for name in one.gpu.stages_ms if name not in names]
    if peer is not None:
        names += [name for name in peer.stages if name not in names]
    rows = []
    for name in names:
        row = [name]
        row += [_milliseconds(one.gpu.stages_ms.get(name)) for one in found]
        if peer is not None:
            row.append(_milliseconds(peer.stages.get(name)))
        needed = work.get(name)
        if needed is None:
            row += ["", "", ""]
        else:
            operations = (needed.flops + needed.matrix_flops) / 1e9
            row += [f"{needed.bytes / 1e6:.1f}", f"{operations:.3f}"]
            row += [f"{floors.floor_ms(needed, rates):.4f}"]
        rows.append(row)
    columns = ["stage", *(one.label for one in found)]
    columns += [] if peer is None else [peer.name]
    title = "Milliseconds per stage, means, on the device where it runs there, next to its floor"
    return Table(title, [*columns, "MB", "GFLOP", "floor ms"], rows)


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def start_table(found: Sequence[Measured]) -> Table:
    """How long until the first frame, and memory."""
    rows = [
        (
            one.label,
            f"{one.gpu.load_seconds:.2f}",
            f"{one.gpu.first_session_seconds:.2f}",
            f"{one.report.first_frame_audio_ms:.0f}",
            f"{one.gpu.first_frame_ms:.1f}",
            f"{one.report.first_frame_delay_ms:.0f}",
            f"{one.gpu.avatar_bytes / 1e6:.0f}",
            f"{one.gpu.session_bytes / 1e6:.0f}",
        )
        for one in found
    ]
    columns = (
        "backend",
        "loading s",
        "session s",
        "speech to be heard ms",
        "its first frame ms",
        "first frame after speech begins ms",
        "avatar MB",
        "session MB",
    )
    return Table("First frame, and memory of the device", columns, rows)


def session_table(found: Sequence[Measured]) -> Table:
    """Sessions that speak at once."""
    rows = [
        (
            one.label,
            str(load.sessions),
            f"{load.p50_ms:.1f}",
            f"{load.p95_ms:.1f}",
            f"{load.p99_ms:.1f}",
            "in time" if load.in_time else "late",
        )
        for one in found
        for load in sorted(one.gpu.loads, key=lambda load: load.sessions)
    ]
    columns = ("backend", "sessions", "p50 ms", "p95 ms", "p99 ms", "p95 within 40 ms")
    return Table("Sessions at 25 frames per second, audio to picture", columns, rows)
