"""The Gaussian rasterizer written plainly in float64 torch: the truth the fast one is measured by.

Nothing here is shared with the C++ rasterizer. Every rule that tells one dialect from another
stands once, as data, in :class:`Rules`, with the place it comes from:

* ``"gsplat"`` and ``"gsplat-1.5"``: Ye et al., *gsplat: An Open-Source Library for Gaussian
  Splatting* (JMLR 2025), as released in versions 1.6.0 and 1.5.3.
* ``"inria"``: Kerbl et al., *3D Gaussian Splatting for Real-Time Radiance Field Rendering*
  (SIGGRAPH 2023), as in its ``diff-gaussian-rasterization``; antialiased as in that package's
  ``dr_aa`` branch.

The projection is EWA splatting (Zwicker et al. 2001) with the low-pass filter of the 3DGS paper;
``"antialiased"`` scales opacities as in Yu et al., *Mip-Splatting* (CVPR 2024, section 5.2).

Thresholds are the float32 values the kernels were compiled with. It matters: two Gaussians of
alpha 0.99 leave a transmittance of (1 - 0.99f)², just under 1e-4f in float32 and just over 1e-4 in
float64, so the second one would be drawn here and by nobody else.

Everything is differentiable through torch autograd, except what no rasterizer differentiates:
the visibility tests, the order in depth and the thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from talksplat.errors import InputError

DIALECTS = ("gsplat", "gsplat-1.5", "inria")
RASTERIZE_MODES = ("classic", "antialiased")
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
TILE = 16


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


ALPHA_MIN = _float32(1.0 / 255.0)  # a weaker contribution is skipped
TRANSMITTANCE_MIN = _float32(1e-4)  # a pixel this opaque is finished
GSPLAT_EXTENT = _float32(3.33)  # standard deviations gsplat looks at, at the most


@dataclass(frozen=True)
class Rules:
    """What a dialect decides. Two dialects differ in these values and in nothing else."""

    alpha_max: float
    """Alpha is clamped to this."""
    stops_at_threshold: bool
    """Whether a transmittance of exactly 1e-4 ends a pixel (gsplat) or not yet (inria)."""
    least_near_plane: float
    """inria culls at z <= 0.2 whatever the caller says; gsplat only at z < near_plane."""
    normalizes_quats: bool
    """inria builds the rotation from the quaternion as it is; its callers normalise."""
    guard_follows_principal_point: bool
    """x/z in the Jacobian is clamped 30 % outside the image: around the image (gsplat), or around
    the optical axis (inria). Equal when the principal point is the centre."""
    culls_by_opacity: bool
    """gsplat drops Gaussians of an opacity below 1/255 before it looks at any pixel."""
    footprint: str
    """Which 16×16 tiles see a Gaussian; outside them it is not drawn, however bright.
    ``"square"``: 3 sigma of the longest axis, in both directions (inria). ``"rectangle"``: the
    axis-aligned box of the opacity-aware ellipse (gsplat 1.5). ``"ellipse"``: the opacity-aware
    ellipse itself (gsplat 1.6, after Speedy-Splat, Hanson et al. 2025). For gsplat the
    choice shows only where an opacity exceeds 1: up to there, no pixel outside reaches 1/255."""
    compensation_min: float
    """Least factor by which ``"antialiased"`` scales an opacity."""


_RULES = {
    "gsplat": Rules(
        alpha_max=_float32(0.99),
        stops_at_threshold=True,
        least_near_plane=0.0,
        normalizes_quats=True,
        guard_follows_principal_point=True,
        culls_by_opacity=True,
        footprint="ellipse",
        compensation_min=0.005,
    ),
    "gsplat-1.5": Rules(
        alpha_max=_float32(0.999),
        stops_at_threshold=True,
        least_near_plane=0.0,
        normalizes_quats=True,
        guard_follows_principal_point=True,
        culls_by_opacity=True,
        footprint="rectangle",
        compensation_min=0.0,
    ),
    "inria": Rules(
        alpha_max=_float32(0.99),
        stops_at_threshold=False,
        least_near_plane=_float32(0.2),
        normalizes_quats=False,
        guard_follows_principal_point=False,
        culls_by_opacity=False,
        footprint="square",
        compensation_min=0.005,
    ),
}


def rules(dialect: str) -> Rules:
    """The rules of ``dialect``, one of :data:`DIALECTS`."""
    if dialect not in _RULES:
        raise InputError(f"dialect must be one of {', '.join(DIALECTS)}; got {dialect!r}")
    return _RULES[dialect]


@dataclass(frozen=True)
class Projection:
    """The M Gaussians that one camera sees, nearest first; equal depths keep the caller's order."""

    indices: Tensor
    """[M] int64: which of the N Gaussians."""
    means2d: Tensor
    """[M, 2] pixels; the centre of the first pixel is (0.5, 0.5)."""
    depths: Tensor
    """[M] camera z."""
    covariances: Tensor
    """[M, 2, 2] pixels², the low-pass filter included."""
    conics: Tensor
    """[M, 3]: xx, xy and yy of the inverse covariance."""
    opacities: Tensor
    """[M], antialiasing included."""
    radii: Tensor
    """[M, 2] whole pixels in x and y, no gradient."""


