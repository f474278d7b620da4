"""What training takes from a tracked head model: where to put Gaussians, and the PNCC mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from talksplat.manifest import PnccContract
from talksplat_export.checkpoints.avatar_checkpoint import PnccMesh
from talksplat_export.heads.model import INSIDE_MOUTH_REGIONS, HeadModel, Region
from talksplat_export.training.initialisation import Surface

FloatArray = NDArray[np.float32]
IdentityT = TypeVar("IdentityT")

# How densely Gaussians lie on a region, relative to plain skin: where viewers look, and hair,
# whose strands are finer than anything on skin.
_DENSITY = {
    Region.SKIN: 1.0,
    Region.LIPS: 4.0,
    Region.EYEBALLS: 5.0,
    Region.EYELASHES: 4.0,
    Region.HAIR: 1.0,
    Region.NECK: 0.35,
    Region.TEETH: 3.0,
    Region.TONGUE: 1.5,
    Region.MOUTH_INTERIOR: 0.7,
}

# A talking head is filmed from the front.
_DENSITY_AT_THE_BACK = 0.2


def face_surface(model: HeadModel[IdentityT], identity: IdentityT) -> Surface:
    """Everything of the head that a closed mouth shows; clothes belong to the plate."""
    outside = [
        region
        for region in _DENSITY
        if region not in INSIDE_MOUTH_REGIONS and region is not Region.CLOTHES
    ]
    return _surface(model, identity, outside)


def mouth_surface(model: HeadModel[IdentityT], identity: IdentityT) -> Surface:
    """Teeth, tongue and the inside of the mouth."""
    return _surface(model, identity, list(INSIDE_MOUTH_REGIONS))


def _surface(
    model: HeadModel[IdentityT], identity: IdentityT, regions: Sequence[Region]
) -> Surface:
    chosen = np.isin(model.face_regions, [int(region) for region in regions])
    weights = np.array([_DENSITY.get(Region(r), 0.0) for r in model.face_regions[chosen]])
    vertices, faces = model.template(identity), model.faces[chosen]
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    weights = np.where(normals[:, 2] < 0, _DENSITY_AT_THE_BACK * weights, weights)
    return Surface(
        vertices,
        faces,
        weights.astype(np.float32),
        _face_colors(model, identity)[chosen],
    )


def _face_colors(model: HeadModel[IdentityT], identity: IdentityT) -> FloatArray:
    """[F,3]: the texture at the middle of every face."""
    texture = model.texture(identity)
    height, width = texture.shape[:2]
    centres = model.uvs[model.uv_faces].mean(axis=1)
    columns = (centres[:, 0] * width).astype(int).clip(0, width - 1)
    rows = ((1 - centres[:, 1]) * height).astype(int).clip(0, height - 1)
    return np.ascontiguousarray(texture[rows, columns], np.float32)


def pncc_mesh(
    model: HeadModel[IdentityT], identity: IdentityT, expression_names: Sequence[str], size: int
) -> PnccMesh:
    """The mesh of skin and lips, moved linearly by the named expressions, and its camera.

    Pass the average identity: Facial Motion is meant to be free of who speaks, and one mesh for
    everybody makes its images a function of the expression alone.
    """
    skin = np.isin(model.face_regions, [int(Region.SKIN), int(Region.LIPS)])
    template = model.template(identity)
    used, faces = np.unique(model.faces[skin], return_inverse=True)
    rows = [model.expression_names.index(name) for name in expression_names]
    template, basis = template[used], model.expression_basis(identity)[rows][:, used]
    low, high = template.min(axis=0), template.max(axis=0)
    colors = 2 * (template - low) / (high - low) - 1
    # The lower face fills the picture: speech moves nothing above the nose.
    lips = template[model.vertex_regions[used] == int(Region.LIPS)]
    centre = lips.mean(axis=0)
    half_height = 0.055
    return PnccMesh(
        torch.from_numpy(np.ascontiguousarray(template, np.float32)),
        torch.from_numpy(np.ascontiguousarray(basis, np.float32)),
        torch.from_numpy(faces.reshape(-1, 3).astype(np.int32)),
        torch.from_numpy(colors.astype(np.float32)),
        PnccContract(
            width=size,
            height=size,
            scale=size / (2 * half_height),
            centre=(float(centre[0]), float(centre[1]) - 0.005),
            background=-1.0,
        ),
    )
