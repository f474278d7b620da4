"""StyleUNet: the image-space refiner (and, for SDTalk, the neural renderer).

A U-Net encodes the coarse picture into a style code and per-level scale and shift maps; a
StyleGAN2-type generator (Karras et al., 2020) modulated by them paints the fine one. Same shape as
the "clean" GFPGAN generator (Wang et al., 2021): convolutions, linear layers, leaky ReLU and
bilinear resizing, no custom operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2
_DEMODULATION_EPSILON = 1e-8


@dataclass(frozen=True)
class StyleUNetConfig:
    """Sizes of a :class:`StyleUNet`.

    Attributes:
        image_size: side of input and output, pixels.
        in_channels: channels of the coarse picture (3: a refiner; 32: a neural renderer).
        patch: the network works on patches of ``patch × patch`` pixels, at ``image_size / patch``;
            1 is the published network, 4 makes it run in milliseconds on a CPU.
        encoder_widths: channels per level, from the finest level down to the coarsest.
        generator_widths: channels per level of the generator, in the same order.
        style_width: width of the style code.
        style_layers: layers of the style perceptron.
        residual: add the output to the coarse picture instead of painting it anew.
        noise: keep per-layer noise maps (stored buffers, learned strengths).
    """

    image_size: int = 512
    in_channels: int = 3
    patch: int = 1
    encoder_widths: tuple[int, ...] = (16, 32, 64, 128, 256, 256, 256, 256)
    generator_widths: tuple[int, ...] = (32, 64, 128, 256, 512, 512, 512, 512)
    style_width: int = 512
    style_layers: int = 8
    residual: bool = False
    noise: bool = True

    @property
    def levels(self) -> int:
        return len(self.encoder_widths)

    @property
    def style_convolutions(self) -> int:
        """Convolutions of the generator that take noise: 15 in the published network."""
        return 2 * self.levels - 1

    @property
    def coarsest_size(self) -> int:
        return self.image_size // self.patch >> (self.levels - 1)


def _conv(n_in: int, n_out: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=bias)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


def _halve(x: Tensor) -> Tensor:
    # Bilinear resizing by 1/2 with half-pixel centres is the mean of 2x2 pixels, exactly.
    return F.avg_pool2d(x, 2)


def _double(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    return F.interpolate(x, size=(2 * height, 2 * width), mode="bilinear", align_corners=False)


def _join_patches(x: Tensor, patch: int) -> Tensor:
    """``F.pixel_shuffle`` as two transpositions, which runtimes do twice as fast as one of both."""
    batch, channels, height, width = x.shape
    x = x.view(batch, -1, patch, patch, height, width).permute(0, 1, 2, 4, 5, 3)
    x = x.reshape(batch, -1, patch, height, patch * width).permute(0, 1, 3, 2, 4)
    return x.reshape(batch, channels // patch**2, patch * height, patch * width)


class ResizingBlock(nn.Module):
    """Residual block that halves or doubles the picture between its two convolutions."""

    def __init__(self, n_in: int, n_out: int, upsample: bool) -> None:
        super().__init__()
        self.conv1 = _conv(n_in, n_in)
        self.conv2 = _conv(n_in, n_out)
        self.skip = _conv(n_in, n_out, 1, bias=False)
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        resize = _double if self.upsample else _halve
        inner = _activate(self.conv2(resize(_activate(self.conv1(x)))))
        out: Tensor = inner + self.skip(resize(x))
        return out


class ModulatedConvolution(nn.Module):
    """StyleGAN2's modulated convolution with weights that stay constant at run time.

    ``conv(x, W·s) · rsqrt(Σ(W·s)²)`` equals ``conv(x·s, W) · rsqrt(Σ s²·ΣW²)``: scaling the input
    channels instead of the kernel, and the output channels after it, needs no per-picture weights,
    which TensorRT and ONNX Runtime run as an ordinary convolution.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, style_width: int, demodulate: bool
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_width, n_in)
        nn.init.ones_(self.modulation.bias)
        self.weight = nn.Parameter(torch.randn(1, n_out, n_in, kernel, kernel))
        with torch.no_grad():
            self.weight.mul_((n_in * kernel * kernel) ** -0.5)
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor, upsample: bool = False) -> Tensor:
        """[B,n_in,H,W] and style [B,S] to [B,n_out,H,W], or twice the size.

        Demodulated convolutions also carry StyleGAN2's gain of √2, so that it costs no pass.
        """
        scale = self.modulation(style)
        weight = self.weight[0]
        x = x * scale[:, :, None, None]
        if upsample:
            x = _double(x)  # after the scale, which then touches a quarter of the pixels
        out = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            energy = scale.square() @ weight.square().sum(dim=(2, 3)).T
            gain = 2**0.5 * torch.rsqrt(energy + _DEMODULATION_EPSILON)
            out = out * gain[:, :, None, None]
        return out


