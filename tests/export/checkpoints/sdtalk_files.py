"""Random checkpoints and persons of SDTalk, in the layout that its authors save.

Nothing in them is zero or neutral: every Gaussian moves, quaternions are not of unit length,
scales and opacities leave their ranges, so that a swapped tensor or a forgotten rule shows.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talksplat_export.families.sdtalk import Sdtalk, SdtalkConfig
from talksplat_export.families.sdtalk_identity import Person
from talksplat_export.layers.dense_prediction import ImageEncoderConfig
from talksplat_export.layers.style_unet import StyleUNetConfig
from talksplat_export.layers.vision_transformer import VisionTransformerConfig

SMALL_CONFIG = SdtalkConfig(
    image_encoder=ImageEncoderConfig(
        transformer=VisionTransformerConfig(image_size=70, width=128, depth=5, hidden_width=96),
        scale_widths=(8, 12, 16, 14),
        width=12,
    ),
    vertices=60,
    vertex_width=16,
    generator_width=12,
    audio_widths=(24, 20, 16, 12, 10, 8),
    audio_attention_widths=(8, 6, 5, 4, 3),
    upsampler=StyleUNetConfig(
        image_size=64,
        in_channels=32,
        encoder_widths=(4, 6, 8, 8, 10),
        generator_widths=(6, 8, 8, 12, 14),
        style_width=16,
        style_layers=2,
    ),
)
"""The grids alone are as large as published: their hashed levels begin where a table ends."""

FEATURE_SIZE = SMALL_CONFIG.audio_widths[0]

_VGG_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_ALEX_LAYERS = ((1, 0, 3, 64, 11), (2, 3, 64, 192, 5), (3, 6, 192, 384, 3), (4, 8, 384, 256, 3))
_ALEX_LAST = (5, 10, 256, 256, 3)


def make_content(
    config: SdtalkConfig = SMALL_CONFIG, *, seed: int = 0, extractor: str = "hubert"
) -> dict[str, Any]:
    """What ``torch.save`` is given: ``meta_cfg`` and ``model``."""
    torch.manual_seed(seed)
    return {
        "meta_cfg": {
            "EXP_STR": "SDTalk",
            "AUDIO_DRIVE_MODEL": {"NAME": "AudioDriveAvatar", "AUDIO_EXTRACTOR": extractor},
            "OPTIMIZE": {"LR": 1e-4, "STEPS": 200000},
        },
        "model": {**_live(config), **dead_tensors(config)},
    }


def save_checkpoint(
    path: Path, config: SdtalkConfig = SMALL_CONFIG, *, seed: int = 0, extractor: str = "hubert"
) -> None:
    """Write an ``SDGTalk.pt``."""
    torch.save(make_content(config, seed=seed, extractor=extractor), path)


def _live(config: SdtalkConfig) -> dict[str, Tensor]:
    model = Sdtalk(config)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("embeddings"):
                parameter.uniform_(-1, 1)
            elif name.endswith("modulated_conv.weight"):
                pass  # of the right size, and random, as it is built
            elif name.endswith(("modulation.bias", "gamma", "norm.weight")):
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif parameter.dim() <= 1 or not parameter.any():
                parameter.normal_(std=0.1)
            elif name.startswith("upsampler"):
                # So that what goes in is still to be seen in what comes out, many layers later.
                parameter.mul_(1.5)
            elif name.endswith("eye_net.encoder_mlp.0.weight"):
                parameter.mul_(25 / config.upsampler.image_size)  # eyes come in pixels
            elif ".audio_net." in name:
                parameter.mul_(4)
            elif name.startswith(("gs_generator", "motion_net")):
                parameter.mul_(2)
    _set_sizes(model)
    state = model.state_dict()
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@torch.no_grad()
def _set_sizes(model: Sdtalk) -> None:
    """Gaussians about as large as they are apart, and motion that takes some of them out of range.

    Random weights alone make them a hundred times larger, and the rasterizer's work ten thousand.
    """
    apart = 1.5 / model.config.image_encoder.output_size
    bias = float(torch.logit(torch.tensor(0.6 * apart / 0.05)))
    model.gs_generator_g.scale_layers[2].bias.fill_(bias)
    for generator in (model.gs_generator_l0, model.gs_generator_l1):
        generator.gaussian_conv[6].bias[33:36] = bias
    spread = torch.tensor([0.02] * 3 + [0.1] * 4 + [0.4 * apart] * 3 + [0.4])
    window = torch.randn(1, 16, model.config.audio_widths[0])
    eyes = torch.tensor([[15.0, 14.0, 51.0, 15.0, 15.0, 50.0]])  # pixels of 512
    eyes *= model.config.upsampler.image_size / 512
    for network in (model.motion_net_flame, model.motion_net_dense):
        positions = network.encode_positions(torch.empty(500, 3).uniform_(-1, 1))
        motion = network(positions, window, eyes)
        network.motion_net.net[2].weight.mul_((spread / motion.std(dim=0))[:, None])


def dead_tensors(config: SdtalkConfig) -> dict[str, Tensor]:
    """What published files hold and inference never reads: 55 tensors."""
    width = config.image_encoder.width
    shapes: dict[str, tuple[int, ...]] = {
        "base_model.dino_model.mask_token": (1, config.image_encoder.transformer.width)
    }
    for index in (1, 2):
        name = f"base_model.refinenet.0.resConfUnit1.conv{index}"
        shapes |= {f"{name}.weight": (width, width, 3, 3), f"{name}.bias": (width,)}
    upward = config.upsampler.encoder_widths[::-1][1:]
    for index, channels in enumerate(upward):
        name = f"upsampler.toRGB.{index}"
        shapes |= {f"{name}.weight": (3, channels, 1, 1), f"{name}.bias": (3,)}
    small = config.vertices < SdtalkConfig().vertices
    for layer, (n_in, n_out) in zip(_VGG_LAYERS, pairwise(_VGG_WIDTHS), strict=True):
        shapes |= _convolution(f"percep_loss.vggface.network.{layer}", n_in, n_out, 3, small)
    for part, layer, n_in, n_out, kernel in (*_ALEX_LAYERS, _ALEX_LAST):
        name = f"percep_loss.net.slice{part}.{layer}"
        shapes |= _convolution(name, n_in, n_out, kernel, small)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _convolution(
    name: str, n_in: int, n_out: int, kernel: int, small: bool
) -> dict[str, tuple[int, ...]]:
    if small:
        n_in, n_out = min(n_in, 4), min(n_out, 4)
    return {f"{name}.weight": (n_out, n_in, kernel, kernel), f"{name}.bias": (n_out,)}


def make_person(
    config: SdtalkConfig = SMALL_CONFIG,
    *,
    mask_size: int = 20,
    plane_size: int | None = None,
    seed: int = 0,
) -> Person:
    """A round head seen from a little to the side; one vertex is masked in twice."""
    generator = np.random.default_rng(seed)
    size = config.upsampler.image_size
    y, x = np.mgrid[:size, :size] / size - 0.5
    head = (x**2 + y**2 < 0.16)[:, :, None]
    image = generator.integers(40, 256, (size, size, 3)) * head
    points = generator.normal(size=(config.vertices, 3))
    points *= 0.7 / np.linalg.norm(points, axis=1, keepdims=True)
    mask = generator.permutation(config.vertices)[:mask_size]
    mask[-1] = mask[0]
    return Person(
        image=image.astype(np.uint8),
        transform=transform(yaw=0.15),
        head_points=points,
        mask=mask.astype(np.int64),
        plane_size=plane_size,
    )


def transform(yaw: float = 0.0, pitch: float = 0.05) -> np.ndarray:
    """[3,4], [R | T] in PyTorch3D's convention: a camera before the face, turned a little."""
    around_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    around_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    rotation = np.diag([-1.0, 1.0, -1.0]) @ around_y @ around_x
    return np.concatenate([rotation, [[0.02], [-0.03], [9.01]]], axis=1)
