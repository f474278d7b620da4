"""The audio front end: windows, export, saving, and what it refuses to load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from talksplat.errors import CheckpointError
from talksplat_export.audio_encoders.audio_to_motion import EXPRESSION_NAMES, AudioToMotion
from talksplat_export.audio_encoders.front_end import FrontEnd, load_front_end, save_front_end
from talksplat_export.audio_encoders.log_mel import (
    SAMPLE_RATE,
    SAMPLES_PER_TOKEN,
    LogMel,
    LogMelEncoder,
)

SAMPLES_PER_FRAME = 640


@pytest.fixture(scope="module")
def front_end() -> FrontEnd:
    torch.manual_seed(0)
    return FrontEnd(LogMelEncoder(), AudioToMotion()).eval()


@pytest.fixture(scope="module")
def pcm() -> torch.Tensor:
    """1.3 s of a voice-like sound that ends in digital silence, not a whole number of frames."""
    time = torch.arange(20_777) / SAMPLE_RATE
    buzz = sum(torch.sin(2 * torch.pi * 140 * k * time) / k for k in range(1, 20))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    sound = 0.1 * buzz * torch.sin(2 * torch.pi * 3 * time).abs() + 0.01 * noise
    sound[-3000:] = 0.0
    return sound


def test_log_mel_of_a_sine_peaks_in_its_band_and_follows_its_level() -> None:
    log_mel = LogMel(40)
    time = torch.arange(4000) / SAMPLE_RATE
    peaks = []
    for hertz in (200.0, 1000.0, 3000.0, 6000.0):
        bands = log_mel(torch.sin(2 * torch.pi * hertz * time)[None])[0, :, 10]
        peaks.append(int(bands.argmax()))
    assert peaks == sorted(set(peaks))
    loud, soft = (log_mel(a * torch.sin(2 * torch.pi * 1000 * time)[None]) for a in (1.0, 0.1))
    at = peaks[1]
    # A tenth of the amplitude is ln(100) less power; both are divided by the same spread.
    assert float((loud - soft)[0, at, 10]) * 4.0 == pytest.approx(np.log(100), abs=1e-3)


def test_log_mel_agrees_with_the_fast_fourier_transform() -> None:
    log_mel = LogMel(40)
    pcm = torch.randn(1, 1200, generator=torch.Generator().manual_seed(2)) * 0.1
    window = torch.hann_window(400, dtype=torch.float64)
    frame = pcm[0, 320:720].double() * window / window.sum()
    power = torch.fft.rfft(frame, 512).abs().square()
    hertz = torch.arange(257) * SAMPLE_RATE / 512
    mel = 2595 * torch.log10(1 + hertz / 700)
    low, high = 2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7600 / 700)
    centres = torch.linspace(low, high, 42)[1:-1]
    triangles = (1 - (mel - centres[:, None]).abs() / (high - low) * 41).clamp(min=0).double()
    expected = torch.log(triangles @ power + 1e-7)
    torch.testing.assert_close(
        log_mel(pcm)[0, :, 2].double() * 4.0 - 11.0, expected, atol=1e-3, rtol=0
    )


def test_whole_clip_has_two_tokens_and_one_expression_per_started_frame(
    front_end: FrontEnd, pcm: torch.Tensor
) -> None:
    features, expression = front_end.whole_clip(pcm)
    frames = -(-len(pcm) // SAMPLES_PER_FRAME)
    assert features.shape == (2 * frames, front_end.encoder.config.feature_width)
    assert expression.shape == (frames, len(EXPRESSION_NAMES))
    assert bool(((expression >= 0.0) & (expression <= 1.0)).all())


@pytest.mark.parametrize("block", [1, 3, 8])
def test_a_window_gives_what_the_whole_clip_gives(
    front_end: FrontEnd, pcm: torch.Tensor, block: int
) -> None:
    features, expression = front_end.whole_clip(pcm)
    padding, left = front_end.padding, front_end.audio_to_motion.left_tokens
    frames = len(expression)
    rest = frames * SAMPLES_PER_FRAME - len(pcm) + block * SAMPLES_PER_FRAME
    padded = torch.nn.functional.pad(pcm, (padding.left_samples, rest + padding.right_samples))
    for first in range(0, frames - block + 1, block):
        start = first * SAMPLES_PER_FRAME
        end = start + padding.left_samples + block * SAMPLES_PER_FRAME + padding.right_samples
        window_features, window_expression = front_end(padded[None, start:end])
        own = window_features[0, left : left + 2 * block]
        # Float32 sums in another order; the values are of size one.
        torch.testing.assert_close(
            own, features[2 * first : 2 * (first + block)], atol=1e-6, rtol=0
        )
        torch.testing.assert_close(
            window_expression[0], expression[first : first + block], atol=1e-6, rtol=0
        )


def test_padding_is_exactly_the_receptive_field(front_end: FrontEnd, pcm: torch.Tensor) -> None:
    padding = front_end.padding
    samples = padding.left_samples + SAMPLES_PER_FRAME + padding.right_samples
    window = pcm[None, :samples].clone().requires_grad_()
    _, expression = front_end(window)
    assert expression.shape[1] == 1
    (gradient,) = torch.autograd.grad(expression.sum(), window)
    # The Hann window's first sample is zero, hence index 1 is the first that matters.
    touched = torch.nonzero(gradient[0])
    assert int(touched[0]) <= 1 and int(touched[-1]) >= samples - 2


def test_look_ahead_stays_modest(front_end: FrontEnd) -> None:
    assert front_end.padding.right_samples <= 0.24 * SAMPLE_RATE


def test_both_graphs_export_with_dynamic_length_and_agree_with_torch(
    front_end: FrontEnd, pcm: torch.Tensor, tmp_path: Path
) -> None:
    parts = {"encoder": (pcm[None], 1), "audio_to_motion": (front_end.encoder(pcm[None]), 1)}
    for name, (example, axis) in parts.items():
        module = getattr(front_end, name)
        path = tmp_path / f"{name}.onnx"
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=True,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({axis: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        unit = SAMPLES_PER_TOKEN if name == "encoder" else 1
        for length in (example.shape[1], example.shape[1] - 4 * unit):
            shorter = example[:, :length]
            (found,) = session.run(None, {"x": shorter.detach().numpy()})
            expected = module(shorter).detach().numpy()
            assert found.shape == expected.shape
            # Kernels of two libraries; values of size one.
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_saved_front_end_loads_to_the_same_answers(
    front_end: FrontEnd, pcm: torch.Tensor, tmp_path: Path
) -> None:
    save_front_end(front_end, tmp_path / "front_end.pt")
    again = load_front_end(tmp_path / "front_end.pt")
    for a, b in zip(front_end.whole_clip(pcm), again.whole_clip(pcm), strict=True):
        assert torch.equal(a, b)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"config": {}}, tmp_path / "other.pt")
    for name in ("missing.pt", "text.pt", "other.pt"):
        with pytest.raises(CheckpointError, match="audio front end"):
            load_front_end(tmp_path / name)
