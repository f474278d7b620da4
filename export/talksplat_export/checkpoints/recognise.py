"""Says what a checkpoint is by the structure of what it holds, whatever its name.

The authors' code saves tuples and dicts without a word about what they are:

======================================  ===========================================================
talksplat                               dict with ``format`` = ``"talksplat.<family>"``
TalkingGaussian, InsTaG: fused          (face capture, face net, mouth capture, mouth net)
… face or mouth file                    (capture, net, optimiser, iteration)
InsTaG pre-training                     (net, optimiser, iteration)
SDTalk                                  dict with ``meta_cfg`` and ``model``, with ``motion_net_*``
SDTalk stage 1                          the same without ``motion_net_*``
3D Gaussian Splatting                   (capture of 12 items, iteration)
======================================  ===========================================================

A *capture* is the tuple that ``GaussianModel.capture()`` returns: 12 items in 3D Gaussian
Splatting (Kerbl et al., 2023), 13 in TalkingGaussian (with an identity per Gaussian), 15 in InsTaG
(with a renderer and the personalised net).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from talksplat.errors import CheckpointError

ExportedFamily = Literal["d3talker", "talkinggaussian", "instag", "sdtalk"]

EXPORTABLE = (
    "chkpnt_fuse_latest.pth of TalkingGaussian or InsTaG, SDGTalk.pt of SDTalk, "
    "or an avatar checkpoint of talksplat"
)

CAPTURE_ITEMS = {12: "3D Gaussian Splatting", 13: "TalkingGaussian", 15: "InsTaG"}


class Kind(Enum):
    """What a file is."""

    AVATAR = "an avatar checkpoint of talksplat"
    FUSED = "a fused checkpoint"
    REGION = "a checkpoint of one region"
    PRETRAINED = "a pre-training checkpoint"
    SDTALK = "an SDTalk checkpoint"
    SDTALK_STAGE_1 = "an SDTalk checkpoint of stage 1"
    GAUSSIANS = "Gaussians alone"
    OPTIMISER = "the state of an optimiser"
    UNKNOWN = "something else"


@dataclass(frozen=True)
class Recognition:
    """What a file is.

    Attributes:
        kind: which of the known files.
        family: whose it is, if it is of a family that can be exported.
        found: what was found, to follow "is": ``"a face checkpoint of TalkingGaussian"``.
        remedy: what to do when it cannot be exported; empty when it can.
    """

    kind: Kind
    family: ExportedFamily | None
    found: str
    remedy: str = ""

    def check_exportable(self, path: Path) -> ExportedFamily:
        """The family, if the file holds all that a bundle needs.

        Raises:
            CheckpointError: it does not; says what was expected, what was found, what to do.
        """
        if self.family is None or self.remedy:
            raise CheckpointError(
                f"{path} is not a checkpoint that talksplat knows how to export: expected "
                f"{EXPORTABLE}, found {self.found}. {self.remedy}"
            )
        return self.family


def recognise(content: Any) -> Recognition:
    """What the content of a torch file is. Nothing is checked beyond what tells files apart."""
    if isinstance(content, Mapping):
        return _dict(content)
    if isinstance(content, tuple | list):
        return _tuple(content)
    if isinstance(content, Tensor):
        return _unknown(f"a single tensor {list(content.shape)}")
    return _unknown(f"an object of type {type(content).__name__}")


def is_capture(item: Any) -> bool:
    """Whether this is what ``GaussianModel.capture()`` returns: it starts with the SH degree,
    positions [N,3] and colours [N,1,3]."""
    return (
        isinstance(item, tuple | list)
        and len(item) >= 8
        and isinstance(item[0], int)
        and isinstance(item[1], Tensor)
        and item[1].dim() == 2
        and item[1].shape[1] == 3
        and isinstance(item[2], Tensor)
        and item[2].dim() == 3
    )


def is_ply(path: Path) -> bool:
    """Whether a file begins as a ``.ply`` does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) in (b"ply\n", b"ply\r")


def ply_recognition() -> Recognition:
    """What a ``.ply`` is to export."""
    return Recognition(
        Kind.GAUSSIANS,
        None,
        "a .ply of Gaussians, which holds none of the networks that move them",
        "Export the checkpoint it was saved beside; `talksplat ply` reads and writes such files.",
    )


def _dict(content: Mapping[Any, Any]) -> Recognition:
    form = content.get("format")
    if isinstance(form, str) and form.startswith("talksplat."):
        if form == "talksplat.d3talker":
            return Recognition(Kind.AVATAR, "d3talker", f"an avatar checkpoint {form!r}")
        return Recognition(
            Kind.AVATAR,
            None,
            f"an avatar checkpoint of the format {form[:60]!r}",
            "It was written by another talksplat; update talksplat.",
        )
    if _is_optimiser(content):
        return Recognition(
            Kind.OPTIMISER,
            None,
            "the state of an optimiser, which holds no network",
            "Give the checkpoint that was saved with it.",
        )
    model = content.get("model")
    if _has_prefix(model, "gs_generator_") and _has_prefix(model, "base_model."):
        return _sdtalk(content, model)
    if _has_prefix(content, "gs_generator_"):
        return _unknown(
            "the bare state dict of an SDTalk model, without meta_cfg",
            "Give the file as its trainer saved it, with meta_cfg and model.",
        )
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return _unknown(
            f"a bare state dict of {len(content)} tensors ({_names(content)})",
            "Give the whole file that the training saved.",
        )
    return _unknown(f"a dict with the keys {_names(content) or 'none'}")


