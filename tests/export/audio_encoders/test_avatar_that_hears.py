"""An avatar of TalkingGaussian with ears of its own, from the command line to a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tests.export.audio_encoders.speech_models import save_model
from tests.export.checkpoints import talkinggaussian_files

from talksplat.bundle import Bundle
from talksplat.cli import main
from talksplat_export.audio_encoders import weights
from talksplat_export.audio_encoders.ave import AveEncoder


@pytest.mark.parametrize(
    "ears",
    [
        "hubert with its weights beside the graph",
        pytest.param("hubert", marks=pytest.mark.slow),
        pytest.param("ave", marks=pytest.mark.slow),
    ],
)
def test_export_verify_and_run(
    ears: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ears == "ave":
        encoder = tmp_path / "audio_visual_encoder.pth"
        torch.manual_seed(0)
        torch.save(AveEncoder().network.state_dict(), encoder)
    else:
        encoder = save_model(tmp_path / "mine", "hubert-large", hidden_size=1024)
    beside = ears.endswith("graph")
    if beside:
        monkeypatch.setattr(weights, "LARGEST_GRAPH", 0)
    content = talkinggaussian_files.fused("talkinggaussian", "ave" if ears == "ave" else "hubert")
    checkpoint = talkinggaussian_files.save(content, tmp_path / "chkpnt_fuse_latest.pth")
    speech, avatar = tmp_path / "speech.wav", tmp_path / "ada.avatar"
    sound = 0.1 * np.random.default_rng(0).normal(size=8000)
    soundfile.write(speech, sound, 16000)
    options = ["--audio-encoder", str(encoder), "--probe", str(speech)]
    assert main(["export", str(checkpoint), "-o", str(avatar), *options]) == 0
    assert main(["verify", str(avatar), str(checkpoint), *options]) == 0
    assert main(["run", str(avatar), str(speech), "-o", str(tmp_path / "out.mp4")]) == 0
    assert "13 frames" in capsys.readouterr().out

    bundle = Bundle.open(avatar)
    blocks = bundle.manifest.audio.blocks
    assert blocks is not None and blocks.block_frames == 5
    assert blocks.difference is not None and blocks.difference > 0
    assert ("baked_audio_encoder.safetensors" in bundle.manifest.files) == beside
    origin = bundle.manifest.created_with["audio_encoder"]
    assert origin.startswith("AVE of SyncTalk" if ears == "ave" else "mine, hidden state 3 of 3")
