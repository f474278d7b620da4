"""SDTalk's networks: what published weights were trained with, odd as it is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.checkpoints.sdtalk_files import FEATURE_SIZE, SMALL_CONFIG, make_content
from torch import Tensor

from talksplat_export.checkpoints import sdtalk
from talksplat_export.families.sdtalk import (
    BOUND,
    DIRECTION_WIDTH,
    FeatureGaussians,
    MotionNetwork,
    PlaneGenerator,
    Sdtalk,
    encode_direction,
)

DIRECTION = torch.tensor([[0.1, -0.2, -0.97]])
SIZE = 24


@pytest.fixture(scope="module")
def model() -> Sdtalk:
    return sdtalk.read(make_content(), Path("SDGTalk.pt")).model


def _vertices(model: Sdtalk, points: Tensor | None = None) -> FeatureGaussians:
    torch.manual_seed(0)
    vector = torch.randn(1, SMALL_CONFIG.image_encoder.transformer.width)
    points = torch.randn(SMALL_CONFIG.vertices, 3) if points is None else points
    return model.gs_generator_g(model.head_base, vector, DIRECTION, points)


def _feature_map() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(1, SMALL_CONFIG.image_encoder.width, SIZE, SIZE)


def test_direction_is_encoded_coordinate_by_coordinate() -> None:
    found = encode_direction(DIRECTION.double())[0].numpy()
    angles = [2.0**k * float(x) for x in DIRECTION[0].double() for k in range(4)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    expected += DIRECTION[0].double().tolist()
    assert len(found) == DIRECTION_WIDTH == 27
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_rotations_of_the_mesh_are_normalised_along_the_vertices(model: Sdtalk) -> None:
    """Every component has length one over all vertices; no quaternion is of unit length."""
    quats = _vertices(model).quats
    torch.testing.assert_close(quats.norm(dim=0), torch.ones(4))
    assert float(quats.norm(dim=1).max()) < 0.7


def test_a_vertex_left_out_before_would_change_the_rotations_of_the_others(model: Sdtalk) -> None:
    few = model.gs_generator_g(
        model.head_base[:10],
        torch.zeros(1, SMALL_CONFIG.image_encoder.transformer.width),
        DIRECTION,
        torch.zeros(10, 3),
    )
    every = model.gs_generator_g(
        model.head_base,
        torch.zeros(1, SMALL_CONFIG.image_encoder.transformer.width),
        DIRECTION,
        torch.zeros(SMALL_CONFIG.vertices, 3),
    )
    torch.testing.assert_close(few.features, every.features[:10])
    assert not torch.allclose(few.quats, every.quats[:10], atol=0.05)


def test_colours_of_the_mesh_have_the_logistic_function_on_three_channels(model: Sdtalk) -> None:
    generator = model.gs_generator_g
    seen: list[Tensor] = []
    hook = generator.color_layers.register_forward_hook(lambda *args: seen.append(args[2]))
    features = _vertices(model).features
    hook.remove()
    torch.testing.assert_close(features[:, :3], torch.sigmoid(seen[0][:, :3]))
    assert torch.equal(features[:, 3:], seen[0][:, 3:])
    assert float(features[:, 3:].min()) < 0


def test_scales_and_opacities_are_bounded_and_means_are_the_vertices(model: Sdtalk) -> None:
    points = torch.randn(SMALL_CONFIG.vertices, 3)
    gaussians = _vertices(model, points)
    assert torch.equal(gaussians.means, points)
    for tensor, top in ((gaussians.scales, 0.05), (gaussians.opacities, 1.0)):
        assert 0 < float(tensor.min()) < float(tensor.max()) < top


def _raw_planes(generator: PlaneGenerator) -> Tensor:
    encoded = encode_direction(DIRECTION)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    return generator.gaussian_conv(torch.cat([_feature_map(), encoded], dim=1))


def test_colours_of_the_planes_have_the_logistic_function_on_three_columns(model: Sdtalk) -> None:
    """Of the picture, in all channels; everywhere else they are as the network says."""
    generator = model.gs_generator_l0
    raw = _raw_planes(generator)[0, :32]
    features = generator(_feature_map(), DIRECTION, torch.zeros(SIZE**2, 3), 1.0).features
    picture = features.view(SIZE, SIZE, 32)
    torch.testing.assert_close(picture[:, :3], torch.sigmoid(raw[:, :, :3]).permute(1, 2, 0))
    assert torch.equal(picture[:, 3:], raw[:, :, 3:].permute(1, 2, 0))
    assert float(picture[:, 3:, :3].min()) < 0, "not even the first three channels are bounded"


def test_channels_of_the_planes(model: Sdtalk) -> None:
    """Colours 0-31, opacity 32, scales 33-35, rotation 36-39, position 40; rows of the picture."""
    generator = model.gs_generator_l1
    points = torch.randn(SIZE**2, 3)
    found = generator(_feature_map(), DIRECTION, points, -1.0)
    raw = _raw_planes(generator)[0]
    row, column = 5, 17
    pixel, index = raw[:, row, column], row * SIZE + column
    torch.testing.assert_close(found.opacities[index], torch.sigmoid(pixel[32:33]))
    torch.testing.assert_close(found.scales[index], 0.05 * torch.sigmoid(pixel[33:36]))
    torch.testing.assert_close(found.quats[index], pixel[36:40] / pixel[36:40].norm())
    moved = points[index] - torch.sigmoid(pixel[40]) * DIRECTION[0]
    torch.testing.assert_close(found.means[index], moved)


def test_the_first_plane_lies_behind_and_the_second_in_front(model: Sdtalk) -> None:
    size = SMALL_CONFIG.image_encoder.transformer.image_size
    points = torch.zeros(SIZE**2, 3)
    _, planes = model.resting_gaussians(
        torch.rand(1, 3, size, size), torch.zeros(SMALL_CONFIG.vertices, 3), points, DIRECTION
    )
    depths = planes.means @ DIRECTION[0]
    assert float(depths[: SIZE**2].min()) > 0 > float(depths[SIZE**2 :].max())


def test_a_feature_map_of_another_size_is_resized(model: Sdtalk) -> None:
    size = SMALL_CONFIG.image_encoder.transformer.image_size
    own = SMALL_CONFIG.image_encoder.output_size
    for side in (own, SIZE):
        _, planes = model.resting_gaussians(
            torch.rand(1, 3, size, size),
            torch.zeros(SMALL_CONFIG.vertices, 3),
            torch.zeros(side**2, 3),
            DIRECTION,
        )
        assert planes.means.shape == (2 * side**2, 3)


def _network(model: Sdtalk) -> MotionNetwork:
    return model.motion_net_dense


@pytest.mark.parametrize(
    ("point", "silent"),
    [
        ((0.3, -0.2, 0.1), ""),
        ((BOUND, BOUND, -BOUND), ""),  # exactly on the border is inside
        ((1.16, 0.0, 0.0), "xy xz"),
        ((0.0, -1.2, 0.0), "xy yz"),
        ((0.0, 0.0, 1.3), "yz xz"),
        ((1.2, 0.0, -1.2), "xy yz xz"),
    ],
)
def test_points_out_of_bound_have_no_features_on_the_planes_they_leave(
    model: Sdtalk, point: tuple[float, float, float], silent: str
) -> None:
    features = _network(model).encode_positions(torch.tensor([point]))[0]
    for index, plane in enumerate(("xy", "yz", "xz")):
        values = features[12 * index : 12 * index + 12]
        assert bool(values.any()) == (plane not in silent.split()), plane


def test_hashed_levels_are_read_where_the_hash_says(model: Sdtalk) -> None:
    """Levels 10 and 11 have more corners than rows; x XOR y·2654435761, modulo 2^17."""
    grid = _network(model).encoder_yz
    table = grid.embeddings.detach().double().numpy()[:, 0]
    points = torch.empty(50, 3).uniform_(-BOUND, BOUND)
    features = _network(model).encode_positions(points)[:, 12:24].detach().numpy()
    unit = ((points[:, 1:] + BOUND) / (2 * BOUND)).double().numpy()
    exponent = math.log2(512 * BOUND / 16) / 11
    for level, start in ((10, 197216), (11, 328288)):
        scale = float(np.exp2(np.float32(level * exponent)) * np.float32(16)) - 1
        for index, position in enumerate(unit * scale + 0.5):
            cell = np.floor(position).astype(int)
            t, expected = position - cell, 0.0
            for dx in (0, 1):
                for dy in (0, 1):
                    row = ((cell[0] + dx) ^ ((cell[1] + dy) * 2654435761 % 2**32)) % 2**17
                    weight = (t[0] if dx else 1 - t[0]) * (t[1] if dy else 1 - t[1])
                    expected += weight * table[start + row]
            # float32 coordinates of cells of 1/589 of the side, on tables of -1..1.
            assert features[index, level] == pytest.approx(expected, abs=3e-4)


def test_motion_network_is_the_published_one(model: Sdtalk) -> None:
    """From the description alone, with the state dict's names, in float64."""
    network = _network(model)
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    generator = np.random.default_rng(0)
    positions = generator.normal(size=(7, 36))
    window = generator.normal(size=(16, FEATURE_SIZE))
    eyes = generator.normal(size=6)

    def perceptron(x: np.ndarray, name: str, count: int, last: bool) -> np.ndarray:
        for index in range(count):
            layer = f"{name}.{2 * index}"
            x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
            if last or index + 1 < count:
                x = np.where(x > 0, x, 0.02 * x)
        return x

    def plain(x: np.ndarray, name: str, count: int) -> np.ndarray:
        for index in range(count):
            x = x @ state[f"{name}.net.{index}.weight"].T
            x = np.maximum(x, 0) if index + 1 < count else x
        return x

    tokens = perceptron(window, "audio_net.encoder_mlp", 5, last=False)
    scores = perceptron(tokens, "audio_att_net.attention_mlp", 5, last=True)[:, 0]
    fc = "audio_att_net.attention_fc.0"
    scores = np.exp(state[f"{fc}.weight"] @ scores + state[f"{fc}.bias"])
    audio = scores / scores.sum() @ tokens
    eyelids = perceptron(eyes, "eye_net.encoder_mlp", 3, last=False)
    hidden = np.concatenate(
        [
            positions,
            audio * plain(positions, "aud_ch_att_net", 2),
            eyelids * plain(positions, "eye_att_net", 2),
        ],
        axis=1,
    )
    found = network(
        *(torch.from_numpy(x).float() for x in (positions, window[None], eyes[None]))
    ).numpy()
    np.testing.assert_allclose(found, plain(hidden, "motion_net", 3), rtol=0, atol=1e-5)


def test_motion_is_added_and_nothing_is_put_in_order_after_it() -> None:
    rest = FeatureGaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[0.5, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), 0.01),
        opacities=torch.full((1, 1), 0.9),
        features=torch.randn(1, 32),
    )
    motion = torch.tensor([[1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 0.4, -0.03, 0.0, 0.02, 0.6]])
    moved = rest.moved(motion)
    torch.testing.assert_close(moved.means, torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(moved.quats, torch.tensor([[0.6, 0.2, 0.3, 0.4]]))
    torch.testing.assert_close(moved.scales, torch.tensor([[-0.02, 0.01, 0.03]]))
    torch.testing.assert_close(moved.opacities, torch.tensor([[1.5]]))
    assert moved.features is rest.features
