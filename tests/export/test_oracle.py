"""The oracle against pictures that can be worked out by hand, and against a second derivation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talksplat.errors import InputError
from talksplat_export import oracle

SIZE = 48
FOCAL = 100.0
CENTRE = (24.5, 24.5)  # the middle of pixel [24, 24]
SINGLE = 1e-6  # results that pass through a threshold rounded to float32
EXACT = 1e-12


def camera(offset: tuple[float, float] = CENTRE) -> tuple[Tensor, Tensor]:
    """Looks along +z from the origin; ``offset`` is where the axis meets the image."""
    K = torch.tensor([[FOCAL, 0, offset[0]], [0, FOCAL, offset[1]], [0, 0, 1]])
    return torch.eye(4)[None], K[None]


def discs(
    depths: list[float], opacities: list[float], sigma_pixels: float, x_pixels: float = 0.0
) -> tuple[Tensor, ...]:
    """Flat Gaussians behind one another, facing the camera, of ``sigma_pixels`` in the image."""
    z = torch.tensor(depths, dtype=torch.float64)
    means = torch.stack([x_pixels * z / FOCAL, 0 * z, z], dim=1)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(len(depths), 1)
    scales = (sigma_pixels * z / FOCAL)[:, None] * torch.tensor([1.0, 1.0, 0.0])
    colors = torch.eye(3, dtype=torch.float64)[: len(depths)]
    return means, quats, scales, torch.tensor(opacities, dtype=torch.float64), colors


def draw(gaussians: tuple[Tensor, ...], dialect: str, **options: object) -> tuple[Tensor, Tensor]:
    colors, alphas = oracle.rasterize(*gaussians, *camera(), SIZE, SIZE, dialect=dialect, **options)
    return colors[0], alphas[0, ..., 0]


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_one_disc_is_a_gaussian_widened_by_the_low_pass_filter(dialect: str) -> None:
    colors, alphas = draw(discs([2.0], [0.6], 3.0), dialect)
    variance = 3.0**2 + oracle._float32(0.3)
    for distance in (0, 1, 5, 8):
        expected = 0.6 * math.exp(-0.5 * distance**2 / variance)
        for row, column in ((24, 24 + distance), (24 - distance, 24)):
            assert alphas[row, column] == pytest.approx(expected, abs=EXACT)
            assert colors[row, column].tolist() == pytest.approx([expected, 0, 0], abs=EXACT)


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_nearer_covers_farther(dialect: str) -> None:
    colors, alphas = draw(discs([3.0, 2.0], [0.5, 0.25], 4.0), dialect)
    assert colors[24, 24].tolist() == pytest.approx([0.75 * 0.5, 0.25, 0], abs=EXACT)
    assert alphas[24, 24] == pytest.approx(1 - 0.75 * 0.5, abs=EXACT)


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_equal_depths_keep_the_order_of_the_arguments(dialect: str) -> None:
    colors, _ = draw(discs([2.0, 2.0], [0.5, 0.5], 4.0), dialect)
    assert colors[24, 24].tolist() == pytest.approx([0.5, 0.25, 0], abs=EXACT)


@pytest.mark.parametrize(
    ("dialect", "alpha_max"), [("gsplat", 0.99), ("gsplat-1.5", 0.999), ("inria", 0.99)]
)
def test_alpha_is_clamped(dialect: str, alpha_max: float) -> None:
    _, alphas = draw(discs([2.0], [1.0], 4.0), dialect)
    assert alphas[24, 24] == pytest.approx(alpha_max, abs=SINGLE)


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_the_gaussian_that_would_end_a_pixel_is_not_drawn(dialect: str) -> None:
    """Twice 0.99 leaves (1 - 0.99f)² = 9.99998e-5 < 1e-4f in every dialect that clamps there."""
    colors, _ = draw(discs([2.0, 3.0, 4.0], [1.0, 1.0, 0.5], 4.0), dialect)
    first = 0.999 if dialect == "gsplat-1.5" else 0.99
    assert colors[24, 24].tolist() == pytest.approx([first, 0, 0], abs=SINGLE)


def test_a_transmittance_at_the_threshold_ends_a_pixel_in_gsplat_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Halving is exact: with the threshold moved to 1/8, the third of three halves meets it."""
    pixel = torch.tensor([CENTRE], dtype=torch.float64)
    means2d = torch.tensor([CENTRE, CENTRE, CENTRE], dtype=torch.float64)
    conics = torch.tensor([[1.0, 0, 1]] * 3, dtype=torch.float64)
    opacities = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64)
    features = torch.eye(3, dtype=torch.float64)
    monkeypatch.setattr(oracle, "TRANSMITTANCE_MIN", 0.125)
    for dialect, drawn in (("gsplat", 2), ("gsplat-1.5", 2), ("inria", 3)):
        colors, rest = oracle.blend(pixel, means2d, conics, opacities, features, dialect)
        assert int((colors > 0).sum()) == drawn
        assert rest.item() == 0.5**drawn


