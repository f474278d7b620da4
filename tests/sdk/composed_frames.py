"""The composed graph of a frame beside the steps that it is composed of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest

from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.bundle import Bundle
from talksplat.custom_op import THREADS_ENTRY, custom_op_library
from talksplat.errors import BackendError
from talksplat.families import frame_program
from talksplat.frame_graph import compose
from talksplat.frame_program import FrameProgram
from talksplat.timings import Timings

Feed = dict[str, np.ndarray]

OUTPUTS = ("picture", "coverage", "status")
THREADS = 2
FRAMES = 4


def unequal_frames(bundle: Bundle) -> list[str]:
    """What of several frames differs in a single bit between the graph and the steps."""
    program = frame_program(bundle)
    graph = ComposedFrame(compose(bundle, program), program)
    unequal = []
    with OnnxRuntimeCpu(THREADS).load_frame(bundle, program).runner() as steps:
        for number, inputs in enumerate(random_inputs(program)):
            picture, coverage, _ = graph.run(inputs)
            expected = steps.run(inputs, Timings())
            assert expected.alpha.max() > 0.1, "the frame is empty, which proves nothing"
            if not np.array_equal(picture, expected.image):
                unequal.append(f"picture of frame {number}")
            if not np.array_equal(coverage[0, 0], expected.alpha):
                unequal.append(f"coverage of frame {number}")
    return unequal


def random_inputs(program: FrameProgram) -> Iterator[Feed]:
    """Frames without any two equal numbers, the head before the camera."""
    for number in range(FRAMES):
        rng = np.random.default_rng(number)
        inputs: Feed = {}
        for name, tensor in program.inputs.items():
            shape = [size for size in tensor.shape if isinstance(size, int)]
            inputs[name] = rng.uniform(-1, 1, shape).astype(np.float32)
            if tensor.dtype == "uint8":
                inputs[name] = rng.integers(0, 256, shape, dtype=np.uint8)
        viewmat = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
        viewmat[:3, 3] = 0.01 * number, 0.0, 0.7
        yield {**inputs, "viewmats": viewmat[None]}


class ComposedFrame:
    """A composed graph in plain ONNX Runtime, optimised as the runtime optimises every graph."""

    def __init__(self, model: onnx.ModelProto, program: FrameProgram) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = THREADS
        options.add_session_config_entry(THREADS_ENTRY, str(THREADS))
        options.register_custom_ops_library(str(library()))
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._constants = program.constants

    def run(self, inputs: Feed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(picture, coverage, status)."""
        picture, coverage, status = self.session.run(OUTPUTS, {**self._constants, **inputs})
        return picture, coverage, status


def library() -> str:
    """The operator's library, or the test is skipped for want of it."""
    try:
        return str(custom_op_library())
    except BackendError as error:
        pytest.skip(str(error))