class StyleConvolution(nn.Module):
    """Modulated convolution, optional noise, bias, activation."""

    def __init__(
        self, n_in: int, n_out: int, style_width: int, upsample: bool, noise: bool
    ) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConvolution(n_in, n_out, 3, style_width, demodulate=True)
        self.bias = nn.Parameter(torch.zeros(1, n_out, 1, 1))
        # Named as in published checkpoints: the learned strength of the noise.
        self.weight = nn.Parameter(torch.zeros(1)) if noise else None
        self.upsample = upsample

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        out = self.modulated_conv(x, style, self.upsample)
        if self.weight is not None and noise is not None:
            out = out + self.weight * noise
        return _activate(out + self.bias)


class ToRGB(nn.Module):
    """1×1 modulated convolution to colour, without demodulation."""

    def __init__(self, n_in: int, n_out: int, style_width: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConvolution(n_in, n_out, 1, style_width, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, n_out, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        out: Tensor = self.modulated_conv(x, style) + self.bias
        return out


class StyleCode(nn.Sequential):
    """The style perceptron behind a normalisation of the code to unit mean square."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(nn.Identity())
        for _ in range(layers):
            self.append(nn.Linear(width, width))
            self.append(nn.LeakyReLU(_SLOPE))

    def forward(self, code: Tensor) -> Tensor:
        code = code * torch.rsqrt(code.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self:
            code = layer(code)
        return code


class StyleGenerator(nn.Module):
    """The generator: constant input at the coarsest level, two style convolutions per level."""

    def __init__(self, config: StyleUNetConfig) -> None:
        super().__init__()
        widths = config.generator_widths[::-1]
        style = config.style_width
        size = config.coarsest_size
        self.patch = config.patch
        self.style_mlp = StyleCode(style, config.style_layers)
        self.constant_input = nn.ParameterDict({"weight": torch.randn(1, widths[0], size, size)})
        self.style_conv1 = StyleConvolution(widths[0], widths[0], style, False, config.noise)
        self.to_rgb1 = ToRGB(widths[0], 3, style)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for n_in, n_out in itertools.pairwise(widths):
            self.style_convs.append(StyleConvolution(n_in, n_out, style, True, config.noise))
            self.style_convs.append(StyleConvolution(n_out, n_out, style, False, config.noise))
            self.to_rgbs.append(ToRGB(n_out, 3, style))
        # Patches are painted by one more projection of the finest level.
        self.to_patches = (
            ToRGB(widths[-1], 3 * config.patch**2, style) if config.patch > 1 else None
        )
        self.noises = nn.Module()
        if config.noise:
            for index in range(config.style_convolutions):
                side = size * 2 ** ((index + 1) // 2)
                self.noises.register_buffer(f"noise{index}", torch.randn(1, 1, side, side))

    @property
    def stored_noises(self) -> tuple[Tensor, ...]:
        """The maps that a checkpoint carries, [1,1,r,r] each; none if it was built without."""
        return tuple(self.noises.buffers())

    def forward(
        self,
        code: Tensor,
        scales: list[Tensor],
        shifts: list[Tensor],
        noises: Sequence[Tensor | None],
    ) -> Tensor:
        style = self.style_mlp(code)
        out = self.style_conv1(self.constant_input["weight"], style, noises[0])
        rgb: Tensor = self.to_rgb1(out, style)
        for level, to_rgb in enumerate(self.to_rgbs):
            out = self.style_convs[2 * level](out, style, noises[2 * level + 1])
            out = out * scales[level] + shifts[level]
            out = self.style_convs[2 * level + 1](out, style, noises[2 * level + 2])
            rgb = to_rgb(out, style) + _double(rgb)
        if self.to_patches is not None:
            # One colour per patch plus the detail inside it; resizing at full resolution instead
            # would cost as much as all convolutions together.
            colour = rgb.repeat_interleave(self.patch**2, dim=1)
            rgb = _join_patches(self.to_patches(out, style) + colour, self.patch)
        return rgb


class StyleUNet(nn.Module):
    """Coarse picture [B,C,S,S] to fine picture [B,3,S,S] in 0..1.

    With ``patch=1`` and ``residual=False`` this is the published network of GAGAvatar-type
    renderers; their ``toRGB`` list in the encoder is never executed and is not kept here.
    """

    def __init__(self, config: StyleUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.encoder_widths
        self.conv_body_first = nn.Conv2d(
            config.in_channels, widths[0], kernel_size=config.patch, stride=config.patch
        )
        self.conv_body_down = nn.ModuleList(
            ResizingBlock(n_in, n_out, upsample=False) for n_in, n_out in itertools.pairwise(widths)
        )
        self.final_conv = _conv(widths[-1], widths[-1])
        self.final_linear = nn.Linear(widths[-1] * config.coarsest_size**2, config.style_width)
        upward = widths[::-1]
        self.conv_body_up = nn.ModuleList(
            ResizingBlock(n_in, n_out, upsample=True) for n_in, n_out in itertools.pairwise(upward)
        )

        def condition(n_in: int, n_out: int) -> nn.Sequential:
            return nn.Sequential(_conv(n_in, n_in), nn.LeakyReLU(_SLOPE), _conv(n_in, n_out))

        pairs = list(zip(upward[1:], config.generator_widths[::-1][1:], strict=True))
        self.condition_scale = nn.ModuleList(condition(u, d) for u, d in pairs)
        self.condition_shift = nn.ModuleList(condition(u, d) for u, d in pairs)
        self.stylegan_decoder = StyleGenerator(config)
        if config.residual:
            self._start_as_identity()

    def _start_as_identity(self) -> None:
        """A residual refiner starts by leaving the picture alone."""
        generator = self.stylegan_decoder
        for layer in [generator.to_rgb1, *generator.to_rgbs, generator.to_patches]:
            if isinstance(layer, ToRGB):
                nn.init.zeros_(layer.modulated_conv.weight)
        for sequence in self.condition_scale:
            assert isinstance(sequence, nn.Sequential)
            last = sequence[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.ones_(last.bias)

    def forward(self, coarse: Tensor, *noises: Tensor) -> Tensor:
        """See the class.

        Args:
            coarse: [B,C,S,S].
            noises: one map [1,1,r,r] per style convolution, in the generator's order, in place of
                the stored ones. Published code draws them anew for every picture, which flickers.
        """
        features = _activate(self.conv_body_first(coarse))
        skips: list[Tensor] = []
        for block in self.conv_body_down:
            features = block(features)
            skips.insert(0, features)
        features = _activate(self.final_conv(features))
        code = self.final_linear(features.flatten(1))
        scales, shifts = [], []
        for level, block in enumerate(self.conv_body_up):
            features = block(features + skips[level])
            scales.append(self.condition_scale[level](features))
            shifts.append(self.condition_shift[level](features))
        maps = noises or self.stylegan_decoder.stored_noises
        silence = [None] * self.config.style_convolutions
        painted: Tensor = self.stylegan_decoder(code, scales, shifts, maps or silence)
        if self.config.residual:
            return (coarse[:, :3] + painted).clamp(0, 1)
        return torch.sigmoid(painted)
