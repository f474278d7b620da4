"""float16 where it does no harm, float32 where the picture needs it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from benchmarks.precision import rounded
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from talksplat.bundle import Bundle
from talksplat.engines.precision import FRAME_ISLANDS, Islands, islands_of, to_float16
from talksplat.errors import BackendError, BundleError

Array = NDArray[Any]
PLAIN = Islands()
NODE = helper.make_node


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, Array],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, **inputs: Array) -> list[Array]:
    """What an engine of ``model`` would give, with its roundings."""
    onnx.checker.check_model(model, full_check=True)
    exact = rounded(model)
    session = onnxruntime.InferenceSession(
        exact.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def moving(seed: int = 0) -> onnx.ModelProto:
    """means = rest + relu(x · first) · second"""
    rng = np.random.default_rng(seed)
    return make_model(
        [
            NODE("MatMul", ["x", "first"], ["hidden"]),
            NODE("Relu", ["hidden"], ["positive"]),
            NODE("MatMul", ["positive", "second"], ["delta"]),
            NODE("Add", ["rest", "delta"], ["means"]),
        ],
        {"x": ["n", 8], "rest": ["n", 3]},
        {"means": ["n", 3]},
        {
            "first": rng.normal(size=(8, 16)).astype(np.float32),
            "second": (0.01 * rng.normal(size=(16, 3))).astype(np.float32),
        },
    )


def test_products_are_float16_and_inputs_and_outputs_stay_float32() -> None:
    half = to_float16(moving(), Islands(("means",)))
    found = types(half)
    assert found["hidden"] == found["positive"] == found["delta"] == TensorProto.FLOAT16
    assert found["x"] == found["rest"] == found["means"] == TensorProto.FLOAT
    assert found["first.float16"] == TensorProto.FLOAT16
    assert "first" not in found  # its float32 form is not carried along
    assert half.ByteSize() < moving().ByteSize()


def test_what_an_island_adds_up_is_never_rounded() -> None:
    """Positions that float16 would move by up to 3e-5 stay to the bit."""
    rest = np.random.default_rng(1).uniform(-0.1, 0.1, (100, 3)).astype(np.float32)
    assert (rest.astype(np.float16) != rest).any()
    still = np.zeros((100, 8), np.float32)
    (means,) = run(to_float16(moving(), Islands(("means",))), x=still, rest=rest)
    np.testing.assert_array_equal(means, rest)
    (moved,) = run(to_float16(moving(), PLAIN), x=still, rest=rest)
    assert (moved != rest).any()


def test_an_island_reaches_back_through_what_follows_the_products() -> None:
    """Softplus, Split and norms of the outputs are float32, the layers before them are not."""
    nodes = [
        NODE("MatMul", ["x", "weight"], ["delta"]),
        NODE("Add", ["rest", "delta"], ["sum"]),
        NODE("Split", ["sum"], ["raw_scales", "raw_quats"], axis=1, num_outputs=2),
        NODE("Softplus", ["raw_scales"], ["scales"]),
        NODE("ReduceL2", ["raw_quats", "axes"], ["length"], keepdims=1),
        NODE("Clip", ["length", "least"], ["clipped"]),
        NODE("Div", ["raw_quats", "clipped"], ["quats"]),
    ]
    constants = {
        "weight": np.eye(8, dtype=np.float32),
        "axes": np.array([1], np.int64),
        "least": np.float32(1e-12),
    }
    model = make_model(
        nodes, {"x": [5, 8], "rest": [5, 8]}, {"scales": [5, 4], "quats": [5, 4]}, constants
    )
    found = types(to_float16(model, Islands(("scales", "quats"))))
    assert found["delta"] == TensorProto.FLOAT16
    for name in ("sum", "raw_scales", "raw_quats", "length", "clipped"):
        assert found[name] == TensorProto.FLOAT


def test_everything_around_a_logarithm_stays_float32_down_to_the_next_product() -> None:
    nodes = [
        NODE("MatMul", ["pcm", "basis"], ["spectrum"]),
        NODE("Mul", ["spectrum", "spectrum"], ["power"]),
        NODE("Log", ["power"], ["log"]),
        NODE("Sub", ["log", "mean"], ["centred"]),
        NODE("MatMul", ["centred", "weight"], ["features"]),
    ]
    constants = {
        "basis": np.eye(4, dtype=np.float32),
        "mean": np.float32(-3),
        "weight": np.eye(4, dtype=np.float32),
    }
    model = make_model(nodes, {"pcm": [1, 4]}, {"features": [1, 4]}, constants)
    found = types(to_float16(model, islands_of("d3talker", "audio_encoder")))
    assert {found[name] for name in ("spectrum", "power", "log", "centred")} == {TensorProto.FLOAT}
    assert found["features.float16"] == TensorProto.FLOAT16


def demodulation() -> onnx.ModelProto:
    """StyleGAN2's: 1 / sqrt(s² · w² + eps), with styles so small that float16 squares vanish."""
    nodes = [
        NODE("Pow", ["s", "two"], ["squares"]),
        NODE("MatMul", ["squares", "w2"], ["sums"]),
        NODE("Add", ["sums", "epsilon"], ["safe"]),
        NODE("Sqrt", ["safe"], ["root"]),
        NODE("Reciprocal", ["root"], ["gain"]),
    ]
    constants = {
        "two": np.float32(2),
        "w2": np.full((4, 2), 1e-5, np.float32),
        "epsilon": np.float32(1e-16),
    }
    return make_model(nodes, {"s": [1, 4]}, {"gain": [1, 2]}, constants)


