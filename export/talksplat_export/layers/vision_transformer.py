"""The vision transformer of DINOv2 (Oquab et al., 2023), without registers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64
"""Every size of DINOv2 has heads of this width."""

_EPSILON = 1e-6


@dataclass(frozen=True)
class VisionTransformerConfig:
    """Sizes of a :class:`VisionTransformer`; by default ViT-B/14 at its native 518 pixels.

    Attributes:
        image_size: side of the square picture, pixels; a multiple of ``patch``. Positions are
            learned for this size and never interpolated.
        patch: side of a patch, pixels.
        width: numbers per token, a multiple of 64.
        depth: number of blocks.
        hidden_width: of the perceptrons.
    """

    image_size: int = 518
    patch: int = 14
    width: int = 768
    depth: int = 12
    hidden_width: int = 3072

    @property
    def side(self) -> int:
        """Patches per row and column."""
        return self.image_size // self.patch


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, HEAD_WIDTH)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Perceptron(nn.Module):
    """Two linear layers with GELU, the exact one, between them."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention, then perceptron, each behind a normalisation and beside a residual path."""

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = Perceptron(width, config.hidden_width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """Patches to tokens, row by row."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Normalised pictures to the tokens of their patches.

    State keys are those of ``dinov2_vitb14``, whose ``mask_token`` serves its training only and is
    not kept here.
    """

    def __init__(self, config: VisionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + config.side**2, width))
        self.patch_embed = PatchEmbedding(config.patch, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, images: Tensor, last: int) -> list[Tensor]:
        """[B,3,S,S] to the patch tokens [B, side², width] of the ``last`` blocks, first to last.

        Each goes through the final normalisation; the class token takes part and is left out.
        """
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens + self.pos_embed
        taken = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index >= len(self.blocks) - last:
                taken.append(self.norm(tokens)[:, 1:])
        return taken
