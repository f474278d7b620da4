"""``manifest.json``: everything a stranger needs to know about an avatar bundle.

The dataclasses below *are* the schema (version 1): one field per key, units in the docstrings.
``docs/bundle.md`` shows a whole example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeVar

from talksplat import schema
from talksplat.errors import BundleError
from talksplat.schema import MaxLength, Range, SchemaError

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
class AudioBlocks:
    """How ``audio_encoder.onnx`` runs on a stream, block by block.

    With ``B = block_frames`` and ``s = sample_rate / fps``, block k owns frames ``[k·B, (k+1)·B)``
    and reads samples ``[s·k·B - left_samples, s·(k+1)·B + right_samples)``; samples outside the
    clip are zero. ``features`` of a block begin ``left_tokens`` before the block's own first token
    and end ``right_tokens`` after its own last one. The look-ahead of a frame follows from this
    and the family's windows.

    ``difference`` is measured at export: the largest absolute difference of a block's own tokens
    from those of the whole clip in one run, relative to the features' standard deviation. None
    where there is none to measure: convolutions without padding give the same in blocks.
    """

    block_frames: Annotated[int, Range(1, 256)]
    left_samples: Annotated[int, Range(0, 1_600_000)]
    right_samples: Annotated[int, Range(0, 1_600_000)]
    left_tokens: Annotated[int, Range(0, 20_000)]
    right_tokens: Annotated[int, Range(0, 20_000)]
    difference: Annotated[float, Range(0, 1e9)] | None = None


@dataclass(frozen=True)
class AudioContract:
    """The sound an avatar hears and the features that drive it.

    Attributes:
        features: what the features are: ``"log-mel"``, ``"hubert"``, ``"wav2vec2"``,
            ``"deepspeech"``, ``"ave"``, …
        feature_rate: tokens per second, a multiple of ``fps``.
        feature_size: numbers per token.
        blocks: how ``audio_encoder.onnx`` runs; None if the bundle holds none, and every session
            needs ``features``.
    """

    sample_rate: Literal[16000]
    fps: Literal[25]
    features: Name
    feature_rate: Annotated[int, Range(25, 200)]
    feature_size: Annotated[int, Range(1, 4096)]
    blocks: AudioBlocks | None

    def __post_init__(self) -> None:
        if self.feature_rate % self.fps:
            raise SchemaError(
                f"audio.feature_rate: expected a whole number of tokens per frame, found "
                f"{self.feature_rate} tokens and {self.fps} frames per second"
            )

    @property
    def frame_samples(self) -> int:
        """Samples per frame."""
        return self.sample_rate // self.fps

    @property
    def frame_tokens(self) -> int:
        """Tokens per frame."""
        return self.feature_rate // self.fps


@dataclass(frozen=True)
class WindowContract:
    """The audio window of a frame, as its networks were trained to see it.

    That of frame i is frames ``i - frames_before … i + frames_after``; each of them is ``tokens``
    feature tokens that begin ``tokens_before`` before the frame's own first token. Tokens and
    frames beyond the clip are zero.
    """

    frames_before: Annotated[int, Range(0, 100)]
    frames_after: Annotated[int, Range(0, 100)]
    tokens: Annotated[int, Range(1, 256)]
    tokens_before: Annotated[int, Range(0, 256)]

    @property
    def frames(self) -> int:
        """Frames in a window."""
        return self.frames_before + 1 + self.frames_after


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
    """What D3-Talker carries between frames.

    ``motion_radius`` is the j of the motion window ``i - j … i + j``.
    """

    window: WindowContract
    motion_radius: Annotated[int, Range(0, 100)]
    motion_size: Annotated[int, Range(1, 4096)]
    expression_size: Annotated[int, Range(1, 4096)]
    pncc: PnccContract


@dataclass(frozen=True)
class GaussianTalkerContract:
    """What TalkingGaussian and InsTaG differ in at run time.

    Attributes:
        window: the audio window; ``audio_window`` of the graphs is [1, frames, D, tokens].
        mouth_takes_upper_face: ``motion_mouth`` has the input ``upper_face``.
        mouth_takes_move: ``motion_face`` has the output ``move`` [1,3] and ``motion_mouth`` the
            input of that name.
        mouth_dilation: side of the square over which the mouth's alpha is the largest one before
            the background shows through it; 0 for none, else odd.
    """

    window: WindowContract
    mouth_takes_upper_face: bool
    mouth_takes_move: bool
    mouth_dilation: Annotated[int, Range(0, 99)]

    def __post_init__(self) -> None:
        if self.mouth_dilation and self.mouth_dilation % 2 == 0:
            raise SchemaError(
                f"talkinggaussian.mouth_dilation: expected 0 or an odd number, found "
                f"{self.mouth_dilation}"
            )


@dataclass(frozen=True)
class SdtalkContract:
    """What SDTalk needs at run time.

    Attributes:
        window: the audio window, of one frame; ``audio_window`` of the graph is [1, tokens, D].
        noise: what the refiner adds at its 15 layers: nothing, the maps of the checkpoint, or
            maps that are inputs ``noise0`` … ``noise14`` of the graph.
    """

    window: WindowContract
    noise: Literal["zero", "stored", "input"]

    def __post_init__(self) -> None:
        if self.window.frames != 1:
            raise SchemaError(
                f"sdtalk.window: expected a window of one frame, found {self.window.frames}"
            )


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


CONTRACTS: Final = {
    "d3talker": "d3talker",
    "talkinggaussian": "talkinggaussian",
    "instag": "talkinggaussian",
    "sdtalk": "sdtalk",
}
"""family → key of its contract in the manifest"""

Contract = TypeVar("Contract", D3TalkerContract, GaussianTalkerContract, SdtalkContract)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole ``manifest.json``. ``graphs`` and ``files`` are filled in by ``BundleWriter``.

    Of the families' keys exactly that of the bundle's own is there; see :data:`CONTRACTS`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    family: Literal["d3talker", "talkinggaussian", "instag", "sdtalk"]
    name: Name
    created_with: dict[str, Name]
    provenance: Provenance
    licence: Licence
    precision: Literal["float32", "float16"]
    audio: AudioContract
    video: VideoContract
    rasterizer: RasterizerContract
    camera: Camera
    d3talker: D3TalkerContract | None = None
    talkinggaussian: GaussianTalkerContract | None = None
    sdtalk: SdtalkContract | None = None
    tolerances: Tolerances
    baked: Baked
    parity: Parity | None = None
    graphs: dict[str, GraphSpec] = field(default_factory=dict)
    files: dict[str, FileSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needed = CONTRACTS[self.family]
        found = [key for key in sorted(set(CONTRACTS.values())) if getattr(self, key) is not None]
        if found != [needed]:
            raise SchemaError(
                f"family {self.family!r} expects the key {needed!r} and no other family's, found "
                f"{', '.join(map(repr, found)) or 'none'}"
            )

    @property
    def window(self) -> WindowContract:
        """The audio window of the family's contract."""
        window: WindowContract = getattr(self, CONTRACTS[self.family]).window
        return window

    def contract(self, kind: type[Contract]) -> Contract:
        """The contract of the bundle's family.

        Raises:
            BundleError: the bundle is of a family with another kind of contract.
        """
        contract = getattr(self, CONTRACTS[self.family])
        if not isinstance(contract, kind):
            raise BundleError(
                f"Expected a bundle with a {kind.__name__}, found family {self.family!r}."
            )
        return contract


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
