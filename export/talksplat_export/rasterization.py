"""The rasterizer of ``talksplat`` as a torch function: training without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from talksplat import rasterization
from talksplat.rasterization import Array, Dialect, RasterizeMode, RenderMode, Workspace

_idle_workspaces: list[Workspace] = []


class _Lease:
    """A workspace that goes back to the idle ones when the graph that needs it is gone."""

    def __init__(self) -> None:
        self.workspace = _idle_workspaces.pop() if _idle_workspaces else Workspace()

    def __del__(self) -> None:
        _idle_workspaces.append(self.workspace)


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().to("cpu", torch.float32).numpy()
    return array


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        backgrounds: Tensor | None,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        options: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        call = rasterization.prepare(
            _numpy(means),
            _numpy(quats),
            _numpy(scales),
            _numpy(opacities),
            _numpy(colors),
            _numpy(viewmats),
            _numpy(Ks),
            width,
            height,
            backgrounds=None if backgrounds is None else _numpy(backgrounds),
            **options,
        )
        lease = _Lease()
        images = rasterization.allocate_images(call.cameras, height, width, call.channels)
        alphas = rasterization.allocate_images(call.cameras, height, width, 1)
        call.forward(lease.workspace, images, alphas, keep_views=True)
        out_alphas = torch.from_numpy(alphas).to(means)
        # The call reads the tensors' own memory; saving them lets torch notice in-place changes.
        ctx.save_for_backward(means, quats, scales, opacities, colors, out_alphas)
        ctx.call, ctx.lease = call, lease
        ctx.background_shape = None if backgrounds is None else backgrounds.shape
        return torch.from_numpy(images).to(means), out_alphas

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_images, grad_alphas = grads
        *inputs, alphas = ctx.saved_tensors
        found = ctx.call.backward(ctx.lease.workspace, _numpy(grad_images), _numpy(grad_alphas))
        gradients = [
            torch.from_numpy(array).to(tensor) for array, tensor in zip(found, inputs, strict=True)
        ]
        grad_background = None
        if ctx.needs_input_grad[5] and ctx.background_shape is not None:
            # image = colour + transmittance * background
            channels = ctx.background_shape[-1]
            grad_background = grad_images[..., :channels] * (1 - alphas)
            if len(ctx.background_shape) == 2:
                grad_background = grad_background.sum((1, 2))
        return (*gradients, grad_background, None, None, None, None, None)


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    dialect: Dialect = "gsplat",
    threads: int = 0,
) -> tuple[Tensor, Tensor]:
    """``talksplat.rasterize`` on tensors, differentiable in means, quats, scales, opacities, colors
    (features or spherical harmonics) and backgrounds; cameras are constants.

    Computed in float32 on the CPU. Where opacity meets the clamp of the dialect, or a spherical
    harmonics colour is below 0, no gradient passes, as in torch's own ``clamp``.

    Returns:
        colors [C,H,W,X] and alphas [C,H,W,1], on the device and of the dtype of ``means``.

    Raises:
        talksplat.errors.InputError: as ``talksplat.rasterize``.
    """
    expected = render_mode.endswith("ED")
    # The division by alpha is left to torch, which knows its derivative.
    accumulated = render_mode.replace("ED", "D")
    if not render_mode.startswith("RGB"):
        backgrounds = None
    images, alphas = _Rasterize.apply(  # type: ignore[no-untyped-call]
        means,
        quats,
        scales,
        opacities,
        colors,
        backgrounds,
        viewmats,
        Ks,
        width,
        height,
        {
            "near_plane": near_plane,
            "far_plane": far_plane,
            "radius_clip": radius_clip,
            "eps2d": eps2d,
            "sh_degree": sh_degree,
            "render_mode": accumulated,
            "rasterize_mode": rasterize_mode,
            "dialect": dialect,
            "threads": threads,
        },
    )
    if expected:
        depth = images[..., -1:] / alphas.clamp(min=1e-10)
        images = torch.cat((images[..., :-1], depth), dim=-1)
    return images, alphas
