"""float16 written into an ONNX graph, with islands that stay float32.

A strongly typed engine computes in the types its graph says, so this is where precision is decided.
Inputs and outputs of the graph stay float32. A value crosses into another type once, by a Cast, and
the values inside an island never do: the float16 converters of ONNX Runtime and of
onnxconverter-common (1.16) were tried, and the first casts every value of an island to float16 and
back, graph inputs too, the second leaves outputs of the graph in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from talksplat.errors import BackendError, BundleError
from talksplat.onnx_package import import_onnx

if TYPE_CHECKING:
    import onnx

ALWAYS_FLOAT32 = frozenset(
    {
        "Exp", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log",
        "LogSoftmax", "LpNormalization", "Pow", "Reciprocal", "ReduceL1", "ReduceL2",
        "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
        "ReduceSumSquare", "Softmax", "Softplus", "Sqrt", "TopK",
    }
)  # fmt: skip
"""Operators of norms, statistics and activations that lose too much in float16, in every graph."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What makes float16 worth while."""


FLOAT16 = "Building in fp16, unlike in fp32,"
"""What onnx is needed for."""


@dataclass(frozen=True)
class Islands:
    """What of a graph stays float32, besides :data:`ALWAYS_FLOAT32`.

    Attributes:
        outputs: outputs whose sums and activations do: all between the last products and them.
        around: operators all of whose ancestors do, up to the inputs of the graph, and what follows
            them, down to the next products.
    """

    outputs: tuple[str, ...] = ()
    around: tuple[str, ...] = ()


_GAUSSIANS = ("means", "scales", "quats")
_IMAGE = Islands(("image",))  # what is added up there is truncated to bytes next
_PLAIN = Islands()

AUDIO_ISLANDS: Mapping[str, Islands] = {
    "audio_encoder": Islands(around=("Log",)),  # a power spectrum spans more than float16 does
    "audio_to_motion": _PLAIN,
    "motion_encoder": _PLAIN,
}
"""Graph → what stays float32 in it: what runs ahead of the frame, the same in every family."""

FRAME_ISLANDS: Mapping[tuple[str, str], Islands] = {
    ("d3talker", "motion"): Islands(
        tuple(f"{region}_{name}" for region in ("face", "mouth") for name in _GAUSSIANS)
    ),
    ("d3talker", "refiner"): _IMAGE,
    ("talkinggaussian", "motion_face"): Islands(_GAUSSIANS),
    ("talkinggaussian", "motion_mouth"): Islands(_GAUSSIANS),
    # The mouth follows differences of the face's motions, a hundredth of the head's size.
    ("instag", "motion_face"): Islands((*_GAUSSIANS, "move")),
    ("instag", "motion_mouth"): Islands(_GAUSSIANS),
    ("sdtalk", "motion"): Islands((*_GAUSSIANS, "opacities")),
    ("sdtalk", "refiner"): _IMAGE,
}
"""(family, graph) → what stays float32 in it: what makes the frame."""


def islands_of(family: str, graph: str) -> Islands:
    """The islands of a graph.

    Raises:
        BundleError: nothing is known about such a graph.
    """
    found = AUDIO_ISLANDS.get(graph) or FRAME_ISLANDS.get((family, graph))
    if found is None:
        known = [*AUDIO_ISLANDS, *(name for owner, name in FRAME_ISLANDS if owner == family)]
        raise BundleError(
            f"What has to stay float32 in the graph {graph!r} of family {family} is not known; "
            f"known are {', '.join(known)}. Build with --precision fp32."
        )
    return found


def to_float16(model: onnx.ModelProto, islands: Islands) -> onnx.ModelProto:
    """The same graph computing in float16 outside its islands.

    float32 stay: :data:`ALWAYS_FLOAT32`; what is between a square and the root of it (norms,
    demodulation, whose small terms float16 would drop); a node with a constant that float16 cannot
    hold, such as a small epsilon; a node whose operator has no float16 form; and ``islands``.

    Args:
        model: of standard operators in float32; it is not changed.
        islands: its own.

    Raises:
        BackendError: the graph has branches or loops, or onnx is not installed.
        BundleError: it does not have an output of ``islands``.
    """
    return _Conversion(model, islands).convert()


