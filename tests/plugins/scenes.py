"""Small Gaussian scenes that between them visit every rule of the rasterizer.

Each is a function of nothing: seeds are fixed, arrays are float32, so that the fast rasterizer and
the float64 oracle start from the very same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benchmarks.rasterizer.scenes import Array, Scene, head, intrinsics, looking_at_origin
from comparison import Truth

from talksplat_export import oracle

# The five sets of rules a checkpoint may have been trained with.
RULE_SETS = (
    ("inria", "classic"),
    ("gsplat", "classic"),
    ("gsplat", "antialiased"),
    ("gsplat-1.5", "classic"),
    ("gsplat-1.5", "antialiased"),
)


# By how much float32 may misplace an alpha against its threshold: a mean is known to a few
# 1e-5 pixels, and at the rim of a small Gaussian alpha changes by its own size within a pixel.
ROUNDING = 5e-5


def truth(scene: Scene, dialect: str, rasterize_mode: str) -> Truth:
    """The oracle's picture, and the pixels that no float32 rasterizer can be sure of."""
    colors, alphas = draw_oracle(scene, dialect, rasterize_mode)
    undecided = np.zeros(alphas.shape[:3], dtype=bool)
    for factor in (1 - ROUNDING, 1 + ROUNDING):
        with (
            patch.object(oracle, "ALPHA_MIN", oracle.ALPHA_MIN * factor),
            patch.object(oracle, "TRANSMITTANCE_MIN", oracle.TRANSMITTANCE_MIN * factor),
        ):
            _, others = draw_oracle(scene, dialect, rasterize_mode)
        undecided |= (np.abs(others - alphas) > 1e-6).any(-1)
    return Truth(colors, alphas, undecided)


def draw_oracle(scene: Scene, dialect: str, rasterize_mode: str) -> tuple[Array, Array]:
    """(colors, alphas) of the oracle as float32."""
    options = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in scene.options.items()
    }
    with torch.no_grad():
        colors, alphas = oracle.rasterize(
            *map(torch.from_numpy, scene.arrays),
            scene.width,
            scene.height,
            **options,
            dialect=dialect,
            rasterize_mode=rasterize_mode,
        )
    return colors.float().numpy(), alphas.float().numpy()


def unit_quats(rng: np.random.Generator, count: int) -> Array:
    quats = rng.normal(size=(count, 4))
    return (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)


def cloud(
    count: int = 700,
    width: int = 64,
    height: int = 64,
    channels: int = 3,
    seed: int = 0,
    size: float = 0.06,
) -> Scene:
    """A ball of Gaussians of mixed shapes and opacities, dense enough to saturate its middle."""
    rng = np.random.default_rng(seed)
    return Scene(
        means=(rng.normal(size=(count, 3)) * 0.4).astype(np.float32),
        quats=unit_quats(rng, count),
        scales=(size * np.exp(rng.normal(size=(count, 3)) * 0.6)).astype(np.float32),
        opacities=(1 / (1 + np.exp(-rng.normal(0.5, 2.0, size=count)))).astype(np.float32),
        colors=rng.uniform(size=(count, channels)).astype(np.float32),
        viewmats=looking_at_origin(3.0, yaw=0.3, pitch=-0.2)[None],
        Ks=intrinsics(width, height, 1.1 * max(width, height))[None],
        width=width,
        height=height,
    )


def empty() -> Scene:
    background = np.array([[0.25, 0.5, 0.75]], dtype=np.float32)
    return replace(cloud(count=0), options={"backgrounds": background})


def all_culled() -> Scene:
    """Every Gaussian is beside the image, or too faint to be seen."""
    scene = cloud(count=50)
    means = scene.means.copy()
    means[:25] += [40, 0, 0]
    opacities = scene.opacities.copy()
    opacities[25:] = 0.003  # under 1/255
    return replace(scene, means=means, opacities=opacities)


