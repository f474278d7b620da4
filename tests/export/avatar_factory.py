"""A small D3-Talker checkpoint with random weights, for tests of reading and export.

Nothing in it is zero or neutral: fields move, attention differs per Gaussian, the refiner paints,
so that a swapped tensor, a forgotten factor or a wrong axis shows.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from talksplat.manifest import Camera, Licence, PnccContract, RasterizerContract
from talksplat_export.audio_encoders.audio_to_motion import AudioToMotion, AudioToMotionConfig
from talksplat_export.audio_encoders.front_end import FrontEnd
from talksplat_export.audio_encoders.log_mel import LogMelEncoder, LogMelEncoderConfig
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint, PnccMesh, Tracks
from talksplat_export.families.d3talker import D3Talker, D3TalkerConfig, Identity
from talksplat_export.gaussians import GaussianSet
from talksplat_export.layers.style_unet import StyleUNetConfig

ModuleT = TypeVar("ModuleT", bound=nn.Module)

SIZE = 64
EXPRESSION_NAMES = ("jawOpen", "mouthPucker", "mouthSmileLeft", "mouthSmileRight")

SMALL_CONFIG = D3TalkerConfig(
    pncc_size=32,
    motion_channels=(4, 8, 8),
    refiner=StyleUNetConfig(
        image_size=SIZE,
        patch=4,
        encoder_widths=(4, 8, 8),
        generator_widths=(8, 8, 12),
        style_width=16,
        style_layers=2,
        residual=True,
        noise=False,
    ),
)


def make_checkpoint(
    config: D3TalkerConfig = SMALL_CONFIG, face: int = 500, mouth: int = 100, seed: int = 0
) -> AvatarCheckpoint:
    """A checkpoint whose every part has random weights."""
    torch.manual_seed(seed)
    size = config.refiner.image_size
    model = _restless(D3Talker(config))
    identity = _restless(Identity(config, _gaussians(face, config), _gaussians(mouth, config)))
    front_end = FrontEnd(
        LogMelEncoder(
            LogMelEncoderConfig(
                mels=20, hidden_width=24, layers=2, feature_width=config.feature_width
            )
        ),
        AudioToMotion(
            AudioToMotionConfig(
                feature_width=config.feature_width,
                hidden_width=24,
                expression_width=len(EXPRESSION_NAMES),
            )
        ),
    )
    return AvatarCheckpoint(
        name="random",
        model=model,
        identity=identity,
        front_end=_restless(front_end),
        expression_names=EXPRESSION_NAMES,
        pncc=_pncc(config.pncc_size),
        background=torch.randint(0, 256, (size, size, 3), dtype=torch.uint8),
        tracks=_tracks(),
        camera=Camera(
            K=((2.3 * size, 0.0, size / 2), (0.0, 2.3 * size, size / 2), (0.0, 0.0, 1.0))
        ),
        rasterizer=RasterizerContract(
            dialect="inria",
            rasterize_mode="classic",
            sh_degree=config.sh_degree,
            near_plane=0.2,
            eps2d=0.3,
        ),
        licence=Licence(name="Apache-2.0", attribution="made by the tests"),
        training={"sentences": 3, "voices": ["a", "b"]},
    )


def _restless(module: ModuleT) -> ModuleT:
    """Weights large enough that signals do not fade on their way, and none that is zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("embeddings"):
                parameter.uniform_(-1, 1)
            elif name.endswith("sigma_net.net.2.weight"):
                parameter.normal_(std=0.1)
            elif not parameter.any():
                parameter.normal_(std=0.3)
            elif name.endswith("weight") and not name.startswith("refiner"):
                parameter.mul_(2)
    return module.eval().requires_grad_(False)


def _gaussians(count: int, config: D3TalkerConfig) -> GaussianSet:
    return GaussianSet(
        means=torch.empty(count, 3).uniform_(-0.1, 0.1),
        scales=torch.empty(count, 3).uniform_(0.003, 0.015),
        quats=torch.randn(count, 4),
        rgb=torch.rand(count, 3),
        sh_degree=config.sh_degree,
    )


def _pncc(size: int) -> PnccMesh:
    """A bumpy square before the camera whose inner vertices move with the expression."""
    side = 9
    axis = torch.linspace(-0.09, 0.09, side)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    template = torch.stack([x, y, 0.02 * torch.cos(20 * x) * torch.cos(20 * y)], -1).view(-1, 3)
    first = torch.arange(side * side).view(side, side)[:-1, :-1].reshape(-1, 1)
    faces = torch.cat(
        [first + torch.tensor([0, 1, side]), first + torch.tensor([1, side + 1, side])]
    )
    return PnccMesh(
        template=template,
        basis=0.01 * torch.randn(len(EXPRESSION_NAMES), side * side, 3),
        faces=faces.int(),
        colors=template / 0.09,
        camera=PnccContract(
            width=size, height=size, scale=size / 0.2, centre=(0.0, 0.0), background=-1.0
        ),
    )


def _tracks(frames: int = 7) -> Tracks:
    viewmats = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).repeat(frames, 1, 1)
    viewmats[:, 0, 3] = 0.01 * torch.sin(torch.arange(frames))
    viewmats[:, 2, 3] = 0.7
    return Tracks(viewmats, torch.rand(frames, 6))


def probe_speech(samples: int, seed: int = 0) -> Tensor:
    """Noise with a slow envelope, [S] in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    envelope = 0.5 + 0.5 * torch.sin(torch.arange(samples) / 1500.0)
    return (0.3 * envelope * torch.randn(samples, generator=generator)).clamp(-1, 1)
