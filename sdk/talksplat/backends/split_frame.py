"""Frames made on the CPU, step by step: graphs by any backend's runners, the rest in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, assert_never

import numpy as np

from talksplat.backends.base import Array, Engine, FrameMemory, Picture, Runner
from talksplat.bundle import Bundle
from talksplat.closing import Closing
from talksplat.compositing import coverage, dilate, over
from talksplat.errors import InputError
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
from talksplat.images import to_uint8
from talksplat.manifest import GraphSpec
from talksplat.rasterization import Workspace, allocate_images, rasterize
from talksplat.timings import Timings

Values = dict[str, Array]


class GraphLoader(Protocol):
    """Loads graphs whose runners take and give arrays of the host."""

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> Engine:
        """See :meth:`talksplat.backends.base.Backend.load`."""
        ...


class SplitFrame:
    """A frame program whose steps run one by one; see :class:`talksplat.backends.FrameEngine`.

    Args:
        loader: runs the program's graphs.
        bundle: holds them.
        program: the steps.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BackendError: ``loader`` refuses a graph.
    """

    def __init__(
        self, loader: GraphLoader, bundle: Bundle, program: FrameProgram, threads: int
    ) -> None:
        self._program = program
        self._threads = threads
        self._engines: dict[str, Engine] = {}
        for step in program.steps:
            if isinstance(step, RunGraph):
                file, spec = bundle.graph_file(step.graph), bundle.manifest.graphs[step.graph]
                constants = {
                    name: program.constants[value]
                    for name, value in step.inputs.items()
                    if value in program.constants
                }
                self._engines[step.graph] = loader.load(file, spec, constants)

    def runner(self, memory: FrameMemory = "host") -> SplitFrameRunner:
        """See :meth:`talksplat.backends.FrameEngine.runner`."""
        if memory != "host":
            raise InputError(
                "This backend makes frames in the memory of the host: expected frames='host', "
                f"found {memory!r}. Load the avatar with a backend that runs on a GPU; "
                "'talksplat doctor' says which of them can be used here."
            )
        runners = {graph: engine.runner() for graph, engine in self._engines.items()}
        return SplitFrameRunner(self._program, runners, self._threads)


class SplitFrameRunner(Closing):
    """See :class:`talksplat.backends.FrameRunner`.

    Images between the steps are kept from frame to frame; the picture and its alpha are new ones.
    """

    def __init__(self, program: FrameProgram, runners: Mapping[str, Runner], threads: int) -> None:
        self._program = program
        self._runners = runners
        self._threads = threads
        self._workspace = Workspace()
        self._images: Values = {}
        self._unpacked: Values = {}  # image → the picture that it holds
        for step in program.steps:
            for name, channels in _images(step).items():
                image = allocate_images(1, program.height, program.width, channels)
                self._images[name] = image.transpose(0, 3, 1, 2)

    def run(self, inputs: Mapping[str, Array], timings: Timings) -> Picture:
        """See :meth:`talksplat.backends.FrameRunner.run`."""
        program = self._program
        values = {**program.constants, **self._images, **inputs}
        for step in program.steps:
            with timings.stage(step.stage):
                self._carry_out(step, values)
        return Picture(values[program.picture], values[program.coverage][0, 0])

    def close(self) -> None:
        """See :meth:`talksplat.backends.FrameRunner.close`."""
        with ExitStack() as closing:
            for runner in self._runners.values():
                closing.callback(runner.close)

    def _carry_out(self, step: Step, values: Values) -> None:
        match step:
            case RunGraph():
                self._run_graph(step, values)
            case Unpack():
                self._unpack(step, values)
            case Rasterize():
                self._rasterize(step, values)
            case Dilate():
                values[step.dilated] = dilate(values[step.alpha], step.size)
            case Over():
                image, alpha = values[step.image], values[step.alpha]
                over(image, alpha, values[step.behind], out=values[step.result])
            case Coverage():
                values[step.coverage] = coverage(*(values[alpha] for alpha in step.alphas))
            case Pack():
                # Seen channel-last: of [3,H,3] to_uint8 could not tell which axis the colours are.
                values[step.picture] = to_uint8(_channel_last(values[step.image])[0])
            case _:
                assert_never(step)

    def _run_graph(self, step: RunGraph, values: Values) -> None:
        constants = self._program.constants
        inputs = {
            name: values[value] for name, value in step.inputs.items() if value not in constants
        }
        outputs = self._runners[step.graph].run(inputs)
        values |= {value: outputs[name] for name, value in step.outputs.items()}

    def _unpack(self, step: Unpack, values: Values) -> None:
        picture = values[step.picture]
        if picture is not self._unpacked.get(step.image):
            np.divide(picture, np.float32(255), out=_channel_last(values[step.image])[0])
            self._unpacked[step.image] = picture

    def _rasterize(self, step: Rasterize, values: Values) -> None:
        program, rules = self._program, self._program.rules
        behind = None if step.background is None else _channel_last(values[step.background])
        rasterize(
            values[step.means],
            values[step.quats],
            values[step.scales],
            values[step.opacities][:, 0],
            values[step.colors],
            values[step.viewmats],
            values[step.Ks],
            program.width,
            program.height,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            sh_degree=step.sh_degree,
            backgrounds=behind,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
            out=(_channel_last(values[step.image]), _channel_last(values[step.alpha])),
            workspace=self._workspace,
            threads=self._threads,
        )


def _images(step: Step) -> dict[str, int]:
    """The images that a step writes into memory that is kept, with their channels."""
    match step:
        case Unpack():
            return {step.image: 3}
        case Rasterize():
            return {step.image: step.channels, step.alpha: 1}
        case Over():
            return {step.result: 3}
        case _:
            return {}


def _channel_last(images: Array) -> Array:
    """[C,H,W,D] of [C,D,H,W], a view: how the rasterizer sees images."""
    return images.transpose(0, 2, 3, 1)