def rotation_matrices(quats: Tensor, *, normalize: bool = True) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4].

    Without ``normalize`` a quaternion that is not of unit length gives a matrix that is no
    rotation; that is what the INRIA kernel computes.
    """
    if normalize:
        quats = quats / quats.norm(dim=-1, keepdim=True)
    w, x, y, z = quats.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def spherical_harmonics(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    """Real spherical harmonics of ``directions`` [N, 3], which may have any length.

    ``coefficients`` is [N, K, 3] with K >= (degree + 1)², in the order and with the signs (those
    of the Condon-Shortley phase) of 3DGS checkpoints; degree 0 to 3. Returns [N, 3], without the
    +0.5 and the clamp that turn it into a colour. Basis: Sloan, *Efficient Spherical Harmonic
    Evaluation* (JCGT 2013).
    """
    x, y, z = (directions / directions.norm(dim=-1, keepdim=True)).unbind(-1)
    basis = [torch.full_like(x, 0.5 * math.sqrt(1 / math.pi))]
    if degree >= 1:
        first = math.sqrt(3 / (4 * math.pi))
        basis += [-first * y, first * z, -first * x]
    if degree >= 2:
        second = 0.5 * math.sqrt(15 / math.pi)
        basis += [
            second * x * y,
            -second * y * z,
            0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
            -second * x * z,
            0.5 * second * (x * x - y * y),
        ]
    if degree >= 3:
        third = 0.25 * math.sqrt(35 / (2 * math.pi))
        middle = 0.25 * math.sqrt(21 / (2 * math.pi))
        basis += [
            -third * y * (3 * x * x - y * y),
            0.5 * math.sqrt(105 / math.pi) * x * y * z,
            -middle * y * (5 * z * z - 1),
            0.25 * math.sqrt(7 / math.pi) * z * (5 * z * z - 3),
            -middle * x * (5 * z * z - 1),
            0.25 * math.sqrt(105 / math.pi) * z * (x * x - y * y),
            -third * x * (x * x - 3 * y * y),
        ]
    return torch.einsum("nk,nkc->nc", torch.stack(basis, dim=-1), coefficients[:, : len(basis)])


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    rasterize_mode: str = "classic",
    dialect: str = "gsplat",
) -> Projection:
    """What one camera (``viewmat`` [4, 4], ``K`` [3, 3]) sees of the Gaussians, in float64.

    Arguments are those of :func:`rasterize`. Culled Gaussians are left out before anything is
    divided by their depth, so they cannot put a NaN into a gradient.
    """
    rule = rules(dialect)
    means, quats, scales, opacities, viewmat, K = (
        tensor.double() for tensor in (means, quats, scales, opacities, viewmat, K)
    )
    near_plane, far_plane, eps2d = _float32(near_plane), _float32(far_plane), _float32(eps2d)

    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    means_camera = means @ rotation.T + translation
    depths = means_camera[:, 2]
    visible = (depths >= near_plane) & (depths <= far_plane) & (depths > rule.least_near_plane)
    indices = visible.nonzero()[:, 0]
    # The sort key of every 3DGS rasterizer is the float32 depth; equal keys keep their order.
    indices = indices[depths[indices].float().sort(stable=True).indices]

    x, y, z = means_camera[indices].unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    # INRIA divides by z + 1e-7: half a rounding of float32 at the border of a 512×512 image.
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    guarded = []  # x/z and y/z, kept from growing without bound beside the image
    for ratio, focal, centre, size in ((x / z, fx, cx, width), (y / z, fy, cy, height)):
        half = 0.5 * size / focal
        middle = (0.5 * size - centre) / focal if rule.guard_follows_principal_point else 0 * half
        guarded.append(ratio.clamp(middle - 1.3 * half, middle + 1.3 * half))
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * guarded[0] / z], dim=-1),
            torch.stack([zero, fy / z, -fy * guarded[1] / z], dim=-1),
        ],
        dim=-2,
    )
    axes = rotation_matrices(quats[indices], normalize=rule.normalizes_quats)
    factor = jacobian @ rotation @ (axes * scales[indices, None, :])  # covariance = factor factorᵀ
    unfiltered = factor @ factor.transpose(-1, -2)
    covariances = unfiltered + eps2d * torch.eye(2, dtype=torch.float64)
    determinant = covariances[:, 0, 0] * covariances[:, 1, 1] - covariances[:, 0, 1] ** 2

    opacities = opacities[indices]
    if rasterize_mode == "antialiased":
        before = unfiltered[:, 0, 0] * unfiltered[:, 1, 1] - unfiltered[:, 0, 1] ** 2
        ratio = (before / determinant).clamp(min=rule.compensation_min**2)
        opacities = opacities * ratio.sqrt()
    elif rasterize_mode != "classic":
        raise InputError(
            f"rasterize_mode must be one of {', '.join(RASTERIZE_MODES)}; got {rasterize_mode!r}"
        )

    radii = _radii(rule, covariances.detach(), determinant.detach(), opacities.detach())
    kept = (determinant > 0) & (radii > radius_clip).any(-1) & (radii > 0).all(-1)
    if rule.culls_by_opacity:
        kept &= opacities >= ALPHA_MIN
    conics = torch.stack([covariances[:, 1, 1], -covariances[:, 0, 1], covariances[:, 0, 0]], -1)
    return Projection(
        indices=indices[kept],
        means2d=means2d[kept],
        depths=z[kept],
        covariances=covariances[kept],
        conics=conics[kept] / determinant[kept, None],
        opacities=opacities[kept],
        radii=radii[kept],
    )


def _radii(rule: Rules, covariances: Tensor, determinant: Tensor, opacities: Tensor) -> Tensor:
    """Half the size of a Gaussian's footprint, [M, 2] whole pixels."""
    diagonal = covariances.diagonal(dim1=-2, dim2=-1)
    if rule.footprint == "square":
        middle = diagonal.mean(-1)
        longest = middle + (middle**2 - determinant).clamp(min=_float32(0.1)).sqrt()
        return (3 * longest.sqrt()).ceil()[:, None].expand(-1, 2)
    return (_extent(opacities)[:, None] * diagonal.sqrt()).ceil()


