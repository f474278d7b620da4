"""HuBERT and wav2vec 2.0: what transformers computes, whole and in windows, as ONNX graphs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from tests.export.audio_encoders.speech_models import make_model, save_model, transformers

from talksplat.cli import main
from talksplat.errors import BackendError, CheckpointError, InputError
from talksplat.manifest import WindowContract
from talksplat.speech_features import FeatureWindows, read_features
from talksplat_export.audio_encoders import base, streaming, weights
from talksplat_export.audio_encoders.ave import AveEncoder
from talksplat_export.audio_encoders.base import StreamingForm, export_clip_encoder
from talksplat_export.audio_encoders.load import load_encoder
from talksplat_export.audio_encoders.speech_model import SpeechModel, load_speech_model
from talksplat_export.audio_encoders.streaming import measure, stream, streamed
from talksplat_export.audio_encoders.untrained import ARCHITECTURES, untrained_speech_model
from talksplat_export.onnx_export import export_graph

LENGTHS = (400, 719, 5_000, 16_000, 33_333)
BOTH_NORMS = ("hubert-base", "xls-r-1b")


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    """Noise with an offset and a swell, so that normalisation has something to do."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.05 + 0.1 * noise * torch.linspace(0.3, 1.0, samples)


def published(model: torch.nn.Module, pcm: torch.Tensor, layer: int = 3) -> np.ndarray:
    """What upstream code does: the processor's normalisation, then the model."""
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(pcm.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        answer = model(values, output_hidden_states=True)
    last = layer == len(answer.hidden_states) - 1
    hidden = answer.last_hidden_state if last else answer.hidden_states[layer]
    return hidden[0].numpy()


def onnx_session(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_graph_of_any_length_agrees_with_transformers(architecture: str) -> None:
    model = make_model(architecture, num_hidden_layers=2)
    expected = {samples: published(model, sound(samples), 2) for samples in LENGTHS}
    encoder = SpeechModel(model, None, True, architecture)
    assert (encoder.feature_rate, encoder.feature_size) == (50, 48)
    session = onnx_session(export_clip_encoder(encoder))
    for samples, features in expected.items():
        (found,) = session.run(None, {"pcm": sound(samples)[None].numpy()})
        assert found.shape == (1, (samples - 400) // 320 + 1, 48)
        np.testing.assert_allclose(found[0], features, atol=1e-4, rtol=0)
    (silent,) = session.run(None, {"pcm": np.zeros((1, 4000), np.float32)})
    assert np.isfinite(silent).all()


@pytest.mark.parametrize("architecture", BOTH_NORMS)
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_any_hidden_state_can_be_taken(architecture: str, layer: int) -> None:
    model = make_model(architecture)
    expected = published(model, sound(5000), layer)
    encoder = SpeechModel(model, layer, True, architecture)
    np.testing.assert_allclose(encoder.clip(sound(5000)).numpy(), expected, atol=1e-5, rtol=0)
    assert f"hidden state {layer} of 3" in encoder.origin


def test_the_waveform_is_left_alone_if_told_so() -> None:
    model = make_model("xls-r-1b")
    with torch.inference_mode():
        expected = model(sound(5000)[None]).last_hidden_state[0]
    encoder = SpeechModel(model, None, False, "xls-r-1b")
    torch.testing.assert_close(encoder.clip(sound(5000)), expected, atol=1e-5, rtol=0)
    assert encoder.origin.endswith("waveform as it is")


def test_long_clips_are_normalised_whole_and_encoded_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As upstream: 1000 tokens at a time; 20 here, whose last piece is a short one."""
    monkeypatch.setattr("talksplat_export.audio_encoders.speech_model.PIECE_TOKENS", 20)
    model = make_model("hubert-large")
    pcm = sound(45 * 320 + 80 + 7)
    waveform = ((pcm - pcm.mean()) / torch.sqrt(pcm.var(correction=0) + 1e-7))[None]
    with torch.inference_mode():
        pieces = [
            model(waveform[:, start : start + 20 * 320 + 80]).last_hidden_state[0]
            for start in (0, 6400, 12800)
        ]
    encoder = SpeechModel(model, None, True, "hubert-large")
    found = encoder.clip(pcm)
    assert found.shape == (45, 48)
    torch.testing.assert_close(found, torch.cat(pieces), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_block_with_all_that_follows_is_that_of_the_clip(architecture: str) -> None:
    """Zeros before an utterance are no sound: with the whole clip as look-ahead nothing differs."""
    encoder = SpeechModel(make_model(architecture), None, True, architecture)
    pcm = sound(640 * 25 + 80)
    form = StreamingForm(block_frames=5, context_frames=30, look_ahead_frames=20)
    with torch.inference_mode():
        block = streamed(encoder, form, pcm)[:10]
        whole = encoder.clip(pcm)[:10]
    torch.testing.assert_close(block, whole, atol=2e-5, rtol=0)


def test_a_window_hears_nothing_beyond_itself_and_the_measure_says_how_much_that_is() -> None:
    encoder = SpeechModel(make_model("xls-r-1b"), None, True, "xls-r-1b")
    pcm = sound(640 * 50)
    short = measure(encoder, StreamingForm(5, 5, 0), pcm)
    long = measure(encoder, StreamingForm(5, 50, 20), pcm)
    assert 0.0 < long.rms_difference < short.rms_difference
    assert short.rms_difference <= short.difference
    assert (short.latency_ms, short.work) == (165.0, (10 * 640 + 80) / 3200)
    assert long.latency_ms == 165.0 + 800.0


@pytest.mark.parametrize("architecture", BOTH_NORMS)
@pytest.mark.parametrize("weights_are_inputs", [False, True])
def test_a_block_as_a_graph_of_the_bundle(
    architecture: str, weights_are_inputs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weights_are_inputs:
        monkeypatch.setattr(weights, "LARGEST_GRAPH", 0)
    encoder = SpeechModel(make_model(architecture), None, True, architecture)
    audio = stream(encoder, sound(16000), StreamingForm(2, 10, 3))
    assert audio.blocks.left_samples == 6400 and audio.blocks.right_samples == 2000
    assert audio.blocks.difference is not None and audio.blocks.difference > 0
    pcm = sound(audio.graph().inputs["pcm"].shape[1])[None]
    pcm[:, :3000] = 0.0
    _, module = encoder.window(StreamingForm(2, 10, 3))
    expected = module(pcm).numpy()
    files = ["baked_audio_encoder.safetensors"] if weights_are_inputs else []
    assert list(audio.tensors()) == files
    model = export_graph(audio.graph(), 18)
    names = [tensor.name for tensor in onnx.load_from_string(model).graph.input]
    assert names == ["pcm", *audio.constants]
    constants = {name: tensor.numpy() for name, tensor in audio.constants.items()}
    session = onnx_session(model)
    (found,) = session.run(None, {"pcm": pcm.numpy(), **constants})
    assert found.shape == (1, 4, 48)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
    (silent,) = session.run(None, {"pcm": np.zeros_like(pcm.numpy()), **constants})
    assert np.isfinite(silent).all()


def test_weights_beyond_an_onnx_file_are_refused_outside_a_bundle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = SpeechModel(make_model("hubert-base"), None, True, "hubert-base")
    monkeypatch.setattr(base, "LARGEST_GRAPH", 1000)
    with pytest.raises(InputError, match="an ONNX file holds"):
        export_clip_encoder(encoder)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_folder_says_how_it_was_trained(tmp_path: Path, normalise: bool) -> None:
    folder = save_model(tmp_path / "mine", "wav2vec2-base", normalise)
    encoder = load_encoder(str(folder))
    assert isinstance(encoder, SpeechModel) and encoder.normalise == normalise
    assert encoder.features == "wav2vec2"
    assert encoder.origin.startswith("mine, hidden state 3 of 3, waveform")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="preprocessor_config"):
        load_speech_model(folder)
    assert load_speech_model(folder, normalise=not normalise).normalise != normalise


def test_what_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="the hub cannot be reached"):
        load_speech_model("nobody/no-such-model")
    with pytest.raises(CheckpointError, match="found nothing"):
        load_speech_model(tmp_path / "none")
    folder = save_model(tmp_path / "mine", "hubert-base")
    with pytest.raises(InputError, match="hidden states 0 to 3; asked for 4"):
        load_speech_model(folder, layer=4)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="Expected a model of transformers") as caught:
        load_speech_model(folder)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError):
        load_speech_model(folder, normalise=True)


class _Code:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_weights_that_would_run_code_are_refused_unrun(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    folder = save_model(tmp_path / "hubert", "hubert-base", num_hidden_layers=2)
    model = make_model("hubert-base", num_hidden_layers=2)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert load_speech_model(folder).feature_size == 48  # as such, a .bin file is read
    torch.save({**model.state_dict(), "extra": _Code(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not safe to read") as caught:
        load_speech_model(folder)
    assert "weights_only" not in str(caught.value)
    assert not trace.exists()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match=r"talksplat\[speech\]"):
        load_speech_model("facebook/hubert-base-ls960")
    with pytest.raises(BackendError, match=r"talksplat\[speech\]"):
        untrained_speech_model("hubert-base")


def test_another_rate_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "mine", "hubert-base")
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("16000", "8000"))
    with pytest.raises(CheckpointError, match="8000 Hz"):
        load_speech_model(folder)


def test_a_clip_too_short_for_a_token_is_refused() -> None:
    encoder = SpeechModel(make_model("hubert-base"), None, True, "hubert-base")
    with pytest.raises(InputError, match="400 samples"):
        encoder.clip(sound(399))


def test_forms_are_checked() -> None:
    for sizes in ((0, 1, 1), (1, -1, 0), (1, 0, -1)):
        with pytest.raises(InputError, match="streaming form"):
            StreamingForm(*sizes)


def test_the_table_of_streaming_forms_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(tmp_path / "mine", "hubert-base")
    forms = ["--forms", "5,10,0", "5,10,5"]
    output = ["-o", str(tmp_path / "out" / "forms")]
    monkeypatch.setattr("sys.argv", ["streaming", str(folder), *forms, *output])
    streaming.main()
    written = json.loads((tmp_path / "out" / "forms.json").read_text())
    assert [form["form"]["look_ahead_frames"] for form in written["forms"]] == [0, 5]
    assert written["encoder"].startswith("mine")
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "forms.md").read_text()
    assert "| 5 | 0.4 | 200 | 365 |" in printed


@pytest.mark.parametrize("source", ["speech", "ave"])
def test_the_verb_writes_features_that_a_session_takes(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pcm = sound(16_000)
    soundfile.write(tmp_path / "speech.wav", pcm.numpy(), 16000, subtype="FLOAT")
    if source == "speech":
        source_path = save_model(tmp_path / "mine", "hubert-large")
    else:
        source_path = tmp_path / "audio_visual_encoder.pth"
        torch.save(AveEncoder().network.state_dict(), source_path)
    output = tmp_path / "deep" / "aud.npy"
    verb = ["features", str(tmp_path / "speech.wav"), "--encoder", str(source_path)]
    assert main([*verb, "-o", str(output)]) == 0
    encoder = load_encoder(str(source_path))
    features = read_features(output)
    np.testing.assert_array_equal(features, encoder.clip(pcm).numpy())
    assert f"{len(features)} tokens of {encoder.feature_size}" in capsys.readouterr().out
    window = WindowContract(4, 3, 2, 0) if source == "speech" else WindowContract(4, 3, 1, 0)
    windows = FeatureWindows(features, window, encoder.feature_size, encoder.frame_tokens)
    assert windows.frames >= 25
    assert main([*verb, "-o", str(tmp_path / "aud.txt")]) == 1
    assert ".npy" in capsys.readouterr().err
    assert not (tmp_path / "aud.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["hubert-base", "wav2vec2-base"])
def test_the_base_models_at_full_size(architecture: str) -> None:
    sizes = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "conv_dim": (512,) * 7,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
    }
    model = make_model(architecture, **sizes)
    expected = {samples: published(model, sound(samples), 12) for samples in LENGTHS}
    session = onnx_session(export_clip_encoder(SpeechModel(model, None, True, architecture)))
    for samples, features in expected.items():
        (found,) = session.run(None, {"pcm": sound(samples)[None].numpy()})
        np.testing.assert_allclose(found[0], features, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_xls_r_at_full_size_keeps_its_weights_beside_the_graph() -> None:
    """A billion weights are 3.9 GB, which no ONNX file holds. Takes 4.4 GB of memory."""
    encoder = untrained_speech_model("xls-r-1b")
    blocks, module = encoder.window(StreamingForm(1, 5, 1))
    pcm = sound(7 * 640 + 80)[None]
    with torch.inference_mode():
        expected = module(pcm).numpy()
    module, constants = weights.constant_weights(module)
    assert sum(tensor.nbytes for tensor in constants.values()) > 2**31
    audio = base.AudioEncoder(module.eval(), "wav2vec2", 50, 1280, blocks, constants)
    graph = export_graph(audio.graph(), 18)
    assert len(graph) < 10_000_000
    feed = {name: tensor.numpy() for name, tensor in constants.items()}
    (found,) = onnx_session(graph).run(None, {"pcm": pcm.numpy(), **feed})
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
