"""What a whole frame cannot do without, stage by stage, counted once and kept beside this file.

``python -m benchmarks.gpu.frame_work out/ada.avatar [out/…/person.avatar]`` counts again: products
and bytes from the graphs, blended pairs by the oracle from the Gaussians of one frame.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import talksplat
from benchmarks.gpu import floors, graph_work
from benchmarks.gpu.floors import FLOAT, Work
from benchmarks.rasterizer.scenes import Scene
from benchmarks.rasterizer.work import count_work
from talksplat import families
from talksplat.backends import split_frame
from talksplat.bundle import Bundle
from talksplat.frame_program import (
    Coverage,
    Dilate,
    FrameProgram,
    Over,
    Pack,
    Rasterize,
    RunGraph,
    Step,
    Unpack,
)
from talksplat.speech import speak

FILE = Path(__file__).with_name("frame_work.json")

FRAMES = 5
"""The last of so many frames is counted, when the speech has begun to move the face."""


def work_of(bundle: Bundle) -> dict[str, Work]:
    """By stage; from the file if it knows an avatar of this name and these sizes, or counted."""
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {}
    known = kept.get(bundle.manifest.name)
    if known and known["sizes"] == sizes(bundle):
        return {stage: Work(**work) for stage, work in known["stages"].items()}
    return count(bundle)


def sizes(bundle: Bundle) -> dict[str, Any]:
    """What the counts depend on: sizes of the picture and of every graph."""
    video = bundle.manifest.video
    graphs = {name: bundle.manifest.files[spec.file].bytes for name, spec in graphs_of(bundle)}
    free = {name: graph_work.free_sizes(bundle, name) for name, _ in graphs_of(bundle)}
    # A graph's bytes differ a little between versions of the exporter; its megabytes do not.
    megabytes = {name: round(size / 1e6, 1) for name, size in graphs.items()}
    return {"pixels": [video.width, video.height], "megabytes": megabytes, "axes": free}


def graphs_of(bundle: Bundle) -> list[tuple[str, Any]]:
    """Name and specification of every graph."""
    return sorted(bundle.manifest.graphs.items())


def count(bundle: Bundle) -> dict[str, Work]:
    """By stage: graphs outside the frame program by their own names, which are their stages'."""
    program = families.frame_program(bundle)
    scenes = drawn_scenes(bundle)
    inside = {step.graph for step in program.steps if isinstance(step, RunGraph)}
    found = {name: count_graph(bundle, name) for name, _ in graphs_of(bundle) if name not in inside}
    for step in program.steps:
        work = count_step(bundle, program, step, scenes)
        found[step.stage] = found.get(step.stage, Work()) + work
    return found


def count_step(bundle: Bundle, program: FrameProgram, step: Step, scenes: Iterator[Scene]) -> Work:
    """One step; ``scenes`` gives what the rasterizations draw, in their order."""
    floats = FLOAT * program.width * program.height
    bytes_of = program.width * program.height
    match step:
        case RunGraph():
            return count_graph(bundle, step.graph)
        case Rasterize():
            scene = next(scenes)
            own = scene.colors[0].size
            behind = 0 if step.background is None else step.channels * floats
            pairs = count_work(scene, program.rules.dialect).pairs
            drawn = floors.rasterization(
                gaussians=len(scene.means),
                channels=step.channels,
                width=program.width,
                height=program.height,
                pairs=pairs,
                color_floats=own,
            )
            return drawn + Work(bytes=behind)
        case Unpack() | Pack():
            return Work(bytes=3 * (floats + bytes_of))
        case Dilate():
            return Work(bytes=2 * floats)
        case Over():
            return Work(bytes=(3 + 1 + 3 + 3) * floats)
        case Coverage():
            return Work(bytes=(len(step.alphas) + 1) * floats)


def count_graph(bundle: Bundle, name: str) -> Work:
    """One graph of a bundle."""
    return graph_work.count(bundle.graph_file(name), graph_work.free_sizes(bundle, name))


def drawn_scenes(bundle: Bundle) -> Iterator[Scene]:
    """What the CPU's rasterizer is given in one frame, call after call."""
    drawn: list[Scene] = []

    def draw(*arguments: Any, **options: Any) -> Any:
        *arrays, width, height = arguments
        copies = [np.array(array) for array in arrays]
        drawn.append(Scene(*copies, width=width, height=height, options=options))
        return talksplat.rasterize(*arguments, **options)

    samples = FRAMES * 640
    pcm = (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    calls = sum(isinstance(s, Rasterize) for s in families.frame_program(bundle).steps)
    with (
        patch.object(split_frame, "rasterize", draw),
        talksplat.load(bundle.path, backend="onnxruntime-cpu") as avatar,
    ):
        features = None if avatar.has_audio_encoder else avatar.silence(FRAMES)
        with avatar.session(features=features) as session:
            for _ in speak(session, pcm):
                pass
    return iter(drawn[-calls:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.frame_work")
    parser.add_argument("avatars", type=Path, nargs="+", metavar="AVATAR")
    parser.add_argument("--output", type=Path, default=FILE)
    args = parser.parse_args(arguments)
    kept = {}
    for path in args.avatars:
        print(f"counting {path}", file=sys.stderr)
        bundle = Bundle.open(path)
        stages = {stage: asdict(work) for stage, work in count(bundle).items()}
        kept[bundle.manifest.name] = {"sizes": sizes(bundle), "stages": stages}
    args.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