def _extent(opacities: Tensor) -> Tensor:
    """How many standard deviations out alpha falls below 1/255 (Radl et al. 2024, app. B.2)."""
    return (2 * (opacities / ALPHA_MIN).clamp(min=1).log()).sqrt().clamp(max=GSPLAT_EXTENT)


def tile_lists(projection: Projection, width: int, height: int, dialect: str) -> list[Tensor]:
    """For every 16×16 tile, row by row: which entries of ``projection`` it draws, nearest first."""
    rule = rules(dialect)
    columns, rows = math.ceil(width / TILE), math.ceil(height / TILE)
    means2d, radii = projection.means2d.detach(), projection.radii
    if rule.footprint == "square":
        # INRIA counts pixels from their centres, so its coordinates are half a pixel smaller.
        first = ((means2d - 0.5 - radii) / TILE).trunc()
        last = ((means2d - 0.5 + radii + TILE - 1) / TILE).trunc()
    else:
        first = ((means2d - radii) / TILE).floor()
        last = ((means2d + radii) / TILE).ceil()
    grid = torch.tensor([columns, rows], dtype=torch.float64)
    first, last = (torch.minimum(edge.clamp(min=0), grid).long() for edge in (first, last))

    size = last - first
    counts = size.prod(-1)
    entry = torch.arange(len(counts)).repeat_interleave(counts)
    within = torch.arange(len(entry)) - (counts.cumsum(0) - counts)[entry]
    column = first[entry, 0] + within % size[entry, 0].clamp(min=1)
    row = first[entry, 1] + within // size[entry, 0].clamp(min=1)
    if rule.footprint == "ellipse":
        touched = _ellipse_touches_tile(projection, entry, column, row)
        entry, column, row = entry[touched], column[touched], row[touched]

    tile = row * columns + column
    order = tile.sort(stable=True).indices  # stable: entries of a tile stay nearest first
    lengths = torch.bincount(tile, minlength=columns * rows)
    return list(torch.split(entry[order], lengths.tolist()))


