"""Gaussians alone, at rest, out of any checkpoint that has them: for viewers of ``.ply`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.checkpoints.gaussian_ply import (
    GaussianPly,
    read_gaussian_ply,
    softplus_to_exp,
    write_gaussian_ply,
)
from talksplat_export.checkpoints.recognise import Kind, is_capture, is_ply, recognise
from talksplat_export.checkpoints.torch_file import read_torch_file

Region = Literal["face", "mouth"]

_ITEMS = ("means", "shs_dc", "shs_rest", "scales", "quats", "opacities")
_PLACES = {12: (1, 2, 3, 4, 5, 6), 13: (1, 2, 3, 5, 6, 7), 15: (1, 2, 3, 5, 6, 7)}
"""Where a capture of so many items holds them."""


def write_point_cloud(
    source: Path, target: Path, *, region: Region = "face", ascii: bool = False
) -> GaussianPly:
    """Write the Gaussians of a file as a ``.ply`` and return them.

    Args:
        source: a checkpoint, or a ``.ply`` in another encoding.
        target: the ``.ply`` to make; its scales are before exp, as viewers take them.
        region: which of an avatar's two sets; of no matter where there is one.
        ascii: as text.

    Raises:
        CheckpointError: the source cannot be read or holds no Gaussians.
        OutputError: the target cannot be written.
    """
    gaussians = read_gaussian_ply(source) if is_ply(source) else _from_checkpoint(source, region)
    write_gaussian_ply(target, gaussians, ascii=ascii)
    return gaussians


def _from_checkpoint(path: Path, region: Region) -> GaussianPly:
    content = read_torch_file(path)
    found = recognise(content)
    if found.kind is Kind.AVATAR and found.family == "d3talker":
        identity = AvatarCheckpoint.read(content, path).identity
        gaussians = identity.face if region == "face" else identity.mouth
        return _ply(
            {
                "means": gaussians.means,
                "shs_dc": gaussians.shs_dc,
                "shs_rest": gaussians.shs_rest,
                "scales": gaussians.raw_scales,
                "quats": gaussians.raw_quats,
                "opacities": gaussians.raw_opacities,
            },
            path,
            softplus=True,
        )
    captures = [content] if is_capture(content) else _captures(content)
    if not captures:
        raise CheckpointError(
            f"{path} has no Gaussians to write: expected a checkpoint of TalkingGaussian, InsTaG, "
            f"3D Gaussian Splatting or talksplat, or a .ply, found {found.found}."
        )
    capture = captures[-1 if region == "mouth" else 0]
    if len(capture) not in _PLACES:
        raise CheckpointError(
            f"{path}: expected Gaussians in a tuple of 12, 13 or 15 items, found {len(capture)}."
        )
    tensors = {
        name: capture[place] for name, place in zip(_ITEMS, _PLACES[len(capture)], strict=True)
    }
    return _ply(tensors, path, softplus=len(capture) != 12)


def _captures(content: Any) -> list[Any]:
    return [item for item in content if is_capture(item)] if isinstance(content, tuple) else []


def _ply(tensors: dict[str, Any], path: Path, *, softplus: bool) -> GaussianPly:
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {name} of its Gaussians expects a tensor, found a {type(value).__name__}."
            )
    arrays = {
        name: np.ascontiguousarray(value.detach().float().numpy())
        for name, value in tensors.items()
    }
    try:
        return GaussianPly(
            means=arrays["means"],
            shs=np.concatenate([arrays["shs_dc"], arrays["shs_rest"]], axis=1),
            opacities=arrays["opacities"],
            scales=softplus_to_exp(arrays["scales"]) if softplus else arrays["scales"],
            quats=arrays["quats"],
        )
    except ValueError as error:
        raise CheckpointError(f"{path}: its Gaussians do not fit each other: {error}") from error
