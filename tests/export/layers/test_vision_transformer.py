"""The vision transformer against DINOv2 as ``transformers`` implements it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talksplat_export.layers.vision_transformer import VisionTransformer, VisionTransformerConfig

transformers = pytest.importorskip("transformers", minversion="5")

CONFIG = VisionTransformerConfig(image_size=42, width=128, depth=6, hidden_width=256)

_RENAMED = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _random() -> VisionTransformer:
    torch.manual_seed(0)
    network = VisionTransformer(CONFIG)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name == "cls_token":
                parameter.normal_()
    return network.eval().requires_grad_(False)


def _published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "embeddings.mask_token": torch.zeros(1, CONFIG.width),
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for block in range(CONFIG.depth):
        ours, theirs = f"blocks.{block}", f"encoder.layer.{block}"
        for kind in ("weight", "bias"):
            for mine, name in _RENAMED.items():
                out[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{mine}.{kind}"]
            parts = state[f"{ours}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                out[f"{theirs}.attention.{name}.{kind}"] = part
        for number in (1, 2):
            out[f"{theirs}.layer_scale{number}.lambda1"] = state[f"{ours}.ls{number}.gamma"]
    return out


def test_is_dinov2() -> None:
    network = _random()
    published = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=CONFIG.width,
            num_hidden_layers=CONFIG.depth,
            num_attention_heads=CONFIG.width // 64,
            mlp_ratio=CONFIG.hidden_width // CONFIG.width,
            image_size=CONFIG.image_size,
            patch_size=CONFIG.patch,
            layer_norm_eps=1e-6,
        )
    )
    published.load_state_dict(_published_names(network.state_dict()))
    published.eval()
    images = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        states = published(images, output_hidden_states=True).hidden_states[-4:]
        expected = [published.layernorm(state)[:, 1:] for state in states]
    for found, wanted in zip(network(images, last=4), expected, strict=True):
        # Six blocks of float32 sums of a hundred products of order one.
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


def test_the_published_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = VisionTransformer(VisionTransformerConfig())
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == 86_580_480 - 768  # that of dinov2_vitb14 without its mask_token
