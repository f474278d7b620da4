"""SDTalk: one picture to a talking head (arXiv 2605.09956).

An image encoder and three generators make the Gaussians of a head from one picture; two motion
networks move them with speech and eyelids; a StyleUNet paints the frame from the 32 channels that
the rasterizer draws. State keys are those of published checkpoints.

Conventions are the published ones: head space is FLAME's, five times enlarged, the face looking
along +z; quaternions are **not** of unit length, and the rasterizer takes them as they are;
opacities may leave 0..1 and scales may be negative once motion is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talksplat_export.layers.dense_prediction import ImageEncoder, ImageEncoderConfig
from talksplat_export.layers.grid_encoder import TriPlaneGrid
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron
from talksplat_export.layers.style_unet import StyleUNet, StyleUNetConfig

BOUND = 1.15
"""Half the side of the motion grids; a point beyond it has no features on the planes it leaves."""

OCTAVES = 4
DIRECTION_WIDTH = 3 + 2 * 3 * OCTAVES
WINDOW_TOKENS = 16
EYES_WIDTH = 6
MOTION_WIDTH = 11
"""Movement of means 3, quats 4, scales 3 and opacity 1, in this order."""

_SLOPE = 0.02
_LARGEST_SCALE = 0.05
_RGB = 3
_BASE_RESOLUTION = 16
_FINEST_RESOLUTION = 512 * BOUND
_FIELDS = ("means", "quats", "scales", "opacities", "features")


@dataclass(frozen=True)
class SdtalkConfig:
    """Sizes of an :class:`Sdtalk`; the defaults are the published ones.

    Attributes:
        image_encoder: transformer and dense head.
        vertices: vertices of the head mesh (FLAME).
        vertex_width: width of the learned vector of a vertex.
        generator_width: channels inside the generators.
        audio_widths: of the perceptron on one token of speech features; the first is the features'
            own: 1024 for HuBERT large, 768 for wav2vec 2.0 base.
        audio_attention_widths: of the perceptron that weights the tokens, the last 1 left out.
        upsampler: the StyleUNet; its ``in_channels`` is the number of channels of a Gaussian.
    """

    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    vertices: int = 5023
    vertex_width: int = 256
    generator_width: int = 128
    audio_widths: tuple[int, ...] = (1024, 512, 256, 128, 64, 64)
    audio_attention_widths: tuple[int, ...] = (64, 32, 16, 8, 4)
    upsampler: StyleUNetConfig = field(default_factory=lambda: StyleUNetConfig(in_channels=32))

    @property
    def features(self) -> int:
        """Channels of a Gaussian."""
        return self.upsampler.in_channels


@dataclass(frozen=True)
class FeatureGaussians:
    """Gaussians that carry features in place of colours, as the rasterizer takes them.

    Attributes:
        means: [N,3].
        quats: [N,4] wxyz, of any length.
        scales: [N,3].
        opacities: [N,1].
        features: [N,D].
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor

    def __getitem__(self, rows: Tensor) -> FeatureGaussians:
        return FeatureGaussians(*(getattr(self, name)[rows] for name in _FIELDS))

    @property
    def geometry(self) -> Tensor:
        """[N,11]: what motion is added to."""
        return torch.cat([self.means, self.quats, self.scales, self.opacities], dim=1)

    def moved(self, motion: Tensor) -> FeatureGaussians:
        """By ``motion`` [N,11]: plain addition, nothing is normalised or clamped after it."""
        means, quats, scales, opacities = torch.split(self.geometry + motion, [3, 4, 3, 1], dim=1)
        return replace(self, means=means, quats=quats, scales=scales, opacities=opacities)

    @staticmethod
    def concatenated(parts: Sequence[FeatureGaussians]) -> FeatureGaussians:
        """One set after the other."""
        return FeatureGaussians(
            *(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS)
        )


def encode_direction(direction: Tensor) -> Tensor:
    """[B,3] to [B,27]: sines of four octaves of x, of y, of z, their cosines, then x, y, z."""
    octaves = 2.0 ** torch.arange(OCTAVES, dtype=direction.dtype)
    angles = (direction[:, :, None] * octaves).flatten(1)
    return torch.cat([torch.sin(angles), torch.sin(angles + math.pi / 2), direction], dim=1)


