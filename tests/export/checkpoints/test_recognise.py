"""What a file is, told from its structure; sizes do not matter here, so everything is tiny."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints.recognise import Kind, is_ply, recognise

FACE_NET = {"eye_att_net.net.0.weight": torch.zeros(2), "audio_net.x": torch.zeros(2)}
MOUTH_NET = {"audio_net.x": torch.zeros(2)}
OPTIMISER = {"state": {}, "param_groups": []}
SDTALK = {
    "base_model.x": torch.zeros(1),
    "gs_generator_g.x": torch.zeros(1),
    "motion_net_flame.x": torch.zeros(1),
}
STAGE_1 = {name: tensor for name, tensor in SDTALK.items() if "motion" not in name}


def capture(items: int) -> tuple[Any, ...]:
    """The first items of every capture, and as many more as asked for."""
    head = (2, torch.zeros(4, 3), torch.zeros(4, 1, 3), torch.zeros(4, 8, 3))
    return head + (torch.zeros(4, 1),) * (items - len(head))


EXPORTABLE = {
    "talksplat": ({"format": "talksplat.d3talker"}, Kind.AVATAR, "d3talker"),
    "TalkingGaussian": (
        (capture(13), FACE_NET, capture(13), MOUTH_NET),
        Kind.FUSED,
        "talkinggaussian",
    ),
    "InsTaG": ((capture(15), FACE_NET, capture(15), MOUTH_NET), Kind.FUSED, "instag"),
    "SDTalk": ({"meta_cfg": {}, "model": SDTALK}, Kind.SDTALK, "sdtalk"),
    "SDTalk with more": (
        {"meta_cfg": {}, "model": SDTALK, "optimizer": OPTIMISER, "step": 7},
        Kind.SDTALK,
        "sdtalk",
    ),
}

REFUSED = {
    "face": ((capture(13), FACE_NET, OPTIMISER, 5), Kind.REGION, "the face alone of a Talking"),
    "mouth": ((capture(15), MOUTH_NET, OPTIMISER, 5), Kind.REGION, "the mouth alone of an InsTaG"),
    "pre-training": ((FACE_NET, OPTIMISER, 5), Kind.PRETRAINED, "pre-training"),
    "stage 1": ({"meta_cfg": {}, "model": STAGE_1}, Kind.SDTALK_STAGE_1, "stage 1"),
    "no meta_cfg": ({"model": SDTALK}, Kind.SDTALK, "without meta_cfg"),
    "bare SDTalk": (SDTALK, Kind.UNKNOWN, "bare state dict of an SDTalk"),
    "3DGS": ((capture(12), 30_000), Kind.GAUSSIANS, "3D Gaussian Splatting"),
    "bare capture": (capture(13), Kind.GAUSSIANS, "TalkingGaussian without a network"),
    "optimiser": (OPTIMISER, Kind.OPTIMISER, "optimiser"),
    "optimiser tuple": ((OPTIMISER, 5), Kind.OPTIMISER, "optimiser"),
    "14 items": ((capture(14), FACE_NET, capture(14), MOUTH_NET), Kind.UNKNOWN, "tuple of 14"),
    "mixed": ((capture(13), FACE_NET, capture(15), MOUTH_NET), Kind.UNKNOWN, "13 and 15"),
    "five items": ((1, 2, 3, 4, 5), Kind.UNKNOWN, "a tuple of 5 items"),
    "empty": ((), Kind.UNKNOWN, "a tuple of 0 items"),
    "state dict": ({"a": torch.zeros(1)}, Kind.UNKNOWN, "bare state dict of 1 tensors ('a')"),
    "dict": ({"a": 1}, Kind.UNKNOWN, "a dict with the keys 'a'"),
    "tensor": (torch.zeros(2, 3), Kind.UNKNOWN, "a single tensor [2, 3]"),
    "number": (3, Kind.UNKNOWN, "an object of type int"),
    "other format": ({"format": "talksplat.future"}, Kind.AVATAR, "talksplat.future"),
}


@pytest.mark.parametrize("name", EXPORTABLE)
def test_what_can_be_exported_is_recognised(name: str) -> None:
    content, kind, family = EXPORTABLE[name]
    found = recognise(content)
    assert found.kind is kind
    assert found.check_exportable(Path("theirs.pth")) == family


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_named_and_refused(name: str) -> None:
    content, kind, words = REFUSED[name]
    found = recognise(content)
    assert found.kind is kind
    with pytest.raises(CheckpointError) as refusal:
        found.check_exportable(Path("theirs.pth"))
    message = str(refusal.value)
    assert words in message
    assert "expected chkpnt_fuse_latest.pth" in message
    assert message.startswith("theirs.pth is not a checkpoint that talksplat knows")
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("make", [list, tuple])
def test_lists_are_as_good_as_tuples(make: Callable[[Any], Any]) -> None:
    content = make([make(capture(13)), FACE_NET, make(capture(13)), MOUTH_NET])
    assert recognise(content).family == "talkinggaussian"


def test_a_ply_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    ply, other = tmp_path / "a.pth", tmp_path / "b.ply"
    ply.write_bytes(b"ply\nformat ascii 1.0\n")
    other.write_bytes(b"plywood")
    assert is_ply(ply) and not is_ply(other) and not is_ply(tmp_path / "missing")
