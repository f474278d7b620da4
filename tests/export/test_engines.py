"""TensorRT-RTX takes every graph; no GPU is needed to know."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from talksplat.bundle import Bundle, BundleWriter
from talksplat.errors import BackendError
from talksplat_export.engines import build_engine, build_engines, write_records

pytest.importorskip("tensorrt_rtx")


def test_every_graph_becomes_an_engine_and_is_written_down(bundle: Bundle) -> None:
    records = build_engines(bundle)
    assert [record.graph for record in records] == list(bundle.manifest.graphs)
    assert all(record.engine_bytes > 10_000 and record.layers > 5 for record in records)
    output = Path(__file__).parents[2] / "out" / "engines_of_the_tests_avatar"
    write_records(records, output)
    written = json.loads(output.with_suffix(".json").read_text())
    assert [engine["graph"] for engine in written["engines"]] == list(bundle.manifest.graphs)


def test_a_graph_that_tensorrt_refuses_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """Unique has no counterpart in TensorRT: the size of its output is known too late."""
    node = helper.make_node("Unique", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "unsupported",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    with BundleWriter(tmp_path / "bad.avatar") as writer:
        writer.add_graph("unsupported", model.SerializeToString())
        bad = writer.commit(bundle.manifest)
    with pytest.raises(BackendError, match=r"unsupported\.onnx"):
        build_engine(bad, "unsupported")
