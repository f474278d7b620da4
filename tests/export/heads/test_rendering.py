"""The renderer of heads: coverage, depth, determinism and a small golden picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from talksplat.errors import InputError
from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.model import Region
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.heads.rendering import (
    intrinsics,
    look_at,
    render,
    to_linear,
    to_srgb,
    vertex_normals,
)
from talksplat_export.heads.visemes import expression, viseme_expression

GOLDEN = Path(__file__).with_name("ada_64.npy")
ADA = NAMED["ada"]


@pytest.fixture(scope="module")
def head():
    return ProceduralHead()


def draw(head, weights=None, yaw=0.0, size=64):
    return render(head, ADA, weights, None, look_at(yaw), intrinsics(size), size, size)


def test_the_picture_is_the_golden_one(head):
    drawn = draw(head, expression({"jawOpen": 0.4, "mouthSmile": 0.3}), yaw=15)
    golden = np.load(GOLDEN).astype(np.float32) / 255
    # One level of uint8, and a few silhouette samples that other roundings may flip.
    difference = np.abs(drawn.rgba - golden)
    assert np.quantile(difference, 0.99) < 1.5 / 255
    assert difference.mean() < 0.5 / 255


def test_the_same_input_gives_the_same_picture(head):
    first, second = draw(head), draw(head)
    np.testing.assert_array_equal(first.rgba, second.rgba)
    np.testing.assert_array_equal(first.regions, second.regions)
    np.testing.assert_array_equal(first.depth, second.depth)


def test_alpha_regions_and_depth_agree(head):
    drawn = draw(head)
    covered = drawn.rgba[..., 3] > 0
    np.testing.assert_array_equal(covered, drawn.regions != Region.BACKGROUND)
    np.testing.assert_array_equal(covered, np.isfinite(drawn.depth))
    assert set(np.unique(drawn.rgba[..., 3] * 4).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert drawn.rgba.min() >= 0 and drawn.rgba.max() <= 1
    # The tip of the nose is about 0.098 in front of the origin, 0.7 away from the camera.
    assert 0.59 < drawn.depth.min() < 0.62


def test_a_closed_mouth_shows_lips_and_an_open_one_teeth(head):
    camera = intrinsics(96, 2300.0)
    camera[1, 2] -= camera[1, 1] * 0.052 / 0.7

    def regions(weights):
        return render(head, ADA, weights, None, look_at(), camera, 96, 96).regions

    closed, opened = regions(None), regions(viseme_expression("aa"))
    inside = [Region.TEETH, Region.TONGUE, Region.MOUTH_INTERIOR]
    assert (closed == Region.LIPS).sum() > 100
    assert not np.isin(closed, inside).any()
    assert np.isin(opened, inside).sum() > 80
    assert (regions(viseme_expression("FF")) == Region.TEETH).sum() > 5


def test_blinking_hides_the_eyeballs(head):
    assert (draw(head, size=128).regions == Region.EYEBALLS).sum() > 20
    assert (draw(head, expression({"eyeBlink": 1}), size=128).regions == Region.EYEBALLS).sum() == 0


def test_layers_are_composited_over_a_background(head):
    drawn = draw(head)
    background = np.array((0.2, 0.4, 0.6))
    over = drawn.over(background)
    empty = drawn.regions == Region.BACKGROUND
    np.testing.assert_allclose(
        over[empty], np.broadcast_to((0.2, 0.4, 0.6), over[empty].shape), atol=1e-6
    )
    full = drawn.rgba[..., 3] == 1
    np.testing.assert_array_equal(over[full], drawn.rgba[full][:, :3])


def test_srgb_and_linear_are_inverse():
    values = np.linspace(0, 1, 101, dtype=np.float32)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=2e-6)
    assert abs(float(to_linear(0.5)) - 0.214) < 1e-3


def test_normals_point_out_of_the_face(head):
    vertices = head.template(ADA)
    normals = vertex_normals(vertices, head.faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-5)
    lips = head.vertex_regions == Region.LIPS
    assert (normals[lips, 2] > 0).mean() > 0.9


def test_heads_that_cannot_be_drawn_are_refused(head):
    with pytest.raises(InputError, match="behind the camera"):
        render(head, ADA, None, None, look_at(distance=0.1), intrinsics(32), 32, 32)
    with pytest.raises(InputError, match="expression must be"):
        render(head, ADA, np.zeros(51), None, look_at(), intrinsics(32), 32, 32)
    with pytest.raises(InputError, match="viewmat must be"):
        render(head, ADA, None, None, np.eye(3), intrinsics(32), 32, 32)
