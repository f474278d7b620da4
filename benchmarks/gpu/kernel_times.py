"""Where the time of a captured frame goes, kernel by kernel: events inside the graph."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from benchmarks.gpu.drawing import Drawing
from benchmarks.gpu.timing import percentile
from talksplat import _native
from talksplat.cuda import Device, DeviceArray, DeviceBuffer, Event

_EXTERNAL = 1
"""CU_EVENT_RECORD_EXTERNAL: recorded whenever the graph comes by, not when it is captured."""


def kernel_times(device: Device, drawing: Drawing, rounds: int) -> dict[str, float]:
    """Median milliseconds from the end of the kernel before to the end of each kernel.

    Kernels are told apart by their place, so that one that runs twice is listed twice.

    Args:
        device: where the drawing is.
        drawing: whose launches are repeated, with a workspace of their own.
        rounds: replays.
    """
    plan = _native.gaussian_cuda_plan(**drawing.problem)
    stream, tensors = drawing.stream, drawing.tensors
    rasterizer = drawing.rasterizer
    with ExitStack() as stack:
        workspace = stack.enter_context(DeviceBuffer(device, plan.workspace_bytes))
        status = DeviceArray.empty(device, (4,), np.int32)
        behind = tensors.get("backgrounds")
        arguments = plan.arguments(
            **{
                name: tensors[name].pointer
                for name in ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
            },
            backgrounds=0 if behind is None else behind.pointer,
            out_colors=rasterizer.colors.pointer,
            out_alphas=rasterizer.alphas.pointer,
            status=status.pointer,
            workspace=workspace.pointer,
        )
        events = [stack.enter_context(Event(device)) for _ in range(len(plan.launches) + 1)]

        def record(event: Event) -> None:
            device.call("cuEventRecordWithFlags", event.handle, stream.handle, _EXTERNAL)

        with stream.capture() as graph:
            record(events[0])
            for (name, grid, block, shared), event in zip(plan.launches, events[1:], strict=True):
                kernel = drawing.kernels.kernel(name)
                kernel.launch(stream, tuple(grid), tuple(block), arguments, shared)
                record(event)
        stack.callback(graph.close)
        samples: list[list[float]] = [[] for _ in plan.launches]
        for _ in range(rounds):
            graph.launch(stream)
            stream.synchronize()
            for place, sample in enumerate(samples):
                sample.append(events[place + 1].elapsed_since(events[place]))
    names = [name for name, *_ in plan.launches]
    return {
        _told_apart(names, place): percentile(sample, 50) for place, sample in enumerate(samples)
    }


def _told_apart(names: list[str], place: int) -> str:
    """``scan`` if there is one of that name, otherwise ``scan 1``, ``scan 2``."""
    name = names[place]
    if names.count(name) == 1:
        return name
    return f"{name} {names[: place + 1].count(name)}"