@pytest.mark.parametrize(
    ("dialect", "depth", "seen"),
    [
        ("gsplat", 0.0099, False),
        ("gsplat", 0.0101, True),
        ("gsplat-1.5", 0.0101, True),
        ("inria", 0.1999, False),
        ("inria", 0.2001, True),
    ],
)
def test_near_plane(dialect: str, depth: float, seen: bool) -> None:
    _, alphas = draw(discs([depth], [0.5], 4.0), dialect)
    assert (alphas.max() > 0) == seen


def test_far_plane_and_radius_clip_cull() -> None:
    gaussians = discs([2.0, 5.0], [0.5, 0.5], 4.0)
    _, alphas = draw(gaussians, "gsplat", far_plane=3.0)
    assert alphas[24, 24] == pytest.approx(0.5, abs=EXACT)
    _, alphas = draw(gaussians, "gsplat", radius_clip=40.0)
    assert alphas.max() == 0


def test_inria_cuts_at_whole_tiles() -> None:
    """A disc of variance 100.3 reaches 33 pixels before it falls to 1/255; INRIA gives it 31.

    That is ceil(3·sqrt(100.3 + sqrt(0.1))). About pixel 46 the square starts in column 15, so all
    of the first tile (columns 0 to 15) is drawn; about pixel 47 it starts in column 16, and column
    15 gets nothing although it lies only 32 pixels away.
    """
    reaches, _ = draw(discs([2.0], [1.0], 10.0, x_pixels=22.0), "inria")
    misses, _ = draw(discs([2.0], [1.0], 10.0, x_pixels=23.0), "inria")
    whole, _ = draw(discs([2.0], [1.0], 10.0, x_pixels=23.0), "gsplat")
    assert reaches[24, 15, 0] > 1 / 255
    assert misses[24, 15, 0] == 0
    assert whole[24, 15, 0] == pytest.approx(math.exp(-0.5 * 32**2 / 100.3), rel=1e-6)
    assert torch.equal(misses[:, 16:], whole[:, 16:])


@pytest.mark.parametrize(
    ("x_pixels", "drawn_by"),
    [(24.5, {"gsplat", "gsplat-1.5"}), (25.0, {"gsplat-1.5"}), (25.8, set())],
)
def test_gsplat_cuts_an_opacity_above_one_at_its_extent(
    x_pixels: float, drawn_by: set[str]
) -> None:
    """An opacity of 3 reaches 36.5 pixels; gsplat looks 3.33 sigma = 33.35 far, 1.5 up to 34.

    From x = 49, 49.5 and 50.3 the edge of the first tile, at 16, is 33, 33.5 (too far for the
    ellipse) and 34.3 (too far for the rectangle) away.
    """
    for dialect in ("gsplat", "gsplat-1.5"):
        colors, _ = draw(discs([2.0], [3.0], 10.0, x_pixels=x_pixels), dialect)
        assert (colors[24, 15, 0] > 1 / 255) == (dialect in drawn_by)
        assert colors[24, 16, 0] > 1 / 255


def test_an_opacity_below_the_threshold_or_below_zero_is_not_seen() -> None:
    for dialect in oracle.DIALECTS:
        for opacity in (0.0039, 0.0, -0.7):
            _, alphas = draw(discs([2.0], [opacity], 4.0), dialect)
            assert alphas.max() == 0


def test_inria_takes_quaternions_as_they_are() -> None:
    quat = torch.tensor([1.1, 0.3, -0.2, 0.4], dtype=torch.float64)
    rotation = oracle.rotation_matrices(quat)
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.T, identity, atol=EXACT, rtol=0)
    raw = oracle.rotation_matrices(quat, normalize=False)
    length = (quat**2).sum()
    torch.testing.assert_close(raw - identity, length * (rotation - identity))


