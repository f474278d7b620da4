import numpy as np
import torch

from talksplat_export.training.initialisation import Surface, gaussians_on_surface


def square(weights):
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0.1, 0], [0, 0.1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return Surface(vertices, faces, np.array(weights, np.float32), np.eye(3, dtype=np.float32)[:2])


def test_gaussians_lie_flat_on_the_surface_in_its_colours():
    gaussians = gaussians_on_surface(square([1, 1]), 500, sh_degree=1, seed=0)
    active = gaussians.activate()
    assert active.means[:, 2].abs().max() < 1e-7
    assert active.means.min() >= 0 and active.means.max() <= 0.1
    # The third axis is the thin one and points along the normal, +z.
    assert (active.scales[:, 2] < active.scales[:, 0]).all()
    torch.testing.assert_close(active.quats[:, 0].abs(), torch.ones(500), atol=1e-5, rtol=0)
    colors = 0.5 + 0.28209479 * active.shs[:, 0]
    assert set(map(tuple, colors.detach().round(decimals=3).tolist())) == {(1, 0, 0), (0, 1, 0)}


def test_weights_say_where_gaussians_are_dense():
    gaussians = gaussians_on_surface(square([3, 1]), 400, sh_degree=0, seed=0)
    below = gaussians.means[:, 1] < gaussians.means[:, 0]
    assert abs(int(below.sum()) - 300) <= 2
