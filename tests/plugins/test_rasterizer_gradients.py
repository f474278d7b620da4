"""Gradients of the fast rasterizer against torch autograd through the float64 oracle.

The measure is relative to a whole tensor: the largest error over the largest entry, and the length
of the error over the length of the gradient. Entry by entry would measure nothing but float32: many
entries are what is left of a sum over hundreds of pixels whose terms cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.rasterizer.scenes import Scene, head
from scenes import (
    RULE_SETS,
    background_image,
    cloud,
    depth,
    equal_depths,
    features_32,
    many_cameras,
    needles,
    off_centre_principal_point,
    opacities_outside_the_unit_interval,
    opaque_layers,
    shs_per_camera,
    spherical_harmonics,
    truth,
    unnormalized_quats,
)
from torch import Tensor

from talksplat_export import oracle
from talksplat_export.rasterization import rasterize

RELATIVE = 1e-3
DIFFERENTIABLE = ("means", "quats", "scales", "opacities", "colors")  # and backgrounds

SCENES: dict[str, Callable[[], Scene]] = {
    "cloud": lambda: cloud(count=250, width=45, height=39, seed=40),
    "background image": background_image,
    "many cameras with backgrounds": many_cameras,
    "harmonics per camera": shs_per_camera,
    "32 channels": features_32,
    "SH degree 3": lambda: spherical_harmonics(3),
    "SH degree 1": lambda: spherical_harmonics(1),
    "unnormalised quaternions": unnormalized_quats,
    "needles": needles,
    "opacity outside [0, 1]": opacities_outside_the_unit_interval,
    "opaque layers": opaque_layers,
    "off-centre principal point": off_centre_principal_point,
    "equal depths": equal_depths,
    "expected depth": lambda: depth("RGB+ED"),
    "depth": lambda: depth("D"),
    "head": lambda: head(4000, width=96, height=112),
}


def random_weights(scene: Scene, rules: tuple[str, str]) -> list[Tensor]:
    """Of every colour and alpha; zero for pixels of which float32 cannot be sure."""
    picture = truth(scene, *rules)
    decided = torch.from_numpy(~picture.undecided[..., None])
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(image.shape, generator=generator) * decided
        for image in (picture.colors, picture.alphas)
    ]


def gradients(
    scene: Scene,
    render: Callable[..., tuple[Tensor, Tensor]],
    dtype: torch.dtype,
    rules: tuple[str, str],
    weights: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Of the weighted sum of colours and alphas, by argument; zero where one is not used."""
    tensors = [torch.from_numpy(array).to(dtype) for array in scene.arrays]
    options = {
        name: torch.from_numpy(value).to(dtype) if isinstance(value, np.ndarray) else value
        for name, value in scene.options.items()
    }
    leaves = dict(zip(DIFFERENTIABLE, tensors, strict=False))
    if "backgrounds" in options:
        leaves["backgrounds"] = options["backgrounds"]
    for leaf in leaves.values():
        leaf.requires_grad_()
    images = render(
        *tensors,
        scene.width,
        scene.height,
        **options,
        dialect=rules[0],
        rasterize_mode=rules[1],
    )
    torch.autograd.backward(images, [weight.to(dtype) for weight in weights])
    return {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }


@pytest.mark.parametrize("rules", RULE_SETS, ids=" ".join)
@pytest.mark.parametrize("name", SCENES)
def test_same_gradients_as_the_oracle(name: str, rules: tuple[str, str]) -> None:
    scene = SCENES[name]()
    weights = random_weights(scene, rules)
    expected = gradients(scene, oracle.rasterize, torch.float64, rules, weights)
    measured = gradients(scene, rasterize, torch.float32, rules, weights)
    assert measured.keys() == expected.keys()
    wrong = []
    for argument, exact in expected.items():
        gradient = measured[argument]
        assert gradient.shape == exact.shape
        error = (gradient.double() - exact).abs()
        largest = (error.max() / exact.abs().max()).item() if exact.any() else error.max().item()
        length = (error.norm() / exact.norm()).item() if exact.any() else error.norm().item()
        if not max(largest, length) <= RELATIVE:
            at = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
            wrong.append(
                f"{argument}: largest error {largest:.1e} of the largest entry, "
                f"length {length:.1e}; worst at {at}: {gradient[at].item():.6g}, "
                f"expected {exact[at].item():.6g}"
            )
    assert not wrong, f"{name}, {' '.join(rules)}\n  " + "\n  ".join(wrong)


@pytest.mark.parametrize("rules", RULE_SETS, ids=" ".join)
def test_gradients_of_nothing_are_empty_or_zero(rules: tuple[str, str]) -> None:
    background = np.full((1, 3), 0.5, dtype=np.float32)
    nothing = replace(cloud(count=0), options={"backgrounds": background})
    weights = random_weights(nothing, rules)
    found = gradients(nothing, rasterize, torch.float32, rules, weights)
    assert found["means"].shape == (0, 3)
    assert found["backgrounds"].abs().sum() > 0

    scene = cloud(count=40)
    viewmats = scene.viewmats.copy()
    viewmats[:, 2, 3] = -5.0
    behind = replace(scene, viewmats=viewmats)
    weights = random_weights(behind, rules)
    for gradient in gradients(behind, rasterize, torch.float32, rules, weights).values():
        assert (gradient == 0).all()


def test_the_forward_picture_is_that_of_the_field_side() -> None:
    import talksplat

    scene = many_cameras()
    options = {"backgrounds": torch.from_numpy(scene.options["backgrounds"])}
    colors, alphas = rasterize(
        *map(torch.from_numpy, scene.arrays), scene.width, scene.height, **options
    )
    expected = talksplat.rasterize(*scene.arrays, scene.width, scene.height, **scene.options)
    assert np.array_equal(colors.numpy(), expected[0])
    assert np.array_equal(alphas.numpy(), expected[1])
