"""``talksplat bench ada.avatar [speech.wav] [--gpu] [--json report.json]``."""

from __future__ import annotations

import argparse
import json
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talksplat.atomic import write_bytes
from talksplat.audio import SAMPLE_RATE, read_audio
from talksplat.benchmark import Report, benchmark
from talksplat.bundle import Bundle
from talksplat.cli import arguments
from talksplat.cli.console import (
    console,
    file_size,
    print_facts,
    print_table,
    step_progress,
    track,
)
from talksplat.errors import InputError
from talksplat.gpu_benchmark import CPU_BACKEND, GpuReport, Plan, benchmark_gpu
from talksplat.manifest import Manifest
from talksplat.session import MODEL_FPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument(
        "speech",
        type=Path,
        nargs="?",
        metavar="SPEECH",
        help="sound file (default: 10 s of noise that swells like speech)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="measured rounds (default: 3)"
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="measure on a GPU, or fail: also memory, the time of each stage on the device, frames "
        "left there, and how many sessions it bears",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    arguments.add_features(parser)
    arguments.add_runtime(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure and print."""
    if args.rounds < 1:
        raise InputError(f"--rounds must be at least 1, found {args.rounds}.")
    pcm = read_audio(args.speech) if args.speech else noise()
    measure = _measure_on_a_gpu if args.gpu else _measure
    document = measure(args, pcm)
    if args.json:
        write_bytes(args.json, (json.dumps(document, indent=2) + "\n").encode())


def _measure(args: argparse.Namespace, pcm: NDArray[np.float32]) -> dict[str, Any]:
    """Measure on whatever backend, print, and give what is written as JSON."""
    avatar = arguments.load_avatar(args)
    features = _features(args, avatar.manifest, pcm)
    reports = benchmark(avatar, pcm, args.rounds, features)
    (report,) = deque(track(reports, "Measuring", args.rounds), maxlen=1)
    print_report(report)
    return asdict(report)


def _measure_on_a_gpu(args: argparse.Namespace, pcm: NDArray[np.float32]) -> dict[str, Any]:
    """As :func:`_measure`, with what a GPU adds under ``gpu``."""
    if args.backend == CPU_BACKEND:
        raise InputError(f"--gpu expects a backend that uses a GPU, found {args.backend}.")
    features = _features(args, Bundle.open(args.avatar).manifest, pcm)
    with step_progress() as progress:
        report, gpu = benchmark_gpu(
            args.avatar,
            pcm,
            features,
            backend=args.backend,
            threads=args.threads,
            precision=args.precision,
            plan=Plan(rounds=args.rounds),
            building=progress,
            step=lambda name: progress(name, 0, 1),
        )
    arguments.note_passed_over(report.backend, gpu.passed_over)
    print_report(report)
    print_gpu_report(gpu)
    return {**asdict(report), "gpu": asdict(gpu)}


def _features(
    args: argparse.Namespace, manifest: Manifest, pcm: NDArray[np.float32]
) -> Path | NDArray[np.float32] | None:
    """Those that were given; zeros for an avatar that needs some and was given no speech."""
    if args.features or args.speech or manifest.audio.blocks is not None:
        features: Path | None = args.features
        return features
    frames = -(-len(pcm) // (SAMPLE_RATE // MODEL_FPS))
    return np.zeros((frames, manifest.window.tokens, manifest.audio.feature_size), np.float32)


def noise() -> NDArray[np.float32]:
    """10 s of noise that swells four times a second, as syllables do; the same every time."""
    rng = np.random.default_rng(0)
    time = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    envelope = 0.2 * np.maximum(0, np.sin(2 * np.pi * 4 * time))
    return (envelope * rng.standard_normal(len(time))).clip(-1, 1).astype(np.float32)


def print_report(report: Report) -> None:
    """The report as two tables."""
    print_facts(
        f"{report.avatar} {report.width}x{report.height}, {report.backend}, "
        f"{report.threads} threads, {report.frames} frames",
        {
            "first frame": f"{report.first_frame_delay_ms:.0f} ms after speech begins "
            f"({report.first_frame_audio_ms:.0f} ms heard + "
            f"{report.first_frame_compute_ms:.0f} ms computed)",
            "look-ahead": f"{report.look_ahead_ms:.0f} ms at most",
            "real-time factor": f"{report.real_time_factor:.3f} (rounds: "
            + ", ".join(f"{factor:.3f}" for factor in report.real_time_factors)
            + ")",
            "per frame": f"p50 {report.frame_p50_ms:.1f}, p95 {report.frame_p95_ms:.1f}, "
            f"p99 {report.frame_p99_ms:.1f}, max {report.frame_max_ms:.1f} ms",
            "processor time": f"{report.processor_ms:.1f} ms per frame, all threads added",
            "peak memory": file_size(report.peak_memory_bytes),
            "installed size": file_size(report.installed_bytes),
            "bundle": file_size(report.bundle_bytes),
        },
    )
    rows = [*report.stages_ms.items(), ("python", report.python_ms)]
    total = sum(time for _, time in rows)
    print_table(
        "Mean time per frame",
        ("stage", "ms", "share"),
        [(name, f"{time:.2f}", f"{time / total:.0%}") for name, time in [*rows, ("total", total)]],
    )
    console.print(f"The timer covers: {report.timer}.")


def print_gpu_report(report: GpuReport) -> None:
    """What the GPU adds, as three tables."""
    on_device = report.on_device
    print_facts(
        f"{report.device}, compute capability {report.compute_capability}, CUDA {report.cuda}, "
        f"{report.precision}",
        {
            "loading": f"{report.load_seconds:.2f} s, a session "
            f"{report.first_session_seconds:.2f} s, its first frame {report.first_frame_ms:.1f} ms",
            "memory": f"{file_size(report.avatar_bytes)} for the avatar, "
            f"{file_size(report.session_bytes)} for a session",
            "frames left on the device": f"p50 {on_device.frame_p50_ms:.1f}, "
            f"p95 {on_device.frame_p95_ms:.1f}, p99 {on_device.frame_p99_ms:.1f} ms",
            "sessions in time": str(report.most_sessions),
        },
    )
    print_table(
        "Mean time per frame, stages timed on the device in a run of their own",
        ("stage", "ms"),
        [(name, f"{time:.3f}") for name, time in report.stages_ms.items()],
    )
    print_table(
        "Sessions at 25 frames per second, from a frame's audio to its picture",
        ("sessions", "p50 ms", "p95 ms", "p99 ms", "max ms", "in time"),
        [
            (
                str(load.sessions),
                f"{load.p50_ms:.1f}",
                f"{load.p95_ms:.1f}",
                f"{load.p99_ms:.1f}",
                f"{load.max_ms:.1f}",
                "yes" if load.in_time else "no",
            )
            for load in sorted(report.loads, key=lambda load: load.sessions)
        ],
    )
