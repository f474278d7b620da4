"""A whole frame as one ONNX graph: the bundle's graphs, the rasterizer and what joins them.

The composed graph takes what a :class:`~talksplat.frame_program.FrameProgram` takes, its inputs and
its constants by their value names, and gives

* ``picture`` uint8 [H,W,3],
* ``coverage`` float32 [1,1,H,W],
* ``status`` int32 [R,4], one row for each of the R rasterizations: bits of what was not finite,
  pairs of Gaussian and tile needed, pairs there was room for, 0.

Constants stay inputs, and the numbers of Gaussians stay free where the bundle's graphs leave them
free, so that one engine serves many people. The rasterizer is the
operator ``GaussianRasterize`` of the domain ``talksplat``; everything else is standard ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from talksplat.bundle import Bundle
from talksplat.errors import BundleError
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
    check_program,
)
from talksplat.manifest import Axis, Manifest
from talksplat.onnx_package import import_onnx

if TYPE_CHECKING:
    import onnx

DOMAIN = "talksplat"
OPERATOR = "GaussianRasterize"
VERSION = 1
"""Of the domain."""

Shape = tuple[Axis, ...]


def compose(
    bundle: Bundle, program: FrameProgram, graphs: Mapping[str, onnx.ModelProto] | None = None
) -> onnx.ModelProto:
    """One ONNX model of the whole frame. The same bundle and program give the same bytes.

    Names inside a graph of the bundle get the graph's name in front: ``motion/node_matmul_3``.

    Args:
        bundle: of which ``program`` makes frames.
        program: how a frame of the bundle is made.
        graphs: models to take in place of the bundle's own, by graph name, with the same inputs
            and outputs (in another precision, for example).

    Raises:
        BackendError: onnx is not installed.
        BundleError: the graphs do not fit the program, are of different ONNX versions or cannot be
            composed.
    """
    return _Composer(bundle, program, graphs or {}).model()


class _Composer:
    """Writes the steps of a program as nodes, in order."""

    def __init__(
        self, bundle: Bundle, program: FrameProgram, graphs: Mapping[str, onnx.ModelProto]
    ) -> None:
        self._onnx = import_onnx("Composing the graph of a frame")
        self._bundle = bundle
        self._program = program
        self._graphs = graphs
        self._specs = check_program(program, bundle.manifest)
        self._shapes = _free_shapes(program, bundle.manifest)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._statuses: list[str] = []
        self._from_graphs: set[str] = set()
        self._opset = 0
        self._ir_version = 0

    def model(self) -> onnx.ModelProto:
        """The composed model, checked."""
        helper, program = self._onnx.helper, self._program
        for step in program.steps:
            self._write(step)
        self._write_status()
        fed = [*(tensor.name for tensor in program.inputs.values()), *program.constants]
        results = [program.picture, program.coverage]
        between = [name for name in self._specs if name not in fed and name not in results]
        graph = helper.make_graph(
            self._nodes,
            "frame",
            [self._describe(name) for name in fed],
            [
                *(self._describe(name) for name in results),
                self._describe_as("status", "int32", (len(self._statuses), 4)),
            ],
            list(self._initializers.values()),
            # Nothing else would say what sizes come out of the rasterizer.
            value_info=[self._describe(name) for name in between],
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            producer_name="talksplat",
            ir_version=self._ir_version,
            opset_imports=[
                helper.make_opsetid("", self._opset),
                helper.make_opsetid(DOMAIN, VERSION),
            ],
        )
        try:
            self._onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # the checker's errors and those of shape inference
            raise BundleError(
                f"The graphs of {self._bundle.path} cannot be composed: {error}. Export the avatar "
                "again."
            ) from error
        return model

    def _write(self, step: Step) -> None:
        match step:
            case RunGraph():
                self._write_graph(step)
            case Unpack():
                self._write_unpack(step)
            case Rasterize():
                self._write_rasterize(step)
            case Dilate():
                self._write_dilate(step)
            case Over():
                seen = self._node("Sub", [self._number(1), step.alpha], f"{step.result}/seen")
                behind = self._node("Mul", [step.behind, seen], f"{step.result}/behind")
                self._node("Add", [step.image, behind], step.result)
            case Coverage():
                self._write_coverage(step)
            case Pack():
                self._write_pack(step)
            case _:
                assert_never(step)

    def _write_graph(self, step: RunGraph) -> None:
        model = self._load(step.graph)
        prefix = f"{step.graph}/"
        inputs = {name: self._apart(value) for name, value in step.inputs.items()}
        values = {**inputs, **step.outputs}
        names = {name: self._name(value) for name, value in values.items()}
        graph = self._onnx.GraphProto()
        graph.CopyFrom(model.graph)
        _rename(graph, names, prefix)
        self._nodes.extend(graph.node)
        for tensor in graph.initializer:
            self._initializers[tensor.name] = tensor
        self._from_graphs.update(step.outputs.values())

    def _apart(self, value: str) -> str:
        """``value``; if an earlier graph made it, so that the two are not optimised as one.

        ONNX Runtime folds a factor at the end of one graph into the products at the beginning of
        the next (InsTaG's ``move``), which rounds otherwise. It leaves a sum of one tensor alone.
        """
        if value not in self._from_graphs:
            return value
        apart = f"{value}/apart"
        made = any(apart in node.output for node in self._nodes)
        return apart if made else self._node("Sum", [value], apart)

    def _load(self, name: str) -> onnx.ModelProto:
        model = self._graphs.get(name)
        if model is None:
            model = self._onnx.load(self._bundle.graph_file(name))
        domains = {entry.domain: entry.version for entry in model.opset_import}
        opset = domains.pop("", 0) or domains.pop("ai.onnx", 0)
        if domains or model.functions or model.graph.sparse_initializer:
            raise BundleError(
                f"Graph {name!r} of {self._bundle.path} expects operators of ONNX alone, found "
                "other domains, functions or sparse tensors. Export the avatar again."
            )
        if self._opset not in (0, opset):
            raise BundleError(
                f"The graphs of {self._bundle.path} expect one version of ONNX's operators, found "
                f"{self._opset} and, in graph {name!r}, {opset}. Export the avatar again."
            )
        self._opset = opset
        self._ir_version = max(self._ir_version, model.ir_version)
        return model

    def _write_unpack(self, step: Unpack) -> None:
        image = step.image
        floats = self._node(
            "Cast", [step.picture], f"{image}/floats", to=self._onnx.TensorProto.FLOAT
        )
        planes = self._node("Transpose", [floats], f"{image}/planes", perm=[2, 0, 1])
        batch = self._node("Unsqueeze", [planes, self._axis(0)], f"{image}/batch")
        self._node("Div", [batch, self._number(255)], image)

    def _write_rasterize(self, step: Rasterize) -> None:
        rules, program = self._program.rules, self._program
        background = step.background
        if background is None:
            background = f"{step.image}/background"
            self._initialize(background, np.zeros((1, step.channels, 1, 1), np.float32))
        gaussians = [step.means, step.quats, step.scales, step.opacities, step.colors]
        status = f"{step.image}/status"
        self._node(
            OPERATOR,
            [*gaussians, step.viewmats, step.Ks, background],
            step.image,
            step.alpha,
            status,
            domain=DOMAIN,
            width=program.width,
            height=program.height,
            sh_degree=-1 if step.sh_degree is None else step.sh_degree,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
            # By these TensorRT's parser finds its plugin.
            plugin_namespace=DOMAIN,
            plugin_version=str(VERSION),
        )
        self._statuses.append(status)

    def _write_dilate(self, step: Dilate) -> None:
        # Alphas are not negative, so that the padding, which is never the largest, is as good as 0.
        size, reach = step.size, step.size // 2
        wide = self._node(
            "MaxPool",
            [step.alpha],
            f"{step.dilated}/wide",
            kernel_shape=[1, size],
            pads=[0, reach, 0, reach],
        )
        self._node("MaxPool", [wide], step.dilated, kernel_shape=[size, 1], pads=[reach, 0] * 2)

    def _write_coverage(self, step: Coverage) -> None:
        one, name = self._number(1), step.coverage
        through = ""
        for number, alpha in enumerate(step.alphas):
            seen = self._node("Sub", [one, alpha], f"{name}/seen{number}")
            through = (
                self._node("Mul", [through, seen], f"{name}/through{number}") if through else seen
            )
        self._node("Sub", [one, through], name)

    def _write_pack(self, step: Pack) -> None:
        picture = step.picture
        clipped = self._node(
            "Clip", [step.image, self._number(0), self._number(1)], f"{picture}/clipped"
        )
        scaled = self._node("Mul", [clipped, self._number(255)], f"{picture}/scaled")
        planes = self._node("Squeeze", [scaled, self._axis(0)], f"{picture}/planes")
        pixels = self._node("Transpose", [planes], f"{picture}/pixels", perm=[1, 2, 0])
        # Conversion of what lies in 0..255 truncates.
        self._node("Cast", [pixels], picture, to=self._onnx.TensorProto.UINT8)

    def _write_status(self) -> None:
        rows = [
            self._node("Unsqueeze", [status, self._axis(0)], f"{status}/row")
            for status in self._statuses
        ]
        self._node("Concat", rows, "status", axis=0)

    def _node(self, kind: str, inputs: Iterable[str], *outputs: str, **attributes: Any) -> str:
        """Appends one node named after its first output, which is returned."""
        names = [self._name(output) for output in outputs]
        node = self._onnx.helper.make_node(
            kind, [self._name(name) for name in inputs], names, name=names[0], **attributes
        )
        self._nodes.append(node)
        return outputs[0]

    def _name(self, value: str) -> str:
        """How a value of the program is called in the graph."""
        results = {self._program.picture: "picture", self._program.coverage: "coverage"}
        return results.get(value, value)

    def _number(self, value: float) -> str:
        return self._initialize(f"number/{value:g}", np.float32(value))

    def _axis(self, axis: int) -> str:
        return self._initialize(f"axis/{axis}", np.array([axis], np.int64))

    def _initialize(self, name: str, value: Any) -> str:
        tensor = self._onnx.numpy_helper.from_array(np.asarray(value), name)
        self._initializers[name] = tensor
        return name

    def _describe(self, value: str) -> onnx.ValueInfoProto:
        spec = self._specs[value]
        return self._describe_as(self._name(value), spec.dtype, self._shapes.get(value, spec.shape))

    def _describe_as(self, name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        # An axis without a name and without a size is free.
        sizes = [size or None for size in shape]
        info: onnx.ValueInfoProto = helper.make_tensor_value_info(name, kind, sizes)
        return info


def _free_shapes(program: FrameProgram, manifest: Manifest) -> dict[str, Shape]:
    """Shapes of the values that graphs of the bundle take or give, free axes by name; and of the
    rasterizer's constants, which have as many Gaussians as the graph moves."""
    shapes: dict[str, Shape] = {}
    graph_of: dict[str, str] = {}

    def named(graph: str, shape: Shape) -> Shape:
        # Axes of two graphs may share a name and not a size.
        return tuple(
            f"{graph}_{axis}" if isinstance(axis, str) and graph_of.setdefault(axis, graph) != graph
            else axis
            for axis in shape
        )  # fmt: skip

    for step in program.steps:
        if isinstance(step, RunGraph):
            spec = manifest.graphs[step.graph]
            tensors = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
            for name, value in (*step.inputs.items(), *step.outputs.items()):
                shapes.setdefault(value, named(step.graph, tensors[name]))
        if isinstance(step, Rasterize):
            count = shapes[step.means][0] if step.means in shapes else None
            for value in (step.quats, step.scales, step.opacities, step.colors):
                if isinstance(count, str) and value in program.constants:
                    shapes.setdefault(value, (count, *program.constants[value].shape[1:]))
    return shapes


def _rename(graph: onnx.GraphProto, names: Mapping[str, str], prefix: str) -> None:
    """Calls tensors as ``names`` says, or by their own name behind ``prefix``, here and in the
    graphs inside; drops what documents and what can be worked out."""

    def renamed(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    del graph.value_info[:]
    for tensor in (*graph.input, *graph.output, *graph.initializer):
        tensor.name = renamed(tensor.name)
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for node in graph.node:
        node.name = prefix + node.name if node.name else ""
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(inner, names, prefix)
