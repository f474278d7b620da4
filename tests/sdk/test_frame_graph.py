"""One graph for a whole frame: in ONNX Runtime the very bits of the steps it is composed of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from composed_frames import ComposedFrame, library, random_inputs, unequal_frames
from onnx import helper, numpy_helper
from synthetic_bundle import speech_like, write_synthetic_bundle
from synthetic_families import VARIANTS, Variant, write_family_bundle

import talksplat
from talksplat.backends.base import Picture
from talksplat.backends.split_frame import SplitFrameRunner
from talksplat.bundle import Bundle
from talksplat.errors import BackendError, BundleError
from talksplat.families import frame_program
from talksplat.frame_graph import compose
from talksplat.frame_program import Rasterize
from talksplat.manifest import GraphSpec

KINDS = {
    "d3talker": None,
    **VARIANTS,
    "talkinggaussian, dilated": Variant("talkinggaussian", dilation=5),
    "sdtalk, noise given": Variant("sdtalk", noise="input"),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("composed")
    return {
        kind: write_synthetic_bundle(folder / "d3talker.avatar")
        if variant is None
        else write_family_bundle(folder / f"{kind}.avatar", variant)
        for kind, variant in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_has_the_bits_of_the_steps(bundles: dict[str, Bundle], kind: str) -> None:
    assert not unequal_frames(bundles[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_makes_the_frames_of_a_session(
    bundles: dict[str, Bundle], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed with what a session that hears speech feeds its steps."""
    library()
    made: list[tuple[dict[str, np.ndarray], Picture]] = []
    run = SplitFrameRunner.run

    def recorded(self: SplitFrameRunner, inputs: Mapping[str, Any], timings: Any) -> Picture:
        picture = run(self, inputs, timings)
        made.append(({name: array.copy() for name, array in inputs.items()}, picture))
        return picture

    monkeypatch.setattr(SplitFrameRunner, "run", recorded)
    bundle = bundles[kind]
    with talksplat.load(bundle.path, backend="onnxruntime-cpu").session() as session:
        made.clear()  # of the frame that a session makes to warm up
        session.push(speech_like(640 * 8))
        session.end()
        frames = list(session.frames())
    assert len(made) == len(frames) == 8
    program = frame_program(bundle)
    graph = ComposedFrame(compose(bundle, program), program)
    for (inputs, _), frame in zip(made, frames, strict=True):
        picture, coverage, _ = graph.run(inputs)
        np.testing.assert_array_equal(picture, frame.image)
        np.testing.assert_array_equal(coverage[0, 0], frame.alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_and_what_comes_out(bundles: dict[str, Bundle], kind: str) -> None:
    bundle = bundles[kind]
    program = frame_program(bundle)
    model = compose(bundle, program)
    assert [value.name for value in model.graph.input] == [*program.inputs, *program.constants]
    drawn = sum(isinstance(step, Rasterize) for step in program.steps)
    size = [program.height, program.width]
    assert {value.name: axes_of(value) for value in model.graph.output} == {
        "picture": [*size, 3],
        "coverage": [1, 1, *size],
        "status": [drawn, 4],
    }
    for value in model.graph.input:
        expected = program.inputs.get(value.name)
        dtype = program.constants[value.name].dtype if expected is None else expected.dtype
        kind_of = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        assert kind_of == np.dtype(dtype), value.name


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_the_rasterizer_is_standard(bundles: dict[str, Bundle], kind: str) -> None:
    bundle = bundles[kind]
    model = compose(bundle, frame_program(bundle))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [
        ("", 18),
        ("talksplat", 1),
    ]
    foreign = {(node.domain, node.op_type) for node in model.graph.node if node.domain}
    assert foreign == {("talksplat", "GaussianRasterize")}
    names = [node.name for node in model.graph.node if node.name]
    assert len(names) == len(set(names))


def test_the_rasterizer_gets_the_rules_of_the_bundle(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["instag"]
    program = frame_program(bundle)
    for node in compose(bundle, program).graph.node:
        if node.op_type != "GaussianRasterize":
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert attributes.pop("near_plane") == np.float32(program.rules.near_plane)
        assert attributes.pop("eps2d") == np.float32(program.rules.eps2d)
        assert attributes == {
            "width": program.width,
            "height": program.height,
            "sh_degree": program.rules.sh_degree,
            "rasterize_mode": b"classic",
            "dialect": b"inria",
            "plugin_namespace": b"talksplat",
            "plugin_version": b"1",
        }


def test_the_same_bundle_gives_the_same_bytes(bundles: dict[str, Bundle]) -> None:
    for bundle in bundles.values():
        first, second = (compose(bundle, frame_program(bundle)) for _ in range(2))
        assert first.SerializeToString() == second.SerializeToString()


def test_numbers_of_gaussians_stay_free(bundles: dict[str, Bundle]) -> None:
    """Axes that two graphs call alike are told apart: they need not be equal."""
    bundle = with_free_axes(bundles["talkinggaussian"])
    program = frame_program(bundle)
    model = compose(bundle, program)
    first = {value.name: axes_of(value)[0] for value in model.graph.input}
    assert {name: first[name] for name in program.constants if name != "Ks"} == {
        "face_opacities": "gaussians",
        "face_shs": "gaussians",
        "mouth_opacities": "motion_mouth_gaussians",
        "mouth_shs": "motion_mouth_gaussians",
        **{f"motion_face/rest_{name}": "gaussians" for name in ("means", "quats", "scales")},
        **{
            f"motion_mouth/rest_{name}": "motion_mouth_gaussians"
            for name in ("means", "quats", "scales")
        },
    }
    half = {
        name: array if name == "Ks" else array[: len(array) // 2]
        for name, array in program.constants.items()
    }
    graph = ComposedFrame(model, replace(program, constants=half))
    picture, _, status = graph.run(next(random_inputs(program)))
    assert picture.shape == (program.height, program.width, 3)
    assert not status.any()


def test_names_inside_a_graph_get_its_name(bundles: dict[str, Bundle]) -> None:
    """Also in the graphs inside a graph, which see the tensors around them."""
    bundle = bundles["d3talker"]
    program = frame_program(bundle)
    model = compose(bundle, program, {"refiner": refiner_with_a_branch(bundle)})
    branch = next(node for node in model.graph.node if node.op_type == "If")
    assert branch.name == "refiner/choose"
    inner = next(a.g for a in branch.attribute if a.name == "then_branch")
    assert list(inner.node[0].input) == ["face_image", "refiner/gain"]
    assert list(inner.node[0].output) == ["refiner/bright"]
    plain = ComposedFrame(compose(bundle, program), program)
    for inputs in random_inputs(program):
        found, expected = ComposedFrame(model, program).run(inputs), plain.run(inputs)
        np.testing.assert_array_equal(found[0], expected[0])


def test_graphs_are_not_optimised_as_one(bundles: dict[str, Bundle]) -> None:
    """A factor that ends one and a product that begins the other would be taken together, and
    rounded otherwise. ``move`` of InsTaG is the one value that goes from graph to graph."""
    bundle = bundles["instag"]
    program = frame_program(bundle)
    face = onnx.load(bundle.graph_file("motion_face"))
    move = next(node for node in face.graph.node if "move" in node.output)
    move.op_type = "Mul"
    move.input.append("hundred")
    face.graph.initializer.append(numpy_helper.from_array(np.float32(100.1), "hundred"))
    mouth = onnx.load(bundle.graph_file("motion_mouth"))
    product = next(node for node in mouth.graph.node if "move_row" in node.input)
    product.input[0] = "move"
    model = compose(bundle, program, {"motion_face": face, "motion_mouth": mouth})
    joined = [value for value in model.graph.value_info if value.name in ("move", "mouth_means")]
    model.graph.output.extend(joined)
    graph = ComposedFrame(model, program).session
    alone = onnxruntime.InferenceSession(mouth.SerializeToString())
    baked = bundle.constants("motion_mouth")
    for inputs in random_inputs(program):
        moved, means = graph.run(["move", "mouth_means"], {**program.constants, **inputs})
        heard = {name: inputs[name] for name in ("audio_window", "upper_face")}
        (expected,) = alone.run(["means"], {**baked, **heard, "move": moved})
        np.testing.assert_array_equal(means, expected)


def test_bytes_become_numbers_as_numpy_divides(bundles: dict[str, Bundle]) -> None:
    """A product with 1/255 would differ by a rounding that few frames show."""
    bundle = bundles["d3talker"]
    program = frame_program(bundle)
    model = compose(bundle, program)
    model.graph.output.extend(value for value in model.graph.value_info if value.name == "plate")
    picture = np.arange(program.height * program.width * 3).astype(np.uint8)
    background = picture.reshape(program.height, program.width, 3)
    inputs = {**next(random_inputs(program)), "background": background, **program.constants}
    (plate,) = ComposedFrame(model, program).session.run(["plate"], inputs)
    np.testing.assert_array_equal(plate[0], (background / np.float32(255)).transpose(2, 0, 1))


def test_what_cannot_be_drawn_is_an_error_of_the_run(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["sdtalk"]
    program = frame_program(bundle)
    graph = ComposedFrame(compose(bundle, program), program)
    inputs = next(random_inputs(program))
    inputs["eyes"][:] = np.nan
    with pytest.raises(Exception, match="Gaussians must be finite; found NaN or infinity in means"):
        graph.run(inputs)


def test_graphs_of_different_onnx_versions_are_refused(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["d3talker"]
    refiner = onnx.load(bundle.graph_file("refiner"))
    refiner.opset_import[0].version = 19
    with pytest.raises(BundleError, match=r"expect one version .* found 18 and, .*'refiner', 19"):
        compose(bundle, frame_program(bundle), {"refiner": refiner})


def test_operators_outside_onnx_are_refused(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["d3talker"]
    refiner = onnx.load(bundle.graph_file("refiner"))
    refiner.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(BundleError, match=r"'refiner' .* operators of ONNX alone"):
        compose(bundle, frame_program(bundle), {"refiner": refiner})


def test_a_graph_that_does_not_fit_is_refused(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["d3talker"]
    refiner = onnx.load(bundle.graph_file("refiner"))
    refiner.graph.node[0].input[0] = "nothing"
    with pytest.raises(BundleError, match="cannot be composed"):
        compose(bundle, frame_program(bundle), {"refiner": refiner})


def test_without_onnx_it_says_what_to_install(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = frame_program(bundles["d3talker"])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match="pip install onnx"):
        compose(bundles["d3talker"], program)


def test_the_module_is_imported_without_onnx() -> None:
    script = "import sys; sys.modules['onnx'] = None; import talksplat.frame_graph"
    subprocess.run([sys.executable, "-c", script], check=True)


def axes_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def with_free_axes(bundle: Bundle) -> Bundle:
    """The bundle as if its graphs had been exported for any number of Gaussians."""

    def freed(graph: GraphSpec) -> GraphSpec:
        tensors = [
            tuple(
                replace(tensor, shape=("gaussians", *tensor.shape[1:]))
                if tensor.name in ("means", "scales", "quats") or tensor.name.startswith("rest_")
                else tensor
                for tensor in side
            )
            for side in (graph.inputs, graph.outputs)
        ]
        return replace(graph, inputs=tensors[0], outputs=tensors[1])

    graphs = {name: freed(graph) for name, graph in bundle.manifest.graphs.items()}
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))


def refiner_with_a_branch(bundle: Bundle) -> onnx.ModelProto:
    """The refiner of the synthetic bundle, its first product inside an If that is always taken."""
    model = onnx.load(bundle.graph_file("refiner"))
    product, clip = model.graph.node
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    inner = helper.make_graph(
        [helper.make_node("Mul", list(product.input), ["bright"])],
        "branch",
        [],
        [helper.make_tensor_value_info("bright", onnx.TensorProto.FLOAT, shape)],
    )
    otherwise = helper.make_graph(
        [helper.make_node("Identity", ["coarse"], ["same"])],
        "otherwise",
        [],
        [helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, shape)],
    )
    choose = helper.make_node(
        "If", ["taken"], ["chosen"], "choose", then_branch=inner, else_branch=otherwise
    )
    clip.input[0] = "chosen"
    del model.graph.node[:]
    model.graph.node.extend([choose, clip])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "taken"))
    return model