class VertexGenerator(nn.Module):
    """One Gaussian per vertex of the head mesh, from its learned vector and the picture's."""

    def __init__(self, config: SdtalkConfig) -> None:
        super().__init__()
        width, hidden = config.vertex_width, config.generator_width
        token = config.image_encoder.transformer.width
        self.feature_layers = nn.Sequential(nn.Linear(width + token, width))
        for _ in range(3):
            self.feature_layers.extend([nn.ReLU(), nn.Linear(width, width)])

        def head(width_out: int) -> nn.Sequential:
            first = nn.Linear(width + DIRECTION_WIDTH, hidden)
            return nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, width_out))

        self.color_layers = head(config.features)
        self.opacity_layers = head(1)
        self.scale_layers = head(3)
        self.rotation_layers = head(4)

    def forward(
        self, vertex_vectors: Tensor, picture: Tensor, direction: Tensor, points: Tensor
    ) -> FeatureGaussians:
        """Gaussians of **all** V vertices; which of them are drawn is chosen afterwards.

        Published weights are trained with quaternions normalised along the wrong axis: each of the
        four components has length one over all vertices. So none may be left out before.

        Args:
            vertex_vectors: [V,W].
            picture: [1,T], the encoder's feature vector.
            direction: [1,3], in which the camera looks.
            points: [V,3], where the vertices are.
        """
        count = len(vertex_vectors)
        x = self.feature_layers(torch.cat([vertex_vectors, picture.expand(count, -1)], dim=1))
        x = torch.cat([x, encode_direction(direction).expand(count, -1)], dim=1)
        colors = self.color_layers(x)
        return FeatureGaussians(
            means=points,
            quats=F.normalize(self.rotation_layers(x), dim=0),
            scales=_LARGEST_SCALE * torch.sigmoid(self.scale_layers(x)),
            opacities=torch.sigmoid(self.opacity_layers(x)),
            features=torch.cat([torch.sigmoid(colors[:, :_RGB]), colors[:, _RGB:]], dim=1),
        )


class PlaneGenerator(nn.Module):
    """One Gaussian per pixel of the encoder's feature map, in front of or behind a plane."""

    def __init__(self, config: SdtalkConfig) -> None:
        super().__init__()
        hidden = config.generator_width
        self.features = config.features
        self.gaussian_conv = nn.Sequential(
            nn.Conv2d(config.image_encoder.width + DIRECTION_WIDTH, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, config.features + 9, 1),
        )

    def forward(
        self, feature_map: Tensor, direction: Tensor, points: Tensor, side: float
    ) -> FeatureGaussians:
        """S² Gaussians, row by row of the map.

        Published weights are trained with the logistic function on the wrong axis: it bounds all
        channels of the map's **first three columns** in place of the first three channels.

        Args:
            feature_map: [1,W,S,S].
            direction: [1,3], in which the camera looks.
            points: [S²,3], the pixels on the plane.
            side: 1 moves the Gaussians along the direction, behind the plane; -1 in front of it.
        """
        size = feature_map.shape[-1]
        encoded = encode_direction(direction)[:, :, None, None].expand(-1, -1, size, size)
        x = self.gaussian_conv(torch.cat([feature_map, encoded], dim=1))
        colors, opacities, scales, quats, positions = torch.split(
            x, [self.features, 1, 3, 4, 1], dim=1
        )
        colors = torch.cat([torch.sigmoid(colors[..., :_RGB]), colors[..., _RGB:]], dim=-1)
        return FeatureGaussians(
            means=points + side * torch.sigmoid(_rows(positions)) * direction,
            quats=F.normalize(_rows(quats), dim=1),
            scales=_LARGEST_SCALE * torch.sigmoid(_rows(scales)),
            opacities=torch.sigmoid(_rows(opacities)),
            features=_rows(colors),
        )


def _rows(picture: Tensor) -> Tensor:
    """[1,C,H,W] to [H·W,C]."""
    return picture[0].flatten(1).T


def _leaky_perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers, a leaky ReLU after each."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers)


class ConditionEncoder(nn.Module):
    """A perceptron with leaky ReLUs between its layers: speech tokens, or the eyes."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder_mlp = _leaky_perceptron(widths)[:-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder_mlp(x)


class TokenAttention(nn.Module):
    """Softmax-weighted sum of a window's tokens: [16,W] to [1,W]."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.attention_mlp = _leaky_perceptron((*widths, 1))
        self.attention_fc = nn.Sequential(nn.Linear(WINDOW_TOKENS, WINDOW_TOKENS))

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.attention_fc(self.attention_mlp(tokens).T)
        return torch.softmax(scores, dim=1) @ tokens


