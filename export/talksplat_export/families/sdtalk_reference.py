"""A clip as SDTalk's published networks render it, nothing baked, in torch.

What a bundle is measured against. Only what is no network is shared with the runtime: the
tracks, the noise and the Gaussian rasterizer.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talksplat.families.sdtalk import DEFAULT_SEED
from talksplat.families.sdtalk_noise import draw_noise
from talksplat.manifest import AudioContract, RasterizerContract, WindowContract
from talksplat.tracks import Track
from talksplat_export.families.base import ByteImage, FloatArray, Probe, Reference
from talksplat_export.families.sdtalk import FeatureGaussians, MotionNetwork, Sdtalk
from talksplat_export.families.sdtalk_graphs import NoisePolicy, RefinerGraph, noise_inputs
from talksplat_export.rasterization import rasterize
from talksplat_export.scene import Scene
from talksplat_export.training.rendering import truncate_to_uint8

PROBES = 3
"""Frames of a clip, evenly spread, whose graphs are probed."""


class SdtalkReference:
    """Renders clips of one person.

    Args:
        model: the network.
        flame: the person's Gaussians of the mesh, at rest.
        dense: those of both planes.
        scene: cameras; its ``upper_face`` is the eyes.
        rasterizer: the rules the Gaussians were trained with.
        noise: what the refiner adds; under ``"input"`` maps are drawn as a session draws them.
    """

    def __init__(
        self,
        model: Sdtalk,
        flame: FeatureGaussians,
        dense: FeatureGaussians,
        scene: Scene,
        rasterizer: RasterizerContract,
        noise: NoisePolicy,
    ) -> None:
        self.flame = _Field(model.motion_net_flame, flame)
        self.dense = _Field(model.motion_net_dense, dense)
        self.refiner = RefinerGraph(model.upsampler, noise)
        inputs = noise_inputs(model.upsampler) if noise == "input" else {}
        self.noise_shapes = {name: tuple(maps.shape) for name, maps in inputs.items()}
        self.scene = scene
        self.rasterizer = rasterizer
        self.viewmats = Track(scene.viewmats)
        self.eyes = Track(scene.upper_face)

    @torch.no_grad()
    def render(self, windows: FloatArray) -> Reference:
        """One frame per window [T,16,D], and probes of the graphs at some of them."""
        frames = len(windows)
        probed = set(np.linspace(0, frames - 1, PROBES).astype(int).tolist())
        probes: dict[str, list[Probe]] = {"motion": [], "refiner": []}
        images: list[ByteImage] = []
        for frame in range(frames):
            conditions = {
                "audio_window": torch.from_numpy(windows[frame])[None],
                "eyes": torch.from_numpy(self.eyes.at(frame))[None],
            }
            gaussians = self.animate(**conditions)
            features = self.draw(gaussians, frame)
            drawn = draw_noise(self.noise_shapes, DEFAULT_SEED, frame)
            noises = {name: torch.from_numpy(array) for name, array in drawn.items()}
            image = self.refiner(features, *noises.values())
            images.append(truncate_to_uint8(image[0].permute(1, 2, 0)).numpy())
            if frame in probed:
                moved = {
                    name: getattr(gaussians, name)
                    for name in ("means", "scales", "quats", "opacities")
                }
                probes["motion"].append(_probe(conditions, moved))
                inputs = {"features": features, **noises}
                probes["refiner"].append(_probe(inputs, {"image": image}))
        return Reference(probes, np.stack(images))

    def animate(self, audio_window: Tensor, eyes: Tensor) -> FeatureGaussians:
        """The Gaussians of one frame, those of the mesh first."""
        fields = (self.flame, self.dense)
        return FeatureGaussians.concatenated([field(audio_window, eyes) for field in fields])

    def draw(self, gaussians: FeatureGaussians, frame: int) -> Tensor:
        """Features [1,D,H,W] as a frame's camera sees them, zero where nothing is."""
        rules = self.rasterizer
        picture, _ = rasterize(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities[:, 0],
            gaussians.features,
            torch.from_numpy(self.viewmats.at(frame))[None],
            torch.from_numpy(self.scene.K)[None].float(),
            self.scene.width,
            self.scene.height,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
        )
        return picture.permute(0, 3, 1, 2).contiguous()


class _Field:
    """One motion network and the Gaussians that it moves."""

    def __init__(self, network: MotionNetwork, gaussians: FeatureGaussians) -> None:
        self.network = network
        self.gaussians = gaussians
        with torch.no_grad():
            self.positions = network.encode_positions(gaussians.means)

    def __call__(self, audio_window: Tensor, eyes: Tensor) -> FeatureGaussians:
        return self.gaussians.moved(self.network(self.positions, audio_window, eyes))


def audio_windows(
    tokens: FloatArray, audio: AudioContract, window: WindowContract, frames: int
) -> FloatArray:
    """What every frame hears, [frames,16,D], of a clip's tokens [L,D]; zero beyond its ends."""
    step = audio.frame_tokens
    after = max(0, frames * step - len(tokens)) + window.tokens
    padded = F.pad(torch.from_numpy(tokens), (0, 0, window.tokens_before, after))
    heard = [padded[step * frame :][: window.tokens] for frame in range(frames)]
    return torch.stack(heard).numpy()


def _probe(inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Probe:
    return Probe(_arrays(inputs), _arrays(outputs))


def _arrays(tensors: dict[str, Tensor]) -> dict[str, FloatArray]:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}
