"""``talksplat bench ada.avatar [speech.wav] [--json report.json]``."""

from __future__ import annotations

import argparse
import json
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat.atomic import write_bytes
from talksplat.audio import SAMPLE_RATE, read_audio
from talksplat.benchmark import Report, benchmark
from talksplat.cli import arguments
from talksplat.cli.console import console, file_size, print_facts, print_table, track
from talksplat.errors import InputError
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    arguments.add_features(parser)
    arguments.add_runtime(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure and print."""
    if args.rounds < 1:
        raise InputError(f"--rounds must be at least 1, found {args.rounds}.")
    pcm = read_audio(args.speech) if args.speech else noise()
    avatar = arguments.load_avatar(args)
    features = args.features
    if not (args.speech or features or avatar.has_audio_encoder):
        features = avatar.silence(-(-len(pcm) // (SAMPLE_RATE // MODEL_FPS)))
    reports = benchmark(avatar, pcm, args.rounds, features)
    (report,) = deque(track(reports, "Measuring", args.rounds), maxlen=1)
    print_report(report)
    if args.json:
        write_bytes(args.json, (json.dumps(asdict(report), indent=2) + "\n").encode())


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
