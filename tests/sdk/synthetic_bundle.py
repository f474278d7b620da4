"""A tiny D3-Talker bundle that obeys the contract, made with onnx.helper: no torch, no training.

Its networks are random convolutions and sums, so that every input moves every frame a little;
its face is a few dozen Gaussians.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from talksplat.bundle import Bundle, BundleWriter
from talksplat.manifest import (
    AudioBlocks,
    AudioContract,
    Baked,
    Camera,
    D3TalkerContract,
    Licence,
    Manifest,
    PnccContract,
    Provenance,
    RasterizerContract,
    Tolerances,
    VideoContract,
    WindowContract,
)

WIDTH, HEIGHT = 64, 48
BLOCK_FRAMES = 3
MOTION_RADIUS = 2
FACE, MOUTH = 40, 20
FEATURES, EXPRESSION, MOTION = 4, 5, 8
PNCC_SIZE = 16

# Token t reads samples [320t - 160, 320t + 480), frame f reads tokens 2f - 2 … 2f + 3.
LEFT_TOKENS = RIGHT_TOKENS = 2
LEFT_SAMPLES = RIGHT_SAMPLES = 800
BLOCKS = AudioBlocks(
    block_frames=BLOCK_FRAMES,
    left_samples=LEFT_SAMPLES,
    right_samples=RIGHT_SAMPLES,
    left_tokens=LEFT_TOKENS,
    right_tokens=RIGHT_TOKENS,
)


def synthetic_manifest() -> Manifest:
    """The manifest of the bundle, before files are listed."""
    return Manifest(
        family="d3talker",
        name="synthetic",
        created_with={"talksplat": "0.1.0", "onnx": onnx.__version__},
        provenance=Provenance(checkpoint="none.pt", checkpoint_sha256="0" * 64),
        licence=Licence(name="Apache-2.0", attribution="made by the tests"),
        precision="float32",
        audio=AudioContract(
            sample_rate=16000,
            fps=25,
            features="noise",
            feature_rate=50,
            feature_size=FEATURES,
            blocks=BLOCKS,
        ),
        video=VideoContract(width=WIDTH, height=HEIGHT, fps=25),
        rasterizer=RasterizerContract(
            dialect="gsplat", rasterize_mode="classic", sh_degree=1, near_plane=0.01, eps2d=0.3
        ),
        camera=Camera(K=((80.0, 0.0, WIDTH / 2), (0.0, 80.0, HEIGHT / 2), (0.0, 0.0, 1.0))),
        d3talker=D3TalkerContract(
            window=WindowContract(frames_before=4, frames_after=3, tokens=16, tokens_before=8),
            motion_radius=MOTION_RADIUS,
            motion_size=MOTION,
            expression_size=EXPRESSION,
            pncc=PnccContract(
                width=PNCC_SIZE, height=PNCC_SIZE, scale=60.0, centre=(0.0, 0.0), background=0.0
            ),
        ),
        tolerances=Tolerances(graphs={}, frames_psnr_db=50.0),
        baked=Baked(bytes=0, flops_before=0, flops_after=0),
    )


def write_synthetic_bundle(path: Path, seed: int = 0) -> Bundle:
    """Write the bundle to ``path`` and open it."""
    rng = np.random.default_rng(seed)
    with BundleWriter(path) as writer:
        for name, model in _graphs(rng).items():
            writer.add_graph(name, model.SerializeToString())
        writer.add_tensors("baked.safetensors", _rest(rng))
        writer.add_tensors("face.safetensors", appearance(rng, FACE))
        writer.add_tensors("mouth.safetensors", appearance(rng, MOUTH))
        writer.add_tensors("pncc.safetensors", _pncc(rng))
        writer.add_tensors("tracks.safetensors", tracks(rng))
        plate = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        writer.add_tensors("background.safetensors", {"image": plate})
        return writer.commit(synthetic_manifest())


def speech_like(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise with a slow envelope, in -1..1, every sample different."""
    rng = np.random.default_rng(seed)
    envelope = 0.5 + 0.5 * np.sin(np.arange(samples) / 1500.0)
    return (0.3 * envelope * rng.standard_normal(samples)).clip(-1, 1).astype(np.float32)


def uniform(rng: np.random.Generator, *shape: int, scale: float) -> NDArray[np.float32]:
    return rng.uniform(-scale, scale, shape).astype(np.float32)


def audio_encoder(rng: np.random.Generator) -> onnx.ModelProto:
    """pcm → features, 50 tokens per second, by a convolution over 640 samples."""
    samples = 640 * BLOCK_FRAMES + LEFT_SAMPLES + RIGHT_SAMPLES
    tokens = 2 * BLOCK_FRAMES + LEFT_TOKENS + RIGHT_TOKENS
    return make_model(
        [
            helper.make_node("Unsqueeze", ["pcm", "axis"], ["channel"]),
            helper.make_node("Conv", ["channel", "kernel"], ["conv"], strides=[320]),
            helper.make_node("Tanh", ["conv"], ["tanh"]),
            helper.make_node("Transpose", ["tanh"], ["features"], perm=[0, 2, 1]),
        ],
        {"pcm": [1, samples]},
        {"features": [1, tokens, FEATURES]},
        {
            "axis": np.array([1], np.int64),
            "kernel": uniform(rng, FEATURES, 1, 640, scale=0.2),
        },
    )


