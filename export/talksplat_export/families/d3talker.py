"""D3-Talker: dual decoupled deformation fields for few-shot 3D talking heads.

"D³-Talker: Dual-Branch Decoupled Deformation Fields for Few-Shot 3D Talking Head Synthesis",
ECAI 2025 (doi 10.3233/FAIA251143). No code was published; what the paper leaves open follows its
lineage (TalkingGaussian, InsTaG) and is named in :class:`D3TalkerConfig`.

Facial Motion drives the **General Field**, shared by all identities and pre-trained; audio drives
the **Individual Field** of one identity. Both predict the same attributes and are added.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from talksplat_export.gaussians import ActiveGaussians, GaussianSet
from talksplat_export.layers.audio_branch import AudioBranch
from talksplat_export.layers.facial_motion import MotionEncoder, TemporalConvolution
from talksplat_export.layers.grid_encoder import GridLocation, TriPlaneGrid
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron
from talksplat_export.layers.style_unet import StyleUNet, StyleUNetConfig

GridLocations = tuple[GridLocation, GridLocation, GridLocation]

GRID_BOUND = 0.15
FACE_GRID = (16, 256 * GRID_BOUND)
MOUTH_GRID = (64, 384 * GRID_BOUND)
UPPER_FACE_WIDTH = 6
_UPPER_FACE_HEAD_START = 4.0

# Output scales of the lineage: raw network outputs are of order one, movements of order 0.01.
FACE_MOVE = (0.01, 0.01, 0.01)
GENERAL_MOUTH_MOVE = (0.002, 0.01, 0.002)
INDIVIDUAL_MOUTH_MOVE = (0.01, 0.01, 0.01)


@dataclass(frozen=True)
class D3TalkerConfig:
    """Everything about a D3-Talker that its tensors' shapes do not say.

    Attributes:
        sh_degree: degree of the spherical harmonics.
        feature_width: width D of the speech features.
        condition_width: width of F_Motion, F_M and F_A (32 in the paper).
        tcn_radius: j, frames on either side that the temporal convolution sees.
        pncc_size: side of the PNCC images in pixels.
        motion_channels: channels of E_diff.
        upper_face: whether both face fields see the action units 1,4,5,6,7,45.
        mouth_attention: whether the mouth fields use region attention (the paper: every field).
        refiner: sizes of the coarse-to-fine network.
    """

    sh_degree: int = 1
    feature_width: int = 32
    condition_width: int = 32
    tcn_radius: int = 2
    pncc_size: int = 64
    motion_channels: tuple[int, ...] = (16, 32, 32, 64)
    upper_face: bool = True
    mouth_attention: bool = True
    refiner: StyleUNetConfig = field(
        default_factory=lambda: StyleUNetConfig(
            patch=4,
            encoder_widths=(16, 16, 32, 32, 48, 48),
            generator_widths=(16, 16, 32, 32, 48, 48),
            style_width=64,
            style_layers=2,
            residual=True,
            noise=False,
        )
    )

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as stored in a checkpoint."""
        stored: dict[str, Any] = _plain(asdict(self))
        return stored

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`; unknown keys raise ``TypeError``."""
        values = dict(stored)
        values["motion_channels"] = tuple(values["motion_channels"])
        refiner: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.pop("refiner").items()
        }
        return cls(refiner=StyleUNetConfig(**refiner), **values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Conditions:
    """What moves the Gaussians in one frame.

    Attributes:
        facial_motion: F_M [1,32], from the temporal convolution.
        audio: F_A [1,32], from the audio branch.
        upper_face: [1,6], action units 1,4,5,6,7,45; ``None`` where the config has none.
    """

    facial_motion: Tensor
    audio: Tensor
    upper_face: Tensor | None


@dataclass(frozen=True)
class BakedField:
    """A field at fixed points with everything constant worked out.

    The perceptron's first layer has no bias and its input is a concatenation, so
    ``W·[x; a⊙c] = W_x·x + (a·diag(c))·W_cᵀ``: the first term and the attention ``a`` are constants
    of the identity.

    Attributes:
        first_layer: [N,H], the grid features through the first layer.
        attention: [N,A], region attention of the condition (and of the upper face, if any).
    """

    first_layer: Tensor
    attention: Tensor


class DeformationField(nn.Module):
    """Tri-plane grid, region attention and a decoder (D3-Talker, section 3.3).

    Args:
        grid: base and finest resolution of the grids.
        hidden: widths of the decoder's hidden layers.
        out_width: 10 (Δmeans, Δquats, Δscales) for the face, 3 (Δmeans) for the mouth.
        move: factors of the three Δmeans outputs.
        condition_width: width of the condition.
        upper_face: whether the action units are a second condition.
        region_attention: ``False`` broadcasts the condition, as TalkingGaussian's mouth does.
    """

    move: Tensor

    def __init__(
        self,
        grid: tuple[int, float],
        hidden: tuple[int, ...],
        out_width: int,
        move: tuple[float, float, float],
        condition_width: int,
        upper_face: bool,
        region_attention: bool,
    ) -> None:
        super().__init__()
        self.grid = TriPlaneGrid(*grid, bound=GRID_BOUND)
        self.condition_width = condition_width
        width = self.grid.width
        self.att_net = (
            MultilayerPerceptron((width, 32, condition_width)) if region_attention else None
        )
        self.eye_att_net = (
            MultilayerPerceptron((width, 16, UPPER_FACE_WIDTH)) if upper_face else None
        )
        conditions = condition_width + (UPPER_FACE_WIDTH if upper_face else 0)
        self.sigma_net = MultilayerPerceptron((width + conditions, *hidden, out_width))
        scale = torch.ones(out_width)
        scale[:3] = torch.tensor(move)
        self.register_buffer("move", scale, persistent=False)
        # Start from rest: the decoder's last layer small, so that nothing moves at first.
        with torch.no_grad():
            last = self.sigma_net.net[-1]
            assert isinstance(last, nn.Linear)
            last.weight.mul_(0.1)
            if self.eye_att_net is not None:
                # Action units come in 0..1, and a blink is a few frames in a hundred: without a
                # head start the lids are still open when everything else has converged.
                first, attention = self.sigma_net.net[0], self.eye_att_net.net[-1]
                assert isinstance(first, nn.Linear) and isinstance(attention, nn.Linear)
                first.weight[:, -UPPER_FACE_WIDTH:].mul_(_UPPER_FACE_HEAD_START)
                attention.weight.mul_(_UPPER_FACE_HEAD_START)

    def bake(self, locations: GridLocations) -> BakedField:
        """Everything that depends on the points alone."""
        features = self.grid.look_up(locations)
        attentions = [
            self.att_net(features)
            if self.att_net is not None
            else features.new_ones(features.shape[0], self.condition_width)
        ]
        if self.eye_att_net is not None:
            attentions.append(torch.relu(self.eye_att_net(features)))
        first = self.sigma_net.net[0]
        assert isinstance(first, nn.Linear)
        return BakedField(
            features @ first.weight[:, : self.grid.width].T, torch.cat(attentions, dim=1)
        )

    def deform(self, baked: BakedField, condition: Tensor, upper_face: Tensor | None) -> Tensor:
        """Deformation [N, out_width] of the baked points under the conditions [1,32] and [1,6]."""
        if self.eye_att_net is not None:
            assert upper_face is not None
            condition = torch.cat([condition, upper_face], dim=1)
        first = self.sigma_net.net[0]
        assert isinstance(first, nn.Linear)
        conditioned = first.weight[:, self.grid.width :] * condition
        hidden = baked.first_layer + baked.attention @ conditioned.T
        return self.sigma_net.after_first_layer(hidden) * self.move

    def forward(
        self, locations: GridLocations, condition: Tensor, upper_face: Tensor | None
    ) -> Tensor:
        """The field as published, nothing precomputed; equals ``deform(bake(...))``."""
        features = self.grid.look_up(locations)
        parts = [features]
        if self.att_net is not None:
            parts.append(self.att_net(features) * condition)
        else:
            parts.append(condition.expand(features.shape[0], -1))
        if self.eye_att_net is not None:
            assert upper_face is not None
            parts.append(torch.relu(self.eye_att_net(features)) * upper_face)
        out: Tensor = self.sigma_net(torch.cat(parts, dim=1)) * self.move
        return out


class FacePair(nn.Module):
    """A field for the face and one for the inside of the mouth."""

    def __init__(self, face: DeformationField, mouth: DeformationField) -> None:
        super().__init__()
        self.face = face
        self.mouth = mouth


def general_fields(config: D3TalkerConfig) -> FacePair:
    """The General Field: shared by all identities, driven by Facial Motion."""
    width = config.condition_width
    return FacePair(
        DeformationField(
            FACE_GRID, (64, 64), 10, FACE_MOVE, width, config.upper_face, region_attention=True
        ),
        DeformationField(
            MOUTH_GRID, (32, 32), 3, GENERAL_MOUTH_MOVE, width, False, config.mouth_attention
        ),
    )


def individual_fields(config: D3TalkerConfig) -> FacePair:
    """The Individual Field of one identity: driven by audio, trained from scratch."""
    width = config.condition_width
    return FacePair(
        DeformationField(
            FACE_GRID, (32, 32), 10, FACE_MOVE, width, config.upper_face, region_attention=True
        ),
        DeformationField(
            FACE_GRID, (16, 16), 3, INDIVIDUAL_MOUTH_MOVE, width, False, config.mouth_attention
        ),
    )


class Identity(nn.Module):
    """One person: static Gaussians of face and mouth, and the Individual Field."""

    def __init__(self, config: D3TalkerConfig, face: GaussianSet, mouth: GaussianSet) -> None:
        super().__init__()
        self.config = config
        self.face = face
        self.mouth = mouth
        self.individual = individual_fields(config)

    def in_morton_order(self) -> Identity:
        """The same person with the Gaussians in the order that is quickest to draw."""
        ordered = Identity(self.config, self.face.in_morton_order(), self.mouth.in_morton_order())
        ordered.individual.load_state_dict(self.individual.state_dict())
        return ordered.requires_grad_(self.face.means.requires_grad)


@dataclass(frozen=True)
class FieldLocations:
    """Where an identity's Gaussians fall in the four grids."""

    general_face: GridLocations
    general_mouth: GridLocations
    individual_face: GridLocations
    individual_mouth: GridLocations


@dataclass(frozen=True)
class Deformations:
    """What the four fields say in one frame; face [N,10], mouth [M,3]."""

    general_face: Tensor
    individual_face: Tensor
    general_mouth: Tensor
    individual_mouth: Tensor


class D3Talker(nn.Module):
    """The identity-agnostic part: conditions, General Field and refiner."""

    def __init__(self, config: D3TalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.motion_encoder = MotionEncoder(
            config.pncc_size, config.motion_channels, config.condition_width
        )
        self.temporal = TemporalConvolution(config.tcn_radius, config.condition_width)
        self.audio_branch = AudioBranch(config.feature_width, config.condition_width)
        self.general = general_fields(config)
        self.refiner = StyleUNet(config.refiner)

    def locate(self, identity: Identity) -> FieldLocations:
        """Look the Gaussians' positions up in the grids; again whenever they have moved."""
        face, mouth = identity.face.means, identity.mouth.means
        return FieldLocations(
            self.general.face.grid.locate(face),
            self.general.mouth.grid.locate(mouth),
            identity.individual.face.grid.locate(face),
            identity.individual.mouth.grid.locate(mouth),
        )

    def conditions(
        self, pncc_window: Tensor, audio_window: Tensor, upper_face: Tensor | None
    ) -> Conditions:
        """From PNCC differences [2j+1,3,h,w], audio window [1,8,D,16] and action units [1,6]."""
        facial_motion = self.temporal(self.motion_encoder(pncc_window)[None])
        return Conditions(
            facial_motion,
            self.audio_branch(audio_window),
            upper_face if self.config.upper_face else None,
        )

    def deformations(
        self, identity: Identity, locations: FieldLocations, conditions: Conditions
    ) -> Deformations:
        """All four fields at the identity's Gaussians."""
        upper = conditions.upper_face
        motion, audio = conditions.facial_motion, conditions.audio
        individual = identity.individual
        return Deformations(
            self.general.face(locations.general_face, motion, upper),
            individual.face(locations.individual_face, audio, upper),
            self.general.mouth(locations.general_mouth, motion, None),
            individual.mouth(locations.individual_mouth, audio, None),
        )


def deform(
    identity: Identity, deformations: Deformations | None
) -> tuple[ActiveGaussians, ActiveGaussians]:
    """Face and mouth Gaussians with the two fields' deformations added; ``None`` is at rest."""
    if deformations is None:
        return identity.face.activate(), identity.mouth.activate()
    face = deformations.general_face + deformations.individual_face
    mouth = deformations.general_mouth + deformations.individual_mouth
    # Only the position of the inside of the mouth moves.
    still = mouth.new_zeros(mouth.shape[0], 7)
    return identity.face.activate(face), identity.mouth.activate(torch.cat([mouth, still], 1))


def config_field_names() -> list[str]:
    """Names a stored config may have."""
    return [item.name for item in fields(D3TalkerConfig)]