class MotionNetwork(nn.Module):
    """From a window of speech and the eyes to the movement of every Gaussian.

    Grids are asked where a Gaussian rests, so their features are constant for an identity, and so
    is how much each Gaussian attends to each channel of speech and eyes.
    """

    def __init__(self, config: SdtalkConfig) -> None:
        super().__init__()
        audio = config.audio_widths[-1]
        grids = TriPlaneGrid(_BASE_RESOLUTION, _FINEST_RESOLUTION, BOUND)
        self.encoder_xy = grids.encoder_xy
        self.encoder_yz = grids.encoder_yz
        self.encoder_xz = grids.encoder_xz
        self.audio_net = ConditionEncoder(config.audio_widths)
        self.audio_att_net = TokenAttention(config.audio_attention_widths)
        self.eye_net = ConditionEncoder((EYES_WIDTH, 12, 12, EYES_WIDTH))
        self.aud_ch_att_net = MultilayerPerceptron((grids.width, 32, audio))
        self.eye_att_net = MultilayerPerceptron((grids.width, 16, EYES_WIDTH))
        self.motion_net = MultilayerPerceptron(
            (grids.width + audio + EYES_WIDTH, 64, 64, MOTION_WIDTH)
        )

    def encode_positions(self, means: Tensor) -> Tensor:
        """Grid features [N,36] of resting positions [N,3]."""
        planes = ((self.encoder_xy, [0, 1]), (self.encoder_yz, [1, 2]), (self.encoder_xz, [0, 2]))
        return torch.cat(
            [grid.look_up(grid.locate(means[:, axes])) for grid, axes in planes], dim=1
        )

    def encode_audio(self, audio_window: Tensor) -> Tensor:
        """[1,16,D] to [1,64]."""
        return self.audio_att_net(self.audio_net(audio_window.squeeze(0)))

    def forward(self, positions: Tensor, audio_window: Tensor, eyes: Tensor) -> Tensor:
        """Movement [N,11], as published.

        Args:
            positions: [N,36], see :meth:`encode_positions`.
            audio_window: [1,16,D].
            eyes: [1,6] in pixels of the tracked picture.
        """
        audio = self.encode_audio(audio_window) * self.aud_ch_att_net(positions)
        eyelids = self.eye_net(eyes) * self.eye_att_net(positions)
        return self.motion_net(torch.cat([positions, audio, eyelids], dim=1))


class Sdtalk(nn.Module):
    """The whole system; every part of a published checkpoint that inference uses."""

    def __init__(self, config: SdtalkConfig) -> None:
        super().__init__()
        self.config = config
        self.head_base = nn.Parameter(torch.randn(config.vertices, config.vertex_width))
        self.base_model = ImageEncoder(config.image_encoder)
        self.gs_generator_g = VertexGenerator(config)
        self.gs_generator_l0 = PlaneGenerator(config)
        self.gs_generator_l1 = PlaneGenerator(config)
        self.upsampler = StyleUNet(config.upsampler)
        self.motion_net_flame = MotionNetwork(config)
        self.motion_net_dense = MotionNetwork(config)

    def resting_gaussians(
        self,
        picture: Tensor,
        head_points: Tensor,
        plane_points: Tensor,
        direction: Tensor,
    ) -> tuple[FeatureGaussians, FeatureGaussians]:
        """Gaussians of a person before any motion: of all V vertices, and of both planes.

        Args:
            picture: [1,3,E,E] in 0..1, of the image encoder's size.
            head_points: [V,3], the tracked mesh.
            plane_points: [S²,3], the pixels of the plane through the origin, row by row.
            direction: [1,3], in which the camera looks.
        """
        feature_map, vector = self.base_model(picture)
        size = math.isqrt(len(plane_points))
        feature_map = F.interpolate(
            feature_map, size=(size, size), mode="bilinear", align_corners=True
        )
        vertices = self.gs_generator_g(self.head_base, vector, direction, head_points)
        planes = [
            generator(feature_map, direction, plane_points, side)
            for generator, side in ((self.gs_generator_l0, 1.0), (self.gs_generator_l1, -1.0))
        ]
        return vertices, FeatureGaussians.concatenated(planes)
