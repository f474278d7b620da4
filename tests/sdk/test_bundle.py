"""Bundles open only when whole, unchanged and inside their folder; writers leave all or nothing."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from synthetic_bundle import synthetic_manifest, write_synthetic_bundle

import talksplat
from talksplat.bundle import Bundle, BundleWriter, describe_graph
from talksplat.errors import BundleError, InputError, OutputError, TalksplatError
from talksplat.manifest import (
    MANIFEST_NAME,
    GaussianTalkerContract,
    OutputParity,
    Parity,
    SdtalkContract,
    format_manifest,
    parse_manifest,
)

Document = dict[str, Any]


def edit_manifest(bundle: Path, edit: Callable[[Document], None]) -> None:
    path = bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def replace_file(bundle: Path, name: str, data: bytes) -> None:
    """Put other bytes in place and make the manifest agree, as an attacker would."""
    import hashlib

    (bundle / name).write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(bundle, lambda document: document["files"].update({name: entry}))


def assert_refused(bundle: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        talksplat.load(bundle)
    for word in words:
        assert word in str(caught.value)


def test_manifest_survives_writing_and_reading() -> None:
    parity = Parity(
        graphs={"motion": {"face_means": OutputParity(max_abs=1e-7, p99_99=9e-8)}},
        frames=10,
        frames_psnr_db=None,
    )
    manifest = replace(synthetic_manifest(), parity=parity)
    assert parse_manifest(format_manifest(manifest)) == manifest


def test_writing_a_manifest_refuses_what_reading_would() -> None:
    manifest = synthetic_manifest()
    with pytest.raises(BundleError, match="feature_size"):
        format_manifest(replace(manifest, audio=replace(manifest.audio, feature_size=0)))


def test_a_manifest_has_its_own_familys_contract_and_no_other() -> None:
    document = json.loads(format_manifest(synthetic_manifest()))
    document["family"] = "instag"
    with pytest.raises(BundleError, match=r"'instag' expects the key 'talkinggaussian'"):
        parse_manifest(json.dumps(document))
    window = document["d3talker"]["window"]
    document["talkinggaussian"] = {
        "window": window,
        "mouth_takes_upper_face": True,
        "mouth_takes_move": True,
        "mouth_dilation": 13,
    }
    with pytest.raises(BundleError, match="no other"):
        parse_manifest(json.dumps(document))
    document["d3talker"] = None
    manifest = parse_manifest(json.dumps(document))
    assert manifest.contract(GaussianTalkerContract).mouth_dilation == 13
    with pytest.raises(BundleError, match="SdtalkContract"):
        manifest.contract(SdtalkContract)
    for key, value in (("mouth_dilation", 12), ("mouth_takes_move", None)):
        wrong = {**document, "talkinggaussian": {**document["talkinggaussian"], key: value}}
        with pytest.raises(BundleError, match=key):
            parse_manifest(json.dumps(wrong))


def test_open_checks_and_describes(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    assert bundle.manifest.graphs["motion"].file == "motion.onnx"
    assert bundle.tensors("face.safetensors")["shs"].shape == (40, 4, 3)


def test_missing_bundle(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.avatar", "found nothing")
    (tmp_path / "file.avatar").write_text("x")
    assert_refused(tmp_path / "file.avatar", "found a file")
    (tmp_path / "empty.avatar").mkdir()
    assert_refused(tmp_path / "empty.avatar", "no manifest.json")


def test_missing_file(own_bundle: Path) -> None:
    (own_bundle / "refiner.onnx").unlink()
    assert_refused(own_bundle, "refiner.onnx", "missing")


def test_truncated_file(own_bundle: Path) -> None:
    path = own_bundle / "baked.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert_refused(own_bundle, "baked.safetensors", "bytes")


@pytest.mark.parametrize("name", ["motion.onnx", "face.safetensors"])
def test_flipped_bit(own_bundle: Path, name: str) -> None:
    data = bytearray((own_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (own_bundle / name).write_bytes(data)
    assert_refused(own_bundle, name, "sha256")


def test_wrong_hash_in_manifest(own_bundle: Path) -> None:
    edit_manifest(own_bundle, lambda document: document["files"]["motion.onnx"].update(sha256="0"))
    assert_refused(own_bundle, "motion.onnx", "sha256")


def test_newer_schema_says_update(own_bundle: Path) -> None:
    edit_manifest(own_bundle, lambda document: document.update(schema_version=2, shiny="new"))
    assert_refused(own_bundle, "newer talksplat", "update")


def test_unknown_missing_and_wrong_keys_are_named(own_bundle: Path) -> None:
    text = (own_bundle / MANIFEST_NAME).read_text()
    for edit, words in [
        (lambda d: d["audio"].update(hop=3), ["audio.hop", "unknown"]),
        (lambda d: d["video"].pop("width"), ["video.width", "missing"]),
        (lambda d: d["video"].update(width="64"), ["video.width", "integer"]),
        (lambda d: d["video"].update(width=True), ["video.width", "integer"]),
        (lambda d: d["video"].update(width=10**9), ["video.width", "8192"]),
        (lambda d: d.update(family="other"), ["family", "d3talker"]),
        (lambda d: d.update(name="\x1b[2J"), ["name", "control characters"]),
    ]:
        (own_bundle / MANIFEST_NAME).write_text(text)
        edit_manifest(own_bundle, edit)
        assert_refused(own_bundle, *words)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema_version": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '"\\ud800"'],
)
def test_texts_that_are_no_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / MANIFEST_NAME).write_text(text)
    assert_refused(own_bundle, "manifest.json")


def test_manifest_that_is_huge_or_not_utf8(own_bundle: Path) -> None:
    (own_bundle / MANIFEST_NAME).write_bytes(b" " * (5 * 2**20))
    assert_refused(own_bundle, "at most")
    (own_bundle / MANIFEST_NAME).write_bytes(b"\xff\xfe{}")
    assert_refused(own_bundle, "cannot be read")


@pytest.mark.parametrize(
    "name",
    ["../outside.onnx", "/etc/passwd", "a/../../outside.onnx", "", "..", "C:\\x.onnx", "a\0.onnx"],
)
def test_paths_that_leave_the_bundle(own_bundle: Path, name: str) -> None:
    (own_bundle.parent / "outside.onnx").write_bytes(b"secret")
    entry = {"bytes": 6, "sha256": "0" * 64}
    edit_manifest(own_bundle, lambda document: document["files"].update({name: entry}))
    assert_refused(own_bundle, "leaves the bundle")


def test_symbolic_link_that_leaves_the_bundle(own_bundle: Path) -> None:
    outside = own_bundle.parent / "outside.onnx"
    shutil.copy(own_bundle / "motion.onnx", outside)
    (own_bundle / "motion.onnx").unlink()
    (own_bundle / "motion.onnx").symlink_to(outside)
    assert_refused(own_bundle, "leaves the bundle")


def test_a_pipe_is_refused_without_waiting_for_it(own_bundle: Path) -> None:
    (own_bundle / "motion.onnx").unlink()
    os.mkfifo(own_bundle / "motion.onnx")
    assert_refused(own_bundle, "not a regular file")


def test_other_kinds_of_files_are_refused(own_bundle: Path) -> None:
    replace_file(own_bundle, "setup.py", b"print('hello')")
    assert_refused(own_bundle, "setup.py", ".onnx and .safetensors")


class _Trap:
    """Unpickling this creates a file: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["motion.onnx", "baked.safetensors", "tracks.safetensors"])
