"""``SDGTalk.pt``: the checkpoint of SDTalk as its authors save it.

A dict of ``meta_cfg``, a nested dict of plain values, and ``model``, a state dict of 679 tensors.
Sizes are read off the tensors. What inference never executes is left out: the networks of the
training's perceptual loss and four parts that the published modules own but do not call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints.checked_content import CheckedContent
from talksplat_export.families.sdtalk import Sdtalk, SdtalkConfig
from talksplat_export.layers.dense_prediction import ImageEncoderConfig
from talksplat_export.layers.style_unet import StyleUNetConfig
from talksplat_export.layers.vision_transformer import HEAD_WIDTH, VisionTransformerConfig

_NEVER_EXECUTED = (
    "percep_loss.",
    "upsampler.toRGB.",
    "base_model.dino_model.mask_token",
    "base_model.refinenet.0.resConfUnit1.",
)
_EXTRACTORS = {1024: "hubert", 768: "wav2vec2"}
"""What features of these widths are where meta_cfg does not say."""


@dataclass(frozen=True)
class SdtalkCheckpoint:
    """A published SDTalk checkpoint.

    Attributes:
        model: the network, in evaluation mode.
        audio_features: what it hears: ``"hubert"`` or ``"wav2vec2"``.
        feature_size: numbers per token of those features.
    """

    model: Sdtalk
    audio_features: str
    feature_size: int


def read(content: Any, path: Path) -> SdtalkCheckpoint:
    """The checkpoint in what ``read_torch_file`` read.

    Raises:
        CheckpointError: of the first training stage, incomplete, with tensors that do not belong
            to an SDTalk, or of sizes that do not fit each other; says what was expected and found.
    """
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} is not an SDTalk checkpoint: expected a dict with meta_cfg and model, found "
            f"a {type(content).__name__}."
        )
    checked = CheckedContent(path, content)
    meta, state = checked.mapping("meta_cfg"), checked.mapping("model")
    _check_stage(meta, state, path)
    live = {name: value for name, value in state.items() if not name.startswith(_NEVER_EXECUTED)}
    checked = CheckedContent(path, {"model": live})
    config = _config(checked, live)
    model = checked.module(lambda: Sdtalk(config), "model")
    size = config.audio_widths[0]
    return SdtalkCheckpoint(model, _audio_features(meta, size), size)


def _check_stage(meta: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> None:
    if not any(name.startswith("gs_generator_") for name in state):
        raise CheckpointError(
            f"{path} is not an SDTalk checkpoint: expected the Gaussian generators gs_generator_g, "
            f"_l0 and _l1 in its model, found none among {len(state)} tensors."
        )
    if not any(name.startswith("motion_net_") for name in state):
        name = _setting(meta, "NAME")
        raise CheckpointError(
            f"{path} is a checkpoint of SDTalk's first training stage"
            f"{f' ({name})' if name else ''}: expected the motion networks motion_net_flame and "
            "motion_net_dense, found none. Give the checkpoint of the second stage "
            "(AudioDriveAvatar), such as SDGTalk.pt."
        )


def _setting(meta: Mapping[str, Any], key: str) -> str | None:
    """A text of meta_cfg, wherever of the two places it is in."""
    places = [meta.get("AUDIO_DRIVE_MODEL"), meta]
    found = [place.get(key) for place in places if isinstance(place, Mapping)]
    return next((value for value in found if isinstance(value, str) and value), None)


def _audio_features(meta: Mapping[str, Any], size: int) -> str:
    return _setting(meta, "AUDIO_EXTRACTOR") or _EXTRACTORS.get(size, "unknown")


def _config(checked: CheckedContent, state: Mapping[str, Any]) -> SdtalkConfig:
    """Sizes, from the shapes of the tensors that have them."""

    def shape(name: str, *expected: int | None) -> tuple[int, ...]:
        return tuple(checked.tensor("model", name, shape=expected).shape)

    vertices, vertex_width = shape("head_base", None, None)
    audio = "motion_net_dense.audio_net.encoder_mlp"
    attention = "motion_net_dense.audio_att_net.attention_mlp"
    return SdtalkConfig(
        image_encoder=_image_encoder(checked, state),
        vertices=vertices,
        vertex_width=vertex_width,
        generator_width=shape("gs_generator_l0.gaussian_conv.0.weight", None, None, 3, 3)[0],
        audio_widths=_widths(checked, state, audio),
        audio_attention_widths=_widths(checked, state, attention)[:-1],
        upsampler=_upsampler(checked, state),
    )


def _image_encoder(checked: CheckedContent, state: Mapping[str, Any]) -> ImageEncoderConfig:
    transformer = "base_model.dino_model"

    def shape(name: str, *expected: int | None) -> tuple[int, ...]:
        return tuple(checked.tensor("model", name, shape=expected).shape)

    width, _, patch, _ = shape(f"{transformer}.patch_embed.proj.weight", None, 3, None, None)
    tokens = shape(f"{transformer}.pos_embed", 1, None, width)[1]
    side = math.isqrt(max(tokens - 1, 0))
    if side < 1 or side * side != tokens - 1:
        raise checked.error(
            f"model.{transformer}.pos_embed expects a class token and a square of patches",
            f"{tokens} tokens",
        )
    if width % HEAD_WIDTH:
        raise checked.error(
            f"model.{transformer}.patch_embed.proj.weight expects a multiple of {HEAD_WIDTH} "
            "channels",
            width,
        )
    scales = [
        shape(f"base_model.projects.{index}.weight", None, width, 1, 1)[0] for index in range(4)
    ]
    return ImageEncoderConfig(
        transformer=VisionTransformerConfig(
            image_size=side * patch,
            patch=patch,
            width=width,
            depth=_count(state, f"{transformer}.blocks"),
            hidden_width=shape(f"{transformer}.blocks.0.mlp.fc1.weight", None, width)[0],
        ),
        scale_widths=(scales[0], scales[1], scales[2], scales[3]),
        width=shape("base_model.output_conv.weight", None, None, 3, 3)[0],
    )


def _upsampler(checked: CheckedContent, state: Mapping[str, Any]) -> StyleUNetConfig:
    def shape(name: str, *expected: int | None) -> tuple[int, ...]:
        return tuple(checked.tensor("model", f"upsampler.{name}", shape=expected).shape)

    first, channels, _, _ = shape("conv_body_first.weight", None, None, 1, 1)
    steps = _count(state, "upsampler.conv_body_down")
    encoder = [
        shape(f"conv_body_down.{index}.skip.weight", None, None, 1, 1)[0] for index in range(steps)
    ]
    decoder = "stylegan_decoder"
    _, coarsest, side, _ = shape(f"{decoder}.constant_input.weight", 1, None, None, None)
    generator = [
        shape(f"{decoder}.style_convs.{2 * index}.bias", 1, None, 1, 1)[1] for index in range(steps)
    ]
    return StyleUNetConfig(
        image_size=side << steps,
        in_channels=channels,
        encoder_widths=(first, *encoder),
        generator_widths=(*reversed(generator), coarsest),
        style_width=shape("final_linear.weight", None, None)[0],
        style_layers=_count(state, f"upsampler.{decoder}.style_mlp"),
    )


def _widths(checked: CheckedContent, state: Mapping[str, Any], prefix: str) -> tuple[int, ...]:
    """Input and output widths of the linear layers 0, 2, 4, … of a sequence."""
    widths: tuple[int, ...] = ()
    for index in range(_count(state, prefix)):
        weight = checked.tensor("model", f"{prefix}.{2 * index}.weight", shape=(None, None))
        widths = widths or (weight.shape[1],)
        widths = (*widths, weight.shape[0])
    if not widths:
        raise checked.error(f"model expects tensors {prefix}.0.weight, …", "none")
    return widths


def _count(state: Mapping[str, Any], prefix: str) -> int:
    """Different indices in the keys ``<prefix>.<index>.…``."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({found[1] for name in state if (found := pattern.match(name))})