def _ellipse_touches_tile(
    projection: Projection, entry: Tensor, column: Tensor, row: Tensor
) -> Tensor:
    """Whether the ellipse where alpha is 1/255 (at most 3.33 sigma out) meets the closed tile.

    The quadratic form is convex: its least value over a square is 0 if the centre lies in
    it, and otherwise the least value along one of the four edges.
    """
    a, b, c = projection.conics.detach()[entry].unbind(-1)
    low = torch.stack([column, row], -1) * TILE - projection.means2d.detach()[entry]
    high = low + TILE
    inside = ((low <= 0) & (high >= 0)).all(-1)
    least = torch.full_like(a, math.inf)
    for edges in (low, high):
        edge_x, edge_y = edges.unbind(-1)
        along_y = (-b * edge_x / c).clamp(low[:, 1], high[:, 1])
        along_x = (-b * edge_y / a).clamp(low[:, 0], high[:, 0])
        for dx, dy in ((edge_x, along_y), (along_x, edge_y)):
            least = torch.minimum(least, a * dx * dx + 2 * b * dx * dy + c * dy * dy)
    return inside | (least <= _extent(projection.opacities.detach())[entry] ** 2)


def drawn_alphas(
    pixels: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor, dialect: str
) -> Tensor:
    """With which alpha each of M Gaussians, nearest first, is drawn into each of P pixels: [P, M].

    ``pixels`` [P, 2] are pixel centres. Zero where a Gaussian is not drawn: because it would
    contribute less than 1/255, or because it, or one before it, would bring the transmittance to
    its threshold, which ends the pixel.
    """
    rule = rules(dialect)
    dx, dy = (pixels[:, None, :] - means2d).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alphas = (opacities * torch.exp(-sigma)).clamp(max=rule.alpha_max)
    alphas = torch.where((sigma >= 0) & (alphas >= ALPHA_MIN), alphas, 0.0)
    with torch.no_grad():
        rest = torch.cumprod(1 - alphas, dim=1)
        drawn = rest > TRANSMITTANCE_MIN if rule.stops_at_threshold else rest >= TRANSMITTANCE_MIN
    return torch.where(drawn, alphas, 0.0)


