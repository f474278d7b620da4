"""Graphs as engines of TensorRT or TensorRT for RTX: out of the cache, or built at first load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from talksplat.backends.base import Array
from talksplat.backends.compiled_kernels import CompiledKernels
from talksplat.backends.gpu_frame import FramePlan
from talksplat.backends.options import Options
from talksplat.backends.tensorrt_graph import TensorRtGraph
from talksplat.bundle import Bundle
from talksplat.cuda import Device
from talksplat.engines.flavours import Flavour
from talksplat.engines.obtain import (
    FRAME,
    Source,
    frame_source,
    graph_source,
    open_workshop,
    run_graphs,
)
from talksplat.frame_program import FrameProgram, Rasterize, RunGraph, check_program
from talksplat.manifest import GraphSpec, TensorSpec

_STATUS = "status"
_STEPS = 100


class TensorRtCarrier:
    """See :class:`talksplat.backends.gpu_backend.Carrier`.

    Where the flavour takes plugins, and so the rasterizer, the whole frame is one engine; otherwise
    there is an engine per graph, with our kernels between them.

    Args:
        flavour: which TensorRT; its plugin library is registered by now.
        device: where engines run.
        options: their precision, and who is told while they are built.
    """

    def __init__(self, flavour: Flavour, device: Device, options: Options) -> None:
        self._flavour = flavour
        self._device = device
        self._options = options
        self._workshop = open_workshop(flavour, device, threads=options.threads)

    def load_graph(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array]
    ) -> TensorRtGraph:
        """See :meth:`talksplat.backends.gpu_backend.Carrier.load_graph`."""
        return self._load(graph_source(file, spec, constants, self._options.precision))

    def plan_frame(self, bundle: Bundle, program: FrameProgram) -> FramePlan:
        """See :meth:`talksplat.backends.gpu_backend.Carrier.plan_frame`."""
        values = check_program(program, bundle.manifest)
        if self._flavour.takes_plugins:
            return self._plan_whole(bundle, program, values)
        graphs = {name: self._load_part(bundle, name) for name in run_graphs(program)}
        return FramePlan(program, program.steps, values, graphs)

    def _plan_whole(
        self, bundle: Bundle, program: FrameProgram, values: Mapping[str, TensorSpec]
    ) -> FramePlan:
        graph = self._load(frame_source(bundle, program, self._options.precision))
        fed = {name: name for name in (*program.inputs, *program.constants)}
        made = {"picture": program.picture, "coverage": program.coverage, _STATUS: _STATUS}
        step = RunGraph(FRAME, FRAME, inputs=fed, outputs=made)
        rasterizations = sum(isinstance(step, Rasterize) for step in program.steps)
        status = TensorSpec(_STATUS, "int32", (rasterizations, 4))
        return FramePlan(program, [step], {**values, _STATUS: status}, {FRAME: graph}, _STATUS)

    def _load_part(self, bundle: Bundle, name: str) -> TensorRtGraph:
        manifest = bundle.manifest
        source = graph_source(
            bundle.graph_file(name),
            manifest.graphs[name],
            bundle.constants(name),
            self._options.precision,
            manifest.family,
        )
        return self._load(source)

    def _load(self, source: Source) -> TensorRtGraph:
        flavour, device, data = self._flavour, self._device, self._obtain(source)
        kernels = None
        if flavour.compiles_on_device:
            cache = self._workshop.cache
            kernels = CompiledKernels(cache, flavour, device, source.label, data)
        return TensorRtGraph(flavour, device, source.graph, data, kernels)

    def _obtain(self, source: Source) -> bytes:
        return self._workshop.obtain(source, self._tell).data

    def _tell(self, what: str, fraction: float) -> None:
        if self._options.progress is not None:
            self._options.progress(what, round(_STEPS * fraction), _STEPS)
