"""The refiner: modulated convolutions, sizes, and where it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from talksplat_export.layers.style_unet import (
    ModulatedConvolution,
    ResizingBlock,
    StyleCode,
    StyleConvolution,
    StyleUNet,
    StyleUNetConfig,
    _join_patches,
)

SMALL = StyleUNetConfig(
    image_size=32,
    patch=2,
    encoder_widths=(4, 6, 8),
    generator_widths=(6, 8, 8),
    style_width=12,
    style_layers=2,
)


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (3, False), (1, False)])
def test_modulated_convolution_is_the_weight_modulating_one(
    kernel: int, demodulate: bool, upsample: bool
) -> None:
    """StyleGAN2, equations 1 to 3 (Karras et al., 2020): scale the kernel, then normalise it."""
    torch.manual_seed(0)
    layer = ModulatedConvolution(16, 24, kernel, 8, demodulate)
    x, style = torch.randn(1, 16, 20, 20), torch.randn(1, 8)
    weight = layer.weight[0].double() * layer.modulation(style).double()[0][None, :, None, None]
    if demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        weight = weight * 2**0.5
    pixels = x.double()
    if upsample:
        pixels = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)
    expected = F.conv2d(pixels, weight, padding=kernel // 2)
    found = layer(x, style, upsample)
    # Sums of 16·9 float32 products of order one.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


def test_every_picture_of_a_batch_has_its_own_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConvolution(4, 5, 3, 8, demodulate=True)
    x, style = torch.randn(3, 4, 8, 8), torch.randn(3, 8)
    apart = torch.cat([layer(x[i : i + 1], style[i : i + 1]) for i in range(3)])
    # Values up to three, summed in another order.
    torch.testing.assert_close(layer(x, style), apart, rtol=0, atol=3e-6)


def test_halving_is_bilinear_resizing() -> None:
    block = ResizingBlock(3, 3, upsample=False)
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        block.skip.weight.copy_(torch.eye(3)[:, :, None, None])
        block.conv2.weight.zero_()
        assert block.conv2.bias is not None
        block.conv2.bias.zero_()
    expected = F.interpolate(picture, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(block(picture), expected, rtol=0, atol=1e-6)


def test_style_code_does_not_depend_on_the_length_of_the_code() -> None:
    torch.manual_seed(0)
    perceptron = StyleCode(8, 2)
    code = torch.randn(1, 8)
    torch.testing.assert_close(perceptron(code), perceptron(100 * code), rtol=0, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("residual", [False, True])
def test_output_has_the_size_of_the_input_and_the_range_of_a_picture(
    patch: int, residual: bool
) -> None:
    torch.manual_seed(0)
    network = StyleUNet(replace(SMALL, patch=patch, residual=residual))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
        out = network(torch.rand(2, 3, 32, 32))
    assert out.shape == (2, 3, 32, 32)
    assert 0 <= float(out.min()) < float(out.max()) <= 1


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_are_joined_as_pixel_shuffle_does(patch: int) -> None:
    x = torch.randn(2, 3 * patch**2, 5, 7)
    assert torch.equal(_join_patches(x, patch), F.pixel_shuffle(x, patch))


def test_feature_images_of_many_channels() -> None:
    network = StyleUNet(replace(SMALL, in_channels=32))
    assert network(torch.randn(1, 32, 32, 32)).shape == (1, 3, 32, 32)


def test_a_residual_refiner_starts_by_leaving_the_picture_alone() -> None:
    torch.manual_seed(0)
    network = StyleUNet(replace(SMALL, residual=True, noise=False))
    picture = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(picture), picture)


def test_stored_noise_makes_the_answer_repeatable() -> None:
    torch.manual_seed(0)
    network = StyleUNet(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
        picture = torch.rand(1, 3, 32, 32)
        assert torch.equal(network(picture), network(picture))
        before = network(picture)
        noise = network.stylegan_decoder.noises.get_buffer("noise0")
        noise.add_(1.0)
        assert not torch.equal(network(picture), before)


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = StyleUNet(StyleUNetConfig())
    assert network.config.coarsest_size == 4
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    # 48.7 with the encoder's unused toRGB list, which is not kept.
    assert millions == pytest.approx(48.7, abs=0.05)


@pytest.mark.parametrize("upsample", [False, True])
def test_modulated_convolution_at_published_width(upsample: bool) -> None:
    """512 channels: sums of 4608 products stay as near to the textbook's."""
    torch.manual_seed(0)
    layer = ModulatedConvolution(512, 512, 3, 512, demodulate=True)
    x, style = torch.randn(1, 512, 4, 4), 0.3 * torch.randn(1, 512)
    weight = layer.weight[0].double() * layer.modulation(style).double()[0][None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8) * 2**0.5
    pixels = x.double()
    if upsample:
        pixels = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)
    expected = F.conv2d(pixels, weight, padding=1)
    torch.testing.assert_close(layer(x, style, upsample).double(), expected, rtol=0, atol=5e-6)


def _random_network() -> StyleUNet:
    torch.manual_seed(0)
    network = StyleUNet(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network.requires_grad_(False)


def test_given_noise_takes_the_place_of_the_stored_one() -> None:
    network, picture = _random_network(), torch.rand(1, 3, 32, 32)
    stored = network.stylegan_decoder.stored_noises
    assert [noise.shape[-1] for noise in stored] == [4, 8, 8, 16, 16]
    assert torch.equal(network(picture, *stored), network(picture))
    others = [noise.roll(1, dims=-1) for noise in stored]
    assert not torch.allclose(network(picture, *others), network(picture), atol=1e-3)


def test_zero_noise_is_no_noise() -> None:
    network, picture = _random_network(), torch.rand(1, 3, 32, 32)
    silent = StyleUNet(replace(SMALL, noise=False))
    state = network.state_dict()
    silent.load_state_dict({name: state[name] for name in silent.state_dict()})
    zeros = [torch.zeros_like(noise) for noise in network.stylegan_decoder.stored_noises]
    torch.testing.assert_close(silent(picture), network(picture, *zeros), rtol=0, atol=1e-6)


def test_noise_is_added_between_convolution_and_bias_with_a_learned_strength() -> None:
    torch.manual_seed(0)
    layer = StyleConvolution(3, 4, 5, upsample=False, noise=True)
    with torch.no_grad():
        layer.bias.normal_()
        assert layer.weight is not None
        layer.weight.fill_(0.7)
        x, style, noise = torch.randn(1, 3, 6, 6), torch.randn(1, 5), torch.randn(1, 1, 6, 6)
        convolved = layer.modulated_conv(x, style)
        expected = F.leaky_relu(convolved + 0.7 * noise + layer.bias, 0.2)
        torch.testing.assert_close(layer(x, style, noise), expected)
