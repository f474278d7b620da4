"""Pictures of an identity: mouth over the plate, face over both, as the runtime draws them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from talksplat.rasterization import Dialect
from talksplat_export.gaussians import ActiveGaussians
from talksplat_export.rasterization import rasterize


@dataclass(frozen=True)
class View:
    """A camera and what is behind the head.

    Attributes:
        viewmat: [4,4] world → camera, OpenCV.
        K: [3,3] pixels.
        plate: [H,W,3] in 0..1.
    """

    viewmat: Tensor
    K: Tensor
    plate: Tensor


@dataclass(frozen=True)
class CoarsePicture:
    """What the rasterizer makes of one frame.

    Attributes:
        rgb: [H,W,3], composited over the plate, not clamped.
        face_alpha: [H,W,1].
        mouth_alpha: [H,W,1].
    """

    rgb: Tensor
    face_alpha: Tensor
    mouth_alpha: Tensor


def composite(
    face: ActiveGaussians, mouth: ActiveGaussians, view: View, dialect: Dialect = "inria"
) -> CoarsePicture:
    """Rasterize both regions and composite them.

    ``R_f + (R_m + B (1 - A_m)) (1 - A_f)``, the compositing of TalkingGaussian (section 3.3), is
    what blending over a background image does, so it takes two rasterizations and nothing else.
    """
    picture, mouth_alpha = _layer(mouth, view, view.plate, dialect)
    picture, face_alpha = _layer(face, view, picture, dialect)
    return CoarsePicture(picture, face_alpha, mouth_alpha)


def _layer(
    gaussians: ActiveGaussians, view: View, background: Tensor, dialect: Dialect
) -> tuple[Tensor, Tensor]:
    height, width = background.shape[:2]
    colors, alphas = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.shs,
        view.viewmat[None],
        view.K[None],
        width,
        height,
        near_plane=0.2,
        sh_degree=int(gaussians.shs.shape[1] ** 0.5) - 1,
        backgrounds=background[None],
        dialect=dialect,
    )
    return colors[0], alphas[0]


def truncate_to_uint8(picture: Tensor) -> Tensor:
    """uint8 as every published system writes frames: clamped and truncated, not rounded."""
    return (picture.clamp(0, 1) * 255).to(torch.uint8)
