"""Operations and bytes of an ONNX graph, counted from its nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import onnx

from benchmarks.gpu.floors import Work
from talksplat.bundle import Bundle

_NOT_COUNTED = {"ConvTranspose", "Einsum", "GRU", "LSTM", "RNN", "ConvInteger", "MatMulInteger"}
"""Products of matrices that no graph of ours holds; a floor without them would be wrong."""


def count(file: Path, sizes: Mapping[str, int]) -> Work:
    """What running the graph once takes.

    Operations are those of Conv, Gemm and MatMul, two for every multiply-add; all others are left
    out. Bytes are the weights and inputs read once and the outputs written once: what lies between
    two layers could stay on the chip.

    Args:
        file: the ``.onnx`` file.
        sizes: of its free axes, by their names.

    Raises:
        ValueError: a free axis has no size, or the graph holds a product this cannot count.
    """
    model = onnx.load(file)
    for tensor in model.graph.input:
        for axis in tensor.type.tensor_type.shape.dim:
            if axis.dim_param:
                if axis.dim_param not in sizes:
                    raise ValueError(f"{file.name}: expected a size for the axis {axis.dim_param}.")
                axis.dim_value = sizes[axis.dim_param]
    # Shapes stored beside the graph still have free axes.
    del model.graph.value_info[:]
    for tensor in model.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
    flops = sum(_flops(node, shapes, file.name) for node in graph.node)
    held = sum(_bytes(tensor.dims, tensor.data_type) for tensor in graph.initializer)
    passed = sum(
        _bytes(shapes[value.name], value.type.tensor_type.elem_type)
        for value in (*graph.input, *graph.output)
    )
    return Work(bytes=held + passed, matrix_flops=flops)


def _flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    if node.op_type in _NOT_COUNTED:
        raise ValueError(f"{name}: {node.op_type} is not counted; write how in {__name__}.")
    if node.op_type == "Conv":
        _, channels, *kernel = shapes[node.input[1]]  # channels of one group
        return 2 * math.prod(shapes[node.output[0]]) * channels * math.prod(kernel)
    if node.op_type == "MatMul":
        return 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        inner = shapes[node.input[0]][0 if transposed else 1]
        return 2 * math.prod(shapes[node.output[0]]) * inner
    return 0


def _bytes(shape: tuple[int, ...], kind: int) -> int:
    return math.prod(shape) * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def free_sizes(bundle: Bundle, graph: str) -> dict[str, int]:
    """Sizes of the free axes of a bundle's graph, from the constants it is run with."""
    constants = bundle.constants(graph)
    return {
        axis: constants[tensor.name].shape[place]
        for tensor in bundle.manifest.graphs[graph].inputs
        for place, axis in enumerate(tensor.shape)
        if isinstance(axis, str)
    }
