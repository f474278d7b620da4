"""The image encoder against its description, layer by layer, and as an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from tests.export.checkpoints.sdtalk_files import SMALL_CONFIG
from torch import Tensor

from talksplat_export.families.base import Graph
from talksplat_export.layers.dense_prediction import (
    AntialiasedResize,
    ImageEncoder,
    ImageEncoderConfig,
)
from talksplat_export.onnx_export import export_graph

CONFIG = SMALL_CONFIG.image_encoder
SIDE = CONFIG.transformer.side


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(CONFIG).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [148, 74, 37, 19])
def test_resizing_is_bilinear_with_antialiasing(size: int) -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 518, 518)
    expected = F.interpolate(picture, size=(size, size), mode="bilinear", antialias=True)
    # Weighted means of numbers below one, in another order.
    torch.testing.assert_close(AntialiasedResize(518, size)(picture), expected, rtol=0, atol=3e-6)


def _residual(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    out = x
    for number in (1, 2):
        weight, bias = (state[f"{name}.conv{number}.{kind}"] for kind in ("weight", "bias"))
        out = F.conv2d(F.relu(out), weight, bias, padding=1)
    return x + out


def test_head_is_the_published_one(encoder: ImageEncoder) -> None:
    """Written from the description of the head alone, with the state dict's names."""
    state = encoder.state_dict()
    picture = torch.rand(1, 3, CONFIG.transformer.image_size, CONFIG.transformer.image_size)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (picture - mean[:, None, None]) / deviation[:, None, None]
    tokens = encoder.dino_model(normal, last=4)

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    maps = []
    for index, block in enumerate(tokens):
        x = block.permute(0, 2, 1).reshape(1, -1, SIDE, SIDE)
        x = F.conv2d(x, *layer(f"projects.{index}"))
        if index < 2:
            x = F.conv_transpose2d(x, *layer(f"resize_layers.{index}"), stride=(4, 2)[index])
        elif index == 3:
            x = F.conv2d(x, *layer("resize_layers.3"), stride=2, padding=1)
        resized = F.interpolate(normal, size=x.shape[-2:], mode="bilinear", antialias=True)
        x = torch.cat([resized, x], dim=1)
        maps.append(F.conv2d(x, state[f"layer_rn.{index}.weight"], padding=1))
    assert [x.shape[-1] for x in maps] == [4 * SIDE, 2 * SIDE, SIDE, (SIDE + 1) // 2]
    out = maps[3]
    for index, size in enumerate((SIDE, 2 * SIDE, 4 * SIDE, 8 * SIDE)):
        name = f"refinenet.{index}"
        if index:
            out = out + _residual(maps[3 - index], state, f"{name}.resConfUnit1")
        out = _residual(out, state, f"{name}.resConfUnit2")
        out = F.interpolate(out, size=(size, size), mode="bilinear", align_corners=True)
        out = F.conv2d(out, *layer(f"{name}.out_conv"))
    out = F.conv2d(out, *layer("output_conv"), padding=1)
    found, _ = encoder(picture)
    assert found.shape == (1, CONFIG.width, CONFIG.output_size, CONFIG.output_size)
    torch.testing.assert_close(found, out, rtol=0, atol=1e-5)


def test_the_vector_is_the_first_patch_not_the_class_token(encoder: ImageEncoder) -> None:
    picture = torch.rand(1, 3, CONFIG.transformer.image_size, CONFIG.transformer.image_size)
    _, vector = encoder(picture)
    normal = (picture - encoder.mean) / encoder.deviation
    assert torch.equal(vector, encoder.dino_model(normal, last=1)[0][:, 0])


def test_published_sizes() -> None:
    config = ImageEncoderConfig()
    assert config.map_sizes == (148, 74, 37, 19)
    assert config.output_size == 296


def test_the_coarsest_fusion_holds_no_weights_that_it_never_uses() -> None:
    with torch.device("meta"):
        names = ImageEncoder(ImageEncoderConfig()).state_dict()
    assert not any(name.startswith("refinenet.0.resConfUnit1") for name in names)
    assert "refinenet.1.resConfUnit1.conv1.weight" in names


def test_can_be_a_graph(encoder: ImageEncoder) -> None:
    size = CONFIG.transformer.image_size
    picture = torch.rand(1, 3, size, size)
    graph = Graph("image_encoder", encoder, {"image": picture}, ("feature_map", "vector"))
    session = onnxruntime.InferenceSession(export_graph(graph, 18))
    found = session.run(None, {"image": picture.numpy()})
    for array, expected in zip(found, encoder(picture), strict=True):
        np.testing.assert_allclose(array, expected.numpy(), rtol=0, atol=2e-5)