def test_demodulation_keeps_its_small_squares() -> None:
    half = to_float16(demodulation(), PLAIN)
    assert not any(node.op_type == "Cast" for node in half.graph.node)
    (gain,) = run(half, s=np.full((1, 4), 1e-3, np.float32))
    np.testing.assert_allclose(gain, 1 / np.sqrt(4e-11 + 1e-16), rtol=1e-5)


def test_a_norm_of_a_product_of_a_value_with_itself_stays_float32() -> None:
    nodes = [
        NODE("MatMul", ["x", "weight"], ["y"]),
        NODE("Mul", ["y", "y"], ["square"]),
        NODE("Add", ["square", "square"], ["sum"]),
        NODE("Sqrt", ["sum"], ["root"]),
    ]
    model = make_model(
        nodes, {"x": [1, 4]}, {"root": [1, 4]}, {"weight": np.eye(4, dtype=np.float32)}
    )
    found = types(to_float16(model, PLAIN))
    assert found["y"] == TensorProto.FLOAT16
    assert found["square"] == found["sum"] == TensorProto.FLOAT


@pytest.mark.parametrize("constant", [1e-8, 1e6, -1e6])
def test_a_constant_that_float16_does_not_hold_keeps_its_node(constant: float) -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["y"]), NODE("Add", ["y", "constant"], ["z"])]
    constants = {"w": np.eye(2, dtype=np.float32), "constant": np.float32(constant)}
    half = to_float16(make_model(nodes, {"x": [1, 2]}, {"z": [1, 2]}, constants), PLAIN)
    (z,) = run(half, x=np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(z, np.full((1, 2), constant, np.float32))


def test_small_weights_among_others_do_not_keep_a_product_in_float32() -> None:
    weight = np.array([[1, 1e-9], [1e-9, 1]], np.float32)
    model = make_model(
        [NODE("MatMul", ["x", "w"], ["y"])], {"x": [1, 2]}, {"y": [1, 2]}, {"w": weight}
    )
    assert types(to_float16(model, PLAIN))["y.float16"] == TensorProto.FLOAT16


def test_scales_of_a_resize_and_shapes_stay_what_they_are() -> None:
    nodes = [
        NODE("Conv", ["x", "kernel"], ["y"]),
        NODE("Resize", ["y", "", "scales"], ["large"], mode="linear"),
        NODE("Reshape", ["large", "shape"], ["z"]),
    ]
    constants = {
        "kernel": np.ones((2, 2, 1, 1), np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "shape": np.array([1, -1], np.int64),
    }
    model = make_model(nodes, {"x": [1, 2, 4, 4]}, {"z": [1, 128]}, constants)
    found = types(to_float16(model, PLAIN))
    assert found["scales"] == TensorProto.FLOAT and found["shape"] == TensorProto.INT64
    assert found["large"] == TensorProto.FLOAT16


def test_a_value_crosses_over_once() -> None:
    nodes = [
        NODE("Relu", ["x"], ["y"]),
        NODE("Exp", ["y"], ["a"]),
        NODE("Log", ["y"], ["b"]),
        NODE("Add", ["a", "b"], ["z"]),
    ]
    model = make_model(nodes, {"x": [4]}, {"z": [4]}, {})
    casts = [n for n in to_float16(model, PLAIN).graph.node if n.op_type == "Cast"]
    assert [cast.input[0] for cast in casts] == ["x", "y", "a", "b", "z.float16"]


def test_an_output_that_others_read_too() -> None:
    nodes = [NODE("Relu", ["x"], ["first"]), NODE("Neg", ["first"], ["second"])]
    model = make_model(nodes, {"x": [2]}, {"first": [2], "second": [2]}, {})
    first, second = run(to_float16(model, PLAIN), x=np.float32([0.5, 2]))
    np.testing.assert_array_equal(first, [0.5, 2])
    np.testing.assert_array_equal(second, [-0.5, -2])


def test_the_same_graph_gives_the_same_bytes_and_is_left_alone() -> None:
    model = moving()
    before = model.SerializeToString(deterministic=True)
    one, other = (to_float16(model, Islands(("means",))) for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()
    assert model.SerializeToString(deterministic=True) == before


def test_branches_are_refused() -> None:
    branch = helper.make_graph(
        [NODE("Neg", ["x"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    nodes = [NODE("If", ["condition"], ["z"], then_branch=branch, else_branch=branch)]
    constants = {"condition": np.array(True)}
    model = make_model(nodes, {"x": [2]}, {"z": [2]}, constants)
    with pytest.raises(BackendError, match="branches or loops"):
        to_float16(model, PLAIN)


def test_an_output_that_is_not_there_is_named() -> None:
    with pytest.raises(BundleError, match="'quats', found means"):
        to_float16(moving(), Islands(("quats",)))


def test_a_graph_nobody_knows_is_named() -> None:
    with pytest.raises(BundleError, match=r"'tongue' of family sdtalk.*--precision fp32"):
        islands_of("sdtalk", "tongue")


@pytest.mark.parametrize("family", ["d3talker", "talkinggaussian", "instag", "sdtalk"])
def test_every_graph_of_every_family_has_its_islands(
    every_family: dict[str, Bundle], family: str
) -> None:
    bundle = every_family[family]
    for name in bundle.manifest.graphs:
        model = onnx.load(bundle.graph_file(name))
        half = to_float16(model, islands_of(family, name))
        onnx.checker.check_model(half, full_check=True)
        assert [value.name for value in half.graph.input] == [v.name for v in model.graph.input]
        for value in (*half.graph.input, *half.graph.output):
            assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    known = {name for owner, name in FRAME_ISLANDS if owner == family}
    assert known <= set(bundle.manifest.graphs)


def test_float16_without_onnx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    model = moving()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match="pip install onnx"):
        to_float16(model, PLAIN)
