"""One door from a file to its family: looks at the structure, never at the name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from talksplat.errors import InputError
from talksplat_export.audio_encoders.base import AudioEncoder
from talksplat_export.audio_encoders.load import load_encoder
from talksplat_export.audio_encoders.streaming import stream
from talksplat_export.checkpoints import sdtalk, talkinggaussian
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.checkpoints.recognise import (
    ExportedFamily,
    Kind,
    Recognition,
    is_ply,
    ply_recognition,
    recognise,
)
from talksplat_export.checkpoints.talkinggaussian import GaussianTalkerCheckpoint
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.base import FamilyExport
from talksplat_export.families.d3talker_export import D3TalkerExport
from talksplat_export.families.instag_export import InsTaGExport
from talksplat_export.families.sdtalk_export import SdtalkExport, SdtalkOptions
from talksplat_export.families.sdtalk_graphs import NoisePolicy
from talksplat_export.families.sdtalk_identity import Person
from talksplat_export.families.talkinggaussian import GaussianTalkerOptions
from talksplat_export.families.talkinggaussian_export import TalkingGaussianExport
from talksplat_export.options import ExportOptions
from talksplat_export.probe_speech import probe_speech
from talksplat_export.scene import Scene
from talksplat_export.tracker import load_tracker, track

Notice = Callable[[str], None]
"""Told what was assumed because nothing said it, one sentence at a time."""


def load_family(
    path: Path,
    options: ExportOptions,
    *,
    name: str = "avatar",
    scene: Scene | None = None,
    notice: Notice = lambda sentence: None,
) -> FamilyExport:
    """A checkpoint of any family that talksplat exports.

    Args:
        path: the file as its training saved it.
        options: what it does not say.
        name: the avatar's, where neither the options nor the checkpoint give one.
        scene: cameras and background instead of those that the options name.
        notice: told what was assumed.

    Raises:
        CheckpointError: it cannot be read, or is not something that can be exported.
        InputError: an option does not belong to its family, or names a file that does not fit.
    """
    if is_ply(path):
        ply_recognition().check_exportable(path)
    content = read_torch_file(path)
    recognition = recognise(content)
    family = _family(recognition, path, options)
    options.check(family, path)
    options = replace(options, name=options.name or name)
    notice(f"{path.name} is {recognition.found}")
    if family == "d3talker":
        return D3TalkerExport(AvatarCheckpoint.read(content, path))
    if family == "sdtalk":
        return _sdtalk(content, path, options, scene, notice)
    return _gaussian_talker(content, path, options, scene, notice)


def _family(recognition: Recognition, path: Path, options: ExportOptions) -> ExportedFamily:
    """A face's own file is half an avatar: it can be exported with the mouth's."""
    if recognition.kind is Kind.REGION and recognition.family and options.mouth is not None:
        return recognition.family
    family = recognition.check_exportable(path)
    if options.mouth is not None and recognition.kind is Kind.FUSED:
        raise InputError(
            f"--mouth goes with chkpnt_face_latest.pth: {path} is {recognition.found}, which has "
            "its own mouth. Leave it out."
        )
    return family


def _gaussian_talker(
    content: Any, path: Path, options: ExportOptions, scene: Scene | None, notice: Notice
) -> FamilyExport:
    checkpoint = (
        talkinggaussian.read(content, path)
        if options.mouth is None
        else talkinggaussian.read_parts(path, options.mouth)
    )
    if scene is None:
        scene = _scene(checkpoint, options)
        for note in scene.notes:
            notice(note)
    chosen = GaussianTalkerOptions(
        mouth_attention=bool(options.mouth_attention),
        aligned=not options.unaligned,
        personalized=bool(options.personalized),
        mouth_dilation=_mouth_dilation(options),
        name=options.name or path.stem,
    )
    encoder = _audio_encoder(options, checkpoint.audio.features, notice)
    if checkpoint.family == "talkinggaussian":
        return TalkingGaussianExport(checkpoint, scene, chosen, encoder)
    return InsTaGExport(checkpoint, scene, chosen, encoder)


def _scene(checkpoint: GaussianTalkerCheckpoint, options: ExportOptions) -> Scene:
    """From the capture, its parts replaced by what is given; without either a frontal view."""
    folder = options.capture
    parts = {"background": options.background, "upper_face": options.upper_face}
    if options.transforms is not None and folder is not None:
        scene = Scene.of_parts(options.transforms, folder, **parts)
    elif options.transforms is not None:
        scene = Scene.from_transforms(options.transforms, **parts)
    elif folder is not None:
        scene = Scene.from_capture(folder, **parts)
    elif options.upper_face is not None:
        raise InputError(
            "--upper-face has one row per frame of a capture: expected --capture or --transforms "
            "with it, found neither."
        )
    else:
        regions = (checkpoint.face, checkpoint.mouth)
        means = torch.cat([region.gaussians.means.detach() for region in regions])
        scene = Scene.framing(means.numpy())
        if options.background is not None:
            scene = scene.with_background(options.background)
    return scene


def _sdtalk(
    content: Any, path: Path, options: ExportOptions, scene: Scene | None, notice: Notice
) -> FamilyExport:
    checkpoint = sdtalk.read(content, path)
    noise = options.noise or "stored"
    if noise not in get_args(NoisePolicy):
        raise InputError(f"--noise expects {', '.join(get_args(NoisePolicy))}, found {noise!r}.")
    person = _person(path, options, notice)
    if scene is None:
        scene = person.scene()
        for note in scene.notes:
            notice(note)
    chosen = SdtalkOptions(noise=cast(NoisePolicy, noise), name=options.name or path.stem)
    encoder = _audio_encoder(options, checkpoint.audio_features, notice)
    return SdtalkExport(checkpoint, person, scene, chosen, encoder)


def _person(path: Path, options: ExportOptions, notice: Notice) -> Person:
    if (options.identity is None) == (options.image is None):
        found = "neither" if options.identity is None else "both"
        raise InputError(
            f"{path} is an SDTalk checkpoint, which can be anybody: expected either --identity "
            f"person.npz (a tracked person) or --image photo.png (a picture to track), found "
            f"{found}. docs/sdtalk.md says what they hold."
        )
    if options.tracker is not None and options.image is None:
        raise InputError("--tracker expects a picture, --image, found none. Leave it out.")
    if options.identity is not None:
        return Person.load(options.identity)
    assert options.image is not None
    if options.tracker is not None:
        return load_tracker(options.tracker)(options.image)
    notice(
        f"{options.image.name} is tracked with the built-in tracker, which knows the procedural "
        "heads of this project; for photographs give --identity of a FLAME tracker"
    )
    return track(options.image)


def _mouth_dilation(options: ExportOptions) -> int | None:
    side = options.mouth_dilation
    if side is not None and (side < 0 or side > 99 or (side and side % 2 == 0)):
        raise InputError(f"--mouth-dilation expects 0 or an odd number up to 99, found {side}.")
    return side


def _audio_encoder(options: ExportOptions, features: str, notice: Notice) -> AudioEncoder | None:
    if options.audio_encoder is None:
        notice(
            f"no --audio-encoder given: the bundle does not hear speech itself, it is fed "
            f"{features} features (talksplat run … --features speech.npy)"
        )
        return None
    # Long enough for blocks in the middle, which miss what comes later and what was long before.
    return stream(load_encoder(options.audio_encoder), torch.from_numpy(probe_speech(3.0)))