def behind_the_camera() -> Scene:
    """The camera stands inside the cloud: half of it is behind, some exactly in its plane."""
    scene = cloud(count=300, size=0.03, seed=3)
    viewmats = scene.viewmats.copy()
    viewmats[:, 2, 3] = 0.0
    means = scene.means.copy()
    means[:20] = 0.0
    return replace(scene, means=means, viewmats=viewmats)


def near_planes() -> Scene:
    """Depths around 0.01 and 0.2, the near planes of gsplat and INRIA."""
    scene = cloud(count=120, seed=4)
    depths = np.concatenate([np.linspace(0.002, 0.03, 60), np.linspace(0.15, 0.25, 60)])
    means = np.random.default_rng(4).uniform(-0.3, 0.3, size=(120, 3)) * depths[:, None]
    means[:, 2] = depths
    return replace(
        scene,
        means=means.astype(np.float32),
        scales=scene.scales * 0.3 * depths[:, None].astype(np.float32),
        opacities=scene.opacities * 0.5,
        viewmats=np.eye(4, dtype=np.float32)[None],
    )


def needles() -> Scene:
    """As long as the image is wide and as thin as nothing: the low-pass filter keeps them alive."""
    scene = cloud(count=300, seed=5)
    scales = scene.scales.copy()
    scales[:, 0] = np.geomspace(0.02, 3.0, 300)
    scales[:, 1:] = np.random.default_rng(5).choice([1e-5, 1e-3, 1e-2], size=(300, 1))
    return replace(scene, scales=scales)


def specks() -> Scene:
    """Gaussians far smaller than a pixel, down to no size at all."""
    scene = cloud(count=500, seed=6)
    return replace(scene, scales=scene.scales * np.geomspace(1e-6, 0.3, 500)[:, None].astype("f4"))


def one_covers_the_image() -> Scene:
    scene = cloud(count=60, seed=7)
    scales, opacities = scene.scales.copy(), scene.opacities.copy()
    scales[0], opacities[0] = 20.0, 0.7
    return replace(scene, scales=scales, opacities=opacities)


def non_square() -> Scene:
    """Neither side is a multiple of the tile, or of any vector."""
    return cloud(count=500, width=121, height=67, seed=8)


def one_pixel_wide() -> Scene:
    return cloud(count=80, width=1, height=37, seed=9)


def five_channels() -> Scene:
    return cloud(channels=5, seed=10)


def one_channel() -> Scene:
    return cloud(channels=1, seed=11)


def features_32() -> Scene:
    scene = cloud(channels=32, width=80, height=48, seed=12)
    return replace(scene, colors=scene.colors * 4 - 2)


def spherical_harmonics(degree: int) -> Scene:
    scene = cloud(seed=13 + degree)
    rng = np.random.default_rng(13)
    shs = rng.normal(size=(len(scene.means), 16, 3)) * 0.3  # some colours come out below zero
    return replace(scene, colors=shs.astype(np.float32), options={"sh_degree": degree})


def unnormalized_quats() -> Scene:
    scene = cloud(seed=20)
    lengths = np.random.default_rng(20).uniform(0.5, 1.6, size=(len(scene.quats), 1))
    return replace(scene, quats=(scene.quats * lengths).astype(np.float32))


def opacities_outside_the_unit_interval() -> Scene:
    scene = cloud(count=250, seed=21)
    opacities = np.random.default_rng(21).uniform(-0.5, 2.5, size=250)
    return replace(scene, opacities=opacities.astype(np.float32))


def equal_depths() -> Scene:
    """Every Gaussian on one of four planes parallel to the image: order falls to the index."""
    scene = cloud(count=400, seed=22)
    means = scene.means.copy()
    means[:, 2] = np.random.default_rng(22).integers(0, 4, size=400) * 0.25
    viewmats = np.eye(4, dtype=np.float32)[None].copy()
    viewmats[:, 2, 3] = 3.0
    return replace(scene, means=means, viewmats=viewmats)


def opaque_layers() -> Scene:
    """Opacities at and about the clamp, so that pixels stop after two or three Gaussians."""
    scene = cloud(count=300, seed=23, size=0.12)
    opacities = np.random.default_rng(23).choice([0.985, 0.99, 0.995, 0.9999, 1.0], size=300)
    return replace(scene, opacities=opacities.astype(np.float32))


