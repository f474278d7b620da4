"""Every exported graph, in plain ONNX Runtime, against the published networks in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from tests.export.avatar_factory import SMALL_CONFIG, make_checkpoint, probe_speech
from tests.export.families.test_d3talker import HEAD, in_float64
from tests.sdk.composed_frames import unequal_frames
from torch import nn

from talksplat.bundle import Bundle
from talksplat.manifest import AudioBlocks
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.d3talker import Conditions, deform
from talksplat_export.families.d3talker_export import D3TalkerExport
from talksplat_export.onnx_export import export_graph

Arrays = dict[str, NDArray[Any]]


def _run(bundle: Bundle, graph: str, inputs: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(bundle.graph_file(graph))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def blocks_of(bundle: Bundle) -> AudioBlocks:
    assert bundle.manifest.audio.blocks is not None
    return bundle.manifest.audio.blocks


def _random(bundle: Bundle, graph: str, tensor: str, seed: int) -> NDArray[np.float32]:
    spec = {item.name: item for item in bundle.manifest.graphs[graph].inputs}[tensor]
    return np.random.default_rng(seed).uniform(-1, 1, spec.shape).astype(np.float32)


def _in_float64(module: nn.Module, array: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        out: NDArray[np.float64] = copy.deepcopy(module).double()(torch.from_numpy(array).double())
        return np.asarray(out)


@pytest.mark.parametrize("seed", range(3))
def test_audio_graphs(bundle: Bundle, checkpoint: AvatarCheckpoint, seed: int) -> None:
    samples = bundle.manifest.graphs["audio_encoder"].inputs[0].shape[1]
    pcm = probe_speech(int(samples), seed).numpy()[None]
    features = _run(bundle, "audio_encoder", {"pcm": pcm})["features"]
    front_end = checkpoint.front_end
    np.testing.assert_allclose(features, _in_float64(front_end.encoder, pcm), rtol=0, atol=1e-5)
    expression = _run(bundle, "audio_to_motion", {"features": features})["expression"]
    expected = _in_float64(front_end.audio_to_motion, features)
    np.testing.assert_allclose(expression, expected, rtol=0, atol=1e-5)
    assert expression.shape == (1, blocks_of(bundle).block_frames, 4)


def test_blocks_are_cut_as_the_manifest_says(bundle: Bundle, checkpoint: AvatarCheckpoint) -> None:
    """Blocks read with the manifest's margins join to what the whole clip gives."""
    blocks = blocks_of(bundle)
    frames = 3 * blocks.block_frames
    pcm = probe_speech(640 * frames)
    features, expression = checkpoint.front_end.whole_clip(pcm)
    padded = np.pad(pcm.numpy(), (blocks.left_samples, blocks.right_samples))
    for first in range(0, frames, blocks.block_frames):
        samples = 640 * blocks.block_frames + blocks.left_samples + blocks.right_samples
        block = padded[None, 640 * first : 640 * first + samples]
        found = _run(bundle, "audio_encoder", {"pcm": block})["features"]
        own = found[0, blocks.left_tokens : -blocks.right_tokens]
        np.testing.assert_allclose(own, features[2 * first :][: len(own)], rtol=0, atol=1e-5)
        found = _run(bundle, "audio_to_motion", {"features": found})["expression"][0]
        np.testing.assert_allclose(found, expression[first:][: len(found)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_motion_encoder(bundle: Bundle, checkpoint: AvatarCheckpoint, seed: int) -> None:
    picture = _random(bundle, "motion_encoder", "pncc_difference", seed)
    found = _run(bundle, "motion_encoder", {"pncc_difference": picture})["facial_motion"]
    expected = _in_float64(checkpoint.model.motion_encoder, picture)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_motion(bundle: Bundle, checkpoint: AvatarCheckpoint, seed: int) -> None:
    names = ("facial_motion", "audio_window", "upper_face")
    inputs: Arrays = {name: _random(bundle, "motion", name, seed) for name in names}
    found = _run(bundle, "motion", {**inputs, **bundle.tensors("baked.safetensors")})
    ordered = replace(checkpoint, identity=checkpoint.identity.in_morton_order())
    model, identity, locations = in_float64(ordered)
    motion, audio, upper_face = (torch.from_numpy(inputs[name]).double() for name in names)
    conditions = Conditions(model.temporal(motion), model.audio_branch(audio), upper_face)
    face, mouth = deform(identity, model.deformations(identity, locations, conditions))
    for region, expected in (("face", face), ("mouth", mouth)):
        for name, tolerance in (("means", 1e-6 * HEAD), ("scales", 1e-5), ("quats", 1e-5)):
            np.testing.assert_allclose(
                found[f"{region}_{name}"], getattr(expected, name), rtol=0, atol=tolerance
            )


@pytest.mark.parametrize(("face", "mouth"), [(1, 1), (2, 700), (1000, 3)])
def test_motion_takes_any_number_of_gaussians(bundle: Bundle, face: int, mouth: int) -> None:
    inputs: Arrays = {}
    for tensor in bundle.manifest.graphs["motion"].inputs:
        sizes = {"face_gaussians": face, "mouth_gaussians": mouth}
        shape = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
        inputs[tensor.name] = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    found = _run(bundle, "motion", inputs)
    assert found["face_quats"].shape == (face, 4)
    assert found["mouth_means"].shape == (mouth, 3)
    assert all(np.isfinite(array).all() for array in found.values())
    np.testing.assert_allclose(np.linalg.norm(found["face_quats"], axis=1), 1, atol=1e-6)


def test_motion_without_an_upper_face() -> None:
    checkpoint = make_checkpoint(replace(SMALL_CONFIG, upper_face=False), face=50, mouth=20)
    family = D3TalkerExport(checkpoint)
    (motion,) = (graph for graph in family.graphs() if graph.name == "motion")
    session = onnxruntime.InferenceSession(export_graph(motion, family.opset))
    used = {tensor.name for tensor in session.get_inputs()}
    inputs = {name: tensor.numpy() for name, tensor in motion.inputs.items() if name in used}
    means = session.run(["face_means"], inputs)[0]
    with torch.no_grad():
        expected = motion.module(*motion.inputs.values())[0]
    np.testing.assert_allclose(means, expected, rtol=0, atol=1e-6 * HEAD)


def test_the_composed_graph_has_the_bits_of_its_steps(bundle: Bundle) -> None:
    assert not unequal_frames(bundle)


@pytest.mark.parametrize("seed", range(3))
def test_refiner(bundle: Bundle, checkpoint: AvatarCheckpoint, seed: int) -> None:
    coarse = np.abs(_random(bundle, "refiner", "coarse", seed))
    found = _run(bundle, "refiner", {"coarse": coarse})["image"]
    expected = _in_float64(checkpoint.model.refiner, coarse)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - coarse).max() > 0.05
