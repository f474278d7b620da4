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

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from talksplat import schema
from talksplat.atomic import atomic_file
from talksplat.errors import CheckpointError
from talksplat.manifest import Camera, Licence, PnccContract, RasterizerContract
from talksplat_export.audio_encoders.audio_to_motion import AudioToMotion, AudioToMotionConfig
from talksplat_export.audio_encoders.front_end import FrontEnd
from talksplat_export.audio_encoders.log_mel import LogMelEncoder, LogMelEncoderConfig
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.d3talker import D3Talker, D3TalkerConfig, Identity
from talksplat_export.gaussians import GaussianSet

FORMAT = "talksplat.d3talker"
VERSION = 1

_LARGEST_SIZE = 16384
"""No width, side or count of layers in a config is larger; bounds what a bad file can allocate."""

Module = TypeVar("Module", bound=nn.Module)
Record = TypeVar("Record")
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
        content = read_torch_file(path)
        _check_format(content, path)
        return _Reader(path, content).checkpoint(cls)


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


class _Reader:
    """Takes a checkpoint apart; every part is checked before anything is built from it."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    def checkpoint(self, cls: type[Checkpoint]) -> Checkpoint:
        config = self._config(D3TalkerConfig, "config")
        background = self._tensor("background", shape=(None, None, 3), dtype=torch.uint8)
        expression_names = self._texts("front_end", "expression_names")
        self._check_camera_size(background)
        self._check_refiner_size(config, background)
        return cls(
            name=self._text("name"),
            model=self._load(lambda: D3Talker(config), "model"),
            identity=self._load(lambda: self._empty_identity(config), "identity"),
            front_end=self._front_end(len(expression_names)),
            expression_names=expression_names,
            pncc=self._pncc(config, len(expression_names)),
            background=background,
            tracks=self._tracks(),
            camera=self._record(Camera, {"K": self._value("camera", "K")}, "camera"),
            rasterizer=self._record(
                RasterizerContract,
                {**self._dict("rasterizer"), "sh_degree": config.sh_degree},
                "rasterizer",
            ),
            licence=self._record(Licence, self._dict("licence"), "licence"),
            training=self._dict("training"),
        )

    def _config(self, cls: type[Record], *keys: str) -> Record:
        stored = self._dict(*keys)
        for size in _integers(stored):
            if not 0 <= size <= _LARGEST_SIZE:
                expected = f"{'.'.join(keys)} expects sizes from 0 to {_LARGEST_SIZE}"
                raise self._error(expected, size)
        return self._record(cls, stored, ".".join(keys))

    def _front_end(self, expressions: int) -> FrontEnd:
        encoder = self._config(LogMelEncoderConfig, "front_end", "config", "encoder")
        motion = self._config(AudioToMotionConfig, "front_end", "config", "audio_to_motion")
        if motion.expression_width != expressions:
            raise self._error(
                f"front_end.expression_names expects {motion.expression_width} names", expressions
            )
        return FrontEnd(
            self._load(lambda: LogMelEncoder(encoder), "front_end", "encoder"),
            self._load(lambda: AudioToMotion(motion), "front_end", "audio_to_motion"),
        ).eval()

    def _empty_identity(self, config: D3TalkerConfig) -> Identity:
        face, mouth = (
            GaussianSet.empty(
                len(self._tensor("identity", means, shape=(None, 3))), config.sh_degree
            )
            for means in ("face.means", "mouth.means")
        )
        return Identity(config, face, mouth)

    def _load(self, build: Callable[[], Module], *keys: str) -> Module:
        """Build a module and fill it, after its shapes have been compared without memory."""
        state = self._state_dict(*keys)
        try:
            with torch.device("meta"):
                blank = build().state_dict()
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{self.path}: no network can be built for {'.'.join(keys)}: {error}."
            ) from error
        expected = {name: _describe(tensor) for name, tensor in blank.items()}
        found = {name: _describe(tensor) for name, tensor in state.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                wanted = expected.get(name, "no such tensor")
                raise self._error(
                    f"{'.'.join(keys)}.{name} expects {wanted} by the config",
                    found.get(name, "no such tensor"),
                )
        module = build()
        module.load_state_dict(state)
        return module.eval().requires_grad_(False)

    def _pncc(self, config: D3TalkerConfig, expressions: int) -> PnccMesh:
        template = self._tensor("pncc", "template", shape=(None, 3))
        vertices = len(template)
        faces = self._tensor("pncc", "faces", shape=(None, 3), dtype=torch.int32)
        if faces.numel() and not (int(faces.min()) >= 0 and int(faces.max()) < vertices):
            raise self._error(
                f"pncc.faces expects indices of {vertices} vertices",
                f"{int(faces.min())} to {int(faces.max())}",
            )
        camera = {name: self._value("pncc", name) for name in ("scale", "centre", "background")}
        size = {"width": config.pncc_size, "height": config.pncc_size}
        return PnccMesh(
            template=template,
            basis=self._tensor("pncc", "basis", shape=(expressions, vertices, 3)),
            faces=faces,
            colors=self._tensor("pncc", "colors", shape=(vertices, 3)),
            camera=self._record(PnccContract, {**camera, **size}, "pncc"),
        )

    def _tracks(self) -> Tracks:
        viewmats = self._tensor("tracks", "viewmats", shape=(None, 4, 4))
        if not len(viewmats):
            raise self._error("tracks.viewmats expects at least one frame", "none")
        return Tracks(viewmats, self._tensor("tracks", "upper_face", shape=(len(viewmats), 6)))

    def _check_refiner_size(self, config: D3TalkerConfig, background: Tensor) -> None:
        side = config.refiner.image_size
        if tuple(background.shape[:2]) != (side, side):
            raise self._error(
                f"background expects [{side}, {side}, 3], the size that the refiner was made for",
                list(background.shape),
            )

    def _check_camera_size(self, background: Tensor) -> None:
        size = [self._value("camera", "height"), self._value("camera", "width")]
        if size != list(background.shape[:2]):
            raise self._error(
                f"camera expects height and width {list(background.shape[:2])} of the background",
                size,
            )

    def _value(self, *keys: str) -> Any:
        value: Any = self.content
        for depth, key in enumerate(keys):
            if not isinstance(value, dict) or key not in value:
                raise CheckpointError(
                    f"{self.path} is not complete: it lacks {'.'.join(keys[: depth + 1])!r}. "
                    "Write it with AvatarCheckpoint.save."
                )
            value = value[key]
        return value

    def _dict(self, *keys: str) -> dict[str, Any]:
        value = self._value(*keys)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self._error(f"{'.'.join(keys)} expects a dict with names as keys", _kind(value))
        return dict(value)

    def _state_dict(self, *keys: str) -> StateDict:
        state = self._dict(*keys)
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise self._error(f"{'.'.join(keys)}.{name} expects a tensor", _kind(value))
        return state

    def _tensor(
        self, *keys: str, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        value = self._value(*keys)
        axes = ",".join("*" if size is None else str(size) for size in shape)
        expected = f"{'.'.join(keys)} expects {_dtype_name(dtype)} [{axes}]"
        if not isinstance(value, Tensor):
            raise self._error(expected, _kind(value))
        fits = value.dim() == len(shape) and all(
            size is None or size == found for size, found in zip(shape, value.shape, strict=True)
        )
        if not fits or value.dtype != dtype or value.layout != torch.strided:
            raise self._error(expected, _describe(value))
        return value.contiguous()

    def _text(self, *keys: str) -> str:
        value = self._value(*keys)
        if not isinstance(value, str) or not value:
            raise self._error(f"{'.'.join(keys)} expects a text", repr(value))
        return value

    def _texts(self, *keys: str) -> tuple[str, ...]:
        value = self._value(*keys)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._error(f"{'.'.join(keys)} expects a list of texts", repr(value))
        return tuple(value)

    def _record(self, cls: type[Record], values: Mapping[str, Any], where: str) -> Record:
        try:
            return schema.decode(cls, schema.parse(json.dumps(values)), where)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: {error}.") from error

    def _error(self, expected: str, found: object) -> CheckpointError:
        return CheckpointError(f"{self.path}: {expected}, found {str(found)[:80]}.")


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []


def _describe(tensor: Tensor) -> str:
    return f"{_dtype_name(tensor.dtype)} {list(tensor.shape)}"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