def test_a_renamed_pickle_is_refused_and_not_executed(own_bundle: Path, name: str) -> None:
    proof = own_bundle.parent / "executed"
    data = pickle.dumps(_Trap(proof))
    pickle.loads(data)
    assert proof.exists(), "the trap works"
    proof.unlink()
    replace_file(own_bundle, name, data)
    assert_refused(own_bundle, name)
    assert not proof.exists()


def test_safetensors_header_that_claims_gigabytes(own_bundle: Path) -> None:
    replace_file(own_bundle, "face.safetensors", (2**40).to_bytes(8, "little") + b"{}")
    assert_refused(own_bundle, "face.safetensors")
    header = json.dumps({"shs": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    data = len(header).to_bytes(8, "little") + header.encode()
    replace_file(own_bundle, "face.safetensors", data)
    assert_refused(own_bundle, "face.safetensors")


def external_model(where: str) -> bytes:
    """A graph whose one tensor lives in another file; ``where`` it is hidden."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    output = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3])
    if where == "initializer":
        graph = helper.make_graph([], "g", [], [output], [tensor])
    else:
        node = helper.make_node("Constant", [], ["weight"], value=tensor)
        if where == "subgraph":
            inner = helper.make_graph([node], "inner", [], [output])
            node = helper.make_node("If", ["c"], ["weight"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([node], "g", [], [output])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph"])
def test_graphs_with_data_in_other_files_are_refused(own_bundle: Path, where: str) -> None:
    replace_file(own_bundle, "motion.onnx", external_model(where))
    assert_refused(own_bundle, "motion.onnx", "another file")


def test_nan_in_gaussians_is_refused(own_bundle: Path) -> None:
    tensors = safetensors.numpy.load_file(own_bundle / "face.safetensors")
    tensors["shs"][3, 1, 2] = np.nan
    replace_file(own_bundle, "face.safetensors", safetensors.numpy.save(tensors))
    assert_refused(own_bundle, "shs", "face.safetensors", "NaN")


def test_tensors_of_another_shape_are_refused(own_bundle: Path) -> None:
    for file, name, change in [
        ("face.safetensors", "shs", lambda a: a[:, :, :2]),
        ("face.safetensors", "shs", lambda a: a[:, :1]),
        ("face.safetensors", "opacities", lambda a: a.astype(np.float64)),
        ("tracks.safetensors", "viewmats", lambda a: a[:0]),
        ("tracks.safetensors", "viewmats", lambda a: a * 2),
        ("background.safetensors", "image", lambda a: a[1:]),
        ("pncc.safetensors", "faces", lambda a: a + 100),
        ("baked.safetensors", "face_rest_means", lambda a: a[1:]),
    ]:
        original = (own_bundle / file).read_bytes()
        tensors = safetensors.numpy.load_file(own_bundle / file)
        tensors[name] = np.ascontiguousarray(change(tensors[name]))
        replace_file(own_bundle, file, safetensors.numpy.save(tensors))
        with pytest.raises(TalksplatError):
            talksplat.load(own_bundle)
        replace_file(own_bundle, file, original)
    talksplat.load(own_bundle)


def test_graph_that_is_not_what_the_manifest_says(own_bundle: Path) -> None:
    replace_file(own_bundle, "motion.onnx", (own_bundle / "refiner.onnx").read_bytes())
    assert_refused(own_bundle, "motion.onnx", "manifest")


def edit_graph(bundle: Path, name: str, edit: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph and let the manifest follow, so that only the contract can object."""
    model = onnx.load(bundle / f"{name}.onnx")
    edit(model)
    replace_file(bundle, f"{name}.onnx", model.SerializeToString())
    described = asdict(describe_graph(bundle / f"{name}.onnx"))
    edit_manifest(bundle, lambda document: document["graphs"].update({name: described}))


def test_graphs_that_are_not_those_of_the_contract(own_bundle: Path) -> None:
    def rename_output(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = model.graph.output[0].name = "picture"

    def free_axis(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "samples"

    def add_input(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("mood", TensorProto.FLOAT, [1, 4]))

    for name, edit, word in [
        ("refiner", rename_output, "'image'"),
        ("audio_encoder", free_axis, "'pcm'"),
        ("motion", add_input, "'mood'"),
    ]:
        original = (own_bundle / MANIFEST_NAME).read_text()
        graph = (own_bundle / f"{name}.onnx").read_bytes()
        edit_graph(own_bundle, name, edit)
        assert_refused(own_bundle, name, word)
        (own_bundle / MANIFEST_NAME).write_text(original)
        (own_bundle / f"{name}.onnx").write_bytes(graph)


def test_rates_that_do_not_divide_are_refused(own_bundle: Path) -> None:
    edit_manifest(own_bundle, lambda document: document["audio"].update(feature_rate=60))
    assert_refused(own_bundle, "60", "tokens")


def test_a_graph_whose_answer_has_another_shape_than_declared(own_bundle: Path) -> None:
    """ONNX Runtime only warns about it; the runtime must not index into it."""

    def lie(model: onnx.ModelProto) -> None:
        kernel = next(t for t in model.graph.initializer if t.name == "kernel")
        array = numpy_helper.to_array(kernel)
        kernel.CopyFrom(numpy_helper.from_array(array[:, :, :4].copy(), "kernel"))

    model = onnx.load(own_bundle / "audio_to_motion.onnx")
    lie(model)
    replace_file(own_bundle, "audio_to_motion.onnx", model.SerializeToString())
    with pytest.raises(TalksplatError, match="audio_to_motion"):
        talksplat.load(own_bundle).session()


def test_writer_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BundleWriter(tmp_path / "a.avatar") as writer:
        writer.add_tensors("face.safetensors", {"x": np.zeros(3, np.float32)})
        raise RuntimeError("something else failed")
    assert list(tmp_path.iterdir()) == []


def test_writer_leaves_nothing_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_synthetic_bundle(tmp_path / "a.avatar")
    assert list(tmp_path.iterdir()) == []


def test_writer_replaces_a_bundle_only_when_asked_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.avatar"
    write_synthetic_bundle(path)
    before = (path / MANIFEST_NAME).read_text()
    with pytest.raises(OutputError, match="overwrite"):
        BundleWriter(path)
    with pytest.raises(BundleError), BundleWriter(path, overwrite=True) as writer:
        writer.add_graph("motion", b"not a model")
    assert (path / MANIFEST_NAME).read_text() == before
    with BundleWriter(path, overwrite=True) as writer:
        writer.add_tensors("face.safetensors", {"x": np.zeros(3, np.float32)})
        writer.commit(synthetic_manifest())
    assert list(Bundle.open(path).manifest.files) == ["face.safetensors"]
    assert sorted(entry.name for entry in path.iterdir()) == ["face.safetensors", MANIFEST_NAME]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.avatar"]


def test_writer_does_not_touch_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="not an avatar bundle"):
        BundleWriter(tmp_path / "precious", overwrite=True)


@pytest.mark.parametrize("stranger", ["photos/wedding.jpg", "thesis.tex"])
def test_writer_does_not_remove_what_lies_beside_a_manifest(tmp_path: Path, stranger: str) -> None:
    path = tmp_path / "a.avatar"
    write_synthetic_bundle(path)
    (path / stranger).parent.mkdir(exist_ok=True)
    (path / stranger).write_text("x")
    with pytest.raises(OutputError, match=stranger.split("/")[0]):
        BundleWriter(path, overwrite=True)
    assert (path / stranger).exists()


def test_writer_replaces_a_bundle_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.avatar"
    write_synthetic_bundle(path)
    (path / MANIFEST_NAME).write_text("{}")
    (path / "left_over.onnx").write_bytes(b"of an older version")
    with BundleWriter(path, overwrite=True) as writer:
        writer.add_tensors("face.safetensors", {"x": np.zeros(3, np.float32)})
        writer.commit(synthetic_manifest())
    assert sorted(entry.name for entry in path.iterdir()) == ["face.safetensors", MANIFEST_NAME]


@pytest.mark.parametrize("name", ["../x.safetensors", "/tmp/x.safetensors", "x.npz"])
def test_writer_keeps_inside_the_bundle(tmp_path: Path, name: str) -> None:
    with BundleWriter(tmp_path / "a.avatar") as writer, pytest.raises(InputError):
        writer.add_tensors(name, {"x": np.zeros(3, np.float32)})


# Fuzzing: whatever happens to the bytes, the answer is success or a TalksplatError.

FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, 0, 2**63, "../x", "", "\ud800", "float32"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = []
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    inner = [path for key, item in items for path in paths_of(item, (*prefix, key))]
    return [prefix, *inner] if prefix else inner


@FUZZ
@given(data=st.data(), value=json_values, drop=st.booleans())
def test_any_change_of_a_manifest_value(
    bundle_path: Path, data: st.DataObject, value: Any, drop: bool
) -> None:
    document = json.loads((bundle_path / MANIFEST_NAME).read_text())
    *parents, key = data.draw(st.sampled_from(paths_of(document)))
    place = document
    for parent in parents:
        place = place[parent]
    if drop:
        del place[key]
    else:
        place[key] = value
    text = json.dumps(document)
    try:
        manifest = parse_manifest(text)
    except TalksplatError:
        return
    assert parse_manifest(format_manifest(manifest).encode().decode()) == manifest


@FUZZ
@given(position=st.floats(0, 1), junk=st.binary(max_size=8), cut=st.integers(0, 20))
def test_any_change_of_manifest_bytes(
    own_bundle: Path, bundle_path: Path, position: float, junk: bytes, cut: int
) -> None:
    original = (bundle_path / MANIFEST_NAME).read_bytes()
    start = int(position * len(original))
    (own_bundle / MANIFEST_NAME).write_bytes(original[:start] + junk + original[start + cut :])
    try:
        Bundle.open(own_bundle)
    except TalksplatError as error:
        assert str(error)


@FUZZ
@given(
    name=st.sampled_from(["motion.onnx", "audio_encoder.onnx", "face.safetensors"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.sampled_from([0, 0, 1, 7, 1000]),
)
def test_any_change_of_a_file_whose_hash_agrees(
    own_bundle: Path,
    bundle_path: Path,
    name: str,
    changes: list[tuple[float, int]],
    cut: int,
) -> None:
    original = bytearray((bundle_path / name).read_bytes())
    for position, value in changes:
        original[int(position**4 * len(original))] = value  # headers lie at the front
    replace_file(own_bundle, name, bytes(original[: len(original) - cut]))
    try:
        talksplat.load(own_bundle).session().close()  # opening a session makes a frame of silence
    except TalksplatError as error:
        assert str(error)
    finally:
        replace_file(own_bundle, name, (bundle_path / name).read_bytes())