def _graphs(rng: np.random.Generator) -> dict[str, onnx.ModelProto]:
    tokens = 2 * BLOCK_FRAMES + LEFT_TOKENS + RIGHT_TOKENS
    encoder = audio_encoder(rng)
    to_motion = make_model(
        [
            helper.make_node("Transpose", ["features"], ["channels"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["channels", "kernel"], ["conv"], strides=[2]),
            helper.make_node("Transpose", ["conv"], ["expression"], perm=[0, 2, 1]),
        ],
        {"features": [1, tokens, FEATURES]},
        {"expression": [1, BLOCK_FRAMES, EXPRESSION]},
        {"kernel": uniform(rng, EXPRESSION, FEATURES, 6, scale=0.5)},
    )
    motion_encoder = make_model(
        [
            helper.make_node("Reshape", ["pncc_difference", "flat"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "weight"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["facial_motion"]),
        ],
        {"pncc_difference": [1, 3, PNCC_SIZE, PNCC_SIZE]},
        {"facial_motion": [1, MOTION]},
        {
            "flat": np.array([1, 3 * PNCC_SIZE**2], np.int64),
            "weight": uniform(rng, 3 * PNCC_SIZE**2, MOTION, scale=0.2),
        },
    )
    refiner = make_model(
        [
            helper.make_node("Mul", ["coarse", "gain"], ["bright"]),
            helper.make_node("Clip", ["bright", "zero", "one"], ["image"]),
        ],
        {"coarse": [1, 3, HEIGHT, WIDTH]},
        {"image": [1, 3, HEIGHT, WIDTH]},
        {"gain": np.float32(1.1), "zero": np.float32(0), "one": np.float32(1)},
    )
    return {
        "audio_encoder": encoder,
        "audio_to_motion": to_motion,
        "motion_encoder": motion_encoder,
        "motion": _motion_graph(rng),
        "refiner": refiner,
    }


def _motion_graph(rng: np.random.Generator) -> onnx.ModelProto:
    """means = rest + W · every number of the three conditions; scales and quats are at rest."""
    conditions = {
        "facial_motion": [1, 2 * MOTION_RADIUS + 1, MOTION],
        "audio_window": [1, 8, FEATURES, 16],
        "upper_face": [1, 6],
    }
    nodes, weights = [], {"flat": np.array([1, -1], np.int64)}
    for name, shape in conditions.items():
        weights[f"{name}_weight"] = uniform(rng, int(np.prod(shape)), 3, scale=0.01)
        nodes += [
            helper.make_node("Reshape", [name, "flat"], [f"{name}_row"]),
            helper.make_node("MatMul", [f"{name}_row", f"{name}_weight"], [f"{name}_move"]),
        ]
    nodes.append(helper.make_node("Sum", [f"{name}_move" for name in conditions], ["move"]))
    inputs, outputs = dict(conditions), {}
    for part, count in (("face", FACE), ("mouth", MOUTH)):
        for name, width in (("means", 3), ("scales", 3), ("quats", 4)):
            inputs[f"{part}_rest_{name}"] = [count, width]
            outputs[f"{part}_{name}"] = [count, width]
        nodes += [
            helper.make_node("Add", [f"{part}_rest_means", "move"], [f"{part}_means"]),
            helper.make_node("Identity", [f"{part}_rest_scales"], [f"{part}_scales"]),
            helper.make_node("Identity", [f"{part}_rest_quats"], [f"{part}_quats"]),
        ]
    return make_model(nodes, inputs, outputs, weights)


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    weights: dict[str, NDArray[np.generic]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "synthetic",
        [_value(name, shape) for name, shape in inputs.items()],
        [_value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _rest(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    tensors: dict[str, NDArray[np.generic]] = {}
    for part, count in (("face", FACE), ("mouth", MOUTH)):
        quats = rng.standard_normal((count, 4))
        quats /= np.linalg.norm(quats, axis=1, keepdims=True)
        tensors[f"{part}_rest_means"] = uniform(rng, count, 3, scale=0.1)
        tensors[f"{part}_rest_scales"] = rng.uniform(0.005, 0.03, (count, 3)).astype(np.float32)
        tensors[f"{part}_rest_quats"] = quats.astype(np.float32)
    return tensors


def appearance(rng: np.random.Generator, count: int) -> dict[str, NDArray[np.generic]]:
    return {
        "opacities": rng.uniform(0.2, 0.95, (count, 1)).astype(np.float32),
        "shs": uniform(rng, count, 4, 3, scale=1.0),
    }


def _pncc(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    template = np.array(
        [[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.1, 0.1, 0.0], [-0.1, 0.1, 0.0], [0.0, 0.0, 0.1]],
        np.float32,
    )
    return {
        "template": template,
        "basis": uniform(rng, EXPRESSION, len(template), 3, scale=0.05),
        "faces": np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]], np.int32),
        "colors": uniform(rng, len(template), 3, scale=1.0),
    }


def tracks(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """A camera at distance 0.7 in front of the face that sways, and a blink."""
    frames = 7
    viewmats = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (frames, 1, 1))
    viewmats[:, 2, 3] = 0.7
    viewmats[:, 0, 3] = 0.01 * np.sin(np.arange(frames))
    upper_face = rng.uniform(0, 1, (frames, 6))
    return {
        "viewmats": viewmats.astype(np.float32),
        "upper_face": upper_face.astype(np.float32),
    }
