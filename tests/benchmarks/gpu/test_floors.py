"""Floors: small cases counted by hand, graphs against what torch counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.gpu.floors import Rates, Work
from benchmarks.rasterizer.scenes import head
from benchmarks.rasterizer.work import count_work
from onnx import TensorProto, helper, numpy_helper
from tests.export.avatar_factory import make_checkpoint

from benchmarks.gpu import floors, graph_work, scene_work
from talksplat.bundle import Bundle
from talksplat_export.export import export_checkpoint

RATES = Rates(copy=1e12, multiply_add=1e13, matrix=1e14, launch=2e-6)


def test_a_rasterization_reads_every_gaussian_and_writes_every_pixel_once() -> None:
    work = floors.rasterization(gaussians=10, channels=3, width=4, height=2, pairs=5)
    # 3 + 4 + 3 + 1 + 3 floats of ten Gaussians, 3 + 1 of eight pixels; 16 + 2 · 3 per pair.
    assert work.bytes == 4 * (10 * 14 + 8 * 4)
    assert work.flops == 5 * 22
    assert work.matrix_flops == 0


def test_spherical_harmonics_are_read_whole_and_blended_as_three_channels() -> None:
    work = floors.rasterization(
        gaussians=10, channels=3, width=4, height=2, pairs=5, color_floats=48
    )
    assert work.bytes == 4 * (10 * (11 + 48) + 8 * 4) and work.flops == 5 * 22


def test_a_warp_pays_for_32_pixels() -> None:
    assert floors.warp_steps(steps=7, channels=32).flops == 7 * 32 * (16 + 64)


@pytest.mark.parametrize(
    ("work", "milliseconds"),
    [
        (Work(bytes=2e9), 2.0),
        (Work(flops=3e10), 3.0),
        (Work(matrix_flops=4e11), 4.0),
        (Work(bytes=2e9, flops=3e10, matrix_flops=1e11), 3.0),
        (Work(bytes=1e9) + Work(bytes=1e9, flops=1e10), 2.0),
    ],
)
def test_the_slowest_part_is_the_floor(work: Work, milliseconds: float) -> None:
    assert floors.floor_ms(work, RATES) == pytest.approx(milliseconds)


def test_without_a_rate_of_matrices_that_of_multiply_adds_counts() -> None:
    rates = Rates(copy=1e12, multiply_add=1e13, matrix=None, launch=2e-6)
    assert floors.floor_ms(Work(matrix_flops=1e10), rates) == pytest.approx(1.0)
    assert floors.launches_ms(6, rates) == pytest.approx(0.012)


def graph(
    nodes: list[onnx.NodeProto], inputs: dict, outputs: list[str], weights: dict
) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def test_products_and_convolutions_are_counted(tmp_path: Path) -> None:
    model = graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
            helper.make_node("Gemm", ["m", "g"], ["n"], transB=1),
            helper.make_node("MatMul", ["n", "k"], ["o"]),
            helper.make_node("Relu", ["o"], ["p"]),
        ],
        {"x": [1, 4, 8, 8], "m": ["rows", 3]},
        ["y", "p"],
        {"w": np.ones((6, 2, 3, 3)), "g": np.ones((5, 3)), "k": np.ones((5, 7))},
    )
    onnx.save(model, tmp_path / "graph.onnx")
    work = graph_work.count(tmp_path / "graph.onnx", {"rows": 10})
    convolution = 2 * (6 * 4 * 4) * 2 * 9
    assert work.matrix_flops == convolution + 2 * 10 * 5 * 3 + 2 * 10 * 7 * 5
    weights, read, written = 6 * 2 * 9 + 15 + 35, 4 * 64 + 10 * 3, 6 * 16 + 10 * 7
    assert work.bytes == 4 * (weights + read + written)


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    einsum = graph(
        [helper.make_node("Einsum", ["x", "x"], ["y"], equation="ij,jk->ik")],
        {"x": [2, 2]},
        ["y"],
        {},
    )
    onnx.save(einsum, tmp_path / "einsum.onnx")
    with pytest.raises(ValueError, match="Einsum is not counted"):
        graph_work.count(tmp_path / "einsum.onnx", {})
    free = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["rows"]}, ["y"], {})
    onnx.save(free, tmp_path / "free.onnx")
    with pytest.raises(ValueError, match="size for the axis rows"):
        graph_work.count(tmp_path / "free.onnx", {})


def test_a_bundle_has_the_operations_that_torch_counted_at_export(tmp_path: Path) -> None:
    make_checkpoint().save(tmp_path / "random.pt")
    export_checkpoint(tmp_path / "random.pt", tmp_path / "random.avatar")
    bundle = Bundle.open(tmp_path / "random.avatar")
    work = graph_work.count(bundle.graph_file("motion"), graph_work.free_sizes(bundle, "motion"))
    assert bundle.manifest.baked is not None
    assert work.matrix_flops == bundle.manifest.baked.flops_after


def test_work_that_was_kept_is_what_would_be_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "work.json"
    scene_work.main(["--sizes", "300", "--sides", "64", "--output", str(kept)])
    monkeypatch.setattr(scene_work, "FILE", kept)
    monkeypatch.setattr(scene_work, "count_work", lambda scene: pytest.fail("counted again"))
    assert scene_work.work_of(300, 64) == count_work(head(300, 64, 64))


def test_the_scenes_of_a_run_are_all_kept() -> None:
    for gaussians, pairs in ((20_000, 4_833_771), (50_000, 4_862_700), (176_000, 5_056_469)):
        # As docs/performance.md has them, counted on their own.
        assert scene_work.work_of(gaussians, 512).pairs == pairs
        assert scene_work.work_of(gaussians, 1024).pairs > 3 * pairs
