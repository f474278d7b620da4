"""From one picture to a feature map and a feature vector: a vision transformer with a dense head.

The head is that of DPT (Ranftl et al., "Vision Transformers for Dense Prediction", 2021), with the
picture itself joined to every scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talksplat_export.layers.vision_transformer import VisionTransformer, VisionTransformerConfig

SCALES = 4
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Sizes of an :class:`ImageEncoder`.

    Attributes:
        transformer: the vision transformer.
        scale_widths: channels of the four scales, from the finest to the coarsest.
        width: channels of the feature map.
    """

    transformer: VisionTransformerConfig = field(default_factory=VisionTransformerConfig)
    scale_widths: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    width: int = 256

    @property
    def map_sizes(self) -> tuple[int, int, int, int]:
        """Sides of the four scales, from the finest to the coarsest."""
        side = self.transformer.side
        return 4 * side, 2 * side, side, (side + 1) // 2

    @property
    def output_size(self) -> int:
        """Side of the feature map."""
        return 2 * self.map_sizes[0]


class AntialiasedResize(nn.Module):
    """Bilinear resizing of square pictures with antialiasing, ``r · X · rᵀ`` with a constant r.

    The operator itself has no counterpart in ONNX; a product of matrices has.
    """

    matrix: Tensor

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        # Which pixels go into which: what resizing makes of the unit vectors.
        unit = torch.eye(size_in, dtype=torch.float64, device="cpu")[None, None]
        matrix = F.interpolate(unit, size=(size_out, size_in), mode="bilinear", antialias=True)
        self.register_buffer("matrix", matrix[0, 0].float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x @ self.matrix.T


class ResidualUnit(nn.Module):
    """Two convolutions, each behind a ReLU, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))


class Fusion(nn.Module):
    """Adds a scale to what comes from the coarser ones and resizes the sum."""

    def __init__(self, width: int, takes_coarser: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        # The coarsest scale has nothing to be added to; published files hold unused weights there.
        self.resConfUnit1 = ResidualUnit(width) if takes_coarser else None
        self.resConfUnit2 = ResidualUnit(width)

    def forward(self, scales: Sequence[Tensor], size: int) -> Tensor:
        x = scales[0]
        if self.resConfUnit1 is not None:
            x = x + self.resConfUnit1(scales[1])
        x = self.resConfUnit2(x)
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=True)
        return self.out_conv(x)


class ImageEncoder(nn.Module):
    """A picture [B,3,S,S] in 0..1 to a feature map [B,W,M,M] and a feature vector [B,T].

    The feature vector is that of the **first patch**, the picture's top left corner, after the
    last block: published weights are trained with it, though it was meant to be the class token.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        tokens, width = config.transformer.width, config.width
        widths = config.scale_widths
        self.dino_model = VisionTransformer(config.transformer)
        self.projects = nn.ModuleList(nn.Conv2d(tokens, scale, 1) for scale in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.layer_rn = nn.ModuleList(
            nn.Conv2d(3 + scale, width, 3, padding=1, bias=False) for scale in widths
        )
        self.refinenet = nn.ModuleList(
            Fusion(width, takes_coarser=index > 0) for index in range(SCALES)
        )
        self.output_conv = nn.Conv2d(width, width, 3, padding=1)
        self.picture_resizes = nn.ModuleList(
            AntialiasedResize(config.transformer.image_size, size) for size in config.map_sizes
        )
        for name, values in (("mean", _IMAGENET_MEAN), ("deviation", _IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        images = (images - self.mean) / self.deviation
        tokens = self.dino_model(images, last=SCALES)
        side = self.config.transformer.side
        scales = []
        for index, block in enumerate(tokens):
            grid = block.transpose(1, 2).unflatten(2, (side, side))
            grid = self.resize_layers[index](self.projects[index](grid))
            picture = self.picture_resizes[index](images)
            scales.append(self.layer_rn[index](torch.cat([picture, grid], dim=1)))
        finest, fine, coarse, coarsest = scales
        sizes = self.config.map_sizes
        out = self.refinenet[0]([coarsest], sizes[2])
        out = self.refinenet[1]([out, coarse], sizes[1])
        out = self.refinenet[2]([out, fine], sizes[0])
        out = self.refinenet[3]([out, finest], self.config.output_size)
        return self.output_conv(out), tokens[-1][:, 0]
