"""The frame graph of D3-Talker: from the conditions of a frame to its Gaussians.

What does not vary within an identity is baked into inputs of the graph, the decoders of its
Individual Field included. The graph itself holds the general model alone: it serves every identity
of that model, with any number of Gaussians.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talksplat_export.families.baked_decoder import normalize_quats
from talksplat_export.families.d3talker import D3Talker, DeformationField, GridLocations, Identity


def bake(model: D3Talker, identity: Identity) -> dict[str, Tensor]:
    """The inputs of the frame graph that never change for an identity, by name and in order.

    ==============================  ========  ====================================================
    ``face_rest``                   [N,10]    means, quaternions and scales before activation
    ``mouth_rest_means``            [M,3]
    ``mouth_rest_quats``            [M,4]     activated, for they do not move
    ``mouth_rest_scales``           [M,3]     activated
    ``<region>_<field>_first``      [N,H]     grid features through the decoder's first layer
    ``<region>_<field>_attention``  [N,A]     region attention of the conditions
    ``<region>_individual_…``       matrices  decoder of the Individual Field: ``condition``
                                              [A,H], ``hidden`` [H,H'], ``output`` [H',10 or 3]
    ==============================  ========  ====================================================
    """
    locations = model.locate(identity)
    individual = identity.individual
    with torch.no_grad():
        face, mouth = identity.face, identity.mouth.activate()
        baked = {
            "face_rest": torch.cat([face.means, face.raw_quats, face.raw_scales], dim=1),
            "mouth_rest_means": mouth.means,
            "mouth_rest_quats": mouth.quats,
            "mouth_rest_scales": mouth.scales,
        }
        baked |= _points("face_general", model.general.face, locations.general_face)
        baked |= _points("face_individual", individual.face, locations.individual_face)
        baked |= _decoder("face_individual", individual.face)
        baked |= _points("mouth_general", model.general.mouth, locations.general_mouth)
        baked |= _points("mouth_individual", individual.mouth, locations.individual_mouth)
        baked |= _decoder("mouth_individual", individual.mouth)
    return {name: tensor.detach().contiguous() for name, tensor in baked.items()}


def _points(prefix: str, field: DeformationField, locations: GridLocations) -> dict[str, Tensor]:
    baked = field.bake(locations)
    return {f"{prefix}_first": baked.first_layer, f"{prefix}_attention": baked.attention}


def _decoder(prefix: str, field: DeformationField) -> dict[str, Tensor]:
    """A decoder laid out for row vectors, ``row @ matrix``, with the movements' factors inside."""
    first, hidden, output = (weight.detach().T for weight in field.sigma_net.parameters())
    return {
        f"{prefix}_condition": first[field.grid.width :],
        f"{prefix}_hidden": hidden,
        f"{prefix}_output": output * field.move,
    }


class MotionGraph(nn.Module):
    """Windows of facial motion and audio, the upper face and the baked tensors, to Gaussians.

    Args:
        model: the general model.
        baked_names: names of the baked tensors, in the order in which they are given.
    """

    def __init__(self, model: D3Talker, baked_names: Sequence[str]) -> None:
        super().__init__()
        self.temporal = model.temporal
        self.audio_branch = model.audio_branch
        self.upper_face = model.config.upper_face
        self.baked_names = tuple(baked_names)
        for region, field in (("face", model.general.face), ("mouth", model.general.mouth)):
            for name, matrix in _decoder(f"{region}_general", field).items():
                self.register_buffer(name, matrix.contiguous())

    def forward(
        self, facial_motion: Tensor, audio_window: Tensor, upper_face: Tensor, *baked: Tensor
    ) -> tuple[Tensor, ...]:
        """Means, scales, quats of the face [N,·] and of the mouth [M,·], activated."""
        constants = dict(self.named_buffers()) | dict(zip(self.baked_names, baked, strict=True))
        motion = self.temporal(facial_motion)
        audio = self.audio_branch(audio_window)
        mouth_means = _add_field(constants["mouth_rest_means"], constants, "mouth_general", motion)
        mouth_means = _add_field(mouth_means, constants, "mouth_individual", audio)
        if self.upper_face:
            motion = torch.cat([motion, upper_face], dim=1)
            audio = torch.cat([audio, upper_face], dim=1)
        face = _add_field(constants["face_rest"], constants, "face_general", motion)
        face = _add_field(face, constants, "face_individual", audio)
        means, quats, scales = torch.split(face, [3, 4, 3], dim=1)
        return (
            means,
            F.softplus(scales),
            normalize_quats(quats),
            mouth_means,
            constants["mouth_rest_scales"].clone(),
            constants["mouth_rest_quats"].clone(),
        )


def _add_field(
    base: Tensor, constants: Mapping[str, Tensor], prefix: str, condition: Tensor
) -> Tensor:
    """``base`` [N,10] or [N,3] plus what one field says under a condition [1,A]."""
    first, attention, matrix, hidden_matrix, output = (
        constants[f"{prefix}_{name}"]
        for name in ("first", "attention", "condition", "hidden", "output")
    )
    # The condition scales the matrix, not the attention of every Gaussian: no pass over N.
    hidden = torch.relu(first + attention @ (matrix * condition.T))
    return base + torch.relu(hidden @ hidden_matrix) @ output
