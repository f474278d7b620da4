"""TalkingGaussian and InsTaG in float64 NumPy, straight from the items of a checkpoint.

Nothing of the exporter's networks is used but the look-up in the hash grids, which has a plain
counterpart of its own (``tests/export/layers/test_grid_encoder.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talksplat_export.layers.grid_encoder import TriPlaneGrid

Array = NDArray[np.float64]
State = dict[str, Tensor]


@dataclass(frozen=True)
class PlainGaussians:
    """A region's Gaussians, activated."""

    means: Array
    scales: Array
    quats: Array
    move: Array | None = None


def talkinggaussian(
    content: tuple[Any, ...], window: Array, units: Array, *, mouth_attention: bool = False
) -> tuple[PlainGaussians, PlainGaussians]:
    """Face and mouth under an audio window [1,8,D,W] and action units [1,6]."""
    face, face_net, mouth, mouth_net = content
    face_out = _face_net(face_net, _grid(face_net, "face", _array(face[1])), window, units)
    mouth_features = _grid(mouth_net, "mouth", _array(mouth[1]))
    audio = _audio(mouth_net, window)
    if mouth_attention:
        audio = audio * _perceptron(mouth_net, "aud_ch_att_net", mouth_features)
    hidden = np.hstack([mouth_features, np.broadcast_to(audio, (len(mouth_features), 32))])
    moved = _perceptron(mouth_net, "sigma_net", hidden) * 0.01
    moved[:, 0] /= 5
    moved[:, 2] /= 5
    return _active(face, face_out), _active(mouth, {"xyz": moved})


def instag(
    content: tuple[Any, ...],
    window: Array,
    units: Array,
    *,
    mouth_attention: bool = False,
    aligned: bool = True,
    personalized: bool = False,
) -> tuple[PlainGaussians, PlainGaussians]:
    """The same for InsTaG; the face's answer holds ``move``."""
    face, face_net, mouth, mouth_net = content
    out = _region(face, face_net, "face", aligned, lambda f: _face_net(face_net, f, window, units))
    if personalized:
        personal = _face_net(face[14], _grid(face[14], "face", _array(face[1])), window, units)
        out = {name: out[name] + personal[name] for name in out}
    if aligned:
        out["xyz"] *= _aligner(face[14], _array(face[1]))[1]
    ordered = np.sort(out["xyz"][:, 1])
    low, high = ordered[9], ordered[-10]
    move = 100 * np.array([[high, low, high - low]])

    def universal(features: Array) -> dict[str, Array]:
        audio = _audio(mouth_net, window)
        if mouth_attention:
            audio = audio * _perceptron(mouth_net, "aud_ch_att_net", features)
        rows = len(features)
        moves = np.broadcast_to(move, (rows, 3))
        hidden = np.hstack([features, np.broadcast_to(audio, (rows, 32)), moves])
        moved = _perceptron(mouth_net, "sigma_net", hidden)[:, :3] * [0.002, 0.01, 0.002]
        amount = _perceptron(mouth_net, "scaler_net", np.hstack([features, moves]))
        return {"xyz": moved * 2 / (1 + np.exp(-amount))}

    mouth_out = _region(mouth, mouth_net, "mouth", aligned, universal)
    if personalized:
        features = _grid(mouth[14], "face", _array(mouth[1]))
        audio = _audio(mouth[14], window) * _perceptron(mouth[14], "aud_ch_att_net", features)
        moved = _perceptron(mouth[14], "sigma_net", np.hstack([features, audio]))[:, :3]
        mouth_out["xyz"] += moved * 0.01
    return _active(face, out, move), _active(mouth, mouth_out)


def _region(
    capture: tuple[Any, ...],
    network: State,
    kind: str,
    aligned: bool,
    answer: Callable[[Array], dict[str, Array]],
) -> dict[str, Array]:
    means = _array(capture[1])
    if aligned:
        means = means + _aligner(capture[14], means)[0]
    return answer(_grid(network, kind, means))