@pytest.mark.parametrize(
    ("dialect", "least"), [("gsplat", 0.005), ("gsplat-1.5", 0.0), ("inria", 0.005)]
)
def test_antialiasing_scales_opacity_by_the_area_lost(dialect: str, least: float) -> None:
    for sigma in (3.0, 0.5, 1e-3):
        gaussians = discs([2.0], [0.8], sigma)
        seen = oracle.project(
            *gaussians[:4],
            *(matrix[0] for matrix in camera()),
            SIZE,
            SIZE,
            rasterize_mode="antialiased",
            dialect=dialect,
        )
        factor = max(least, sigma**2 / (sigma**2 + oracle._float32(0.3)))
        if dialect.startswith("gsplat") and 0.8 * factor < 1 / 255:
            assert len(seen.indices) == 0
        else:
            assert seen.opacities.item() == pytest.approx(0.8 * factor, rel=1e-9)


def test_the_guard_bounds_the_jacobian_beside_the_image() -> None:
    """A Gaussian at x/z = 2 is stretched as one at the guard: 1.3 half-widths off the middle."""
    viewmats, K = camera((10.0, 24.0))
    means = torch.tensor([[4.0, 0, 2.0]])
    gaussians = (means, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.5), torch.ones(1))
    half = 0.5 * SIZE / FOCAL
    for dialect, limit in (("gsplat", (SIZE - 10) / FOCAL + 0.3 * half), ("inria", 1.3 * half)):
        seen = oracle.project(*gaussians, viewmats[0], K[0], SIZE, SIZE, dialect=dialect)
        expected = (0.5 * FOCAL / 2) ** 2 * (1 + limit**2) + 0.3
        assert seen.covariances[0, 0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_spherical_harmonics_are_orthonormal() -> None:
    """Their products, integrated over the sphere on a fine grid, are 0 and 1."""
    polar = (torch.arange(200, dtype=torch.float64) + 0.5) * math.pi / 200
    azimuth = torch.arange(200, dtype=torch.float64) * 2 * math.pi / 200
    polar, azimuth = (a.flatten() for a in torch.meshgrid(polar, azimuth, indexing="ij"))
    directions = torch.stack(
        [polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=1
    )
    basis = torch.stack(
        [
            oracle.spherical_harmonics(3, 3 * directions, one.expand(len(polar), 16, 3))[:, 0]
            for one in torch.eye(16, dtype=torch.float64)[:, :, None].expand(16, 16, 3)
        ],
        dim=1,
    )
    weights = polar.sin() * (math.pi / 200) * (2 * math.pi / 200)
    gram = basis.T @ (weights[:, None] * basis)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=2e-3, rtol=0)


def test_colours_from_harmonics_start_at_a_half_and_do_not_go_below_zero() -> None:
    gaussians = discs([2.0], [0.5], 4.0)
    shs = torch.tensor([[[0.0, 1.0, -9.0]]])
    colors, _ = draw((*gaussians[:4], shs), "gsplat", sh_degree=0)
    bright = 0.5 + 0.5 / math.sqrt(math.pi)
    assert colors[24, 24].tolist() == pytest.approx([0.25, 0.5 * bright, 0], abs=EXACT)


def test_backgrounds_show_through() -> None:
    gaussians = discs([2.0], [0.6], 3.0)
    plain, alphas = draw(gaussians, "inria")
    image = torch.rand(1, SIZE, SIZE, 3, dtype=torch.float64)
    over_image, _ = draw(gaussians, "inria", backgrounds=image)
    torch.testing.assert_close(over_image, plain + (1 - alphas)[..., None] * image[0])
    over_color, _ = draw(gaussians, "inria", backgrounds=image[:, 3, 4])
    torch.testing.assert_close(over_color, plain + (1 - alphas)[..., None] * image[0, 3, 4])


def test_depth_is_blended_as_a_colour_is() -> None:
    gaussians = discs([2.0, 3.0], [0.5, 0.5], 4.0)
    background = torch.ones(1, 3)
    blended = 0.5 * 2 + 0.25 * 3
    depth, _ = draw(gaussians, "gsplat", render_mode="D", backgrounds=background)
    assert depth[24, 24].item() == pytest.approx(blended, abs=EXACT)
    both, _ = draw(gaussians, "gsplat", render_mode="RGB+ED", backgrounds=background)
    assert both[24, 24].tolist() == pytest.approx([0.75, 0.5, 0.25, blended / 0.75], abs=EXACT)
    assert both[0, 0].tolist() == [1, 1, 1, 0]


def random_gaussians(count: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    means = normal(count, 3) * 0.3 + torch.tensor([0, 0, 2.0])
    scales = 0.05 * (0.6 * normal(count, 3)).exp()
    return means, normal(count, 4), scales, normal(count).sigmoid(), normal(count, 3)


@pytest.mark.parametrize("rasterize_mode", oracle.RASTERIZE_MODES)
@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_blending_agrees_with_a_loop_over_pixels(dialect: str, rasterize_mode: str) -> None:
    """The same picture from the definition: one pixel, one Gaussian, one early exit at a time."""
    width, height = 37, 21
    gaussians = random_gaussians(60, seed=1)
    viewmats, Ks = camera((18.0, 10.0))
    options = {"rasterize_mode": rasterize_mode, "dialect": dialect}
    colors, alphas = oracle.rasterize(*gaussians, viewmats, Ks, width, height, **options)
    seen = oracle.project(*gaussians[:4], viewmats[0], Ks[0], width, height, **options)
    lists = [tile.tolist() for tile in oracle.tile_lists(seen, width, height, dialect)]
    rule = oracle.rules(dialect)
    for y in range(height):
        for x in range(width):
            color, transmittance = [0.0, 0.0, 0.0], 1.0
            for entry in lists[y // 16 * 3 + x // 16]:
                dx, dy = (seen.means2d[entry] - torch.tensor([x + 0.5, y + 0.5])).tolist()
                conic_xx, conic_xy, conic_yy = seen.conics[entry].tolist()
                power = -0.5 * (conic_xx * dx**2 + conic_yy * dy**2) - conic_xy * dx * dy
                alpha = min(rule.alpha_max, seen.opacities[entry].item() * math.exp(power))
                if power > 0 or alpha < oracle.ALPHA_MIN:
                    continue
                rest = transmittance * (1 - alpha)
                stop = oracle.TRANSMITTANCE_MIN
                if rest <= stop if rule.stops_at_threshold else rest < stop:
                    break
                for channel, value in enumerate(gaussians[4][seen.indices[entry]].tolist()):
                    color[channel] += value * alpha * transmittance
                transmittance = rest
            assert colors[0, y, x].tolist() == pytest.approx(color, abs=EXACT)
            assert alphas[0, y, x, 0].item() == pytest.approx(1 - transmittance, abs=EXACT)


@pytest.mark.parametrize("rasterize_mode", oracle.RASTERIZE_MODES)
@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_gradients_agree_with_finite_differences(dialect: str, rasterize_mode: str) -> None:
    """With opacities that no threshold is near of, the picture is smooth enough to be probed."""
    means, quats, scales, opacities, colors = random_gaussians(3, seed=2)
    opacities = 0.3 + 0.3 * opacities
    # Wide enough to cover the image at alpha > 1/255.
    inputs = (means, quats, scales * 20, opacities, colors, torch.rand(1, 3).double())
    viewmats, Ks = camera((3.0, 4.0))

    def picture(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        *gaussians, background = arguments
        return oracle.rasterize(
            *gaussians,
            viewmats,
            Ks,
            7,
            6,
            backgrounds=background,
            rasterize_mode=rasterize_mode,
            dialect=dialect,
        )

    assert torch.autograd.gradcheck(
        picture, tuple(tensor.requires_grad_() for tensor in inputs), eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_culled_gaussians_get_a_gradient_of_zero(dialect: str) -> None:
    means, quats, scales, opacities, colors = random_gaussians(10, seed=3)
    means = means.clone()
    means[0] = 0.0  # in the camera's plane
    means[1, 2] = -1.0  # behind it
    means.requires_grad_()
    picture, _ = draw((means, quats, scales, opacities, colors), dialect)
    picture.sum().backward()
    assert means.grad is not None
    assert means.grad.isfinite().all()
    assert (means.grad[:2] == 0).all()
    assert (means.grad[2:] != 0).any()


@pytest.mark.parametrize("dialect", oracle.DIALECTS)
def test_a_picture_of_nothing_can_be_differentiated(dialect: str) -> None:
    means, quats, scales, opacities, colors = random_gaussians(5, seed=4)
    behind = (means - torch.tensor([0, 0, 9.0])).requires_grad_()
    for count in (5, 0):
        gaussians = (tensor[:count] for tensor in (behind, quats, scales, opacities, colors))
        picture, alphas = draw(tuple(gaussians), dialect)
        assert picture.shape == (SIZE, SIZE, 3)
        assert not picture.any() and not alphas.any()
        picture.sum().backward()
        assert behind.grad is not None and not behind.grad.any()


def test_unknown_names_are_refused() -> None:
    gaussians = discs([2.0], [0.5], 4.0)
    with pytest.raises(InputError, match="dialect must be one of"):
        draw(gaussians, "inria2")
    with pytest.raises(InputError, match="rasterize_mode must be one of"):
        draw(gaussians, "inria", rasterize_mode="sharp")
    with pytest.raises(InputError, match="render_mode must be one of"):
        draw(gaussians, "inria", render_mode="N")