def _sdtalk(content: Mapping[Any, Any], model: Any) -> Recognition:
    if not _has_prefix(model, "motion_net_"):
        return Recognition(
            Kind.SDTALK_STAGE_1,
            "sdtalk",
            "an SDTalk checkpoint of stage 1 (FlameDriveAvatar), which has no motion networks",
            "Train stage 2 (AudioDriveAvatar) from it, or give SDGTalk.pt.",
        )
    if not isinstance(content.get("meta_cfg"), Mapping):
        return Recognition(
            Kind.SDTALK,
            "sdtalk",
            "an SDTalk model without meta_cfg, which says what features it hears",
            "Give the file as its trainer saved it, with meta_cfg and model.",
        )
    return Recognition(Kind.SDTALK, "sdtalk", "an SDTalk checkpoint (SDGTalk.pt)")


def _tuple(content: tuple[Any, ...] | list[Any]) -> Recognition:
    if is_capture(content):
        return _bare_capture(content)
    captures = [item for item in content if is_capture(item)]
    lengths = sorted({len(capture) for capture in captures})
    unknown = [length for length in lengths if length not in CAPTURE_ITEMS]
    if unknown:
        return _unknown(
            f"Gaussians in a tuple of {unknown[0]} items, where TalkingGaussian saves 13 and "
            "InsTaG 15",
            "It may be of a fork of theirs; talksplat does not guess what its items mean.",
        )
    if len(lengths) > 1:
        return _unknown(
            f"face and mouth of different systems (tuples of {lengths[0]} and {lengths[1]} items)",
            "Fuse a face and a mouth of one training.",
        )
    kinds = [_item(item) for item in content]
    if kinds == ["capture", "net", "capture", "net"]:
        return _fused(lengths[0])
    if kinds == ["capture", "net", "optimiser", "iteration"]:
        return _region(lengths[0], content[1])
    if kinds == ["net", "optimiser", "iteration"]:
        region = _region_name(content[0])
        return Recognition(
            Kind.PRETRAINED,
            "instag",
            f"the {region} net of InsTaG's pre-training, without anybody's Gaussians",
            "Adapt it to a person with InsTaG's training and give chkpnt_fuse_latest.pth.",
        )
    if kinds == ["capture", "iteration"]:
        return _bare_capture(content[0])
    if "optimiser" in kinds and set(kinds) <= {"optimiser", "iteration"}:
        return Recognition(
            Kind.OPTIMISER,
            None,
            "the state of an optimiser, which holds no network",
            "Give the checkpoint that was saved with it.",
        )
    parts = ", ".join(kinds[:8]) + (", …" if len(kinds) > 8 else "")
    return _unknown(f"a {type(content).__name__} of {len(kinds)} items ({parts or 'empty'})")


def _fused(length: int) -> Recognition:
    if length == 12:
        return _unknown("a pair of 3D Gaussian Splatting captures with networks of no known family")
    family: ExportedFamily = "talkinggaussian" if length == 13 else "instag"
    return Recognition(Kind.FUSED, family, f"a fused checkpoint of {CAPTURE_ITEMS[length]}")


def _region(length: int, net: Any) -> Recognition:
    if length == 12:
        return _unknown("a 3D Gaussian Splatting capture with a network of no known family")
    region = _region_name(net)
    together = "chkpnt_face_latest.pth --mouth chkpnt_mouth_latest.pth"
    return Recognition(
        Kind.REGION,
        "talkinggaussian" if length == 13 else "instag",
        f"the {region} alone of {_a(CAPTURE_ITEMS[length])} checkpoint",
        f"Give face and mouth together, {together}, or chkpnt_fuse_latest.pth, which "
        "the authors' fuse training makes of them.",
    )


def _bare_capture(capture: Any) -> Recognition:
    system = CAPTURE_ITEMS.get(len(capture))
    whose = f"of {system}" if system else f"in a tuple of {len(capture)} items of no known system"
    return Recognition(
        Kind.GAUSSIANS,
        None,
        f"Gaussians {whose} without a network that moves them",
        "A talking avatar needs both; `talksplat ply` turns Gaussians alone into a .ply.",
    )


def _region_name(net: Any) -> str:
    """Only the face's net has an attention for eyes and brows."""
    face = isinstance(net, Mapping) and any("eye_att" in str(key) for key in net)
    return "face" if face else "mouth"


def _item(item: Any) -> str:
    if is_capture(item):
        return "capture"
    if isinstance(item, Mapping):
        return "optimiser" if _is_optimiser(item) else "net" if _is_net(item) else "dict"
    if isinstance(item, int) and not isinstance(item, bool):
        return "iteration"
    return "tensor" if isinstance(item, Tensor) else type(item).__name__


def _is_optimiser(item: Mapping[Any, Any]) -> bool:
    return "param_groups" in item and "state" in item


def _is_net(item: Mapping[Any, Any]) -> bool:
    return bool(item) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in item.items()
    )


def _has_prefix(state: Any, prefix: str) -> bool:
    return isinstance(state, Mapping) and any(str(key).startswith(prefix) for key in state)


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def _names(content: Mapping[Any, Any]) -> str:
    shown = ", ".join(repr(key)[:40] for key in list(content)[:6])
    return f"{shown}, …" if len(content) > 6 else shown


def _unknown(found: str, remedy: str = "") -> Recognition:
    return Recognition(Kind.UNKNOWN, None, found, remedy or "docs/export.md says what can be read.")
