"""Trainable sets of 3D Gaussians in the parametrisation of TalkingGaussian and InsTaG."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talksplat_export.morton import morton_order

SH_DC = 0.28209479177387814
"""The constant spherical-harmonics basis function: rgb = 0.5 + SH_DC · dc."""


def inverse_softplus(x: Tensor) -> Tensor:
    """The raw value whose softplus is ``x`` > 0."""
    return x + torch.log(-torch.expm1(-x))


@dataclass(frozen=True)
class ActiveGaussians:
    """Gaussians as a rasterizer takes them.

    Attributes:
        means: [N,3], head space.
        quats: [N,4], wxyz, unit length.
        scales: [N,3], standard deviations along the axes, > 0.
        opacities: [N], 0..1.
        shs: [N,K,3], spherical harmonics, K = (degree+1)².
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    shs: Tensor


class GaussianSet(nn.Module):
    """N Gaussians before activation; deformations are added before activation too.

    Scales are activated by **softplus**, not exp (TalkingGaussian, section 3.1), quaternions by
    normalisation, opacities by the logistic function.

    Args:
        means: [N,3] in head space.
        scales: [N,3] activated.
        quats: [N,4] wxyz.
        rgb: [N,3] in 0..1.
        opacity: initial opacity.
        sh_degree: 0..3.
    """

    def __init__(
        self,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        rgb: Tensor,
        opacity: float = 0.9,
        sh_degree: int = 1,
    ) -> None:
        super().__init__()
        n = means.shape[0]
        self.sh_degree = sh_degree
        self.means = nn.Parameter(means.clone())
        self.raw_scales = nn.Parameter(inverse_softplus(scales))
        self.raw_quats = nn.Parameter(quats.clone())
        self.raw_opacities = nn.Parameter(torch.logit(torch.full((n, 1), opacity)))
        self.shs_dc = nn.Parameter(((rgb - 0.5) / SH_DC)[:, None, :])
        self.shs_rest = nn.Parameter(torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3))

    @classmethod
    def empty(cls, count: int, sh_degree: int) -> GaussianSet:
        """A set of the right shapes, to load a state dict into."""
        zeros = torch.zeros(count, 3)
        quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
        return cls(zeros, zeros + 1e-3, quats, zeros + 0.5, sh_degree=sh_degree)

    def in_morton_order(self) -> GaussianSet:
        """The same Gaussians in the order of :func:`morton_order`."""
        order = torch.from_numpy(morton_order(self.means.detach().numpy()))
        ordered = GaussianSet.empty(len(self), self.sh_degree)
        ordered.load_state_dict({name: rows[order] for name, rows in self.state_dict().items()})
        return ordered.requires_grad_(self.means.requires_grad)

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def opacities(self) -> Tensor:
        """[N,1] in 0..1."""
        return torch.sigmoid(self.raw_opacities)

    @property
    def shs(self) -> Tensor:
        """[N,K,3]."""
        return torch.cat([self.shs_dc, self.shs_rest], dim=1)

    def activate(self, deformation: Tensor | None = None) -> ActiveGaussians:
        """Add a deformation [N,10] = (Δmeans 3, Δquats 4, Δscales 3) and activate."""
        means: Tensor = self.means
        quats: Tensor = self.raw_quats
        scales: Tensor = self.raw_scales
        if deformation is not None:
            means = means + deformation[:, 0:3]
            quats = quats + deformation[:, 3:7]
            scales = scales + deformation[:, 7:10]
        return ActiveGaussians(
            means,
            F.normalize(quats, dim=-1),
            F.softplus(scales),
            self.opacities[:, 0],
            self.shs,
        )
