"""D3-Talker: fields, what is baked of them, activations."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.export.avatar_factory import SMALL_CONFIG, make_checkpoint
from torch import Tensor, nn

from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.d3talker import (
    Conditions,
    D3Talker,
    D3TalkerConfig,
    DeformationField,
    FieldLocations,
    GridLocations,
    Identity,
    deform,
)
from talksplat_export.families.d3talker_graphs import MotionGraph, bake
from talksplat_export.gaussians import GaussianSet, inverse_softplus
from talksplat_export.layers.grid_encoder import GridLocation

HEAD = 0.2
"""Chin to crown, world units."""


def in_float64(
    checkpoint: AvatarCheckpoint,
) -> tuple[D3Talker, Identity, FieldLocations]:
    """The networks in float64 at the same points of the same grids."""
    locations = checkpoint.model.locate(checkpoint.identity)
    model, identity = copy.deepcopy((checkpoint.model, checkpoint.identity))
    return (
        model.double(),
        identity.double(),
        FieldLocations(
            _double(locations.general_face),
            _double(locations.general_mouth),
            _double(locations.individual_face),
            _double(locations.individual_mouth),
        ),
    )


def _double(locations: GridLocations) -> GridLocations:
    xy, yz, xz = (GridLocation(at.matrix.double(), at.transposed.double()) for at in locations)
    return xy, yz, xz


def _windows(config: D3TalkerConfig, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Facial motion [1,2j+1,32], audio window [1,8,D,16], upper face [1,6]."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(1, 2 * config.tcn_radius + 1, config.condition_width, generator=generator),
        torch.randn(1, 8, config.feature_width, 16, generator=generator).tanh(),
        torch.rand(1, 6, generator=generator),
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"upper_face": False}, {"mouth_attention": False}, {"sh_degree": 2, "tcn_radius": 4}],
    ids=str,
)
def test_the_frame_graph_is_the_published_network(changes: dict[str, object]) -> None:
    """Baked, in float32, against the fields as published, in float64."""
    config = replace(SMALL_CONFIG, **changes)  # type: ignore[arg-type]
    checkpoint = make_checkpoint(config, face=400, mouth=90)
    baked = bake(checkpoint.model, checkpoint.identity)
    graph = MotionGraph(checkpoint.model, list(baked))
    model, identity, locations = in_float64(checkpoint)
    for seed in range(3):
        windows = _windows(config, seed)
        found = graph(*windows, *baked.values())
        motion, audio, upper_face = (window.double() for window in windows)
        conditions = Conditions(model.temporal(motion), model.audio_branch(audio), upper_face)
        face, mouth = deform(identity, model.deformations(identity, locations, conditions))
        rest = deform(identity, None)[0]
        assert float((face.means - rest.means).abs().max()) > 0.01 * HEAD
        means, scales, quats, mouth_means, mouth_scales, mouth_quats = (x.double() for x in found)
        for positions, expected in ((means, face.means), (mouth_means, mouth.means)):
            torch.testing.assert_close(positions, expected, rtol=0, atol=1e-6 * HEAD)
        for values, expected in (
            (scales, face.scales),
            (quats, face.quats),
            (mouth_scales, mouth.scales),
            (mouth_quats, mouth.quats),
        ):
            # Normalising a quaternion magnifies the rounding of one that is shorter than one.
            torch.testing.assert_close(values, expected, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("upper_face", [True, False])
@pytest.mark.parametrize("region_attention", [True, False])
def test_a_baked_field_equals_the_field(upper_face: bool, region_attention: bool) -> None:
    torch.manual_seed(0)
    field = DeformationField(
        (16, 38.4), (64, 64), 10, (0.01, 0.02, 0.03), 32, upper_face, region_attention
    )
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(std=0.3)
    locations = field.grid.locate(torch.empty(200, 3).uniform_(-0.17, 0.17))
    condition = torch.randn(1, 32)
    units = torch.rand(1, 6) if upper_face else None
    as_published = field(locations, condition, units)
    assert as_published.shape == (200, 10)
    found = field.deform(field.bake(locations), condition, units)
    # Values of order one, summed in another order.
    scale = float(as_published.detach().abs().max())
    torch.testing.assert_close(found, as_published, rtol=0, atol=1e-6 * max(scale, 1.0))


def test_facial_motion_moves_the_general_field_and_audio_the_individual_one() -> None:
    checkpoint = make_checkpoint()
    model, identity = checkpoint.model, checkpoint.identity
    locations = model.locate(identity)
    motion, audio, upper_face = torch.randn(1, 32), torch.randn(1, 32), torch.rand(1, 6)

    def fields(
        motion: Tensor, audio: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        d = model.deformations(identity, locations, Conditions(motion, audio, upper_face))
        return (d.general_face, d.general_mouth), (d.individual_face, d.individual_mouth)

    general, individual = fields(motion, audio)
    for after, before in zip(fields(motion + 1, audio)[1], individual, strict=True):
        assert torch.equal(after, before)
    for after, before in zip(fields(motion, audio + 1)[0], general, strict=True):
        assert torch.equal(after, before)
    assert not torch.equal(fields(motion + 1, audio)[0][0], general[0])
    assert not torch.equal(fields(motion, audio + 1)[1][0], individual[0])


def test_deformations_are_added_before_activation() -> None:
    checkpoint = make_checkpoint(face=30, mouth=20)
    model, identity = checkpoint.model, checkpoint.identity
    conditions = Conditions(torch.randn(1, 32), torch.randn(1, 32), torch.rand(1, 6))
    deformations = model.deformations(identity, model.locate(identity), conditions)
    face, mouth = deform(identity, deformations)
    added = deformations.general_face + deformations.individual_face
    torch.testing.assert_close(face.means, identity.face.means + added[:, :3])
    torch.testing.assert_close(face.scales, F.softplus(identity.face.raw_scales + added[:, 7:]))
    quats = identity.face.raw_quats + added[:, 3:7]
    torch.testing.assert_close(face.quats, quats / quats.norm(dim=1, keepdim=True))
    resting_mouth = identity.mouth.activate()
    moved = deformations.general_mouth + deformations.individual_mouth
    torch.testing.assert_close(mouth.means, identity.mouth.means + moved)
    for name in ("scales", "quats", "opacities", "shs"):
        assert torch.equal(getattr(mouth, name), getattr(resting_mouth, name))
    for name in ("opacities", "shs"):
        assert torch.equal(getattr(face, name), getattr(identity.face.activate(), name))


def test_scales_are_activated_by_softplus() -> None:
    torch.manual_seed(0)
    scales = torch.empty(50, 3).uniform_(1e-4, 0.5)
    gaussians = GaussianSet(torch.zeros(50, 3), scales, torch.randn(50, 4), torch.rand(50, 3))
    active = gaussians.activate()
    # Adding 1 in float32 before the logarithm costs up to 1e-7.
    torch.testing.assert_close(active.scales, scales, rtol=1e-5, atol=2e-7)
    torch.testing.assert_close(active.scales, torch.log1p(torch.exp(gaussians.raw_scales)))
    assert not torch.allclose(active.scales, torch.exp(gaussians.raw_scales), rtol=1e-2)
    torch.testing.assert_close(active.quats.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(active.opacities, torch.full((50,), 0.9))
    assert active.shs.shape == (50, 4, 3)


def test_inverse_softplus_inverts() -> None:
    x = torch.logspace(-6, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(F.softplus(inverse_softplus(x)), x, rtol=1e-9, atol=0)


def test_an_empty_set_takes_the_state_of_a_full_one() -> None:
    torch.manual_seed(0)
    full = GaussianSet(
        torch.randn(7, 3), torch.rand(7, 3), torch.randn(7, 4), torch.rand(7, 3), sh_degree=2
    )
    empty = GaussianSet.empty(7, 2)
    empty.load_state_dict(full.state_dict())
    assert len(empty) == 7
    assert torch.equal(empty.activate().means, full.activate().means)


def test_a_config_survives_being_stored() -> None:
    config = replace(SMALL_CONFIG, tcn_radius=3, upper_face=False)
    assert D3TalkerConfig.from_dict(config.as_dict()) == config
    with pytest.raises(TypeError):
        D3TalkerConfig.from_dict({**config.as_dict(), "colour": 1})


def test_state_dicts_hold_no_constants() -> None:
    model: nn.Module = D3Talker(SMALL_CONFIG)
    assert not [name for name in model.state_dict() if name.endswith("move")]
