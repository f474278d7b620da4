"""Gaussians as ``.ply`` files, in the properties of 3D Gaussian Splatting (Kerbl et al., 2023).

Per Gaussian ``x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3``, all before
activation: opacities as logits, quaternions (wxyz) of any length. ``f_rest_*`` is channel-major:
all red coefficients first. GaussianAvatars (Qian et al., CVPR 2024) adds ``binding_0``, the
triangle whose frame positions, rotations and scales are in. Properties of other kin are kept.

**Scales.** Stock readers activate ``scale_*`` with exp. TalkingGaussian and InsTaG activate with
softplus and write the value before *softplus* into the same property, without a word in the file:
ln(1 + eˣ) ≈ eˣ for small splats, 0.1 % off at 2 mm, more the larger. :class:`GaussianPly` and
:func:`write_gaussian_ply` mean exp, as viewers do; :func:`softplus_to_exp` and
:func:`exp_to_softplus` convert, exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from talksplat.atomic import atomic_file
from talksplat.errors import CheckpointError, InputError

FloatArray = NDArray[np.float32]

BINDING = "binding_0"
_MAX_HEADER_BYTES = 64 * 1024
_MAX_BYTES = 8 * 2**30
_MAX_ASCII_BYTES = 2**30
_TYPES = {
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
}  # fmt: skip
_FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "<"}
_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
_REQUIRED = (*_MEANS, *_DC, "opacity", *_SCALES, *_QUATS)
_REST_COUNTS = {3 * (degree + 1) ** 2 - 3 for degree in range(4)}


@dataclass(frozen=True)
class GaussianPly:
    """N Gaussians before activation, float32.

    Attributes:
        means: [N,3].
        shs: [N,K,3], K = (degree+1)² for degree 0..3, constant term first, RGB last.
        opacities: [N,1], logits.
        scales: [N,3], logarithms of the standard deviations along the axes.
        quats: [N,4], wxyz, any length but zero.
        extras: name → [N], what else the file says of a Gaussian, such as ``binding_0``.
    """

    means: FloatArray
    shs: FloatArray
    opacities: FloatArray
    scales: FloatArray
    quats: FloatArray
    extras: dict[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.means)
        coefficients = self.shs.shape[1] if self.shs.ndim == 3 else 0
        shapes = {
            "means": (n, 3),
            "shs": (n, coefficients, 3),
            "opacities": (n, 1),
            "scales": (n, 3),
            "quats": (n, 4),
        }
        for name, shape in shapes.items():
            _check_array(name, getattr(self, name), shape)
        if 3 * coefficients - 3 not in _REST_COUNTS:
            raise InputError(
                f"shs expects 1, 4, 9 or 16 coefficients per colour, found {coefficients}."
            )
        for name, values in self.extras.items():
            _check_array(name, values, (n,))

    @property
    def binding(self) -> NDArray[np.int64] | None:
        """[N] triangle of each Gaussian of GaussianAvatars; None in other files."""
        values = self.extras.get(BINDING)
        return None if values is None else np.rint(values).astype(np.int64)


def softplus_to_exp(scales: FloatArray) -> FloatArray:
    """Values before softplus to values before exp that activate to the same: ln(ln(1 + eˣ))."""
    x = scales.astype(np.float64)
    # Below -30 the two differ by less than float64 tells, and softplus would underflow.
    return np.where(x < -30, x, np.log(np.logaddexp(0, np.maximum(x, -30)))).astype(np.float32)


def exp_to_softplus(scales: FloatArray) -> FloatArray:
    """Values before exp to values before softplus that activate to the same: ln(e^eˣ - 1).

    Raises:
        InputError: a scale beyond e⁸⁸, which no float32 holds.
    """
    if scales.size and float(scales.max()) > 88:
        raise InputError(f"Scales before exp must be at most 88, found {float(scales.max()):.4g}.")
    activated = np.exp(np.maximum(scales.astype(np.float64), -30))
    softplus = activated + np.log(-np.expm1(-activated))
    return np.where(scales < -30, scales, softplus).astype(np.float32)


def read_gaussian_ply(path: Path) -> GaussianPly:
    """Read a ``.ply``, binary (either byte order) or ascii. Scales are taken to be before exp.

    Raises:
        CheckpointError: missing, truncated, not Gaussians, or NaN in it; says what was expected
            and found. Nothing is allocated that the file's own size does not back.
    """
    if not path.is_file():
        raise CheckpointError(f"Expected a .ply file at {path}, found no such file.")
    try:
        with path.open("rb") as stream:
            header = _read_header(stream, path)
            table = _read_table(stream, header, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    return _gaussians(table, header.count, path)


def write_gaussian_ply(path: Path, gaussians: GaussianPly, *, ascii: bool = False) -> None:
    """Write a ``.ply`` of float properties in the order of 3D Gaussian Splatting, whole or not.

    Args:
        path: the file to make.
        gaussians: what to write; ``extras`` follow the stock properties.
        ascii: as text, nine digits, which is enough to read the same float32 back.

    Raises:
        OutputError: it cannot be written (disk full included).
    """
    n = len(gaussians.means)
    rest = gaussians.shs[:, 1:].transpose(0, 2, 1).reshape(n, 3 * gaussians.shs.shape[1] - 3)
    columns = {
        **dict(zip(_MEANS, gaussians.means.T, strict=True)),
        **{name: np.zeros(n, np.float32) for name in _NORMALS},
        **dict(zip(_DC, gaussians.shs[:, 0].T, strict=True)),
        **{f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])},
        "opacity": gaussians.opacities[:, 0],
        **dict(zip(_SCALES, gaussians.scales.T, strict=True)),
        **dict(zip(_QUATS, gaussians.quats.T, strict=True)),
        **gaussians.extras,
    }
    table = np.stack(list(columns.values()), axis=1).astype("<f4")
    encoding = "ascii" if ascii else "binary_little_endian"
    properties = "".join(f"property float {name}\n" for name in columns)
    header = f"ply\nformat {encoding} 1.0\nelement vertex {n}\n{properties}end_header\n"
    with atomic_file(path) as staging, staging.open("wb") as stream:
        stream.write(header.encode("ascii"))
        if ascii:
            np.savetxt(stream, table, "%.9g")
        else:
            stream.write(table.tobytes())


@dataclass(frozen=True)
class _Header:
    encoding: str
    count: int
    properties: dict[str, str]  # name → numpy type
    more_follows: bool  # elements after the Gaussians


def _read_header(stream: BinaryIO, path: Path) -> _Header:
    lines: list[list[str]] = []
    taken = 0
    while True:
        raw = stream.readline(_MAX_HEADER_BYTES - taken + 1)
        taken += len(raw)
        if not raw.endswith(b"\n") or taken > _MAX_HEADER_BYTES:
            raise _error(path, "a header that ends with end_header", "a header without an end")
        words = raw.decode("ascii", "replace").split()
        if not lines and words != ["ply"]:
            raise _error(path, "a first line that says ply", repr(raw[:40]))
        if words == ["end_header"]:
            break
        lines.append(words)
    return _parse_header(lines[1:], path)


def _parse_header(lines: list[list[str]], path: Path) -> _Header:
    encoding, elements = "", 0
    count: int | None = None
    properties: dict[str, str] = {}
    for words in lines:
        match words:
            case [] | ["comment", *_] | ["obj_info", *_]:
                continue
            case ["format", kind, "1.0"] if kind in _FORMATS and not encoding:
                encoding = kind
            case ["element", name, number] if re.fullmatch(r"\d{1,12}", number):
                elements += 1
                if elements == 1:
                    if name != "vertex":
                        raise _error(path, "Gaussians (element vertex) first", repr(name[:40]))
                    count = int(number)
            case ["property", *_] if elements > 1:
                continue  # of an element after the Gaussians, which is not read
            case ["property", kind, name] if kind in _TYPES and elements == 1:
                if name in properties:
                    raise _error(path, "every property once", f"{name[:40]!r} twice")
                properties[name] = _TYPES[kind]
            case _:
                raise _error(path, "format, element and property lines", repr(" ".join(words))[:60])
    if not encoding or count is None:
        raise _error(path, "a format and an element vertex", "a header without them")
    return _Header(encoding, count, properties, elements > 1)


def _read_table(stream: BinaryIO, header: _Header, path: Path) -> dict[str, FloatArray]:
    """Every property as float32 [N]; sizes are compared with the file's before memory is taken."""
    _check_properties(header.properties, path)
    left = path.stat().st_size - stream.tell()
    order = _FORMATS[header.encoding]
    row = np.dtype([(name, order + kind) for name, kind in header.properties.items()])
    width = len(header.properties)
    ascii = header.encoding == "ascii"
    # In text a number takes a digit and a blank at least; the last blank may be missing.
    needed = header.count * (2 * width if ascii else row.itemsize) - ascii
    limit = _MAX_ASCII_BYTES if ascii else _MAX_BYTES
    if needed > left or left > limit:
        raise _error(
            path,
            f"{header.count} Gaussians in {needed} bytes{' or more' if ascii else ''}, at most "
            f"{limit}",
            f"{left} bytes after the header: the file is cut off or damaged",
        )
    if not ascii:
        if left > needed and not header.more_follows:
            raise _error(path, f"{needed} bytes after the header", f"{left}")
        table = np.frombuffer(stream.read(needed), row, header.count)
        return {name: table[name].astype(np.float32) for name in header.properties}
    return _read_text(stream, header, path)


