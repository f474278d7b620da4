"""Torch modules to ONNX files with torch's dynamo exporter."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch.export import Dim

from talksplat_export.families.base import Graph

_STANDARD_DOMAINS = ("", "ai.onnx")


def export_graph(graph: Graph, opset: int, dynamic_shapes: tuple[Any, ...] | None = None) -> bytes:
    """A checked, self-contained ONNX model of standard operators.

    Args:
        graph: module, example inputs, names and free axes.
        opset: version of the ONNX operators, 18 or later.
        dynamic_shapes: in place of the graph's free axes, what ``torch.onnx.export`` takes: names
            that leave it to torch which sizes are allowed.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=dynamic_shapes or _dynamic_shapes(graph),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    _check_operators(model, graph.name)
    return bytes(model.SerializeToString())


def _dynamic_shapes(graph: Graph) -> tuple[Any, ...]:
    """One entry per parameter of ``forward``; what falls to ``*args`` is one nested entry."""
    sizes: dict[str, Dim] = {}
    shapes = [
        {axis: sizes.setdefault(size, Dim(size, min=1)) for axis, size in axes.items()} or None
        for axes in (graph.free_axes.get(name, {}) for name in graph.inputs)
    ]
    parameters = inspect.signature(graph.module.forward).parameters.values()
    positional = [p for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    if len(positional) in (len(parameters), len(shapes)):
        return tuple(shapes)
    return (*shapes[: len(positional)], tuple(shapes[len(positional) :]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it could also have used."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what is no part of the graph: source lines, paths, shapes between operators."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for item in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]


def _check_operators(model: onnx.ModelProto, name: str) -> None:
    """Refuse operators that a plain ONNX runtime does not have."""
    foreign = {
        f"{node.domain}::{node.op_type}"
        for node in model.graph.node
        if node.domain not in _STANDARD_DOMAINS
    }
    if foreign or model.functions:
        found = ", ".join(sorted(foreign)) or "functions"
        raise AssertionError(f"{name}.onnx holds operators outside ONNX: {found}")
