"""Image and contrastive losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = 11
_SIGMA = 1.5


def structural_similarity(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM of two pictures [B,C,H,W] in 0..1 (Wang et al., 2004; Gaussian window of 11).

    Only windows that lie inside the picture count, as in the original.
    """
    channels = image.shape[1]
    offsets = torch.arange(_WINDOW, dtype=image.dtype) - _WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    moments = torch.cat([image, target, image * image, target * target, image * target], dim=1)
    groups = moments.shape[1]
    moments = F.conv2d(moments, kernel.view(1, 1, 1, -1).expand(groups, 1, 1, -1), groups=groups)
    moments = F.conv2d(moments, kernel.view(1, 1, -1, 1).expand(groups, 1, -1, 1), groups=groups)
    mean_x, mean_y, xx, yy, xy = moments.split(channels, dim=1)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variance = (xx - mean_x.square()) + (yy - mean_y.square())
    contrast = (2 * (xy - mean_x * mean_y) + c2) / (variance + c2)
    return (luminance * contrast).mean()


def image_loss(image: Tensor, target: Tensor, dssim_weight: float = 0.2) -> Tensor:
    """L1 + λ (1 - SSIM), the L1 not down-weighted (D3-Talker, section 3.5; TalkingGaussian)."""
    return (image - target).abs().mean() + dssim_weight * (1 - structural_similarity(image, target))


def similarity_contrast(
    general: Tensor, individuals: list[Tensor], own: int, temperature: float = 0.1
) -> Tensor:
    """Similarity contrastive loss L_SC (D3-Talker, equation of section 3.4).

    Pulls the movement predicted by the General Field towards the own Individual Field's and away
    from the other identities': an InfoNCE whose denominator includes the positive pair.

    Args:
        general: Δmeans [N,3] of the General Field.
        individuals: Δmeans [N,3] of every identity's Individual Field, queried with the same audio.
        own: index of the identity in the picture.
        temperature: τ.

    Returns:
        The mean over all Gaussians that move at all.
    """
    similarity = torch.stack(
        [F.cosine_similarity(general, individual, dim=1) for individual in individuals], dim=1
    )
    # A cosine of movements below a thousandth of a pixel says nothing.
    moving = general.detach().norm(dim=1) > 1e-6
    log_softmax = torch.log_softmax(similarity / temperature, dim=1)[:, own]
    return -(log_softmax * moving).sum() / moving.sum().clamp(min=1)
