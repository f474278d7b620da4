"""Looks into an ``.onnx`` file without the onnx package: is it whole, and is it self-contained?

An ONNX tensor may name another file as the place of its data. A bundle's graphs hold all their
data themselves, so any such reference is refused before a runtime opens the file. The walk follows
the protobuf wire format over the messages that can reach a tensor; field numbers are those of
``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from talksplat.errors import BundleError

# message -> {field number: message of that field}
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_GRAPH_OF_MODEL = 7
_MAX_DEPTH = 64


class _MalformedError(ValueError):
    """The bytes are not a protobuf message."""


def check_onnx_file(path: Path) -> None:
    """Refuse a file that is not ONNX or whose tensors live in other files.

    Raises:
        BundleError: with the reason.
    """
    data = memoryview(path.read_bytes())
    try:
        if not any(number == _GRAPH_OF_MODEL for number, _ in _fields(data)):
            raise _MalformedError("it holds no graph")
        external = _has_external_data(data, "Model", 0)
    except _MalformedError as error:
        raise BundleError(
            f"{path.name} is not an ONNX file: {error}. Export the avatar again."
        ) from error
    if external:
        raise BundleError(
            f"{path.name} keeps tensors in another file; a bundle's graphs must hold all their "
            "data. Export the avatar again with external data switched off."
        )


def _has_external_data(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise _MalformedError("graphs are nested too deeply")
    children = _CHILDREN[kind]
    for number, value in _fields(message):
        if kind == "Tensor" and number == _EXTERNAL_DATA:
            return True
        if kind == "Tensor" and number == _DATA_LOCATION and value != 0:
            return True
        if (
            number in children
            and isinstance(value, memoryview)
            and _has_external_data(value, children[number], depth + 1)
        ):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Pairs of field number and value; bytes for length-delimited fields, else an integer."""
    position, size = 0, len(message)
    while position < size:
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise _MalformedError("a field has number 0")
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise _MalformedError(f"a field has wire type {wire_type}")
        if length > size - position:
            raise _MalformedError("a field runs past the end of the file")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _MalformedError("it ends in the middle of a field")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError("a number is longer than 64 bits")
