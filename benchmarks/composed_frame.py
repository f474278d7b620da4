"""The frame as one graph against the frame step by step, in ONNX Runtime on the CPU.

``python -m benchmarks.composed_frame ada.avatar`` makes the same frames both ways, in turn, checks
that they are equal bit for bit, and prints the median time of one. The timer covers what a session
does per frame after the sound was heard: from the frame's inputs in memory to the picture's bytes
and its alpha.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from talksplat.backends import Array
from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.bundle import Bundle
from talksplat.custom_op import THREADS_ENTRY, custom_op_library
from talksplat.families import frame_program
from talksplat.frame_graph import compose
from talksplat.frame_program import FrameProgram
from talksplat.tensor_reader import TensorReader
from talksplat.timings import Timings

WARM_UP = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One graph against its steps.")
    parser.add_argument("avatar", type=Path, help="avatar bundle")
    parser.add_argument("--frames", type=int, default=200, help="frames to time")
    parser.add_argument("--threads", type=int, default=2, help="for graphs and rasterizer")
    args = parser.parse_args()
    bundle = Bundle.open(args.avatar)
    program = frame_program(bundle)
    seconds = measure(bundle, program, args.frames, args.threads)[WARM_UP:]
    steps, graph = (1000 * np.median(seconds, axis=0)).tolist()
    print(f"{bundle.manifest.name}, {args.threads} threads, {args.frames} frames each, all equal")
    print(f"step by step  {steps:7.2f} ms per frame, median")
    print(f"one graph     {graph:7.2f} ms per frame, median; {steps / graph:.3f} times as fast")


def measure(
    bundle: Bundle, program: FrameProgram, frames: int, threads: int
) -> NDArray[np.float64]:
    """[frames, 2]: seconds of every frame, step by step and as one graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(THREADS_ENTRY, str(threads))
    options.register_custom_ops_library(str(custom_op_library()))
    model = compose(bundle, program).SerializeToString()
    graph = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    seconds = []
    with OnnxRuntimeCpu(threads).load_frame(bundle, program).runner() as steps:
        for inputs in frame_inputs(bundle, program, frames + WARM_UP):
            start = time.perf_counter()
            expected = steps.run(inputs, Timings())
            middle = time.perf_counter()
            found = graph.run(["picture", "coverage"], {**program.constants, **inputs})
            end = time.perf_counter()
            seconds.append((middle - start, end - middle))
            if not np.array_equal(found[0], expected.image):
                raise SystemExit("The pictures differ.")
            if not np.array_equal(found[1][0, 0], expected.alpha):
                raise SystemExit("The alphas differ.")
    return np.array(seconds)


def frame_inputs(bundle: Bundle, program: FrameProgram, frames: int) -> Iterator[dict[str, Array]]:
    """Random conditions, the avatar's own cameras, one picture behind."""
    viewmats = TensorReader(bundle).get("tracks.safetensors", "viewmats", (-1, 4, 4))
    rng = np.random.default_rng(0)
    shapes = {
        name: tuple(size for size in tensor.shape if isinstance(size, int))
        for name, tensor in program.inputs.items()
    }
    background = rng.integers(0, 256, shapes["background"], dtype=np.uint8)
    for number in range(frames):
        conditions = {
            name: rng.uniform(-0.1, 0.1, shape).astype(np.float32)
            for name, shape in shapes.items()
            if name not in ("viewmats", "background")
        }
        viewmat = viewmats[number % len(viewmats)][None]
        yield {**conditions, "viewmats": viewmat, "background": background}


if __name__ == "__main__":
    main()
