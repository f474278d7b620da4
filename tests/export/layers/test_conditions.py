"""Audio branch and facial motion: shapes, windows, and what reaches the output."""

from __future__ import annotations

import pytest
import torch

from talksplat_export.layers.audio_branch import AudioAttention, AudioBranch, AudioNet
from talksplat_export.layers.facial_motion import MotionEncoder, TemporalConvolution
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron


@pytest.mark.parametrize("feature_width", [29, 32, 44])
def test_audio_branch_makes_one_vector_of_a_window(feature_width: int) -> None:
    torch.manual_seed(0)
    window = torch.randn(1, 8, feature_width, 16)
    assert AudioNet(feature_width)(window[0]).shape == (8, 32)
    assert AudioBranch(feature_width)(window).shape == (1, 32)


def test_audio_attention_weighs_the_frames_of_the_window() -> None:
    """Equal frames come back unchanged, whatever the weights: they add up to one."""
    torch.manual_seed(0)
    attention = AudioAttention()
    frame = torch.randn(1, 32)
    torch.testing.assert_close(attention(frame.expand(8, 32)), frame, rtol=0, atol=1e-6)
    frames = torch.randn(8, 32)
    out = attention(frames)
    assert bool((out <= frames.amax(dim=0)).all())
    assert bool((out >= frames.amin(dim=0)).all())


def test_every_token_of_every_frame_reaches_the_audio_feature() -> None:
    torch.manual_seed(0)
    window = torch.randn(1, 8, 32, 16, requires_grad=True)
    AudioBranch(32)(window).square().sum().backward()
    assert window.grad is not None
    assert bool(window.grad.abs().sum(dim=2).gt(0).all())


@pytest.mark.parametrize("radius", [1, 2, 4])
def test_temporal_convolution_uses_up_its_window(radius: int) -> None:
    torch.manual_seed(0)
    window = torch.randn(1, 2 * radius + 1, 32, requires_grad=True)
    out = TemporalConvolution(radius)(window)
    assert out.shape == (1, 32)
    out.square().sum().backward()
    assert window.grad is not None
    assert bool(window.grad.abs().sum(dim=2).gt(0).all())


@pytest.mark.parametrize(("size", "channels"), [(128, (8, 16, 32, 32, 64)), (32, (4, 8))])
def test_motion_encoder_sees_the_whole_picture(size: int, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    picture = torch.randn(2, 3, size, size, requires_grad=True)
    out = MotionEncoder(size, channels)(picture)
    assert out.shape == (2, 32)
    out.square().sum().backward()
    assert picture.grad is not None
    assert bool(picture.grad.abs().sum(dim=1).gt(0).all())


def test_a_perceptron_has_no_bias_and_published_keys() -> None:
    perceptron = MultilayerPerceptron((36, 32, 10))
    assert list(perceptron.state_dict()) == ["net.0.weight", "net.1.weight"]
    assert not perceptron(torch.zeros(5, 36)).any()
    x = torch.randn(5, 36)
    assert torch.equal(perceptron.after_first_layer(perceptron.net[0](x)), perceptron(x))