def blend(
    pixels: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    dialect: str,
) -> tuple[Tensor, Tensor]:
    """Draw M Gaussians, nearest first, into P pixels, front to back (Kerbl et al. 2023, eq. 3).

    ``pixels`` [P, 2] are pixel centres, ``features`` [M, D]. Returns the accumulated features
    [P, D] and the transmittance left [P].
    """
    alphas = drawn_alphas(pixels, means2d, conics, opacities, dialect)
    after = torch.cumprod(1 - alphas, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)[:, : len(features)]
    return (alphas * before) @ features, (1 - alphas).prod(dim=1)


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
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    dialect: str = "gsplat",
) -> tuple[Tensor, Tensor]:
    """Draw Gaussians as :func:`talksplat.rasterize` does, in float64 and without haste.

    Args:
        means: [N, 3], world units.
        quats: [N, 4] wxyz.
        scales: [N, 3] standard deviations, world units, activated.
        opacities: [N], activated.
        colors: [N, D] features, or [N, K, 3] spherical harmonics when ``sh_degree`` is given; with
            one more dimension in front, each camera has its own.
        viewmats: [C, 4, 4] world to camera, OpenCV axes.
        Ks: [C, 3, 3] in pixels.
        width, height: size of the image in pixels.
        near_plane, far_plane: depths outside are culled; ``"inria"`` also culls z <= 0.2.
        radius_clip: Gaussians of at most this radius, in pixels, are culled.
        eps2d: low-pass filter added to both variances, pixels².
        sh_degree: 0 to 3.
        backgrounds: [C, D], or an image [C, H, W, D], seen through what transmittance is left.
        render_mode: ``"RGB"``; ``"D"`` is depth weighted as a colour is, ``"ED"`` that divided by
            alpha; ``"RGB+D"`` and ``"RGB+ED"`` append it. Depth has a background of zero.
        rasterize_mode: ``"classic"`` or ``"antialiased"``.
        dialect: one of :data:`DIALECTS`.

    Returns:
        colors [C, H, W, D] and alphas [C, H, W, 1], float64.

    Raises:
        InputError: a mode or dialect is not known.
    """
    if render_mode not in RENDER_MODES:
        raise InputError(
            f"render_mode must be one of {', '.join(RENDER_MODES)}; got {render_mode!r}"
        )
    images, alphas = [], []
    for camera, (viewmat, K) in enumerate(zip(viewmats.double(), Ks.double(), strict=True)):
        seen = project(
            means,
            quats,
            scales,
            opacities,
            viewmat,
            K,
            width,
            height,
            near_plane=near_plane,
            far_plane=far_plane,
            radius_clip=radius_clip,
            eps2d=eps2d,
            rasterize_mode=rasterize_mode,
            dialect=dialect,
        )
        per_camera = colors.dim() == (3 if sh_degree is None else 4)
        features = (colors[camera] if per_camera else colors).double()[seen.indices]
        if sh_degree is not None:
            position = torch.linalg.inv(viewmat)[:3, 3]
            directions = means.double()[seen.indices] - position
            features = spherical_harmonics(sh_degree, directions, features)
            features = (features + 0.5).clamp(min=0)
        if "D" in render_mode:
            parts = [features] if render_mode.startswith("RGB") else []
            features = torch.cat([*parts, seen.depths[:, None]], dim=1)
        image, transmittance = _draw(seen, features, width, height, dialect)
        alpha = 1 - transmittance
        if backgrounds is not None:
            background = backgrounds[camera].double().expand(height, width, -1)
            if "D" in render_mode:
                parts = [background] if render_mode.startswith("RGB") else []
                background = torch.cat([*parts, torch.zeros(height, width, 1)], dim=-1)
            image = image + transmittance * background
        if render_mode.endswith("ED"):
            expected = image[..., -1:] / alpha.clamp(min=1e-10)
            image = torch.cat([image[..., :-1], expected], dim=-1)
        images.append(image)
        alphas.append(alpha)
    return torch.stack(images), torch.stack(alphas)


def _draw(
    seen: Projection, features: Tensor, width: int, height: int, dialect: str
) -> tuple[Tensor, Tensor]:
    """One image tile by tile: features [H, W, D] and transmittance [H, W, 1]."""
    columns = math.ceil(width / TILE)
    image_rows, transmittance_rows = [], []
    lists = tile_lists(seen, width, height, dialect)
    for start in range(0, len(lists), columns):
        image_row, transmittance_row = [], []
        top = start // columns * TILE
        for column, entries in enumerate(lists[start : start + columns]):
            left = column * TILE
            ys = torch.arange(top, min(top + TILE, height), dtype=torch.float64) + 0.5
            xs = torch.arange(left, min(left + TILE, width), dtype=torch.float64) + 0.5
            drawn, transmittance = blend(
                torch.cartesian_prod(ys, xs).flip(-1),
                seen.means2d[entries],
                seen.conics[entries],
                seen.opacities[entries],
                features[entries],
                dialect,
            )
            image_row.append(drawn.view(len(ys), len(xs), -1))
            transmittance_row.append(transmittance.view(len(ys), len(xs), 1))
        image_rows.append(torch.cat(image_row, dim=1))
        transmittance_rows.append(torch.cat(transmittance_row, dim=1))
    return torch.cat(image_rows), torch.cat(transmittance_rows)
