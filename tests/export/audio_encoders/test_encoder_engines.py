"""TensorRT-RTX takes the audio encoders, in blocks and with free length."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from benchmarks.precision import rounded
from tests.export.audio_encoders.speech_models import make_model
from tests.export.engine_builds import build_graph

from talksplat.backends.options import Precision
from talksplat.bundle import Bundle, BundleWriter
from talksplat.engines.precision import islands_of, to_float16
from talksplat_export.audio_encoders import weights
from talksplat_export.audio_encoders.ave import AveEncoder
from talksplat_export.audio_encoders.base import ClipEncoder, export_clip_encoder
from talksplat_export.audio_encoders.speech_model import SpeechModel
from talksplat_export.audio_encoders.streaming import stream
from talksplat_export.onnx_export import export_graph

trt = pytest.importorskip("tensorrt_rtx")

ENCODERS = ("hubert-base", "xls-r-1b", "ave")


def make_encoder(name: str, **sizes: object) -> ClipEncoder:
    torch.manual_seed(0)
    if name == "ave":
        return AveEncoder().eval().requires_grad_(False)
    return SpeechModel(make_model(name, **sizes), None, True, name)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_block_becomes_an_engine_in_both_precisions(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    audio = stream(make_encoder(name), 0.1 * torch.randn(8000))
    with BundleWriter(tmp_path / "encoder.avatar") as writer:
        writer.add_graph("audio_encoder", export_graph(audio.graph(), 18))
        encoder = writer.commit(bundle.manifest)
    for precision in get_args(Precision):
        entry = build_graph(encoder, "audio_encoder", precision, tmp_path / "engines").entry
        assert entry.bytes > 10_000 and entry.facts["layers"] > 20
    assert _float16_error(encoder.graph_file("audio_encoder")) < 0.01  # of a deviation


def test_a_block_whose_weights_are_inputs_becomes_an_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "LARGEST_GRAPH", 0)
    audio = stream(make_encoder("xls-r-1b"), 0.1 * torch.randn(8000))
    assert audio.constants
    assert _build(export_graph(audio.graph(), 18), {}) > 10_000


@pytest.mark.parametrize("name", ["hubert-base", "xls-r-1b"])
def test_clips_of_any_length_become_an_engine(name: str) -> None:
    model = export_clip_encoder(make_encoder(name, num_hidden_layers=1))
    assert _build(model, {"pcm": ((1, 1040), (1, 80_000), (1, 320_080))}) > 10_000


@pytest.mark.slow
def test_the_base_model_at_full_size_becomes_an_engine() -> None:
    encoder = make_encoder(
        "hubert-base",
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        conv_dim=(512,) * 7,
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
    )
    audio = stream(encoder, 0.1 * torch.randn(8000))
    assert _build(export_graph(audio.graph(), 18), {}) > 100_000_000


def _float16_error(path: Path) -> float:
    """Root mean square of what float16 changes of the features of noise, in their deviations."""
    model = onnx.load(path)
    half = rounded(to_float16(model, islands_of("sdtalk", "audio_encoder")))
    (value,) = model.graph.input
    samples = value.type.tensor_type.shape.dim[1].dim_value
    pcm = 0.1 * np.random.default_rng(0).normal(size=(1, samples)).astype(np.float32)
    exact, found = (
        onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {"pcm": pcm.astype(np.float32)})[0]
        for graph in (model, half)
    )
    return float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std())


def _build(model: bytes, ranges: dict[str, tuple[tuple[int, ...], ...]]) -> int:
    """Bytes of the engine; ``ranges`` holds least, usual and largest shapes of free inputs."""
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    parsed = parser.parse(model)
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)
    if ranges:
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            profile.set_shape(name, *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return int(engine.nbytes)
