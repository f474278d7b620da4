"""``talksplat export`` and ``talksplat verify``: exit status, messages, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from tests.export.avatar_factory import make_checkpoint, probe_speech

from talksplat.bundle import Bundle
from talksplat.cli import main


class _Payload:
    """Pickles to a call of ``os.mkdir``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_verify_prints_what_it_measured_on_a_recording(
    bundle: Bundle, checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tmp_path / "speech.wav"
    soundfile.write(speech, probe_speech(640 * 5).numpy(), 16000)
    status = main(["verify", str(bundle.path), str(checkpoint_path), "--probe", str(speech)])
    printed = capsys.readouterr().out
    assert status == 0
    for graph, spec in bundle.manifest.graphs.items():
        assert all(f"{graph}: {output.name}" in printed for output in spec.outputs)
    assert "final frames (5)" in printed
    assert "✗" not in printed


def test_verify_of_another_checkpoint_fails(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.pt"
    make_checkpoint(seed=1).save(other)
    assert main(["verify", str(bundle.path), str(other)]) == 1
    assert "made from another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "malicious"])
def test_a_bad_checkpoint_is_an_error_and_no_bundle(
    damage: str, checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.pt"
    if damage == "truncated":
        bad.write_bytes(checkpoint_path.read_bytes()[:-500])
    if damage == "text":
        bad.write_text("not a checkpoint")
    if damage == "malicious":
        torch.save({"format": "talksplat.d3talker", "x": _Payload(tmp_path / "executed")}, bad)
    before = sorted(tmp_path.iterdir())
    assert main(["export", str(bad), "-o", str(tmp_path / "bad.avatar")]) == 1
    message = capsys.readouterr().err
    assert "talksplat export: error: " in message
    assert str(bad) in message
    assert sorted(tmp_path.iterdir()) == before
