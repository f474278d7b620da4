"""AVE: mel levels, tokens of a clip as upstream cuts them, blocks, the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from talksplat.errors import CheckpointError, InputError
from talksplat_export.audio_encoders.ave import AveEncoder, MelSpectrogram, load_ave
from talksplat_export.audio_encoders.base import StreamingForm, export_clip_encoder
from talksplat_export.audio_encoders.load import load_encoder
from talksplat_export.audio_encoders.streaming import measure, stream, streamed


@pytest.fixture(scope="module")
def encoder() -> AveEncoder:
    """Random weights and norms."""
    torch.manual_seed(0)
    encoder = AveEncoder().requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.1, 0.5)  # type: ignore[union-attr]
    return encoder.eval()


@pytest.fixture(scope="module")
def pcm() -> Tensor:
    """2.3 s of noise that swells."""
    noise = torch.randn(36_800, generator=torch.Generator().manual_seed(0))
    return 0.2 * noise * torch.linspace(0.02, 1.0, len(noise))


def test_mel_levels_are_those_of_another_implementation(pcm: Tensor) -> None:
    """transformers' own spectrogram with librosa's settings: bands and levels of other code."""
    audio_utils = pytest.importorskip("transformers.audio_utils")
    bands = audio_utils.mel_filter_bank(401, 80, 55, 7600, 16000, norm="slaney", mel_scale="slaney")
    emphasised = np.append(pcm[:1], pcm[1:] - np.float32(0.97) * pcm[:-1])
    amplitude = audio_utils.spectrogram(
        np.pad(emphasised, 400),
        audio_utils.window_function(800, "hann"),
        frame_length=800,
        hop_length=200,
        power=1.0,
        center=False,
        mel_filters=bands,
        mel_floor=1e-5,
    )
    decibel = 20 * np.log10(amplitude) - 20
    expected = np.clip(8 * (decibel + 100) / 100 - 4, -4, 4)
    found = MelSpectrogram()(torch.from_numpy(np.pad(emphasised, 400))[None])[0]
    assert found.shape == expected.shape == (80, 36_800 // 200 + 1)
    # Decibels of float32 against float64, scaled by 0.08.
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.min() < -1 < 1 < found.max()


def test_tokens_of_a_clip_look_at_upstreams_mel_frames(encoder: AveEncoder, pcm: Tensor) -> None:
    """Token t of a clip begins at mel frame int(80 t / 25), the last ones at the last that fits."""
    emphasised = torch.cat([pcm[:1], pcm[1:] - 0.97 * pcm[:-1]])
    mel = encoder.mel(torch.nn.functional.pad(emphasised, (400, 400))[None])[0]
    tokens = []
    for index in range(int((mel.shape[1] - 16) / 80.0 * 25.0) + 2):
        start = min(int(80.0 * (index / 25.0)), mel.shape[1] - 16)
        tokens.append(encoder.network(mel[None, None, :, start : start + 16])[0, :, 0, 0])
    expected = torch.stack([tokens[0], tokens[0], *tokens, tokens[-1], tokens[-1]])
    found = encoder.clip(pcm)
    assert found.shape == expected.shape and len(found) >= 36_800 / 640
    # Values of size ten, sums of float32 in another order.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_blocks_are_the_clip_but_for_its_ends(encoder: AveEncoder, pcm: Tensor) -> None:
    whole = encoder.clip(pcm)
    for frames in (5, 10):
        form = StreamingForm(frames, 0, 0)
        blocks = streamed(encoder, form, pcm)
        # Two tokens repeat the first one; the last five see the clip's end.
        torch.testing.assert_close(blocks[2:52], whole[2:52], atol=1e-4, rtol=0)
        assert measure(encoder, form, pcm).difference > 0
    for form in (StreamingForm(4, 0, 0), StreamingForm(5, 1, 0), StreamingForm(5, 0, 1)):
        with pytest.raises(InputError, match="blocks of 5"):
            encoder.window(form)


def test_graphs_agree_with_torch(encoder: AveEncoder, pcm: Tensor) -> None:
    audio = stream(encoder, pcm)
    assert audio.feature_rate == 25 and audio.blocks.block_frames == 5
    session = onnxruntime.InferenceSession(export_clip_encoder(encoder))
    for blocks in (1, 3, 7):
        window = pcm[None, : 3201 + 3200 * blocks].clone()
        window[:, :1000] = 0.0
        (found,) = session.run(None, {"pcm": window.numpy()})
        assert found.shape == (1, 5 * blocks, 512)
        np.testing.assert_allclose(found, encoder(window).numpy(), atol=1e-4, rtol=0)


def test_a_clip_too_short_is_refused(encoder: AveEncoder) -> None:
    assert encoder.clip(torch.zeros(3000)).shape == (6, 512)
    with pytest.raises(InputError, match="16 mel frames"):
        encoder.clip(torch.zeros(2999))


def test_the_checkpoint_is_read_and_others_are_refused(
    encoder: AveEncoder, pcm: Tensor, tmp_path: Path
) -> None:
    state = encoder.network.state_dict()
    assert "0.conv_block.0.weight" in state and "12.conv_block.1.running_var" in state
    path = tmp_path / "audio_visual_encoder.pth"
    torch.save(state, path)
    assert torch.equal(load_encoder(path).clip(pcm), encoder.clip(pcm))
    torch.save({f"audio_encoder.{key}": value for key, value in state.items()}, path)
    assert torch.equal(load_ave(path).clip(pcm), encoder.clip(pcm))
    with pytest.raises(InputError, match="no choice of hidden state"):
        load_encoder(path, layer=3)
    first = "0.conv_block.0.weight"
    for content, reason in (
        ([1], "found a list"),
        ({**state, "more": state[first]}, "unknown: more"),
        ({key: value for key, value in state.items() if key != first}, f"missing: {first}"),
        ({**state, first: torch.zeros(1)}, r"found \[1\]"),
        ({**state, first: 1.0}, "found float"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=reason):
            load_ave(path)
