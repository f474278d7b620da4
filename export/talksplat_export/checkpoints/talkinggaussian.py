"""Checkpoints as TalkingGaussian and InsTaG save them.

Tuples of plain values, tensors and state dicts, told apart by their structure:

=====================================  ==========================================================
``chkpnt_fuse_latest.pth``             (face capture, face net, mouth capture, mouth net)
``chkpnt_face_…``, ``chkpnt_mouth_…``  (capture, net, optimiser, iteration)
InsTaG's pre-training                  (net, optimiser, iteration)
=====================================  ==========================================================

A *capture* is what ``GaussianModel.capture()`` returns: 13 items in TalkingGaussian, 15 in InsTaG,
whose last one is the personal field's state dict. Which network it is, and for which speech
features, is read from the shapes of its tensors.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints.checked_content import CheckedContent
from talksplat_export.checkpoints.recognise import Kind, recognise
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.instag import (
    HOOK_RANK,
    HookedMouthMotion,
    InsTaG,
    PersonalFaceMotion,
    PersonalMouthMotion,
)
from talksplat_export.families.talkinggaussian import (
    AUDIO_VISUAL,
    DEEPSPEECH,
    ESPERANTO,
    HUBERT,
    AudioInput,
    FaceMotion,
    GaussianTalker,
    GaussianTalkerOptions,
    MotionField,
    MouthMotion,
    Region,
    TalkingGaussian,
)
from talksplat_export.gaussians import GaussianSet

FUSED = "chkpnt_fuse_latest.pth"
_FAMILIES: dict[int, Literal["talkinggaussian", "instag"]] = {
    13: "talkinggaussian",
    15: "instag",
}
_GAUSSIAN_ITEMS = {
    "means": 1,
    "shs_dc": 2,
    "shs_rest": 3,
    "raw_scales": 5,
    "raw_quats": 6,
    "raw_opacities": 7,
}
_SH_DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}
_MAX_CFG_BYTES = 2**20


@dataclass(frozen=True)
class GaussianTalkerCheckpoint:
    """A trained TalkingGaussian or InsTaG.

    Attributes:
        family: which of the two.
        face: Gaussians and field of the face; InsTaG's personal field with them.
        mouth: the same of the inside of the mouth.
        audio: the speech features it was trained with.
        sh_degree: the degree that is drawn, the larger of the two regions' active ones;
            coefficients beyond a region's own active degree are zero.
    """

    family: Literal["talkinggaussian", "instag"]
    face: Region[Any, Any]
    mouth: Region[Any, Any]
    audio: AudioInput
    sh_degree: int

    def model(self, options: GaussianTalkerOptions) -> GaussianTalker:
        """The talking head, nothing baked.

        Raises:
            CheckpointError: the options ask for a part that the checkpoint does not have.
        """
        if self.family == "talkinggaussian":
            return TalkingGaussian(self.face, self.mouth, options)
        if options.personalized and (self.face.personal is None or self.mouth.personal is None):
            raise CheckpointError(
                "personalized expects a personal field in the checkpoint, found none: it was saved "
                "without. Export without that option."
            )
        return InsTaG(self.face, self.mouth, options)


def read(content: Any, path: Path) -> GaussianTalkerCheckpoint:
    """A whole avatar from what :func:`read_torch_file` gave.

    ``path`` names the file in messages; a ``cfg_args`` beside it is checked against the tensors.

    Raises:
        CheckpointError: a part of an avatar, another layout, or parts that do not fit each other;
            says what was expected and what was found.
    """
    family = recognise(content).check_exportable(path)
    if family not in ("talkinggaussian", "instag"):
        raise CheckpointError(
            f"{path} is not an avatar of TalkingGaussian or InsTaG: expected {FUSED}, found a "
            f"checkpoint of {family}."
        )
    return _assemble(content, path)


def read_parts(face_path: Path, mouth_path: Path) -> GaussianTalkerCheckpoint:
    """An avatar from the files of its two regions, as they are before the fusing stage.

    Raises:
        CheckpointError: as :func:`read`, or the two are given in the wrong order.
    """
    parts = []
    for path, region in ((face_path, "face"), (mouth_path, "mouth")):
        content = read_torch_file(path)
        recognition = recognise(content)
        if recognition.kind is not Kind.REGION or _region(content[1]) != region:
            raise CheckpointError(
                f"{path} is not the {region} of an avatar: expected chkpnt_{region}_latest.pth "
                f"({region} Gaussians, {region} network, optimiser, iteration), found "
                f"{recognition.found}."
            )
        parts += content[:2]
    return _assemble(tuple(parts), face_path)


def parse_cfg_args(text: str) -> dict[str, Any]:
    """The arguments in a ``cfg_args`` file, which is the ``repr`` of an argparse Namespace.

    Only literals are read; nothing is evaluated.

    Raises:
        ValueError: the text is something else.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "Namespace":
            raise ValueError("not a Namespace")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not only named arguments")
        return {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error


def _assemble(content: tuple[Any, ...], path: Path) -> GaussianTalkerCheckpoint:
    face_capture, face_network, mouth_capture, mouth_network = content
    family = _FAMILIES[len(face_capture)]
    if len(mouth_capture) != len(face_capture):
        raise CheckpointError(
            f"{path}: the face is of {family}, the mouth of {_FAMILIES[len(mouth_capture)]}; "
            "expected both of one training."
        )
    checked = CheckedContent(
        path,
        {
            "face": _named("face", face_capture, face_network, path),
            "mouth": _named("mouth", mouth_capture, mouth_network, path),
        },
    )
    audio = _audio(checked, "face")
    if _audio(checked, "mouth") != audio:
        raise checked.error(
            f"mouth.motion expects the speech features of the face, {audio.features}",
            _audio(checked, "mouth").features,
        )
    _check_cfg_args(path, audio)
    degree = max(_active_degree(checked, region) for region in ("face", "mouth"))
    face_gaussians = _gaussians(checked, "face", degree)
    if family == "instag" and len(face_gaussians) < HOOK_RANK:
        raise checked.error(f"face expects at least {HOOK_RANK} Gaussians", len(face_gaussians))
    instag = family == "instag"

    def network(region: str, part: str, kind: type[nn.Module]) -> Any:
        return checked.module(lambda: kind(audio), region, part)

    face: Region[Any, Any] = Region(
        face_gaussians,
        network("face", "motion", FaceMotion),
        _personal(checked, "face", network, PersonalFaceMotion) if instag else None,
    )
    mouth: Region[Any, Any] = Region(
        _gaussians(checked, "mouth", degree),
        network("mouth", "motion", HookedMouthMotion if instag else MouthMotion),
        _personal(checked, "mouth", network, PersonalMouthMotion) if instag else None,
    )
    return GaussianTalkerCheckpoint(family, face.eval(), mouth.eval(), audio, degree)


def _personal(
    checked: CheckedContent, region: str, network: Any, kind: type[MotionField]
) -> MotionField | None:
    if checked.value(region, "personal") is None:
        return None
    field: MotionField = network(region, "personal", kind)
    return field


def _named(region: str, capture: tuple[Any, ...], network: Any, path: Path) -> dict[str, Any]:
    """The items of a capture that are needed, by name."""
    if _region(network) != region:
        raise CheckpointError(
            f"{path}: expected the {region}'s network after the Gaussians of the {region}, found "
            f"the {_region(network)}'s."
        )
    return {
        "active_sh_degree": capture[0],
        "gaussians": {name: capture[index] for name, index in _GAUSSIAN_ITEMS.items()},
        "motion": network,
        "personal": capture[14] if len(capture) == 15 else None,
    }


def _gaussians(checked: CheckedContent, region: str, degree: int) -> GaussianSet:
    """A region's Gaussians, drawn with spherical harmonics of ``degree``."""
    count = len(checked.tensor(region, "gaussians", "means", shape=(None, 3)))
    if not count:
        raise checked.error(f"{region} expects at least one Gaussian", "none")
    stored = _stored_degree(checked, region)
    gaussians: GaussianSet = checked.module(
        lambda: GaussianSet.empty(count, stored), region, "gaussians"
    )
    drawn = GaussianSet.empty(count, degree).requires_grad_(False)
    kept = (_active_degree(checked, region) + 1) ** 2 - 1
    for name, parameter in drawn.named_parameters():
        own = gaussians.get_parameter(name)
        if name == "shs_rest":
            parameter[:, :kept] = own[:, :kept]
        else:
            parameter.copy_(own)
    return drawn.eval()


def _stored_degree(checked: CheckedContent, region: str) -> int:
    rest = checked.tensor(region, "gaussians", "shs_rest", shape=(None, None, 3))
    degree = _SH_DEGREES.get(rest.shape[1] + 1)
    if degree is None:
        expected = f"{region}.gaussians.shs_rest expects 0, 3, 8 or 15 coefficients"
        raise checked.error(expected, rest.shape[1])
    return degree


def _active_degree(checked: CheckedContent, region: str) -> int:
    degree, stored = checked.value(region, "active_sh_degree"), _stored_degree(checked, region)
    if not isinstance(degree, int) or not 0 <= degree <= stored:
        raise checked.error(f"{region}.active_sh_degree expects an integer 0..{stored}", degree)
    return degree


def _audio(checked: CheckedContent, region: str) -> AudioInput:
    """Speech features by the first layer of the audio net."""
    state = checked.mapping(region, "motion")
    if "audio_net.encoder_conv.0.weight" not in state:
        checked.tensor(region, "motion", "audio_net.encoder_fc1.0.weight", shape=(256, 512))
        return AUDIO_VISUAL
    first = checked.tensor(
        region, "motion", "audio_net.encoder_conv.0.weight", shape=(None, None, 3)
    )
    hidden, width = first.shape[:2]
    for audio in (DEEPSPEECH, ESPERANTO, HUBERT):
        if audio.feature_width == width and hidden in (32, 128):
            return AudioInput(
                audio.features,
                audio.feature_rate,
                width,
                audio.tokens,
                audio.tokens_before,
                hidden,
            )
    raise checked.error(
        f"{region}.motion.audio_net expects speech features of width 29 (DeepSpeech), 44 "
        "(esperanto) or 1024 (HuBERT)",
        f"{width} into {hidden} channels",
    )


def _check_cfg_args(path: Path, audio: AudioInput) -> None:
    """The arguments of training, where they lie beside the checkpoint, must fit its tensors."""
    file = path.parent / "cfg_args"
    if not file.is_file():
        return
    if file.stat().st_size > _MAX_CFG_BYTES:
        raise CheckpointError(f"{file} is not a cfg_args file: it is larger than 1 MiB.")
    try:
        arguments = parse_cfg_args(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not a cfg_args file: expected the text of an argparse Namespace with plain "
            f"values, found something else ({error}). Nothing was run. Remove it if it does not "
            "belong to the checkpoint."
        ) from error
    name = arguments.get("audio_extractor")
    if name is not None and audio.features not in str(name):
        raise CheckpointError(
            f"{file} says that {path.name} was trained with the features {name!r}, its tensors say "
            f"{audio.features!r}. Remove cfg_args if it belongs to another checkpoint."
        )
    if arguments.get("white_background"):
        raise CheckpointError(
            f"{file} asks for white_background, with which the face is not composited over the "
            "mouth but over white: expected False, found True. Export is not possible."
        )


def _region(network: Any) -> str:
    """Only the face's networks know of eyes."""
    return "face" if "exp_encode_net.net.0.weight" in network else "mouth"