def _aligner(personal: State, means: Array) -> tuple[Array, Array]:
    out = _perceptron(personal, "align_net", _grid(personal, "face", means))
    return out[:, :3] * 0.01, np.tanh(out[:, 3:] / 5) * 0.25 + 1


def _face_net(network: State, features: Array, window: Array, units: Array) -> dict[str, Array]:
    audio = _audio(network, window) * _perceptron(network, "aud_ch_att_net", features)
    encoded = np.hstack([_perceptron(network, "exp_encode_net", units[:, :5]), units[:, 5:]])
    eyes = encoded * np.maximum(_perceptron(network, "eye_att_net", features), 0)
    out = _perceptron(network, "sigma_net", np.hstack([features, audio, eyes]))
    return {"xyz": out[:, :3] * 0.01, "quats": out[:, 3:7], "scales": out[:, 8:11]}


def _active(
    capture: tuple[Any, ...], deformation: dict[str, Array], move: Array | None = None
) -> PlainGaussians:
    quats = _array(capture[6]) + deformation.get("quats", 0)
    scales = _array(capture[5]) + deformation.get("scales", 0)
    return PlainGaussians(
        _array(capture[1]) + deformation["xyz"],
        np.log1p(np.exp(scales)),
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        move,
    )


def _grid(network: State, kind: str, means: Array) -> Array:
    resolutions = {"face": (16, 256 * 0.15), "mouth": (64, 384 * 0.15)}
    grid = TriPlaneGrid(*resolutions[kind], bound=0.15)
    grid.load_state_dict({k: v for k, v in network.items() if k.startswith("encoder_")})
    with torch.no_grad():
        features: Array = grid.double()(torch.from_numpy(means)).numpy()
    return features


def _perceptron(network: State, name: str, x: Array) -> Array:
    layer = 0
    while (key := f"{name}.net.{layer}.weight") in network:
        x = (x if layer == 0 else np.maximum(x, 0)) @ _array(network[key]).T
        layer += 1
    return x


def _audio(network: State, window: Array) -> Array:
    """[1,8,D,W] to [1,32], frame by frame and sum by sum."""
    frames = np.stack([_audio_frame(network, frame) for frame in window[0]])
    scores = frames.T
    for index in (0, 2, 4, 6, 8):
        scores = _leaky(_convolution(network, f"audio_att_net.attentionConvNet.{index}", scores, 1))
    scores = _linear(network, "audio_att_net.attentionNet.0", scores[0])
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum())[None] @ frames


def _audio_frame(network: State, tokens: Array) -> Array:
    if "audio_net.encoder_conv.0.weight" not in network:
        x = _leaky(_linear(network, "audio_net.encoder_fc1.0", tokens[:, 0]))
        x = _leaky(_linear(network, "audio_net.encoder_fc1.2", x))
        return _linear(network, "audio_net.encoder_fc1.4", x)
    for index in (0, 2, 4, 6):
        tokens = _leaky(_convolution(network, f"audio_net.encoder_conv.{index}", tokens, 2))
    x = _leaky(_linear(network, "audio_net.encoder_fc1.0", tokens[:, 0]))
    return _linear(network, "audio_net.encoder_fc1.2", x)


def _convolution(network: State, name: str, x: Array, stride: int) -> Array:
    """Kernel 3, padding 1."""
    weight, bias = _array(network[f"{name}.weight"]), _array(network[f"{name}.bias"])
    padded = np.pad(x, ((0, 0), (1, 1)))
    places = range(0, x.shape[1], stride)
    columns = [np.einsum("oik,ik->o", weight, padded[:, at : at + 3]) + bias for at in places]
    return np.stack(columns, axis=1)


def _linear(network: State, name: str, x: Array) -> Array:
    return _array(network[f"{name}.weight"]) @ x + _array(network[f"{name}.bias"])


def _leaky(x: Array) -> Array:
    return np.where(x < 0, 0.02 * x, x)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()
