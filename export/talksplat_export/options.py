"""What a checkpoint does not say and the person who exports it must, or may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from talksplat.errors import InputError
from talksplat_export.checkpoints.recognise import ExportedFamily

_GAUSSIAN_TALKER = frozenset(
    {
        "name",
        "mouth",
        "mouth_attention",
        "mouth_dilation",
        "audio_encoder",
        "capture",
        "transforms",
        "background",
        "upper_face",
    }
)
TAKEN: Mapping[ExportedFamily, frozenset[str]] = {
    "d3talker": frozenset(),
    "talkinggaussian": _GAUSSIAN_TALKER,
    "instag": _GAUSSIAN_TALKER | {"personalized", "unaligned"},
    "sdtalk": frozenset({"name", "identity", "image", "tracker", "noise", "audio_encoder"}),
}
"""Which options mean something to a family; every other one is an error, never ignored."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices beside the checkpoint; None is the family's default.

    Attributes:
        family: what the checkpoint is expected to be; an error if it is another.
        name: the avatar's name; by default the checkpoint's, or the bundle's without its ending.
        mouth: TalkingGaussian, InsTaG: ``chkpnt_mouth_latest.pth``, beside the face's own file,
            where there is no fused one.
        mouth_attention: TalkingGaussian, InsTaG: the mouth's audio passes region attention.
        mouth_dilation: TalkingGaussian, InsTaG: odd side in pixels of the max-pool on the mouth's
            alpha, 0 for none.
        personalized: InsTaG: add the personal field, as upstream's flag does.
        unaligned: InsTaG: leave the aligner out, as pre-training does.
        identity: SDTalk: ``person.npz``, a tracked person.
        image: SDTalk: a picture to track instead.
        tracker: SDTalk: ``module:function`` that tracks it, instead of the built-in one.
        noise: SDTalk: ``"stored"``, ``"zero"`` or ``"input"``.
        audio_encoder: file, folder or hub id of what makes the speech features; without one the
            bundle is fed features.
        capture: TalkingGaussian, InsTaG: the capture's folder: cameras, background, action units.
        transforms: a ``transforms_*.json`` instead of the capture's own.
        background: a picture instead of the capture's own.
        upper_face: an ``au.csv`` instead of the capture's own.
    """

    family: str | None = None
    name: str | None = None
    mouth: Path | None = None
    mouth_attention: bool | None = None
    mouth_dilation: int | None = None
    personalized: bool | None = None
    unaligned: bool | None = None
    identity: Path | None = None
    image: Path | None = None
    tracker: str | None = None
    noise: str | None = None
    audio_encoder: str | None = None
    capture: Path | None = None
    transforms: Path | None = None
    background: Path | None = None
    upper_face: Path | None = None

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> Self:
        """From the arguments of a command line, among which others may be."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def check(self, family: ExportedFamily, checkpoint: Path) -> None:
        """Every option given belongs to ``family``.

        Raises:
            InputError: naming those that do not.
        """
        if self.family not in (None, family):
            raise InputError(
                f"{checkpoint} is a checkpoint of {family}: expected one of {self.family}, as "
                "--family says. Give another file or leave --family out."
            )
        given = [
            field.name
            for field in fields(self)
            if field.name != "family" and getattr(self, field.name) is not None
        ]
        if foreign := [name for name in given if name not in TAKEN[family]]:
            taken = ", ".join(map(flag, sorted(TAKEN[family]))) or "no such option"
            raise InputError(
                f"{', '.join(map(flag, foreign))} means nothing to {checkpoint}, a checkpoint of "
                f"{family}: expected {taken}. Leave it out."
            )


def flag(name: str) -> str:
    """An option as it is written on the command line."""
    return "--" + name.replace("_", "-")
