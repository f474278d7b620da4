"""The checkpoint of one trained D3-Talker avatar: what training writes and export reads.

One torch file of plain dicts, lists, numbers, strings and tensors:

=================  =====================================================================
``format``         ``"talksplat.d3talker"``
``version``        1
``name``           the avatar's name
``config``         :class:`~talksplat_export.families.d3talker.D3TalkerConfig`
``model``          state dict of ``D3Talker``
``identity``       state dict of ``Identity``; the numbers of Gaussians are in its shapes
``front_end``      ``config`` and state dicts of ``encoder`` and ``audio_to_motion``;
                   ``expression_names``, the E coefficients in order
``pncc``           ``template`` [V,3], ``basis`` [E,V,3], ``faces`` [F,3], ``colors`` [V,3],
                   ``scale``, ``centre``, ``background``
``background``     plate, uint8 [H,W,3]
``tracks``         ``viewmats`` [T,4,4], ``upper_face`` [T,6]
``camera``         ``K`` (rows), ``width``, ``height``
``rasterizer``     ``dialect``, ``rasterize_mode``, ``near_plane``, ``eps2d``
``licence``        ``name``, ``attribution``
``training``       where it comes from: plain values, not interpreted
=================  =====================================================================
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from talksplat.atomic import atomic_file
from talksplat.errors import CheckpointError
from talksplat.manifest import Camera, Licence, PnccContract, RasterizerContract
from talksplat_export.audio_encoders.audio_to_motion import AudioToMotion, AudioToMotionConfig
from talksplat_export.audio_encoders.front_end import FrontEnd
from talksplat_export.audio_encoders.log_mel import LogMelEncoder, LogMelEncoderConfig
from talksplat_export.checkpoints.checked_content import CheckedContent
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.d3talker import D3Talker, D3TalkerConfig, Identity
from talksplat_export.gaussians import GaussianSet

FORMAT = "talksplat.d3talker"
VERSION = 1

Checkpoint = TypeVar("Checkpoint", bound="AvatarCheckpoint")
StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class PnccMesh:
    """The mesh that the expression moves, and the camera its PNCC image is drawn with.

    Attributes:
        template: [V,3] float32, vertices at zero expression.
        basis: [E,V,3] float32, offsets per unit of each coefficient.
        faces: [F,3] int32.
        colors: [V,3] float32, normalised coordinates.
        camera: image size and orthographic camera.
    """

    template: Tensor
    basis: Tensor
    faces: Tensor
    colors: Tensor
    camera: PnccContract


@dataclass(frozen=True)
class Tracks:
    """Motion that speech does not say: ``viewmats`` [T,4,4] and ``upper_face`` [T,6], float32."""

    viewmats: Tensor
    upper_face: Tensor


@dataclass(frozen=True)
class AvatarCheckpoint:
    """A trained D3-Talker with everything that is needed to make a bundle of it.

    Attributes:
        name: the avatar's name.
        model: the identity-agnostic network.
        identity: Gaussians and Individual Field.
        front_end: PCM to features and expression.
        expression_names: the E coefficients of the expression, in order.
        pncc: mesh and camera of the PNCC images; its width and height are ``config.pncc_size``.
        background: plate, uint8 [H,W,3], of the frame's size.
        tracks: default camera and upper-face motion.
        camera: intrinsics.
        rasterizer: the rules the Gaussians were trained with.
        licence: terms of the avatar.
        training: provenance, plain values.
    """

    name: str
    model: D3Talker
    identity: Identity
    front_end: FrontEnd
    expression_names: tuple[str, ...]
    pncc: PnccMesh
    background: Tensor
    tracks: Tracks
    camera: Camera
    rasterizer: RasterizerContract
    licence: Licence
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> D3TalkerConfig:
        return self.model.config

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame in pixels."""
        height, width = self.background.shape[:2]
        return width, height

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            OutputError: it cannot be written (disk full included).
        """
        width, height = self.size
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "config": self.config.as_dict(),
            "model": _state(self.model),
            "identity": _state(self.identity),
            "front_end": {
                "config": {
                    "encoder": asdict(self.front_end.encoder.config),
                    "audio_to_motion": asdict(self.front_end.audio_to_motion.config),
                },
                "encoder": _state(self.front_end.encoder),
                "audio_to_motion": _state(self.front_end.audio_to_motion),
                "expression_names": list(self.expression_names),
            },
            "pncc": {
                "template": self.pncc.template,
                "basis": self.pncc.basis,
                "faces": self.pncc.faces,
                "colors": self.pncc.colors,
                "scale": self.pncc.camera.scale,
                "centre": list(self.pncc.camera.centre),
                "background": self.pncc.camera.background,
            },
            "background": self.background,
            "tracks": {"viewmats": self.tracks.viewmats, "upper_face": self.tracks.upper_face},
            "camera": {"K": [list(row) for row in self.camera.K], "width": width, "height": height},
            "rasterizer": {
                "dialect": self.rasterizer.dialect,
                "rasterize_mode": self.rasterizer.rasterize_mode,
                "near_plane": self.rasterizer.near_plane,
                "eps2d": self.rasterizer.eps2d,
            },
            "licence": {"name": self.licence.name, "attribution": self.licence.attribution},
            "training": self.training,
        }
        with atomic_file(path) as staging, staging.open("wb") as stream:
            torch.save(content, stream)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a checkpoint; nothing in the file is executed.

        Raises:
            CheckpointError: missing, damaged, unsafe, of another format or a newer version, or
                its parts do not belong together; says what was expected and what was found.
        """
        return cls.read(read_torch_file(path), path)

    @classmethod
    def read(cls, content: Any, path: Path) -> Self:
        """The checkpoint in what :func:`read_torch_file` gave; errors as :meth:`load`."""
        _check_format(content, path)
        return _checkpoint(cls, CheckedContent(path, content))


