"""The lab's D3-Talker bundle as engines, and what float16 changes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.precision import measure_float16
from tests.export.avatar_factory import probe_speech
from tests.export.engine_builds import build_every_graph

from talksplat.backends.options import Precision
from talksplat.bundle import Bundle


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_graph_becomes_an_engine(
    bundle: Bundle, precision: Precision, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    engines = build_every_graph(bundle, precision, tmp_path)
    assert [engine.graph for engine in engines] == list(bundle.manifest.graphs)
    for engine in engines:
        assert engine.entry.bytes > 10_000 and engine.entry.facts["layers"] > 5


def test_float16_changes_a_frame_by_less_than_is_seen(bundle: Bundle) -> None:
    report = measure_float16(bundle.path, probe_speech(3200).numpy())
    assert set(report.outputs) == {
        f"{name}: {output.name}"
        for name, graph in bundle.manifest.graphs.items()
        for output in graph.outputs
    }
    assert len(report.psnr_db) == 5 and min(report.psnr_db) > 50