def _read_text(stream: BinaryIO, header: _Header, path: Path) -> dict[str, FloatArray]:
    width = len(header.properties)
    words = stream.read().split()
    expected = header.count * width
    if len(words) < expected or (len(words) > expected and not header.more_follows):
        raise _error(path, f"{expected} numbers after the header", str(len(words)))
    try:
        numbers = np.array(words[:expected], np.float64).reshape(header.count, width)
    except ValueError as error:
        raise _error(path, "numbers after the header", str(error)[:60]) from error
    return {name: numbers[:, i].astype(np.float32) for i, name in enumerate(header.properties)}


def _check_properties(properties: dict[str, str], path: Path) -> None:
    if missing := [name for name in _REQUIRED if name not in properties]:
        shown = ", ".join(list(properties)[:6]) or "none"
        raise _error(
            path,
            f"the properties of 3D Gaussian Splatting, {missing[0]} among them",
            f"{shown}{', …' if len(properties) > 6 else ''}",
        )
    rest = [name for name in properties if name.startswith("f_rest_")]
    if len(rest) not in _REST_COUNTS or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
        raise _error(path, "0, 9, 24 or 45 properties f_rest_0, f_rest_1, …", f"{len(rest)}")


def _gaussians(table: dict[str, FloatArray], count: int, path: Path) -> GaussianPly:
    for name, values in table.items():
        if not np.isfinite(values).all():
            raise _error(path, "finite numbers that float32 holds", f"others in {name[:40]}")

    def columns(*names: str) -> FloatArray:
        return np.stack([table.pop(name) for name in names], axis=1)

    rest_names = [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in table))]
    constant = columns(*_DC)[:, None]
    width = len(rest_names) // 3
    rest = columns(*rest_names) if width else np.zeros((count, 0), np.float32)
    rest = rest.reshape(count, 3, width).transpose(0, 2, 1)
    shs = np.concatenate([constant, rest], axis=1)
    means, opacities = columns(*_MEANS), columns("opacity")
    scales, quats = columns(*_SCALES), columns(*_QUATS)
    if not (quats != 0).any(axis=1).all():
        raise _error(path, "rotations that are not zero", "a zero quaternion")
    for name in _NORMALS:
        table.pop(name, None)
    return GaussianPly(means, shs, opacities, scales, quats, table)


def _check_array(name: str, values: FloatArray, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float32:
        raise InputError(
            f"{name} expects float32 {list(shape)}, found {values.dtype} {list(values.shape)}."
        )


def _error(path: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a .ply of Gaussians that can be read: expected {expected}, found {found}."
    )
