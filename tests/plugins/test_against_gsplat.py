"""Projection and spherical harmonics against gsplat 1.5.3's own torch functions.

gsplat draws only on CUDA, but it carries torch definitions of these two stages. Here they run in
float64 on the CPU, and take the place of the oracle's own.
"""

from __future__ import annotations

import pytest
import torch
from benchmarks.rasterizer.scenes import Scene
from comparison import Truth, assert_same_picture
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)
from scenes import SCENES, truth
from torch import Tensor

import talksplat
from talksplat_export import oracle

SCENE_NAMES = (
    "cloud",
    "needles",
    "one covers the image",
    "unnormalised quaternions",
    "off-centre principal point",
    "many cameras",
    "head",
)


def project_with_gsplat(scene: Scene) -> tuple[Tensor, ...]:
    """radii, means2d, depths, conics, compensations; each [C, N, ...], float64."""
    means, quats, scales, _, _, viewmats, Ks = (torch.from_numpy(a).double() for a in scene.arrays)
    covariances, _ = _quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    return _fully_fused_projection(
        means,
        covariances,
        viewmats,
        Ks,
        scene.width,
        scene.height,
        eps2d=oracle._float32(0.3),
        calc_compensations=True,
    )


@pytest.mark.parametrize("name", SCENE_NAMES)
def test_the_oracle_projects_as_gsplat_does(name: str) -> None:
    scene = SCENES[name]()
    _, means2d, depths, conics, compensations = project_with_gsplat(scene)
    means, quats, scales, opacities, _, viewmats, Ks = map(torch.from_numpy, scene.arrays)
    for camera in range(len(viewmats)):
        for rasterize_mode in oracle.RASTERIZE_MODES:
            seen = oracle.project(
                means,
                quats,
                scales,
                opacities,
                viewmats[camera],
                Ks[camera],
                scene.width,
                scene.height,
                dialect="gsplat-1.5",
                rasterize_mode=rasterize_mode,
            )
            assert len(seen.indices) > 0
            close = {"rtol": 1e-9, "atol": 1e-9}
            torch.testing.assert_close(seen.means2d, means2d[camera, seen.indices], **close)
            torch.testing.assert_close(seen.depths, depths[camera, seen.indices], **close)
            torch.testing.assert_close(seen.conics, conics[camera, seen.indices], **close)
            expected = opacities.double()[seen.indices]
            if rasterize_mode == "antialiased":
                expected = expected * compensations[camera, seen.indices]
            # Needles: det(cov) is a difference of products about 1e6 times as large.
            torch.testing.assert_close(seen.opacities, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("degree", range(4))
def test_the_oracle_evaluates_harmonics_as_gsplat_does(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    directions = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(500, 16, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        oracle.spherical_harmonics(degree, directions, coefficients),
        _spherical_harmonics(degree, directions, coefficients),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("rasterize_mode", oracle.RASTERIZE_MODES)
@pytest.mark.parametrize("name", [*SCENE_NAMES[:-1], "SH degree 3"])
def test_the_rasterizer_draws_what_gsplat_projects(name: str, rasterize_mode: str) -> None:
    """gsplat's projection and colours, then every Gaussian blended into every pixel."""
    scene = SCENES[name]()
    degree = scene.options.get("sh_degree")
    _, means2d, depths, conics, compensations = project_with_gsplat(scene)
    ys, xs = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (scene.height, scene.width))
    pixels = torch.cartesian_prod(ys, xs).flip(-1)
    colors, alphas = [], []
    for camera, viewmat in enumerate(torch.from_numpy(scene.viewmats).double()):
        order = depths[camera].float().sort(stable=True).indices
        order = order[depths[camera, order] > oracle._float32(0.01)]
        opacities = torch.from_numpy(scene.opacities).double()[order]
        if rasterize_mode == "antialiased":
            opacities = opacities * compensations[camera, order]
        features = torch.from_numpy(scene.colors).double()[order]
        if degree is not None:
            position = torch.linalg.inv(viewmat)[:3, 3]
            directions = torch.from_numpy(scene.means).double()[order] - position
            features = _spherical_harmonics(degree, directions, features)
            features = (features + 0.5).clamp(min=0)
        drawn, transmittance = oracle.blend(
            pixels,
            means2d[camera, order],
            conics[camera, order],
            opacities,
            features,
            "gsplat-1.5",
        )
        if "backgrounds" in scene.options:
            background = torch.from_numpy(scene.options["backgrounds"])[camera].double()
            drawn = drawn + transmittance[:, None] * background
        colors.append(drawn.view(scene.height, scene.width, -1))
        alphas.append(1 - transmittance.view(scene.height, scene.width, 1))
    expected = Truth(
        torch.stack(colors).float().numpy(),
        torch.stack(alphas).float().numpy(),
        truth(scene, "gsplat-1.5", rasterize_mode).undecided,
    )
    measured = talksplat.rasterize(
        *scene.arrays,
        scene.width,
        scene.height,
        **scene.options,
        dialect="gsplat-1.5",
        rasterize_mode=rasterize_mode,
    )
    assert_same_picture(measured, expected, f"{name}, {rasterize_mode}")
