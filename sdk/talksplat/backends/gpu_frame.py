"""Frames on a GPU: the steps of a program on one stream, recorded once and replayed per frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from talksplat.backends.base import Array, FrameMemory, Picture
from talksplat.backends.device_graph import BoundGraph, DeviceGraph
from talksplat.backends.gpu_call import (
    GpuCall,
    InputBlock,
    Work,
    checked,
    new_array,
    sizes,
    upload_constants,
)
from talksplat.closing import Closing
from talksplat.cuda import BufferPool, Device, DeviceArray, DeviceBuffer, Stream
from talksplat.cuda.compositing import Compositing
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.rasterizer import CudaRasterizer, check_status
from talksplat.cuda.stream import LEGACY_DEFAULT_STREAM
from talksplat.errors import BackendError
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
from talksplat.manifest import TensorSpec
from talksplat.timings import Timings

STAGE = "frame"
"""Where the time of a whole frame is counted: its steps are one piece of work."""


@dataclass(frozen=True)
class FramePlan:
    """How a backend carries a program out.

    Attributes:
        program: what is to be done.
        steps: those of the program, or fewer that do the same.
        values: every value of the program and of the steps, with its sizes.
        graphs: what the steps run, by name.
        status: the value in which the rasterizations of composed steps report, int32 [n,4];
            None if there are no such.
    """

    program: FrameProgram
    steps: Sequence[Step]
    values: Mapping[str, TensorSpec]
    graphs: Mapping[str, DeviceGraph]
    status: str | None = None


class GpuFrame(Closing):
    """A program loaded on a device; see :class:`talksplat.backends.base.FrameEngine`.

    Args:
        device: where frames are made.
        plan: how.
        stage_times: time every stage on the device; what remains of a frame is ``frame``.

    Raises:
        BackendError: there is not enough memory, or kernels cannot be compiled.
        DeviceLostError: the device is lost.
    """

    def __init__(self, device: Device, plan: FramePlan, stage_times: bool = False) -> None:
        self.device = device
        self.plan = plan
        self.stage_times = stage_times
        self._open = ExitStack()
        with self._open:
            kinds = {type(step) for step in plan.steps}
            self.compositing: Compositing | None = None
            self.rasterizing: KernelModule | None = None
            if kinds & {Unpack, Dilate, Over, Coverage, Pack}:
                self.compositing = self._open.enter_context(Compositing(device))
            if Rasterize in kinds:
                module = KernelModule(device, "gaussian_rasterizer")
                self.rasterizing = self._open.enter_context(module)
            self.constants = upload_constants(device, plan.program.constants, self._open)
            self._open = self._open.pop_all()

    def runner(self, memory: FrameMemory = "host") -> GpuFrameRunner:
        """See :meth:`talksplat.backends.base.FrameEngine.runner`."""
        return GpuFrameRunner(self, memory)

    def close(self) -> None:
        """Free the constants and kernels, once no runner is used any more."""
        self._open.close()


class GpuFrameRunner(Closing):
    """See :class:`talksplat.backends.base.FrameRunner`.

    The first frame is made call by call, every later one by replaying the recording of these calls.
    """

    def __init__(self, frame: GpuFrame, memory: FrameMemory) -> None:
        self._frame = frame
        self._memory = memory
        self._device = frame.device
        self._arrays: dict[str, DeviceArray] = dict(frame.constants)
        self._graphs: list[BoundGraph] = []
        self._checks: list[Callable[[], None]] = []
        program, plan = frame.plan.program, frame.plan
        with ExitStack() as opened:
            self._stream = opened.enter_context(Stream(self._device))
            self._opened = opened
            pictures = {n: t for n, t in program.inputs.items() if t.dtype == "uint8"}
            small = {n: t for n, t in program.inputs.items() if n not in pictures}
            inputs = opened.enter_context(InputBlock(self._device, small))
            self._arrays |= inputs.arrays
            self._pictures = {name: self._hold(name, tensor) for name, tensor in pictures.items()}
            work = [self._prepare(step) for step in plan.steps]
            self._share_scratch()
            outputs = {name: self._arrays[name] for name in self._downloads()}
            stages = [step.stage for step in plan.steps] if frame.stage_times else []
            self._handed_out = opened.enter_context(self._picture_pool())
            call = GpuCall(self._stream, inputs, work, outputs, stages)
            self._call = opened.enter_context(call)
            self._opened = opened.pop_all()

    @property
    def captured(self) -> bool:
        """Whether frames are made by replaying a recording."""
        return self._call.captured

    def run(self, inputs: Mapping[str, Array], timings: Timings) -> Picture:
        """See :meth:`talksplat.backends.base.FrameRunner.run`."""
        with timings.stage(STAGE):
            for name, picture in self._pictures.items():
                picture.show(self._stream, inputs.get(name))
            self._call.start(inputs)
            left = self._copy_on_device() if self._memory == "device" else None
            found = self._call.finish()
            if (status := self._frame.plan.status) is not None:
                for row in found[status]:
                    check_status(row)
            for check in self._checks:
                check()
            if left is None:
                program = self._frame.plan.program
                left = Picture(found[program.picture].copy(), found[program.coverage][0, 0].copy())
        for stage, elapsed in self._call.stage_times.items():
            timings[STAGE] -= elapsed
            timings[stage] = timings.get(stage, 0.0) + elapsed
        return left

    def close(self) -> None:
        """See :meth:`talksplat.backends.base.FrameRunner.close`."""
        self._opened.close()

    def _downloads(self) -> list[str]:
        plan = self._frame.plan
        names = [] if plan.status is None else [plan.status]
        if self._memory == "host":
            names += [plan.program.picture, plan.program.coverage]
        return names

    def _copy_on_device(self) -> Picture:
        """Copies of picture and coverage in memory of their own, once the stream is done."""
        program = self._frame.plan.program
        picture, coverage = self._arrays[program.picture], self._arrays[program.coverage]
        memory = self._handed_out.take()
        image = memory.array(picture.shape, picture.dtype)
        alpha = memory.array(coverage.shape[2:], coverage.dtype, offset=_behind(picture))
        # Who had this memory before may have dropped it with work on its way. We see to consumers
        # on default streams, as those of torch and CuPy are unless told otherwise.
        self._stream.wait_for(LEGACY_DEFAULT_STREAM)
        self._stream.copy(picture, image)
        self._stream.copy(coverage, alpha)
        return Picture(image, alpha)

    def _picture_pool(self) -> BufferPool:
        """Memory for picture and coverage of a frame, side by side."""
        program = self._frame.plan.program
        picture, coverage = self._arrays[program.picture], self._arrays[program.coverage]
        return BufferPool(self._device, _behind(picture) + coverage.nbytes)

    def _hold(self, name: str, tensor: TensorSpec) -> _HeldPicture:
        self._arrays[name] = self._make(tensor)
        return _HeldPicture(tensor, self._arrays[name])

    def _make(self, tensor: TensorSpec) -> DeviceArray:
        return new_array(self._device, sizes(tensor), tensor.dtype, self._opened)

    def _share_scratch(self) -> None:
        """Graphs run one after the other, so all may work in the same memory."""
        size = max((graph.scratch_bytes for graph in self._graphs), default=0)
        if size:
            memory = DeviceBuffer(self._device, size)
            self._opened.callback(memory.close)
            for graph in self._graphs:
                graph.use_scratch(memory)

    def _new(self, name: str) -> DeviceArray:
        self._arrays[name] = self._make(self._frame.plan.values[name])
        return self._arrays[name]

    def _prepare(self, step: Step) -> Work:
        """The work of a step, with memory for what it makes."""
        if isinstance(step, RunGraph):
            return self._prepare_graph(step)
        if isinstance(step, Rasterize):
            return self._prepare_rasterizer(step)
        compositing, stream, arrays = self._frame.compositing, self._stream, self._arrays
        if compositing is None:
            raise BackendError(f"No kernels were loaded for {type(step).__name__}; report this.")
        match step:
            case Unpack():
                picture, image = arrays[step.picture], self._new(step.image)
                return Launch(lambda: compositing.unpack(stream, picture, image))
            case Dilate():
                alpha, dilated = arrays[step.alpha], self._new(step.dilated)
                scratch = self._make(self._frame.plan.values[step.alpha])
                return Launch(
                    lambda: compositing.dilate(stream, alpha, step.size, dilated, scratch)
                )
            case Over():
                image, alpha, behind = (
                    arrays[name] for name in (step.image, step.alpha, step.behind)
                )
                result = self._new(step.result)
                return Launch(lambda: compositing.over(stream, image, alpha, behind, result))
            case Coverage():
                alphas = [arrays[name] for name in step.alphas]
                coverage = self._new(step.coverage)
                return Launch(lambda: compositing.coverage(stream, alphas, coverage))
            case Pack():
                image, picture = arrays[step.image], self._new(step.picture)
                return Launch(lambda: compositing.pack(stream, image, picture))
            case _:
                assert_never(step)

    def _prepare_graph(self, step: RunGraph) -> Work:
        for value in step.outputs.values():
            self._new(value)
        names = {**step.inputs, **step.outputs}
        arrays = {tensor: self._arrays[value] for tensor, value in names.items()}
        bound = self._frame.plan.graphs[step.graph].bind(self._stream, arrays)
        self._opened.callback(bound.close)
        self._graphs.append(bound)
        return bound

    def _prepare_rasterizer(self, step: Rasterize) -> Work:
        kernels, program = self._frame.rasterizing, self._frame.plan.program
        if kernels is None:
            raise BackendError("No kernels were loaded for Rasterize; report this.")
        rules, arrays = program.rules, self._arrays
        colors = arrays[step.colors]
        rasterizer = CudaRasterizer(
            kernels,
            self._stream,
            gaussians=colors.shape[0],
            width=program.width,
            height=program.height,
            channels=step.channels,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            sh_degree=step.sh_degree,
            sh_bases=None if step.sh_degree is None else colors.shape[1],
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
        )
        self._opened.callback(rasterizer.close)
        self._checks.append(rasterizer.check)
        arrays[step.image], arrays[step.alpha] = rasterizer.colors, rasterizer.alphas
        given = {
            "means": arrays[step.means],
            "quats": arrays[step.quats],
            "scales": arrays[step.scales],
            "opacities": arrays[step.opacities],
            "colors": colors,
            "viewmats": arrays[step.viewmats],
            "Ks": arrays[step.Ks],
        }
        if step.background is not None:
            given["backgrounds"] = arrays[step.background]
        return Launch(lambda: rasterizer.enqueue(**given))


@dataclass(frozen=True)
class Launch:
    """Work that is nothing but launches of our own kernels; see :class:`Work`."""

    enqueue: Callable[[], None]

    def warmed_up(self) -> bool:
        """See :meth:`Work.warmed_up`; kernels can always be recorded."""
        return True


def _behind(picture: DeviceArray) -> int:
    """Where float32 can begin behind a picture of bytes."""
    return -(-picture.nbytes // 4) * 4


class _HeldPicture:
    """A picture on the device, taken up only when it is another object than the last one."""

    def __init__(self, tensor: TensorSpec, array: DeviceArray) -> None:
        self._tensor = tensor
        self._array = array
        self._shown: Array | None = None

    def show(self, stream: Stream, picture: Array | None) -> None:
        """Take it up, before the work that follows on the stream."""
        if picture is None or picture is not self._shown:
            found = checked(self._tensor, picture)
            stream.upload(np.ascontiguousarray(found), self._array)
            self._shown = found
