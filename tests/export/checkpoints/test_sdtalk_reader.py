"""Reading SDGTalk.pt: what is dropped, what is detected, what is refused and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.export.checkpoints.sdtalk_files import (
    FEATURE_SIZE,
    SMALL_CONFIG,
    dead_tensors,
    make_content,
    save_checkpoint,
)

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints import sdtalk
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.sdtalk import Sdtalk, SdtalkConfig

PATH = Path("SDGTalk.pt")


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return make_content()


def _with(content: dict[str, Any], **tensors: torch.Tensor | None) -> dict[str, Any]:
    """The same with other tensors; None takes one out. Dots are written as two underscores."""
    changes = {name.replace("__", "."): value for name, value in tensors.items()}
    model = {**content["model"], **changes}
    return {**content, "model": {k: v for k, v in model.items() if v is not None}}


def test_file_becomes_the_network_of_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "SDGTalk.pt"
    save_checkpoint(path)
    stored = read_torch_file(path)
    checkpoint = sdtalk.read(stored, path)
    assert checkpoint.model.config == SMALL_CONFIG
    assert (checkpoint.audio_features, checkpoint.feature_size) == ("hubert", FEATURE_SIZE)
    assert not checkpoint.model.training
    found = checkpoint.model.state_dict()
    assert set(found) == set(stored["model"]) - set(dead_tensors(SMALL_CONFIG))
    assert all(torch.equal(tensor, stored["model"][name]) for name, tensor in found.items())


def test_published_file_has_679_tensors() -> None:
    """Counts and sizes of the published file, part by part."""
    config = SdtalkConfig()
    with torch.device("meta"):
        live, dead = Sdtalk(config).state_dict(), dead_tensors(config)
    assert len(live) + len(dead) == 679
    assert sum(tensor.numel() for tensor in (live | dead).values()) == pytest.approx(191.0e6, 1e-3)
    parts: dict[str, list[int]] = {}
    for name, tensor in (live | dead).items():
        parts.setdefault(name.split(".")[0], []).append(tensor.numel())
    expected = {
        "head_base": (1, 1.286),
        "base_model": (235, 117.09),
        "gs_generator_g": (24, 0.610),
        "gs_generator_l0": (8, 0.627),
        "gs_generator_l1": (8, 0.627),
        "upsampler": (285, 49.37),
        "motion_net_flame": (41, 2.098),
        "motion_net_dense": (41, 2.098),
        "percep_loss": (36, 17.18),
    }
    assert set(parts) == set(expected)
    for part, (entries, millions) in expected.items():
        assert len(parts[part]) == entries, part
        assert sum(parts[part]) / 1e6 == pytest.approx(millions, abs=0.006), part


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("base_model.dino_model.blocks.11.attn.qkv.weight", (2304, 768)),
        ("base_model.resize_layers.0.weight", (256, 256, 4, 4)),
        ("base_model.resize_layers.3.weight", (1024, 1024, 3, 3)),
        ("base_model.layer_rn.2.weight", (256, 1027, 3, 3)),
        ("base_model.refinenet.3.resConfUnit1.conv2.bias", (256,)),
        ("gs_generator_g.feature_layers.0.weight", (256, 1024)),
        ("gs_generator_g.rotation_layers.2.weight", (4, 128)),
        ("gs_generator_l1.gaussian_conv.0.weight", (128, 283, 3, 3)),
        ("gs_generator_l0.gaussian_conv.6.weight", (41, 128, 1, 1)),
        ("motion_net_flame.encoder_yz.embeddings", (459360, 1)),
        ("motion_net_dense.encoder_xz.offsets", (13,)),
        ("motion_net_dense.audio_net.encoder_mlp.8.weight", (64, 64)),
        ("motion_net_dense.audio_att_net.attention_mlp.8.weight", (1, 4)),
        ("motion_net_dense.audio_att_net.attention_fc.0.weight", (16, 16)),
        ("motion_net_flame.aud_ch_att_net.net.1.weight", (64, 32)),
        ("motion_net_flame.eye_att_net.net.1.weight", (6, 16)),
        ("motion_net_flame.eye_net.encoder_mlp.4.weight", (6, 12)),
        ("motion_net_flame.motion_net.net.0.weight", (64, 106)),
        ("upsampler.conv_body_first.weight", (16, 32, 1, 1)),
        ("upsampler.conv_body_up.6.skip.weight", (16, 32, 1, 1)),
        ("upsampler.condition_scale.6.2.weight", (32, 16, 3, 3)),
        ("upsampler.final_linear.weight", (512, 4096)),
        ("upsampler.stylegan_decoder.style_mlp.15.weight", (512, 512)),
        ("upsampler.stylegan_decoder.constant_input.weight", (1, 512, 4, 4)),
        ("upsampler.stylegan_decoder.style_conv1.weight", (1,)),
        ("upsampler.stylegan_decoder.style_convs.12.modulated_conv.weight", (1, 32, 64, 3, 3)),
        ("upsampler.stylegan_decoder.style_convs.13.bias", (1, 32, 1, 1)),
        ("upsampler.stylegan_decoder.to_rgbs.6.modulated_conv.modulation.weight", (32, 512)),
        ("upsampler.stylegan_decoder.noises.noise14", (1, 1, 512, 512)),
    ],
)
def test_published_shapes(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        state = Sdtalk(SdtalkConfig()).state_dict()
    assert tuple(state[name].shape) == shape


def test_published_grid_offsets(content: dict[str, Any]) -> None:
    expected = [0, 296, 872, 1896, 3832, 7560, 14616, 28072, 53672, 102960, 197216, 328288, 459360]
    assert content["model"]["motion_net_dense.encoder_xy.offsets"].tolist() == expected


def test_dead_tensors_may_be_missing(content: dict[str, Any]) -> None:
    without = {k: v for k, v in content["model"].items() if k not in dead_tensors(SMALL_CONFIG)}
    assert sdtalk.read({**content, "model": without}, PATH).model.config == SMALL_CONFIG


def test_more_keys_of_training_are_tolerated(content: dict[str, Any]) -> None:
    assert sdtalk.read({**content, "iteration": 200000, "optimizer": {}}, PATH)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"AUDIO_DRIVE_MODEL": {"AUDIO_EXTRACTOR": "wav2vec2"}}, "wav2vec2"),
        ({"AUDIO_DRIVE_MODEL": {}, "AUDIO_EXTRACTOR": "hubert"}, "hubert"),
        ({}, "unknown"),  # of 24 numbers per token
    ],
)
def test_audio_extractor_is_what_meta_cfg_says(
    content: dict[str, Any], meta: dict[str, Any], expected: str
) -> None:
    assert sdtalk.read({**content, "meta_cfg": meta}, PATH).audio_features == expected


def _stage_1(content: dict[str, Any]) -> dict[str, Any]:
    model = {k: v for k, v in content["model"].items() if not k.startswith("motion_net_")}
    return {"meta_cfg": {"AUDIO_DRIVE_MODEL": {"NAME": "FlameDriveAvatar"}}, "model": model}


def test_stage_1_is_recognised_in_one_sentence(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        sdtalk.read(_stage_1(content), PATH)
    message = str(caught.value)
    assert "first training stage (FlameDriveAvatar)" in message
    assert "expected the motion networks" in message and "found none" in message
    assert "second stage" in message and "\n" not in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"head_base": None}, "lacks 'model.head_base'"),
        (
            {"motion_net_dense__motion_net__net__1__weight": None},
            "motion_net_dense.motion_net.net.1.weight expects float32",
        ),
        ({"upsampler__extra": torch.zeros(2)}, "upsampler.extra expects no such tensor"),
        (
            {"gs_generator_l1__gaussian_conv__6__weight": torch.zeros(40, 12, 1, 1)},
            r"gs_generator_l1.gaussian_conv.6.weight expects float32 \[41, 12, 1, 1\]",
        ),
        (
            {"motion_net_flame__encoder_xy__offsets": torch.arange(13, dtype=torch.int32)},
            "motion_net_flame.encoder_xy.offsets expects",
        ),
        (
            {"base_model__dino_model__pos_embed": torch.zeros(1, 27, 128)},
            "a square of patches, found 27 tokens",
        ),
        ({"head_base": torch.zeros(60, 16).half()}, r"head_base expects float32 \[\*,\*\]"),
    ],
)
def test_what_does_not_fit_is_named(
    content: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(CheckpointError, match=expected):
        sdtalk.read(_with(content, **changes), PATH)


@pytest.mark.parametrize(
    "bad",
    [[], (1, 2), torch.zeros(3), {"model": {}}, {"meta_cfg": {}}, {"meta_cfg": {}, "model": {}}],
)
def test_other_content_is_refused(bad: Any) -> None:
    with pytest.raises(CheckpointError, match=r"SDGTalk\.pt is not"):
        sdtalk.read(bad, PATH)
