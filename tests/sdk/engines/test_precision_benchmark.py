"""The measurement of float16 rounds where an engine would; ONNX Runtime on its own does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from benchmarks.precision import Difference, markdown, measure_float16, rounded
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from synthetic_families import VARIANTS, write_family_bundle

from talksplat.engines.precision import Islands, to_float16


def sums() -> onnx.ModelProto:
    """(x + 1) - 1 in float16, which keeps steps of 2⁻¹⁰ of what x was."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["large"]),
        helper.make_node("Sub", ["large", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return to_float16(model, Islands())


def run(model: onnx.ModelProto, x: list[float]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y: NDArray[np.float32] = session.run(None, {"x": np.float32(x)})[0]
    return y


def test_every_float16_value_is_rounded() -> None:
    x = [1e-4, 6e-4, 1e-3]
    np.testing.assert_array_equal(run(rounded(sums()), x), np.float32([0, 2**-10, 2**-10]))


def test_onnx_runtime_alone_hides_it() -> None:
    """The reason for :func:`rounded`; if this fails, ONNX Runtime has learnt to round."""
    x = [1e-4, 6e-4, 1e-3]
    np.testing.assert_allclose(run(sums(), x), x, rtol=1e-3)


def test_what_leaves_the_range_of_float16_shows() -> None:
    assert np.isinf(run(rounded(sums()), [1e5, 0, 0])[0])


def test_differences_add_up_over_frames() -> None:
    difference = Difference()
    difference.add(np.zeros(2), np.array([3.0, 0.0]))
    difference.add(np.array([1.0, -1.0]), np.array([1.0, -2.0]))
    assert (difference.largest, difference.rms) == (3, np.sqrt(10 / 4))
    assert difference.deviation == 1
    difference.add(np.zeros(1), np.array([np.nan]))
    assert np.isnan(difference.largest), "not a number is the largest difference there is"


def test_an_avatar_is_measured_and_put_on_a_page(tmp_path: Path) -> None:
    write_family_bundle(tmp_path / "small.avatar", VARIANTS["sdtalk"])
    report = measure_float16(tmp_path / "small.avatar", np.zeros(1280, np.float32))
    assert set(report.outputs) == {
        "audio_encoder: features",
        *(f"motion: {name}" for name in ("means", "scales", "quats", "opacities")),
        "refiner: image",
    }
    assert len(report.psnr_db) == 2 and min(report.psnr_db) > 50
    page = markdown([report])
    assert "| sdtalk | sdtalk | 2 |" in page
    assert all(f"`{name}`" in page for name in report.outputs)
