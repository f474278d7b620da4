"""Tiny bundles of TalkingGaussian, InsTaG and SDTalk that obey their contracts: no torch.

Their networks are random sums, so that every number of every input moves every frame a little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from synthetic_bundle import (
    BLOCKS,
    FACE,
    FEATURES,
    HEIGHT,
    MOUTH,
    WIDTH,
    appearance,
    audio_encoder,
    make_model,
    synthetic_manifest,
    tracks,
    uniform,
)

from talksplat.bundle import Bundle, BundleWriter
from talksplat.manifest import (
    AudioContract,
    GaussianTalkerContract,
    Manifest,
    RasterizerContract,
    SdtalkContract,
    WindowContract,
)

Arrays = dict[str, NDArray[np.generic]]

CHANNELS = 32
NOISE_SIDES = (4, 8, 8)


@dataclass(frozen=True)
class Variant:
    """What differs between synthetic bundles of the three families."""

    family: Literal["talkinggaussian", "instag", "sdtalk"]
    encoder: bool = True
    tokens: int = 16
    tokens_before: int = 8
    feature_rate: int = 50
    dilation: int = 0
    noise: Literal["zero", "stored", "input"] = "stored"

    @property
    def window(self) -> WindowContract:
        """SDTalk hears one frame, the others eight."""
        before, after = (0, 0) if self.family == "sdtalk" else (4, 3)
        return WindowContract(before, after, self.tokens, self.tokens_before)

    @property
    def manifest(self) -> Manifest:
        """The manifest, before files are listed."""
        window = self.window
        instag = self.family == "instag"
        talker = GaussianTalkerContract(window, instag, instag, self.dilation)
        sdtalk = self.family == "sdtalk"
        return replace(
            synthetic_manifest(),
            family=self.family,
            name=self.family,
            audio=AudioContract(
                sample_rate=16000,
                fps=25,
                features="noise",
                feature_rate=self.feature_rate,
                feature_size=FEATURES,
                blocks=BLOCKS if self.encoder else None,
            ),
            rasterizer=RasterizerContract(
                dialect="inria",
                rasterize_mode="classic",
                sh_degree=0 if sdtalk else 1,
                near_plane=0.2,
                eps2d=0.3,
            ),
            d3talker=None,
            talkinggaussian=None if sdtalk else talker,
            sdtalk=SdtalkContract(window, self.noise) if sdtalk else None,
        )


VARIANTS = {
    "talkinggaussian": Variant("talkinggaussian"),
    "instag": Variant("instag", dilation=13),
    "sdtalk": Variant("sdtalk"),
}
"""One of each family, with an audio encoder."""


def write_family_bundle(path: Path, variant: Variant, seed: int = 0) -> Bundle:
    """Write the bundle to ``path`` and open it."""
    rng = np.random.default_rng(seed)
    with BundleWriter(path) as writer:
        if variant.encoder:
            writer.add_graph("audio_encoder", audio_encoder(rng).SerializeToString())
        if variant.family == "sdtalk":
            _write_sdtalk(writer, variant, rng)
        else:
            _write_talker(writer, variant, rng)
        return writer.commit(variant.manifest)


def _write_talker(writer: BundleWriter, variant: Variant, rng: np.random.Generator) -> None:
    window = variant.window
    heard = {"audio_window": [1, window.frames, FEATURES, window.tokens]}
    face = {**heard, "upper_face": [1, 6]}
    mouth = {**face, "move": [1, 3]} if variant.family == "instag" else heard
    for region, count, conditions in (("face", FACE, face), ("mouth", MOUTH, mouth)):
        outputs = {"means": 3, "scales": 3, "quats": 4}
        move = region == "face" and variant.family == "instag"
        graph = _motion_graph(rng, count, conditions, outputs, move=move)
        writer.add_graph(f"motion_{region}", graph.SerializeToString())
        writer.add_tensors(f"baked_motion_{region}.safetensors", _rest(rng, count, outputs))
        writer.add_tensors(f"{region}.safetensors", appearance(rng, count))
    writer.add_tensors("tracks.safetensors", tracks(rng))
    plate = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    writer.add_tensors("background.safetensors", {"image": plate})


def _write_sdtalk(writer: BundleWriter, variant: Variant, rng: np.random.Generator) -> None:
    conditions = {"audio_window": [1, variant.tokens, FEATURES], "eyes": [1, 6]}
    outputs = {"means": 3, "scales": 3, "quats": 4, "opacities": 1}
    count = FACE + MOUTH
    graph = _motion_graph(rng, count, conditions, outputs)
    writer.add_graph("motion", graph.SerializeToString())
    writer.add_graph("refiner", _refiner(rng, variant).SerializeToString())
    rest = _rest(rng, count, outputs)
    # As the reference implementation leaves them: not unit, negative, below 0 and above 1.
    rest["rest_quats"] *= np.linspace(0.04, 1.5, count, dtype=np.float32)[:, None]  # type: ignore[operator]
    rest["rest_scales"][::7] *= -1  # type: ignore[operator]
    rest["rest_opacities"][::5] = -0.2
    rest["rest_opacities"][1::5] = 1.3
    writer.add_tensors("baked_motion.safetensors", rest)
    writer.add_tensors(
        "gaussians.safetensors", {"features": uniform(rng, count, CHANNELS, scale=2.0)}
    )
    found = tracks(rng)
    writer.add_tensors(
        "tracks.safetensors", {"viewmats": found["viewmats"], "eyes": found["upper_face"] * 9}
    )


def _motion_graph(
    rng: np.random.Generator,
    count: int,
    conditions: dict[str, list[int]],
    outputs: dict[str, int],
    *,
    move: bool = False,
) -> onnx.ModelProto:
    """means = rest + W · every number of the conditions; the rest is at rest."""
    nodes = []
    weights: Arrays = {"flat": np.array([1, -1], np.int64)}
    for name, shape in conditions.items():
        weights[f"{name}_weight"] = uniform(rng, int(np.prod(shape)), 3, scale=0.01)
        nodes += [
            helper.make_node("Reshape", [name, "flat"], [f"{name}_row"]),
            helper.make_node("MatMul", [f"{name}_row", f"{name}_weight"], [f"{name}_part"]),
        ]
    nodes.append(helper.make_node("Sum", [f"{name}_part" for name in conditions], ["offset"]))
    nodes.append(helper.make_node("Add", ["rest_means", "offset"], ["means"]))
    for name in outputs:
        if name != "means":
            nodes.append(helper.make_node("Identity", [f"rest_{name}"], [name]))
    rest = {f"rest_{name}": [count, width] for name, width in outputs.items()}
    answers = {name: [count, width] for name, width in outputs.items()}
    if move:
        answers["move"] = [1, 3]
        nodes.append(helper.make_node("Identity", ["offset"], ["move"]))
    return make_model(nodes, {**conditions, **rest}, answers, weights)


def _refiner(rng: np.random.Generator, variant: Variant) -> onnx.ModelProto:
    """sigmoid(1×1 convolution of the features, plus the mean of the noise maps)."""
    inputs = {"features": [1, CHANNELS, HEIGHT, WIDTH]}
    nodes = [helper.make_node("Conv", ["features", "kernel"], ["colours"])]
    terms = ["colours"]
    if variant.noise == "input":
        for number, side in enumerate(NOISE_SIDES):
            inputs[f"noise{number}"] = [1, 1, side, side]
            nodes.append(helper.make_node("ReduceMean", [f"noise{number}"], [f"mean{number}"]))
            terms.append(f"mean{number}")
    nodes.append(helper.make_node("Sum", terms, ["sum"]))
    nodes.append(helper.make_node("Sigmoid", ["sum"], ["image"]))
    kernel = uniform(rng, 3, CHANNELS, 1, 1, scale=0.3)
    return make_model(nodes, inputs, {"image": [1, 3, HEIGHT, WIDTH]}, {"kernel": kernel})


def _rest(rng: np.random.Generator, count: int, outputs: dict[str, int]) -> Arrays:
    quats = rng.standard_normal((count, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    tensors: Arrays = {
        "rest_means": uniform(rng, count, 3, scale=0.1),
        "rest_scales": rng.uniform(0.005, 0.03, (count, 3)).astype(np.float32),
        "rest_quats": quats.astype(np.float32),
        "rest_opacities": rng.uniform(0.2, 0.95, (count, 1)).astype(np.float32),
    }
    return {f"rest_{name}": tensors[f"rest_{name}"] for name in outputs}