class _Conversion:
    """One graph on its way to float16."""

    def __init__(self, model: onnx.ModelProto, islands: Islands) -> None:
        self._onnx = import_onnx(FLOAT16)
        self._float = self._onnx.TensorProto.FLOAT
        self._half = self._onnx.TensorProto.FLOAT16
        self._source = model
        self._nodes = list(model.graph.node)
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._types = dict(self._element_types())
        self._kept = self._float32_nodes(islands)
        self._in_half = {
            name
            for node in self._nodes
            if id(node) not in self._kept
            for name in node.output
            if self._types.get(name) == self._float
        }
        self._made: dict[tuple[str, int], str] = {}  # (value, type) -> its name in that type
        self._casts: list[onnx.NodeProto] = []
        self._halved: list[onnx.TensorProto] = []

    def convert(self) -> onnx.ModelProto:
        graph_outputs = {output.name for output in self._source.graph.output}
        renamed = {name: f"{name}.float16" for name in graph_outputs & self._in_half}
        nodes = []
        for node in self._nodes:
            copy = self._onnx.NodeProto()
            copy.CopyFrom(node)
            for index, name in enumerate(node.input):
                copy.input[index] = self._fitting(node, index, renamed.get(name, name), name)
            for index, name in enumerate(node.output):
                copy.output[index] = renamed.get(name, name)
            nodes += [*self._casts, copy]
            self._casts.clear()
        for output in self._source.graph.output:
            if output.name in renamed:
                nodes.append(self._cast(renamed[output.name], output.name, self._float))
        return self._assemble(nodes)

    def _fitting(self, node: onnx.NodeProto, index: int, value: str, name: str) -> str:
        """The name under which ``node`` finds its input in the type it computes in."""
        if self._types.get(name) != self._float:
            return value
        halved = name in self._in_half
        wanted = id(node) not in self._kept and index in self._half_inputs(node)
        if halved == wanted:
            return value
        target = self._half if wanted else self._float
        if (name, target) not in self._made:
            self._made[name, target] = other = f"{name}.{'float16' if wanted else 'float32'}"
            if name in self._constants:
                array = self._array(name).astype(np.float16)
                self._halved.append(self._onnx.numpy_helper.from_array(array, other))
            else:
                self._casts.append(self._cast(value, other, target))
        return self._made[name, target]

    def _assemble(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        model: onnx.ModelProto = self._onnx.ModelProto()
        model.CopyFrom(self._source)
        used = {name for node in nodes for name in node.input}
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        del model.graph.value_info[:]  # those of the float32 graph
        kept = [tensor for tensor in self._constants.values() if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *self._halved])
        return model

    def _cast(self, value: str, result: str, target: int) -> onnx.NodeProto:
        make_node = self._onnx.helper.make_node
        cast: onnx.NodeProto = make_node("Cast", [value], [result], f"{result}.cast", to=target)
        return cast

    def _float32_nodes(self, islands: Islands) -> set[int]:
        """Identities of the nodes that stay as they are."""
        kept = {
            id(node)
            for node in self._nodes
            if node.op_type in ALWAYS_FLOAT32
            or not self._has_half_form(node)
            or any(not self._fits(name) for name in node.input)
        }
        roots = [node for node in self._nodes if node.op_type == "Sqrt"]
        kept |= {id(node) for node in self._upstream(roots, _is_square, {"Conv", "Gemm"})}
        outputs = {output.name for output in self._source.graph.output}
        for name in islands.outputs:
            if name not in outputs:
                raise BundleError(
                    f"The graph was expected to have an output {name!r}, found "
                    f"{', '.join(sorted(outputs))}. Export the avatar again."
                )
            made = [self._makers[name]] if name in self._makers else []
            last = [node for node in made if node.op_type not in PRODUCTS]
            kept |= {id(node) for node in [*last, *self._upstream(last, _never, PRODUCTS)]}
        middle = [node for node in self._nodes if node.op_type in islands.around]
        kept |= {id(node) for node in self._upstream(middle, _never, frozenset())}
        kept |= {id(node) for node in self._downstream(middle)}
        return kept

    def _upstream(
        self,
        nodes: Iterable[onnx.NodeProto],
        is_last: Callable[[onnx.NodeProto], bool],
        stops: Set[str],
    ) -> Iterator[onnx.NodeProto]:
        """What leads to ``nodes``: up to those that ``is_last``, them included, and up to
        operators of ``stops``, them not included."""
        seen: set[int] = set()
        pending = list(nodes)
        while pending:
            for name in pending.pop().input:
                maker = self._makers.get(name)
                if maker is None or id(maker) in seen or maker.op_type in stops:
                    continue
                seen.add(id(maker))
                yield maker
                if not is_last(maker):
                    pending.append(maker)

    def _downstream(self, nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        """What ``nodes`` lead to, up to the next products, them not included."""
        known = {name for node in nodes for name in node.output}
        for node in self._nodes:  # which are in order
            if node.op_type not in PRODUCTS and known.intersection(node.input):
                known.update(node.output)
                yield node

    def _fits(self, name: str) -> bool:
        """Whether float16 holds a constant: nothing becomes infinite, no factor or epsilon 0."""
        if name not in self._constants or self._types[name] != self._float:
            return True
        array = self._array(name)
        with np.errstate(over="ignore"):
            halved = array.astype(np.float16)
        if (np.isfinite(array) & ~np.isfinite(halved)).any():
            return False
        return array.size != 1 or bool(array.any()) == bool(halved.any())

    def _has_half_form(self, node: onnx.NodeProto) -> bool:
        """Whether all float values of the node may be float16 together."""
        data = self._data_type(node)
        formals = self._schema(node).outputs
        return data is not None and all(
            formals[min(index, len(formals) - 1)].type_str == data
            for index, name in enumerate(node.output)
            if self._types.get(name) == self._float
        )

    def _half_inputs(self, node: onnx.NodeProto) -> set[int]:
        """Float inputs that have the type of the node's data; scales of Resize do not."""
        formals = self._schema(node).inputs
        data = self._data_type(node)
        return {
            index
            for index in range(len(node.input))
            if formals[min(index, len(formals) - 1)].type_str == data
        }

    def _data_type(self, node: onnx.NodeProto) -> str | None:
        """The schema's name for the type of the first float input, if that may be float16."""
        schema = self._schema(node)
        for index, name in enumerate(node.input):
            if self._types.get(name) == self._float:
                data = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
                allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
                return data if "tensor(float16)" in allowed.get(data, ()) else None
        return None  # what it makes does not follow from what it takes

    def _schema(self, node: onnx.NodeProto) -> onnx.defs.OpSchema:
        version = self._opsets[node.domain]
        schema: onnx.defs.OpSchema = self._onnx.defs.get_schema(node.op_type, version, node.domain)
        return schema

    def _element_types(self) -> Iterator[tuple[str, int]]:
        """Every value and the type of its numbers."""
        graph = self._source.graph
        attribute = self._onnx.AttributeProto
        nested = (attribute.GRAPH, attribute.GRAPHS)
        if any(entry.type in nested for node in graph.node for entry in node.attribute):
            raise BackendError(
                "A graph with branches or loops cannot be written in float16. Build with "
                "--precision fp32."
            )
        for tensor in graph.initializer:
            yield tensor.name, tensor.data_type
        inferred = self._onnx.shape_inference.infer_shapes(self._source).graph
        for value in (*graph.input, *inferred.value_info, *inferred.output):
            yield value.name, value.type.tensor_type.elem_type

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = self._onnx.numpy_helper.to_array(self._constants[name])
        return array


def _is_square(node: onnx.NodeProto) -> bool:
    return node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])


def _never(node: onnx.NodeProto) -> bool:
    return False
