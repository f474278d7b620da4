"""The frame graphs of SDTalk, and what is worked out once per person.

The motion networks see where a Gaussian rests, what is said and the eyes. With g the grid features
of a resting position, c the encoded speech (or eyes), A₀ and A₁ the channel attention and W₀ the
first layer, the part of the first layer that the condition reaches is

    W₀ · (c ⊙ A₁·relu(A₀·g))  =  (W₀·diag(c)·A₁) · relu(A₀·g),

a small matrix per frame times a constant of the Gaussian. So neither hash grid nor attention is in
a frame graph, and its weights are the checkpoint's alone: it serves every person.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from talksplat_export.families.sdtalk import FeatureGaussians, MotionNetwork, Sdtalk
from talksplat_export.layers.multilayer_perceptron import MultilayerPerceptron
from talksplat_export.layers.style_unet import StyleUNet

NoisePolicy = Literal["zero", "stored", "input"]

REGIONS = ("flame", "dense")
"""The two motion networks: Gaussians of the mesh, and of both planes."""


def bake(model: Sdtalk, flame: FeatureGaussians, dense: FeatureGaussians) -> dict[str, Tensor]:
    """Constant inputs of :class:`MotionGraph`, by name and in order.

    ======================  =======  =====================================================
    ``flame_rest``          [N,11]   means, quats, scales and opacity at rest
    ``flame_first``         [N,64]   grid features through the first layer
    ``flame_attention``     [N,48]   hidden layers of the attention to speech 32, eyes 16
    ``dense_…``             [M,…]    the same of the planes' Gaussians
    ======================  =======  =====================================================
    """
    baked: dict[str, Tensor] = {}
    networks = (model.motion_net_flame, model.motion_net_dense)
    for region, network, gaussians in zip(REGIONS, networks, (flame, dense), strict=True):
        positions = network.encode_positions(gaussians.means)
        first, _ = _split_first_layer(network)
        attentions = (network.aud_ch_att_net, network.eye_att_net)
        hidden = [torch.relu(attention.net[0](positions)) for attention in attentions]
        baked |= {
            f"{region}_rest": gaussians.geometry,
            f"{region}_first": positions @ first.T,
            f"{region}_attention": torch.cat(hidden, dim=1),
        }
    return {name: tensor.detach().contiguous() for name, tensor in baked.items()}


def _split_first_layer(network: MotionNetwork) -> tuple[Tensor, Tensor]:
    """Columns of the first layer that see the position, and those that see the conditions."""
    weight = network.motion_net.net[0].weight
    assert isinstance(weight, Tensor)
    first_attention = network.aud_ch_att_net.net[0]
    assert isinstance(first_attention, nn.Linear)
    positions = first_attention.in_features
    return weight.detach()[:, :positions], weight.detach()[:, positions:]


class BakedMotion(nn.Module):
    """What a frame still computes of one motion network. Matrices act on rows, ``row @ matrix``."""

    audio_attention: Tensor
    eye_attention: Tensor
    audio_first: Tensor
    eye_first: Tensor

    def __init__(self, network: MotionNetwork) -> None:
        super().__init__()
        self.network = network
        _, conditions = _split_first_layer(network)
        audio_attention = _last_layer(network.aud_ch_att_net)
        audio, eyes = conditions.split(
            [len(audio_attention), conditions.shape[1] - len(audio_attention)], dim=1
        )
        for name, matrix in (
            ("audio_attention", audio_attention),
            ("eye_attention", _last_layer(network.eye_att_net)),
            ("audio_first", audio),
            ("eye_first", eyes),
        ):
            self.register_buffer(name, matrix.T.contiguous(), persistent=False)

    def forward(
        self, first: Tensor, attention: Tensor, audio_window: Tensor, eyes: Tensor
    ) -> Tensor:
        """Movement [N,11]; arguments as :func:`bake` and :meth:`MotionNetwork.forward`."""
        audio = self.network.encode_audio(audio_window)
        eyelids = self.network.eye_net(eyes)
        matrix = torch.cat(
            [
                (self.audio_attention * audio) @ self.audio_first,
                (self.eye_attention * eyelids) @ self.eye_first,
            ]
        )
        return self.network.motion_net.after_first_layer(first + attention @ matrix)


def _last_layer(perceptron: MultilayerPerceptron) -> Tensor:
    weight = perceptron.net[-1].weight
    assert isinstance(weight, Tensor)
    return weight.detach()


class MotionGraph(nn.Module):
    """``motion.onnx``: a window of speech, the eyes and the baked tensors, to Gaussians."""

    def __init__(self, model: Sdtalk) -> None:
        super().__init__()
        self.flame = BakedMotion(model.motion_net_flame)
        self.dense = BakedMotion(model.motion_net_dense)

    def forward(
        self,
        audio_window: Tensor,
        eyes: Tensor,
        flame_rest: Tensor,
        flame_first: Tensor,
        flame_attention: Tensor,
        dense_rest: Tensor,
        dense_first: Tensor,
        dense_attention: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means [N,3], scales [N,3], quats [N,4], opacities [N,1], the mesh's Gaussians first."""
        flame = flame_rest + self.flame(flame_first, flame_attention, audio_window, eyes)
        dense = dense_rest + self.dense(dense_first, dense_attention, audio_window, eyes)
        moved = torch.cat([flame, dense])
        means, quats, scales, opacities = torch.split(moved, [3, 4, 3, 1], dim=1)
        return means, scales, quats, opacities


class RefinerGraph(nn.Module):
    """``refiner.onnx``: drawn features [1,C,S,S], and noise where it is an input, to a picture.

    Args:
        upsampler: the checkpoint's.
        noise: ``"zero"`` adds none, ``"stored"`` the checkpoint's maps, ``"input"`` takes maps as
            inputs ``noise0``, ``noise1``, …
    """

    def __init__(self, upsampler: StyleUNet, noise: NoisePolicy) -> None:
        super().__init__()
        self.upsampler = without_noise(upsampler) if noise == "zero" else upsampler

    def forward(self, features: Tensor, *noises: Tensor) -> Tensor:
        return self.upsampler(features, *noises)


def without_noise(network: StyleUNet) -> StyleUNet:
    """The same network with no noise added anywhere, which no longer holds maps of it."""
    silent = StyleUNet(replace(network.config, noise=False)).to(next(network.parameters()))
    state = network.state_dict()
    silent.load_state_dict({name: state[name] for name in silent.state_dict()})
    return silent.train(network.training).requires_grad_(False)


def noise_inputs(upsampler: StyleUNet) -> dict[str, Tensor]:
    """Names and the checkpoint's own values of the refiner's inputs under the policy "input"."""
    stored = upsampler.stylegan_decoder.stored_noises
    return {f"noise{index}": noise for index, noise in enumerate(stored)}
