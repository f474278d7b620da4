"""Frame programs: those of every family are well-formed, and what is not is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_bundle import FACE, HEIGHT, MOUTH, WIDTH
from synthetic_families import VARIANTS, Variant, write_family_bundle

from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.bundle import Bundle
from talksplat.errors import BundleError
from talksplat.families import frame_program
from talksplat.frame_program import (
    Coverage,
    FrameProgram,
    Pack,
    Rasterize,
    RunGraph,
    Step,
    check_program,
)
from talksplat.manifest import TensorSpec

KINDS = ["d3talker", *VARIANTS, "noise", "instag without dilation", "without encoder"]


@pytest.fixture(scope="session")
def bundles(
    bundle_path: Path, family_bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("programs")
    special = {
        "noise": Variant("sdtalk", noise="input"),
        "instag without dilation": Variant("instag"),
        "without encoder": Variant("talkinggaussian", encoder=False, dilation=5),
    }
    written = {
        name: write_family_bundle(folder / f"{number}.avatar", variant)
        for number, (name, variant) in enumerate(special.items())
    }
    paths = {"d3talker": bundle_path, **family_bundles}
    return {**{name: Bundle.open(path) for name, path in paths.items()}, **written}


def makes(step: Step) -> set[str]:
    """What a step makes: for most the name that they say last."""
    match step:
        case RunGraph():
            return set(step.outputs.values())
        case Rasterize():
            return {step.image, step.alpha}
        case _:
            return {getattr(step, fields(step)[-1].name)}


def reads(step: Step) -> set[str]:
    """Every name in a step that is not a stage, a graph or what it makes."""
    if isinstance(step, RunGraph):
        return set(step.inputs.values())
    found: set[str] = set()
    for field in fields(step):
        value = getattr(step, field.name)
        names = value if isinstance(value, tuple) else (value,)
        if field.name != "stage":
            found |= {name for name in names if isinstance(name, str)}
    return found - makes(step)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_made_once_before_they_are_used_and_none_is_idle(
    bundles: dict[str, Bundle], kind: str
) -> None:
    program = frame_program(bundles[kind])
    there = [*program.inputs, *program.constants]
    used = {program.picture, program.coverage}
    for step in program.steps:
        assert reads(step) <= set(there), step
        there += makes(step)
        used |= reads(step)
    assert len(there) == len(set(there))
    assert {program.picture, program.coverage} <= set(there)
    assert set(there) == used


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_agrees(bundles: dict[str, Bundle], kind: str) -> None:
    manifest = bundles[kind].manifest
    program = frame_program(bundles[kind])
    specs = check_program(program, manifest)
    assert (program.width, program.height) == (WIDTH, HEIGHT)
    assert program.rules == manifest.rasterizer
    own = {"audio_encoder", "audio_to_motion", "motion_encoder"}
    run = [step for step in program.steps if isinstance(step, RunGraph)]
    assert {step.graph for step in run} == set(manifest.graphs) - own
    for step in run:
        graph = manifest.graphs[step.graph]
        for names, tensors in ((step.inputs, graph.inputs), (step.outputs, graph.outputs)):
            assert set(names) == {tensor.name for tensor in tensors}
            for tensor in tensors:
                assert specs[names[tensor.name]].shape == tensor.shape
                assert specs[names[tensor.name]].dtype == tensor.dtype
    for tensor in program.inputs.values():
        assert specs[tensor.name] == tensor
    for name, constant in program.constants.items():
        assert specs[name].shape == constant.shape


def inputs_of(program: FrameProgram, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    for name, tensor in program.inputs.items():
        shape = [size for size in tensor.shape if isinstance(size, int)]
        inputs[name] = rng.uniform(-1, 1, shape).astype(np.float32)
        if tensor.dtype == "uint8":
            inputs[name] = rng.integers(0, 256, shape, dtype=np.uint8)
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    viewmat[2, 3] = 0.7
    return {**inputs, "viewmats": viewmat[None]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_has_the_sizes_that_were_worked_out(
    bundles: dict[str, Bundle], kind: str
) -> None:
    bundle = bundles[kind]
    program = frame_program(bundle)
    specs = check_program(program, bundle.manifest)
    with OnnxRuntimeCpu(threads=1).load_frame(bundle, program).runner() as runner:
        values = {**program.constants, **inputs_of(program), **runner._images}
        for step in program.steps:
            runner._carry_out(step, values)
    assert set(specs) == set(values)
    for name, value in values.items():
        assert specs[name] == TensorSpec(name, str(value.dtype), value.shape)


def test_what_a_graph_leaves_free_follows_from_the_constants(bundles: dict[str, Bundle]) -> None:
    """As in exported bundles: N and M are axes of the graph, sizes are those of the tensors."""
    bundle = bundles["d3talker"]
    motion = bundle.manifest.graphs["motion"]
    counts: Mapping[int, str] = {FACE: "face_gaussians", MOUTH: "mouth_gaussians"}

    def freed(tensor: TensorSpec, name: str) -> TensorSpec:
        size = tensor.shape[0]
        assert isinstance(size, int)
        return replace(tensor, shape=(name.format(counts.get(size, size)), *tensor.shape[1:]))

    moving = tuple(t if t.shape[0] == 1 else freed(t, "{}") for t in motion.inputs)
    for outputs in ("{}", "{} + none"):  # a sum of two axes has a name of its own
        gaussians = tuple(freed(tensor, outputs) for tensor in motion.outputs)
        graph = replace(motion, inputs=moving, outputs=gaussians)
        graphs = {**bundle.manifest.graphs, "motion": graph}
        manifest = replace(bundle.manifest, graphs=graphs)
        program = frame_program(replace(bundle, manifest=manifest))
        specs = check_program(program, manifest)
        assert specs["face_means"].shape == (FACE, 3)
        assert specs["mouth_quats"].shape == (MOUTH, 4)


def test_a_free_axis_has_one_size(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["d3talker"]
    motion = bundle.manifest.graphs["motion"]
    free = tuple(
        replace(tensor, shape=("n", *tensor.shape[1:])) if "rest" in tensor.name else tensor
        for tensor in motion.inputs
    )
    graphs = {**bundle.manifest.graphs, "motion": replace(motion, inputs=free)}
    with pytest.raises(BundleError, match=f"{MOUTH} n, expected {FACE}"):
        frame_program(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)))


# What is not well-formed.


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_steps_in_any_order_are_taken_just_if_everything_is_there(
    bundles: dict[str, Bundle], data: st.DataObject, kind: str
) -> None:
    """Steps left out, run again or in another order, against the definition."""
    bundle = bundles[kind]
    program = frame_program(bundle)
    if data.draw(st.booleans()):
        steps = data.draw(st.permutations(program.steps))
    else:
        place = st.integers(0, len(program.steps) - 1)
        steps = list(program.steps)
        step = steps.pop(data.draw(place))
        for _ in range(data.draw(st.integers(0, 2))):
            steps.insert(data.draw(place), step)
    there, used = {*program.inputs, *program.constants}, {program.picture, program.coverage}
    fine = True
    for step in steps:
        fine = fine and reads(step) <= there and not makes(step) & there
        there |= makes(step)
        used |= reads(step)
    fine = fine and {*program.inputs, *program.constants} <= used
    fine = fine and {program.picture, program.coverage} <= there
    changed = replace(program, steps=tuple(steps))
    if fine:
        check_program(changed, bundle.manifest)
    else:
        with pytest.raises(BundleError):
            check_program(changed, bundle.manifest)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_any_other_size_of_what_comes_in_is_refused(
    bundles: dict[str, Bundle], data: st.DataObject, kind: str
) -> None:
    bundle = bundles[kind]
    program = frame_program(bundle)
    name = data.draw(st.sampled_from([*program.inputs, *program.constants]))
    known = program.inputs[name] if name in program.inputs else program.constants[name]
    axis = data.draw(st.integers(0, len(known.shape) - 1))
    if name in program.inputs:
        tensor = program.inputs[name]
        shape = list(tensor.shape)
        shape[axis] = int(shape[axis]) + data.draw(st.sampled_from([-1, 1, 7]))
        changed = replace(tensor, shape=tuple(shape))
        program = replace(program, inputs={**program.inputs, name: changed})
    else:
        constant = program.constants[name]
        if name.endswith("_shs") and axis == 1:
            return  # more spherical harmonics than needed are fine
        larger = np.repeat(constant, 2, axis=axis)
        program = replace(program, constants={**program.constants, name: larger})
    with pytest.raises(BundleError, match="expected"):
        check_program(program, bundle.manifest)


def test_refusals_name_what_is_wrong(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["talkinggaussian"]
    program = frame_program(bundle)
    ends = [step for step in program.steps if isinstance(step, Pack | Coverage)]
    motion = program.steps[0]
    assert isinstance(motion, RunGraph)
    shs = program.constants["face_shs"][:, :3]
    for changed, words in (
        (replace(program, coverage="face"), "nothing makes 'face'"),
        (replace(program, picture="face_image"), r"'face_image' is float32 \[1, 3, .*uint8"),
        (replace(program, steps=(*program.steps, ends[0])), "'coverage' is made twice"),
        (replace(program, steps=(motion, *program.steps)), "'motion_face' is run twice"),
        (
            replace(program, constants={**program.constants, "hair": shs}),
            "nothing uses 'hair'",
        ),
        (
            replace(program, constants={**program.constants, "face_shs": shs}),
            "3 spherical harmonics, degree 1 needs 4",
        ),
    ):
        with pytest.raises(BundleError, match=words):
            check_program(changed, bundle.manifest)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_keep_together(bundles: dict[str, Bundle], kind: str) -> None:
    """Each is one stretch of the frame, so that a table of stages reads in order."""
    stages = [step.stage for step in frame_program(bundles[kind]).steps]
    changes = [one for one, other in pairwise([*stages, ""]) if one != other]
    assert len(changes) == len(set(changes))
    assert set(stages) <= {"motion", "rasterize", "refiner", "output"}


def test_a_program_is_data(bundles: dict[str, Bundle]) -> None:
    """Two readings of one bundle say the same, so that what is made of it can be kept."""
    for bundle in bundles.values():
        one, other = frame_program(bundle), frame_program(bundle)
        assert (one.steps, one.inputs) == (other.steps, other.inputs)
        assert list(one.constants) == list(other.constants)
