"""``manifest.json``: everything a stranger needs to know about an avatar bundle.

The dataclasses below *are* the schema (version 1): one field per key, units in the docstrings.
``docs/bundle.md`` shows a whole example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from talksplat import schema
from talksplat.errors import BundleError
from talksplat.schema import MaxLength, Range

SCHEMA_VERSION: Final = 1
MANIFEST_NAME = "manifest.json"

Count = Annotated[int, Range(0, 2**40)]
Pixels = Annotated[int, Range(1, 8192)]
Positive = Annotated[float, Range(1e-9, 1e9)]
Finite = Annotated[float, Range(-1e9, 1e9)]
Text = Annotated[str, MaxLength(100_000)]
Name = Annotated[str, MaxLength(200)]
Sha256 = Annotated[str, MaxLength(64)]
Axis = Annotated[int, Range(0, 2**31)] | Name


@dataclass(frozen=True)
class Provenance:
    """Which checkpoint a bundle was made from: its file name and the sha256 of its bytes."""

    checkpoint: Name
    checkpoint_sha256: Sha256


@dataclass(frozen=True)
class Licence:
    """Under which terms the avatar may be used, and whom to name."""

    name: Name
    attribution: Text


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a graph. ``shape`` holds sizes, or a name where the size is free."""

    name: Name
    dtype: Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
    shape: tuple[Axis, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX file with its tensors, as bound by name."""

    file: Name
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileSpec:
    """Size and sha256 (lower-case hexadecimal) of one file of the bundle."""

    bytes: Count
    sha256: Sha256


@dataclass(frozen=True)
class AudioContract:
    """How PCM becomes features and motion, block by block.

    With ``B = block_frames`` and ``s = sample_rate / fps``, block k owns frames ``[k·B, (k+1)·B)``
    and reads samples ``[s·k·B - left_samples, s·(k+1)·B + right_samples)``; samples outside the
    clip are zero. ``features`` of a block begin ``left_tokens`` before the block's own first token
    and end ``right_tokens`` after its own last one; ``expression`` of a block is its B frames.
    The look-ahead of a frame follows from this and the family's windows.
    """

    sample_rate: Literal[16000]
    fps: Literal[25]
    block_frames: Annotated[int, Range(1, 256)]
    left_samples: Annotated[int, Range(0, 160_000)]
    right_samples: Annotated[int, Range(0, 160_000)]
    feature_rate: Annotated[int, Range(25, 200)]
    feature_size: Annotated[int, Range(1, 4096)]
    left_tokens: Annotated[int, Range(0, 2000)]
    right_tokens: Annotated[int, Range(0, 2000)]


@dataclass(frozen=True)
class VideoContract:
    """Size of a frame in pixels and frames per second."""

    width: Pixels
    height: Pixels
    fps: Literal[25]


@dataclass(frozen=True)
class RasterizerContract:
    """The rules the Gaussians were trained with; arguments of :func:`talksplat.rasterize`."""

    dialect: Literal["gsplat", "gsplat-1.5", "inria"]
    rasterize_mode: Literal["classic", "antialiased"]
    sh_degree: Annotated[int, Range(0, 3)]
    near_plane: Annotated[float, Range(0, 1e6)]
    eps2d: Annotated[float, Range(0, 1e3)]


Row = tuple[Finite, Finite, Finite]


@dataclass(frozen=True)
class Camera:
    """Intrinsics ``K`` in pixels, pixel centres at +0.5. View matrices are in the tracks."""

    K: tuple[Row, Row, Row]


@dataclass(frozen=True)
class PnccContract:
    """Orthographic camera of the PNCC image, looking along -z at the face.

    A vertex (x, y, z) lands on pixel ``(width/2 + scale·(x - centre[0]),
    height/2 - scale·(y - centre[1]))``; of two at one pixel the larger z is seen. ``background``
    is the value of all three channels where no triangle is.
    """

    width: Pixels
    height: Pixels
    scale: Positive
    centre: tuple[Finite, Finite]
    background: Finite


@dataclass(frozen=True)
class D3TalkerContract:
    """What D3-Talker carries between frames; windows as in ``docs/architecture.md``.

    The audio window of frame i is frames ``i - frames_before … i + frames_after``; each of them
    holds ``window_tokens`` feature tokens, half of them before the frame's first own token.
    ``motion_radius`` is the j of the motion window ``i - j … i + j``.
    """

    frames_before: Annotated[int, Range(0, 100)]
    frames_after: Annotated[int, Range(0, 100)]
    window_tokens: Annotated[int, Range(2, 256)]
    motion_radius: Annotated[int, Range(0, 100)]
    motion_size: Annotated[int, Range(1, 4096)]
    expression_size: Annotated[int, Range(1, 4096)]
    pncc: PnccContract


@dataclass(frozen=True)
class OutputParity:
    """Absolute difference of one output between torch and ONNX Runtime, on the export's probes."""

    max_abs: float
    p99_99: float


@dataclass(frozen=True)
class Parity:
    """What export measured: per graph and output, and on final frames.

    ``frames_psnr_db`` is the lowest over the compared frames; None says that all were identical.
    """

    graphs: dict[str, dict[str, OutputParity]]
    frames: Count
    frames_psnr_db: float | None


@dataclass(frozen=True)
class Tolerances:
    """What ``verify`` accepts: largest absolute difference per graph, lowest PSNR on frames."""

    graphs: dict[str, float]
    frames_psnr_db: float


@dataclass(frozen=True)
class Baked:
    """What export took out of the per-frame graphs: bytes of tensors, operations per frame."""

    bytes: Count
    flops_before: Count
    flops_after: Count


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole ``manifest.json``. ``graphs`` and ``files`` are filled in by ``BundleWriter``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    family: Literal["d3talker"]
    name: Name
    created_with: dict[str, Name]
    provenance: Provenance
    licence: Licence
    precision: Literal["float32", "float16"]
    audio: AudioContract
    video: VideoContract
    rasterizer: RasterizerContract
    camera: Camera
    d3talker: D3TalkerContract
    tolerances: Tolerances
    baked: Baked
    parity: Parity | None = None
    graphs: dict[str, GraphSpec] = field(default_factory=dict)
    files: dict[str, FileSpec] = field(default_factory=dict)


def parse_manifest(text: str) -> Manifest:
    """Read the text of a ``manifest.json``.

    Raises:
        BundleError: not JSON, from a newer schema, or not a manifest of this schema; the message
            names the key.
    """
    try:
        document = schema.parse(text)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{MANIFEST_NAME} has schema version {version}, this talksplat reads up to "
                f"{SCHEMA_VERSION}: the bundle was made by a newer talksplat; update talksplat."
            )
        return schema.decode(Manifest, document)
    except schema.SchemaError as error:
        raise BundleError(
            f"{MANIFEST_NAME} is not a valid manifest: {error}. Export the avatar again."
        ) from error


def format_manifest(manifest: Manifest) -> str:
    """The text of a ``manifest.json`` that :func:`parse_manifest` reads back.

    Raises:
        BundleError: a value is one that the schema refuses.
    """
    try:
        text = schema.encode(manifest)
    except ValueError as error:
        raise BundleError(f"The manifest cannot be written: {error}.") from error
    parse_manifest(text)
    return text
