"""SDTalk at its published size on a CPU: export, verify and render, with time and peak memory.

``python -m benchmarks.sdtalk_full_size --folder FOLDER`` writes a checkpoint of 679 random tensors
and a person of 1,772 masked vertices into FOLDER (needs 1.1 GB there), runs the commands on
them, each in a process of its own, and writes down what it took. Random weights draw no face;
they cost what trained ones cost, but for the rasterizer, whose work depends on where Gaussians are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tests.export.checkpoints.sdtalk_files import make_person, save_checkpoint

from talksplat.bundle import Bundle
from talksplat.engines.shipped import IndexEntry, open_shipped
from talksplat.manifest import Manifest
from talksplat_export.families.sdtalk import SdtalkConfig

MASKED_VERTICES = 1772
SAMPLES_PER_FRAME = 640


@dataclass(frozen=True)
class Step:
    """One command: wall-clock seconds from start to exit, and the most memory its process had."""

    name: str
    seconds: float
    peak_gib: float


def run(name: str, module: str, arguments: Sequence[str | Path]) -> Step:
    """Run a module in a process of its own; raises ``SystemExit`` where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed.")
    # ru_maxrss is in KiB on Linux.
    return Step(name, time.perf_counter() - start, usage.ru_maxrss / 2**20)


@dataclass(frozen=True)
class Files:
    """What is in the folder; ``avatar`` once it is exported."""

    checkpoint: Path
    person: Path
    speech: Path
    features: Path
    avatar: Path


def make_files(folder: Path, frames: int) -> Files:
    """Write what the authors and a user would bring; a checkpoint that is there already is kept.

    Args:
        folder: where to put them.
        frames: length of the clip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ("SDGTalk.pt", "person.npz", "speech.wav", "features.npy", "person.avatar")
    files = Files(*(folder / name for name in names))
    config = SdtalkConfig()
    if not files.checkpoint.is_file():
        save_checkpoint(files.checkpoint, config)
    make_person(config, mask_size=MASKED_VERTICES).save(files.person)
    generator = np.random.default_rng(0)
    soundfile.write(files.speech, 0.1 * generator.normal(size=SAMPLES_PER_FRAME * frames), 16000)
    tokens = generator.normal(size=(2 * frames, config.audio_widths[0]))
    np.save(files.features, np.tanh(tokens).astype(np.float32))
    return files


def export(files: Files) -> Step:
    """Run ``talksplat export``."""
    given = ("--identity", files.person, "--probe", files.speech)
    command = ("export", files.checkpoint, *given, "-o", files.avatar, "--overwrite")
    return run("talksplat export", "talksplat", command)


def measure(folder: Path, frames: int) -> tuple[list[Step], Bundle]:
    """Make the files that are not there yet, and run every command.

    Args:
        folder: where to put them.
        frames: length of the clip that is measured on and rendered.
    """
    files = make_files(folder, frames)
    given = ("--identity", files.person, "--probe", files.speech)
    steps = [export(files)]
    frames_of = (files.avatar, files.speech, "--features", files.features)
    commands: dict[str, tuple[str, Sequence[str | Path]]] = {
        "talksplat verify": ("talksplat", ("verify", files.avatar, files.checkpoint, *given)),
        f"talksplat run, {frames} frames": (
            "talksplat",
            ("run", *frames_of, "-o", folder / "frames"),
        ),
        "talksplat build": (
            "talksplat",
            ("build", files.avatar, "--backend", "tensorrt-rtx", "-o", folder / "engines"),
        ),
    }
    steps += [run(name, *command) for name, command in commands.items()]
    return steps, Bundle.open(files.avatar)


def markdown(
    steps: Sequence[Step], manifest: Manifest, frames: int, engines: Sequence[IndexEntry]
) -> str:
    """What was measured, as a page."""
    parity, baked = manifest.parity, manifest.baked
    assert parity is not None
    cores = len(os.sched_getaffinity(0))
    commands = [f"| {step.name} | {step.seconds:.0f} | {step.peak_gib:.1f} |" for step in steps]
    outputs = [
        f"| `{graph}` | `{name}` | {found.max_abs:.1e} |"
        for graph, found_outputs in parity.graphs.items()
        for name, found in found_outputs.items()
    ]
    files = [
        f"| `{file}` | {spec.bytes / 2**20:.1f} |" for file, spec in sorted(manifest.files.items())
    ]
    psnr = "identical" if parity.frames_psnr_db is None else f"{parity.frames_psnr_db:.1f} dB"
    gaussians = 2 * 296**2 + MASKED_VERTICES
    return "\n".join(
        [
            "# SDTalk at its published size",
            "",
            "Made by `python -m benchmarks.sdtalk_full_size`: random weights, "
            f"{gaussians:,} Gaussians of 32 features, 512×512, {cores} CPU cores. "
            "Seconds are from the start of the command to its end, reading "
            f"the checkpoint included; export and verify each render {frames} frames twice, "
            "with torch and with the bundle.",
            "",
            "| command | seconds | peak memory, GiB |",
            "|---|---|---|",
            *commands,
            "",
            f"Final frames against the unbaked networks in torch: {psnr}, the lowest of "
            f"{parity.frames}. Largest differences of the graphs:",
            "",
            "| graph | output | largest difference |",
            "|---|---|---|",
            *outputs,
            "",
            f"Motion takes {baked.flops_after / 1e9:.2f} GFLOP per frame where the published "
            f"networks take {baked.flops_before / 1e9:.2f}, the look-ups in their hash grids not "
            f"counted; {baked.bytes / 2**20:.0f} MiB were baked for that.",
            "",
            "| file | MiB |",
            "|---|---|",
            *files,
            "",
            "Engines of TensorRT for RTX, built without a GPU:",
            "",
            "| graph | ONNX bytes | layers | engine bytes | build, s |",
            "|---|---|---|---|---|",
            *(
                f"| `{engine.graph}` | {engine.onnx_bytes:,} | {engine.layers} | "
                f"{engine.bytes:,} | {engine.seconds:.2f} |"
                for engine in engines
            ),
            "",
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="where files are put")
    parser.add_argument("--frames", type=int, default=3, help="length of the clip")
    parser.add_argument("--output", type=Path, default=Path("docs/sdtalk_full_size.md"))
    args = parser.parse_args()
    steps, bundle = measure(args.folder, args.frames)
    engines = open_shipped(args.folder / "engines").index.engines
    args.output.write_text(markdown(steps, bundle.manifest, args.frames, engines))
    print(json.dumps([vars(step) for step in steps], indent=2))


if __name__ == "__main__":
    main()
