"""The mesh z-buffer against a naive reference that tests every pixel centre against every face."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.errors import InputError
from talksplat.mesh import interpolate, rasterize_mesh, render_attributes


def naive_rasterize(positions, faces, width, height):
    """Coverage in exact rational arithmetic (multiples of 1/256), barycentrics in float64."""
    snapped = np.rint(np.asarray(positions, np.float64)[:, :2] * 256).astype(np.int64)
    face_ids = np.full((height, width), -1)
    barycentrics = np.zeros((height, width, 3))
    depth = np.full((height, width), np.inf)
    columns, rows = np.meshgrid(np.arange(width) * 256 + 128, np.arange(height) * 256 + 128)
    for face, corners in enumerate(faces):
        points = snapped[corners]
        order = [0, 1, 2]

        def cross(a, b, x, y):
            return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])

        area = cross(points[0], points[1], *points[2])
        if area == 0:
            continue
        if area < 0:
            order = [0, 2, 1]
        a, b, c = points[order]
        inside = np.ones((height, width), bool)
        weights = np.zeros((height, width, 3))
        for k, (start, end) in zip(order, ((b, c), (c, a), (a, b)), strict=True):
            edge = cross(start, end, columns, rows)
            dx, dy = end - start
            top_left = dy < 0 or (dy == 0 and dx > 0)
            inside &= (edge > 0) | ((edge == 0) & top_left)
            weights[..., k] = edge / abs(area)
        if np.shape(positions)[1] == 4:
            weights = weights / np.asarray(positions, np.float64)[corners, 3]
            weights /= np.where(inside, weights.sum(-1), 1.0)[..., None]
        z = weights @ np.asarray(positions, np.float64)[corners, 2]
        nearer = inside & (z < depth)
        depth[nearer] = z[nearer]
        face_ids[nearer] = face
        barycentrics[nearer] = weights[nearer]
    return face_ids, barycentrics, depth


@pytest.mark.parametrize("components", [3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_random_triangles_match_the_naive_reference(seed, components):
    rng = np.random.default_rng(seed)
    width, height = 37, 23
    positions = rng.uniform(-8, 45, (60, components)).astype(np.float32)
    # Half of the vertices on pixel centres: the fill rule decides there.
    positions[::2, :2] = np.floor(positions[::2, :2]) + 0.5
    positions[:, 2:] = rng.uniform(0.5, 2.0, (60, components - 2))
    faces = rng.integers(0, 60, (40, 3)).astype(np.int32)
    got_ids, got_weights, got_depth = rasterize_mesh(positions, faces, width, height)
    ids, weights, depth = naive_rasterize(positions, faces, width, height)
    np.testing.assert_array_equal(got_ids, ids)
    # Barycentrics of needle triangles lose the digits that their slope has: float32 output.
    np.testing.assert_allclose(got_weights, weights, atol=1e-6)
    np.testing.assert_allclose(got_depth, depth, rtol=1e-6)


def test_a_fan_covers_every_pixel_of_a_square_exactly_once():
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [16, 0], [16, 16], [0, 16]], float)
    for center in [(8, 8), (8.5, 8.5), *rng.uniform(1, 15, (20, 2))]:
        positions = np.column_stack([[center, *corners], np.ones(5)]).astype(np.float32)
        faces = np.array([[0, 1 + k, 1 + (k + 1) % 4] for k in range(4)])
        hits = sum(
            (rasterize_mesh(positions, faces[[k]], 16, 16)[0] == 0).astype(int) for k in range(4)
        )
        np.testing.assert_array_equal(hits, 1)


def test_pixel_centres_on_top_and_left_edges_are_in_and_on_bottom_and_right_edges_out():
    positions = np.array([[1.5, 1.5, 1], [4.5, 1.5, 1], [4.5, 4.5, 1], [1.5, 4.5, 1]], np.float32)
    face_ids, _, _ = rasterize_mesh(positions, [[0, 1, 2], [0, 2, 3]], 6, 6)
    expected = np.zeros((6, 6), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(face_ids >= 0, expected)


@pytest.mark.parametrize("winding", [[0, 1, 2], [0, 2, 1]])
def test_both_windings_are_drawn_with_the_same_interpolation(winding):
    positions = np.array([[0, 0, 1], [8, 0, 2], [0, 8, 3]], np.float32)
    image = render_attributes(positions, [winding], positions, 8, 8)
    face_ids, _, depth = rasterize_mesh(positions, [winding], 8, 8)
    rows, columns = np.nonzero(face_ids == 0)
    np.testing.assert_allclose(image[rows, columns, 0], columns + 0.5, atol=1e-6)
    np.testing.assert_allclose(image[rows, columns, 1], rows + 0.5, atol=1e-6)
    np.testing.assert_allclose(image[rows, columns, 2], depth[rows, columns], rtol=1e-6)


def test_w_gives_what_a_ray_meets_in_space():
    """Pixels of a tilted floor carry the floor's own coordinates where the camera's ray hits it."""
    floor = np.array([[-1, 1, 2], [1, 1, 2], [1, 1, 9], [-1, 1, 9]], float)
    focal, center = 32.0, 16.0
    screen = np.column_stack(
        [floor[:, :2] / floor[:, 2:] * focal + center, floor[:, 2], floor[:, 2]]
    )
    screen = np.round(screen * 256) / 256  # where the snapping leaves them alone
    faces = [[0, 1, 2], [0, 2, 3]]
    image = render_attributes(screen, faces, floor, 32, 32)
    face_ids, _, depth = rasterize_mesh(screen, faces, 32, 32)
    rows, columns = np.nonzero(face_ids >= 0)
    assert len(rows) > 100
    z = focal / (rows + 0.5 - center)
    # Rounding the screen corners to 1/256 pixel moves the far edge by z²/(256·focal) at most.
    np.testing.assert_allclose(image[rows, columns, 2], z, atol=0.02)
    np.testing.assert_allclose(depth[rows, columns], image[rows, columns, 2], rtol=1e-5)
    np.testing.assert_allclose(
        image[rows, columns, 0], (columns + 0.5 - center) / focal * z, atol=0.02
    )


def test_the_nearer_triangle_wins_and_ties_go_to_the_first():
    square = [[0, 0], [8, 0], [8, 8], [0, 8]]
    positions = np.array([[x, y, z] for z in (2.0, 1.0, 1.0) for x, y in square], np.float32)
    faces = np.array(
        [[4 * k + a, 4 * k + b, 4 * k + c] for k in range(3) for a, b, c in ((0, 1, 2), (0, 2, 3))]
    )
    face_ids, _, depth = rasterize_mesh(positions, faces, 8, 8)
    assert set(face_ids.ravel().tolist()) == {2, 3}
    np.testing.assert_array_equal(depth, 1.0)


def test_interpolating_at_covered_pixels_is_rendering_there():
    rng = np.random.default_rng(1)
    positions = rng.uniform(0, 16, (30, 3)).astype(np.float32)
    faces = rng.integers(0, 30, (20, 3))
    attributes = rng.random((30, 5), np.float32)
    face_ids, barycentrics, _ = rasterize_mesh(positions, faces, 16, 16)
    covered = face_ids >= 0
    values = interpolate(faces, face_ids[covered], barycentrics[covered], attributes)
    expected = np.einsum("nk,nkd->nd", barycentrics[covered], attributes[faces[face_ids[covered]]])
    np.testing.assert_allclose(values, expected, atol=1e-6)
    image = render_attributes(positions, faces, attributes, 16, 16, -1.0)
    np.testing.assert_array_equal(image[covered], values)
    assert (image[~covered] == -1).all()


@pytest.mark.parametrize(
    ("face_ids", "barycentrics", "attributes", "message"),
    [
        ([1], np.zeros((1, 3)), np.zeros((3, 2)), "face_ids must lie"),
        ([-1], np.zeros((1, 3)), np.zeros((3, 2)), "face_ids must lie"),
        ([0], np.zeros((2, 3)), np.zeros((3, 2)), "barycentrics"),
        ([0], np.zeros((1, 3)), np.zeros((2, 2)), "faces must index"),
        ([0], np.zeros((1, 3)), np.zeros(3), "attributes"),
    ],
)
def test_places_that_are_not_on_the_mesh_are_refused(face_ids, barycentrics, attributes, message):
    with pytest.raises(InputError, match=message):
        interpolate([[0, 1, 2]], face_ids, barycentrics, attributes)


def test_an_empty_mesh_leaves_the_background():
    background = np.random.default_rng(0).random((4, 5, 2), np.float32)
    empty = np.zeros((0, 3), np.int32)
    image = render_attributes(np.zeros((3, 3)), empty, np.ones((3, 2)), 5, 4, background)
    np.testing.assert_array_equal(image, background)
    face_ids, barycentrics, depth = rasterize_mesh(np.zeros((0, 3)), empty, 5, 4)
    assert (face_ids == -1).all() and (barycentrics == 0).all() and np.isinf(depth).all()


@pytest.mark.parametrize(
    ("positions", "faces", "message"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], "positions must be"),
        (np.zeros((3, 3)), [[0, 1, 3]], "faces must index 3 vertices"),
        (np.zeros((3, 3)), [[0, 1, -1]], "faces must index 3 vertices"),
        (np.zeros((3, 3)), [[0, 1]], "faces must be"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "finite"),
        (np.full((3, 3), 1e7), [[0, 1, 2]], "finite"),
        (np.zeros((3, 4)), [[0, 1, 2]], "w must be positive"),
    ],
)
def test_meshes_that_cannot_be_drawn_are_refused(positions, faces, message):
    with pytest.raises(InputError, match=message):
        rasterize_mesh(positions, faces, 8, 8)


def test_attributes_background_and_size_are_checked():
    with pytest.raises(InputError, match="attributes must be"):
        render_attributes(np.zeros((3, 3)), [[0, 1, 2]], np.zeros((2, 3)), 8, 8)
    with pytest.raises(InputError, match="background must broadcast"):
        render_attributes(np.zeros((3, 3)), [[0, 1, 2]], np.zeros((3, 3)), 8, 8, np.zeros(4))
    with pytest.raises(InputError, match="width and height"):
        rasterize_mesh(np.zeros((3, 3)), [[0, 1, 2]], 0, 8)
