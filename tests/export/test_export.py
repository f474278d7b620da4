"""From a checkpoint to a bundle that computes the same."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from tests.export.avatar_factory import make_checkpoint

import talksplat.bundle
from talksplat.bundle import Bundle
from talksplat.errors import CheckpointError, OutputError, VerificationError
from talksplat.manifest import OutputParity
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.export import export_checkpoint
from talksplat_export.families.d3talker_export import D3TalkerExport
from talksplat_export.onnx_export import export_graph
from talksplat_export.parity import check_parity
from talksplat_export.verify import verify_bundle

GRAPHS = ("audio_encoder", "audio_to_motion", "motion_encoder", "motion", "refiner")


def test_the_manifest_says_where_the_bundle_comes_from(
    bundle: Bundle, checkpoint_path: Path
) -> None:
    manifest = bundle.manifest
    assert manifest.provenance.checkpoint == checkpoint_path.name
    digest = hashlib.sha256(checkpoint_path.read_bytes()).hexdigest()
    assert manifest.provenance.checkpoint_sha256 == digest
    assert {"talksplat", "torch", "onnx", "onnxruntime"} <= manifest.created_with.keys()
    assert tuple(manifest.graphs) == GRAPHS


def test_parity_is_measured_for_every_output_and_on_frames(bundle: Bundle) -> None:
    parity = bundle.manifest.parity
    assert parity is not None
    for name, graph in bundle.manifest.graphs.items():
        assert set(parity.graphs[name]) == {tensor.name for tensor in graph.outputs}
    assert parity.frames == 25
    assert parity.frames_psnr_db is None or parity.frames_psnr_db >= 70


def test_every_graph_agrees_with_the_published_network_to_1e_5(bundle: Bundle) -> None:
    assert bundle.manifest.parity is not None
    for outputs in bundle.manifest.parity.graphs.values():
        assert all(output.max_abs <= 1e-5 for output in outputs.values())


def test_positions_agree_to_a_millionth_of_the_head(bundle: Bundle) -> None:
    assert bundle.manifest.parity is not None
    motion = bundle.manifest.parity.graphs["motion"]
    head = 0.2
    assert motion["face_means"].max_abs <= 1e-6 * head
    assert motion["mouth_means"].max_abs <= 1e-6 * head


def test_graphs_are_plain_onnx_without_hash_grids(
    bundle: Bundle, checkpoint: AvatarCheckpoint
) -> None:
    smallest_table = 9464
    for name in GRAPHS:
        model = onnx.load(bundle.graph_file(name))
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
        assert not model.functions
        assert all(node.domain == "" for node in model.graph.node)
        sizes = [size for tensor in model.graph.initializer for size in tensor.dims]
        assert not set(sizes) & {smallest_table, 46600}
    names = {node.op_type for node in onnx.load(bundle.graph_file("motion")).graph.node}
    assert not names & {"GatherND", "GatherElements", "ScatterND", "Floor", "GridSample"}


def test_graphs_tell_nothing_of_the_machine_that_made_them(bundle: Bundle) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for name in GRAPHS:
        assert here not in bundle.graph_file(name).read_bytes()


def test_the_frame_graph_serves_every_identity(bundle: Bundle) -> None:
    """Another person with other numbers of Gaussians and the same general model: same file."""
    other = make_checkpoint(face=333, mouth=77, seed=5).identity
    family = D3TalkerExport(replace(make_checkpoint(), identity=other))
    (motion,) = (graph for graph in family.graphs() if graph.name == "motion")
    assert export_graph(motion, family.opset) == bundle.graph_file("motion").read_bytes()
    assert family.baked["face_rest"].shape == (333, 10)


def test_verify_accepts_the_bundle_and_measures_the_same(
    bundle: Bundle, checkpoint_path: Path
) -> None:
    assert verify_bundle(bundle.path, checkpoint_path) == bundle.manifest.parity


def test_verify_refuses_another_checkpoint(bundle: Bundle, tmp_path: Path) -> None:
    make_checkpoint(seed=1).save(tmp_path / "other.pt")
    with pytest.raises(VerificationError, match="made from another checkpoint"):
        verify_bundle(bundle.path, tmp_path / "other.pt")


def test_parity_beyond_a_tolerance_is_refused_by_name(bundle: Bundle) -> None:
    parity, tolerances = bundle.manifest.parity, bundle.manifest.tolerances
    assert parity is not None
    check_parity(parity, tolerances)
    worse = replace(parity, graphs={"motion": {"face_means": OutputParity(2e-5, 1e-6)}})
    with pytest.raises(VerificationError, match=r"motion.onnx: face_means .* 2.00e-05"):
        check_parity(worse, tolerances)
    nan = replace(parity, graphs={"refiner": {"image": OutputParity(float("nan"), 0.0)}})
    with pytest.raises(VerificationError, match=r"refiner.onnx: image"):
        check_parity(nan, tolerances)
    with pytest.raises(VerificationError, match=r"49\.0 dB PSNR"):
        check_parity(replace(parity, frames_psnr_db=49.0), tolerances)


def test_an_existing_bundle_is_kept_unless_told_otherwise(
    bundle: Bundle, checkpoint_path: Path
) -> None:
    with pytest.raises(OutputError, match="exists"):
        export_checkpoint(checkpoint_path, bundle.path)
    assert Bundle.open(bundle.path).manifest == bundle.manifest


def test_a_bad_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(CheckpointError):
        export_checkpoint(tmp_path / "bad.pt", tmp_path / "bad.avatar")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]


def test_a_full_disk_leaves_nothing_behind(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(talksplat.bundle.os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export_checkpoint(checkpoint_path, tmp_path / "full.avatar")
    assert list(tmp_path.iterdir()) == []


_INTERRUPTED = """
import sys
from pathlib import Path
from talksplat_export.export import export_checkpoint

def interrupt(step, number, total):
    if number == 2:
        import os, signal
        os.kill(os.getpid(), signal.SIGINT)

export_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), progress=interrupt)
"""


def test_ctrl_c_leaves_nothing_behind(checkpoint_path: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, str(checkpoint_path), str(tmp_path / "half.avatar")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in process.stderr
    assert list(tmp_path.iterdir()) == []
