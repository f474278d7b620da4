"""A clip as the authors' code of TalkingGaussian and InsTaG renders it, nothing baked, in torch.

What a bundle is measured against. Only what is no network is shared with the runtime: the tracks
and the Gaussian rasterizer.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talksplat.manifest import RasterizerContract
from talksplat.tracks import Track
from talksplat_export.audio_encoders.base import SAMPLES_PER_FRAME, AudioEncoder
from talksplat_export.families.base import ByteImage, FloatArray, Probe, Reference
from talksplat_export.families.talkinggaussian import (
    WINDOW_FRAMES,
    AudioInput,
    GaussianTalker,
)
from talksplat_export.gaussians import ActiveGaussians
from talksplat_export.rasterization import rasterize
from talksplat_export.scene import Scene
from talksplat_export.training.rendering import truncate_to_uint8

FPS = 25
FRAMES_BEFORE = 4
FRAMES_AFTER = WINDOW_FRAMES - FRAMES_BEFORE - 1
PROBES = 6
"""Frames of a clip, evenly spread, whose graphs are probed."""


class GaussianTalkerReference:
    """Renders clips of one talking head.

    Args:
        model: what to render.
        audio: the speech features it hears.
        scene: cameras, background and upper face.
        rasterizer: the rules the Gaussians were trained with.
        mouth_dilation: as in ``GaussianTalkerOptions``.
    """

    def __init__(
        self,
        model: GaussianTalker,
        audio: AudioInput,
        scene: Scene,
        rasterizer: RasterizerContract,
        mouth_dilation: int,
    ) -> None:
        self.model = model
        self.audio = audio
        self.scene = scene
        self.rasterizer = rasterizer
        self.mouth_dilation = mouth_dilation
        self.viewmats = Track(scene.viewmats)
        self.upper_face = Track(scene.upper_face)
        self.plate = torch.from_numpy(scene.background).float() / 255
        self.face_features = model.face_features()
        self.mouth_features = model.mouth_features()

    @torch.no_grad()
    def render(self, features: FloatArray, frames: int) -> Reference:
        """Frames 0 … ``frames`` - 1 of a clip, and probes of the motion graphs at some of them.

        Args:
            features: tokens [L,D], or windows per frame [T,W,D].
            frames: how many.
        """
        windows = audio_windows(features, self.audio, frames)
        probed = set(np.linspace(0, frames - 1, PROBES).astype(int).tolist())
        probes: dict[str, list[Probe]] = {"motion_face": [], "motion_mouth": []}
        images = []
        for frame in range(frames):
            upper_face = torch.from_numpy(self.upper_face.at(frame))[None]
            face, move = self.model.animate_face(self.face_features, windows[frame], upper_face)
            mouth = self.model.animate_mouth(self.mouth_features, windows[frame], move)
            images.append(self.composite(face, mouth, frame))
            if frame in probed:
                inputs = {"audio_window": windows[frame], "upper_face": upper_face}
                moves = {} if move is None else {"move": move}
                probes["motion_face"].append(_probe(inputs, {**_gaussians(face), **moves}))
                probes["motion_mouth"].append(_probe({**inputs, **moves}, _gaussians(mouth)))
        return Reference(probes, np.stack(images))

    def composite(self, face: ActiveGaussians, mouth: ActiveGaussians, frame: int) -> ByteImage:
        """``R_f + (R_m + B (1 - A_m')) (1 - A_f)``, [H,W,3], truncated.

        ``A_m'`` is the mouth's alpha, or the largest one within ``mouth_dilation`` pixels: the
        background does not show through at the rim of the mouth.
        """
        mouth_color, mouth_alpha = self._layer(mouth, frame)
        face_color, face_alpha = self._layer(face, frame)
        if self.mouth_dilation:
            mouth_alpha = dilate(mouth_alpha, self.mouth_dilation)
        behind = mouth_color + self.plate * (1 - mouth_alpha)
        image: ByteImage = truncate_to_uint8(face_color + behind * (1 - face_alpha)).numpy()
        return image

    def _layer(self, gaussians: ActiveGaussians, frame: int) -> tuple[Tensor, Tensor]:
        """Colour [H,W,3] over black and alpha [H,W,1]."""
        rules = self.rasterizer
        colors, alphas = rasterize(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            gaussians.shs,
            torch.from_numpy(self.viewmats.at(frame))[None],
            torch.from_numpy(self.scene.K)[None].float(),
            self.scene.width,
            self.scene.height,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            sh_degree=rules.sh_degree,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
        )
        return colors[0], alphas[0]


def dilate(alpha: Tensor, side: int) -> Tensor:
    """The largest alpha [H,W,1] in a square of ``side`` (odd) pixels around each one."""
    pooled = F.max_pool2d(alpha[None, ..., 0], side, stride=1, padding=side // 2)
    return pooled[0][..., None]


def audio_windows(features: FloatArray, audio: AudioInput, frames: int) -> Tensor:
    """What every frame hears, [frames,1,8,D,W]: frames i-4 … i+3, zero beyond the features.

    Args:
        features: tokens [L,D] at ``audio.feature_rate``, or windows per frame [T,W,D].
        audio: the speech features.
        frames: how many frames the clip has.
    """
    rows = torch.from_numpy(features).float()
    if rows.ndim == 2:
        rows = _frame_windows(rows, audio)
    elif rows.shape[1:] == (audio.feature_width, 1) and audio.tokens == 1:
        rows = rows.transpose(1, 2)
    rows = rows.transpose(1, 2)
    missing = max(0, frames - len(rows))
    padded = F.pad(rows, (0, 0, 0, 0, FRAMES_BEFORE, FRAMES_AFTER + missing))
    windows = [padded[frame : frame + WINDOW_FRAMES] for frame in range(frames)]
    return torch.stack(windows)[:, None]


def _frame_windows(tokens: Tensor, audio: AudioInput) -> Tensor:
    """Tokens [L,D] cut into windows per frame [T,W,D], zero beyond the clip."""
    own = audio.feature_rate // FPS
    frames = -(-len(tokens) // own)
    after = frames * own - len(tokens) + audio.tokens
    padded = F.pad(tokens, (0, 0, audio.tokens_before, after))
    return torch.stack([padded[own * frame :][: audio.tokens] for frame in range(frames)])


@torch.no_grad()
def encode_in_blocks(
    encoder: AudioEncoder, pcm: FloatArray
) -> tuple[FloatArray, dict[str, list[Probe]]]:
    """Features [L,D] of a clip as a bundle makes them, block by block, and probes of some."""
    blocks, constants = encoder.blocks, tuple(encoder.constants.values())
    step = SAMPLES_PER_FRAME * blocks.block_frames
    count = -(-len(pcm) // step)
    end = count * step - len(pcm) + blocks.right_samples
    padded = torch.from_numpy(np.pad(pcm, (blocks.left_samples, end)))[None]
    own_tokens = blocks.block_frames * encoder.feature_rate // FPS
    probed = set(np.linspace(0, count - 1, PROBES).astype(int).tolist())
    tokens, probes = [], []
    for block in range(count):
        window = padded[:, step * block :][:, : blocks.left_samples + step + blocks.right_samples]
        features = encoder.module(window, *constants)
        tokens.append(features[0, blocks.left_tokens :][:own_tokens])
        if block in probed:
            probes.append(_probe({"pcm": window}, {"features": features}))
    frames = -(-len(pcm) // SAMPLES_PER_FRAME)
    features = torch.cat(tokens)[: frames * encoder.feature_rate // FPS]
    return features.numpy(), {"audio_encoder": probes}


def made_up_features(audio: AudioInput, frames: int, seed: int = 0) -> FloatArray:
    """Tokens [L,D] about as slow as speech, to measure on where no encoder is at hand."""
    generator = np.random.default_rng(seed)
    count = frames * audio.feature_rate // FPS
    noise = generator.normal(size=(count + 4, audio.feature_width))
    smooth = np.stack([noise[i : i + count] for i in range(5)]).mean(axis=0)
    return np.tanh(2 * smooth).astype(np.float32)


def _gaussians(gaussians: ActiveGaussians) -> dict[str, Tensor]:
    return {"means": gaussians.means, "scales": gaussians.scales, "quats": gaussians.quats}


def _probe(inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Probe:
    return Probe(_arrays(inputs), _arrays(outputs))


def _arrays(tensors: dict[str, Tensor]) -> dict[str, FloatArray]:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}
