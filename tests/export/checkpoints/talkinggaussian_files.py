"""Checkpoints with random weights in the layouts of TalkingGaussian and InsTaG.

Written from the published layout alone: names and shapes stand here a second time, on purpose. No
weight is zero; some Gaussians lie outside the grids' bound, quaternions are not of unit length, and
some opacities are negative before activation, as trained ones are.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

Family = Literal["talkinggaussian", "instag"]
Audio = Literal["deepspeech", "esperanto", "hubert", "ave"]

FEATURE_WIDTHS = {"deepspeech": 29, "esperanto": 44, "hubert": 1024}
WINDOWS = {"deepspeech": (29, 16), "esperanto": (44, 16), "hubert": (1024, 2), "ave": (512, 1)}
"""D and W of an audio window [1,8,D,W]."""

_GRIDS = {"face": (16, 38.4), "mouth": (64, 57.6)}
_NUMPY_2, _NUMPY_1 = b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n"


class Weights:
    """A seeded source of state dicts."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def perceptron(self, name: str, *widths: int) -> dict[str, Tensor]:
        pairs = itertools.pairwise(widths)
        return {
            f"{name}.net.{i}.weight": self.normal(n_out, n_in, std=1.4 / n_in**0.5)
            for i, (n_in, n_out) in enumerate(pairs)
        }

    def layer(self, name: str, *shape: int) -> dict[str, Tensor]:
        fan_in = int(np.prod(shape[1:]))
        return {
            f"{name}.weight": self.normal(*shape, std=(2 / fan_in) ** 0.5),
            f"{name}.bias": self.normal(shape[0], std=0.1),
        }

    def grids(self, kind: str) -> dict[str, Tensor]:
        base, finest = _GRIDS[kind]
        factor = np.exp2(np.log2(finest / base) / 11)
        rows = [-(-((int(np.ceil(base * factor**level)) + 1) ** 2) // 8) * 8 for level in range(12)]
        offsets = torch.tensor([0, *np.cumsum(rows).tolist()], dtype=torch.int32)
        state = {}
        for plane in ("xy", "yz", "xz"):
            state[f"encoder_{plane}.embeddings"] = self.uniform(
                int(offsets[-1]), 1, low=-0.5, high=0.5
            )
            state[f"encoder_{plane}.offsets"] = offsets.clone()
        return state

    def audio_nets(self, family: Family, audio: Audio) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        if audio == "ave":
            for index, shape in ((0, (256, 512)), (2, (128, 256)), (4, (32, 128))):
                state |= self.layer(f"audio_net.encoder_fc1.{index}", *shape)
        else:
            width = FEATURE_WIDTHS[audio]
            hidden = 128 if family == "instag" and width >= 128 else 32
            channels = (width, hidden, hidden, 64, 64)
            for index, (n_in, n_out) in enumerate(itertools.pairwise(channels)):
                state |= self.layer(f"audio_net.encoder_conv.{2 * index}", n_out, n_in, 3)
            state |= self.layer("audio_net.encoder_fc1.0", 64, 64)
            state |= self.layer("audio_net.encoder_fc1.2", 32, 64)
        channels = (32, 16, 8, 4, 2, 1)
        for index, (n_in, n_out) in enumerate(itertools.pairwise(channels)):
            state |= self.layer(f"audio_att_net.attentionConvNet.{2 * index}", n_out, n_in, 3)
        return state | self.layer("audio_att_net.attentionNet.0", 8, 8)

    def face_network(self, family: Family, audio: Audio, hidden: int = 64) -> dict[str, Tensor]:
        return {
            **self.audio_nets(family, audio),
            **self.grids("face"),
            **self.perceptron("exp_encode_net", 5, 16, 5),
            **self.perceptron("eye_att_net", 36, 16, 6),
            **self.perceptron("sigma_net", 74, hidden, hidden, 11),
            **self.perceptron("aud_ch_att_net", 36, 32, 32),
        }

    def mouth_network(self, family: Family, audio: Audio) -> dict[str, Tensor]:
        hooked = family == "instag"
        state = {
            **self.audio_nets(family, audio),
            **self.grids("mouth"),
            **self.perceptron("sigma_net", 71 if hooked else 68, 32, 32, 7 if hooked else 3),
            **self.perceptron("aud_ch_att_net", 36, 32, 32),
        }
        return state | (self.perceptron("scaler_net", 39, 16, 16, 1) if hooked else {})

    def personal_network(self, region: str, audio: Audio) -> dict[str, Tensor]:
        if region == "face":
            state = self.face_network("instag", audio, hidden=32)
            return state | self.perceptron("align_net", 36, 32, 6)
        return {
            **self.audio_nets("instag", audio),
            **self.grids("face"),
            **self.perceptron("sigma_net", 68, 16, 16, 7),
            **self.perceptron("align_net", 36, 16, 6),
            **self.perceptron("aud_ch_att_net", 36, 32, 32),
        }

    def optimiser(self, rate: Any) -> dict[str, Any]:
        """State of an Adam whose learning rate went through NumPy."""
        state = {"step": torch.tensor(3.0), "exp_avg": self.normal(4, 3)}
        groups = [{"lr": rate, "name": "xyz", "betas": (0.9, 0.999), "params": [0]}]
        return {"state": {0: state}, "param_groups": groups}

    def capture(
        self, family: Family, region: str, audio: Audio, count: int, degree: int, rate: Any
    ) -> tuple[Any, ...]:
        """What ``GaussianModel.capture()`` returns."""
        extent = torch.tensor([0.17, 0.17, 0.17] if region == "face" else [0.04, 0.02, 0.03])
        means = self.uniform(count, 3, low=-1, high=1) * extent
        means[:1] = torch.tensor([0.05, -0.03, 0.02])
        coefficients = (degree + 1) ** 2
        scales = torch.log(torch.expm1(self.uniform(count, 3, low=0.003, high=0.02)))
        trained = (
            means,
            self.normal(count, 1, 3),
            self.normal(count, coefficients - 1, 3, std=0.3),
            torch.zeros(count, 1),
            scales,
            self.normal(count, 4, std=2),
            self.normal(count, 1, std=2),
        )
        items: tuple[Any, ...] = (
            degree,
            *(nn.Parameter(tensor) for tensor in trained),
            self.uniform(count, low=0, high=20),
            self.uniform(count, 1, low=0, high=1),
            self.uniform(count, 1, low=1, high=9),
            self.optimiser(rate),
            rate,
        )
        if family == "talkinggaussian":
            return items
        renderer = {"bound": torch.tensor(0.18), "encoder_x.embeddings": self.normal(100, 2)}
        return (*items, renderer, self.personal_network(region, audio))


def fused(
    family: Family,
    audio: Audio = "deepspeech",
    *,
    face: int = 300,
    mouth: int = 80,
    degree: int = 2,
    rate: Any = None,
    seed: int = 0,
) -> tuple[Any, ...]:
    """The content of ``chkpnt_fuse_latest.pth``."""
    weights = Weights(seed)
    rate = np.float64(1.6e-4) if rate is None else rate
    return (
        weights.capture(family, "face", audio, face, degree, rate),
        weights.face_network(family, audio),
        weights.capture(family, "mouth", audio, mouth, degree, rate),
        weights.mouth_network(family, audio),
    )


def one_region(content: tuple[Any, ...], region: str, seed: int = 5) -> tuple[Any, ...]:
    """The content of ``chkpnt_face_latest.pth`` or ``chkpnt_mouth_latest.pth``."""
    first = 0 if region == "face" else 2
    return (*content[first : first + 2], Weights(seed).optimiser(np.float64(1e-3)), 10000)


def pretrained(content: tuple[Any, ...], region: str, seed: int = 6) -> tuple[Any, ...]:
    """What InsTaG's pre-training saves: the universal network alone."""
    return one_region(content, region, seed)[1:]


def save(content: Any, path: Path, *, numpy_1: bool = False) -> Path:
    """Write a file as a machine with a GPU does, its storages tagged ``cuda:0``.

    ``numpy_1`` names NumPy's scalars as NumPy 1 does.
    """
    with patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(content, path)
    if numpy_1:
        _rename_scalars(path)
    return path


def _rename_scalars(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            if name.endswith("data.pkl"):
                assert _NUMPY_2 in data
                data = data.replace(_NUMPY_2, _NUMPY_1)
            archive.writestr(name, data)


def write_cfg_args(folder: Path, arguments: Mapping[str, object]) -> Path:
    """``cfg_args`` beside a checkpoint: the ``repr`` of an argparse Namespace."""
    path = folder / "cfg_args"
    inner = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    path.write_text(f"Namespace({inner})")
    return path