def off_centre_principal_point() -> Scene:
    """The axis meets the image far from its middle; some Gaussians pass the guard of 30 %."""
    scene = cloud(count=500, width=96, height=64, seed=24)
    Ks = scene.Ks.copy()
    Ks[:, 0, 2], Ks[:, 1, 2] = 20.0, 51.0
    means = scene.means.copy()
    means[:100] *= 4
    return replace(scene, Ks=Ks, means=means)


def many_cameras() -> Scene:
    scene = cloud(count=300, seed=25)
    viewmats = [looking_at_origin(2.5 + 0.2 * i, 0.7 * i, 0.1 * i) for i in range(5)]
    Ks = [intrinsics(64, 64, 60.0 + 10 * i) for i in range(5)]
    backgrounds = np.random.default_rng(25).uniform(size=(5, 3)).astype(np.float32)
    return replace(
        scene,
        viewmats=np.stack(viewmats),
        Ks=np.stack(Ks),
        options={"backgrounds": backgrounds},
    )


def colors_per_camera() -> Scene:
    scene = cloud(count=300, seed=29)
    viewmats = np.stack([looking_at_origin(3.0, yaw) for yaw in (0.0, 1.0)])
    colors = np.random.default_rng(29).uniform(size=(2, 300, 3)).astype(np.float32)
    return replace(scene, colors=colors, viewmats=viewmats, Ks=scene.Ks.repeat(2, axis=0))


def shs_per_camera() -> Scene:
    scene = colors_per_camera()
    shs = np.random.default_rng(30).normal(size=(2, 300, 9, 3)) * 0.4
    return replace(scene, colors=shs.astype(np.float32), options={"sh_degree": 2})


def background_image() -> Scene:
    scene = cloud(count=200, width=70, height=50, seed=26)
    image = np.random.default_rng(26).uniform(size=(1, 50, 70, 3)).astype(np.float32)
    return replace(scene, options={"backgrounds": image})


def depth(render_mode: str) -> Scene:
    scene = cloud(seed=27)
    background = np.array([[1.0, 0.5, 0.0]], dtype=np.float32)
    options: dict[str, Any] = {"render_mode": render_mode}
    if render_mode.startswith("RGB"):
        options["backgrounds"] = background
    return replace(scene, options=options)


def radius_clip() -> Scene:
    return replace(cloud(seed=28), options={"radius_clip": 5.0, "far_plane": 3.4, "eps2d": 0.1})


def small_head() -> Scene:
    return head(12_000, width=192, height=224)


SCENES: dict[str, Callable[[], Scene]] = {
    "cloud": cloud,
    "no Gaussians": empty,
    "all culled": all_culled,
    "behind the camera": behind_the_camera,
    "near planes": near_planes,
    "needles": needles,
    "specks": specks,
    "one covers the image": one_covers_the_image,
    "non-square": non_square,
    "one pixel wide": one_pixel_wide,
    "one channel": one_channel,
    "five channels": five_channels,
    "32 channels": features_32,
    "SH degree 0": lambda: spherical_harmonics(0),
    "SH degree 1": lambda: spherical_harmonics(1),
    "SH degree 2": lambda: spherical_harmonics(2),
    "SH degree 3": lambda: spherical_harmonics(3),
    "unnormalised quaternions": unnormalized_quats,
    "opacity outside [0, 1]": opacities_outside_the_unit_interval,
    "equal depths": equal_depths,
    "opaque layers": opaque_layers,
    "off-centre principal point": off_centre_principal_point,
    "many cameras": many_cameras,
    "colours per camera": colors_per_camera,
    "harmonics per camera": shs_per_camera,
    "background image": background_image,
    "depth": lambda: depth("D"),
    "expected depth": lambda: depth("ED"),
    "colour and depth": lambda: depth("RGB+D"),
    "colour and expected depth": lambda: depth("RGB+ED"),
    "clip, far plane and filter": radius_clip,
    "head": small_head,
}