def _state(module: nn.Module) -> StateDict:
    # clone: a tensor that is a view would be saved with everything it is a view of.
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _check_format(content: Any, path: Path) -> None:
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        kind = f"format {found!r}" if found else _outline(content)
        raise CheckpointError(
            f"{path} is not a checkpoint that talksplat knows: expected format {FORMAT!r}, found "
            f"{kind}. docs/export.md says how to write one."
        )
    version = content.get("version")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(
            f"{path} expects an integer 'version' of 1 or more, found {version!r}."
        )
    if version > VERSION:
        raise CheckpointError(
            f"{path} has version {version}, this talksplat reads up to {VERSION}: it was written "
            "by a newer talksplat; update talksplat."
        )


def _outline(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(repr(key)[:40] for key in list(content)[:6])
        return f"a dict with the keys {keys or 'none'}"
    return f"a {type(content).__name__}"


def _checkpoint(cls: type[Checkpoint], content: CheckedContent) -> Checkpoint:
    """Every part is checked before anything is built from it."""
    config = content.config(D3TalkerConfig, "config")
    expression_names = content.texts("front_end", "expression_names")
    return cls(
        name=content.text("name"),
        model=content.module(lambda: D3Talker(config), "model"),
        identity=content.module(lambda: _empty_identity(content, config), "identity"),
        front_end=_front_end(content, config.feature_width, len(expression_names)),
        expression_names=expression_names,
        pncc=_pncc(content, config.pncc_size, len(expression_names)),
        background=_background(content, config.refiner.image_size),
        tracks=_tracks(content),
        camera=content.record(Camera, {"K": content.value("camera", "K")}, "camera"),
        rasterizer=content.record(
            RasterizerContract,
            {**content.mapping("rasterizer"), "sh_degree": config.sh_degree},
            "rasterizer",
        ),
        licence=content.record(Licence, content.mapping("licence"), "licence"),
        training=content.mapping("training"),
    )


def _empty_identity(content: CheckedContent, config: D3TalkerConfig) -> Identity:
    face, mouth = (
        GaussianSet.empty(len(content.tensor("identity", means, shape=(None, 3))), config.sh_degree)
        for means in ("face.means", "mouth.means")
    )
    return Identity(config, face, mouth)


def _front_end(content: CheckedContent, feature_width: int, expressions: int) -> FrontEnd:
    encoder = content.config(LogMelEncoderConfig, "front_end", "config", "encoder")
    motion = content.config(AudioToMotionConfig, "front_end", "config", "audio_to_motion")
    for place, expected, found in (
        ("encoder.feature_width", feature_width, encoder.feature_width),
        ("audio_to_motion.feature_width", feature_width, motion.feature_width),
        ("audio_to_motion.expression_width", expressions, motion.expression_width),
    ):
        if expected != found:
            raise content.error(f"front_end.config.{place} expects {expected}", found)
    return FrontEnd(
        content.module(lambda: LogMelEncoder(encoder), "front_end", "encoder"),
        content.module(lambda: AudioToMotion(motion), "front_end", "audio_to_motion"),
    ).eval()


def _pncc(content: CheckedContent, side: int, expressions: int) -> PnccMesh:
    template = content.tensor("pncc", "template", shape=(None, 3))
    vertices = len(template)
    faces = content.tensor("pncc", "faces", shape=(None, 3), dtype=torch.int32)
    if faces.numel() and not (int(faces.min()) >= 0 and int(faces.max()) < vertices):
        raise content.error(
            f"pncc.faces expects indices of {vertices} vertices",
            f"{int(faces.min())} to {int(faces.max())}",
        )
    camera = {name: content.value("pncc", name) for name in ("scale", "centre", "background")}
    return PnccMesh(
        template=template,
        basis=content.tensor("pncc", "basis", shape=(expressions, vertices, 3)),
        faces=faces,
        colors=content.tensor("pncc", "colors", shape=(vertices, 3)),
        camera=content.record(PnccContract, {**camera, "width": side, "height": side}, "pncc"),
    )


def _background(content: CheckedContent, side: int) -> Tensor:
    """The plate: as large as the refiner's pictures and as the camera says."""
    for name in ("height", "width"):
        if content.value("camera", name) != side:
            raise content.error(
                f"camera.{name} expects {side}, the refiner's", content.value("camera", name)
            )
    return content.tensor("background", shape=(side, side, 3), dtype=torch.uint8)


def _tracks(content: CheckedContent) -> Tracks:
    viewmats = content.tensor("tracks", "viewmats", shape=(None, 4, 4))
    if not len(viewmats):
        raise content.error("tracks.viewmats expects at least one frame", "none")
    return Tracks(viewmats, content.tensor("tracks", "upper_face", shape=(len(viewmats), 6)))
