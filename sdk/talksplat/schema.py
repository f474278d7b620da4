"""Strict JSON to dataclasses and back.

A dataclass is its own schema: field names are keys, type hints are the accepted types and
``Annotated[..., Range(...)]`` bounds a number. Anything else in the document is an error that
names the place, as in ``audio.block_frames: expected an integer from 1 to 256, found 0``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from unicodedata import category

Record = TypeVar("Record")


class SchemaError(ValueError):
    """A document does not fit its dataclass; the message names the place and both sides."""


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number."""

    minimum: float
    maximum: float


@dataclass(frozen=True)
class MaxLength:
    """Most characters of a string, or most entries of a list or mapping."""

    maximum: int


def parse(text: str) -> object:
    """JSON text to Python objects; refuses duplicate keys, NaN and Infinity.

    Raises:
        SchemaError: the text is not such a document.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise SchemaError("expected a JSON document, found one nested too deeply") from error
    except ValueError as error:
        raise SchemaError(f"expected a JSON document, found: {error}") from error


def decode(cls: type[Record], value: object, where: str = "") -> Record:
    """Build ``cls`` from parsed JSON.

    Raises:
        SchemaError: a key is missing, unknown, of another type or out of range.
    """
    return _decode_record(cls, value, where)  # type: ignore[no-any-return]


def encode(record: object) -> str:
    """A dataclass as indented JSON, which :func:`decode` reads back to an equal dataclass."""
    document = dataclasses.asdict(record)  # type: ignore[call-overload]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise SchemaError(f"the key {repeated[:40]!r} twice in one object")
    return document


def _refuse_constant(name: str) -> object:
    raise SchemaError(f"the number {name}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _decode_record(cls: type, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(where, "an object", value)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise SchemaError(f"{_join(where, unknown[0][:40])}: unknown key")
    arguments = {}
    for name, field in fields.items():
        place = _join(where, name)
        if name in value:
            arguments[name] = _decode(_hints(cls)[name], value[name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(f"{place}: missing")
    return cls(**arguments)


def _decode(hint: Any, value: object, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        decoded = _decode(arguments[0], value, where)
        for bound in arguments[1:]:
            _check(bound, decoded, where)
        return decoded
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise _mismatch(where, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is dict or origin is Mapping:
        if not isinstance(value, dict):
            raise _mismatch(where, "an object", value)
        item = arguments[1]
        return {key: _decode(item, entry, _join(where, key[:80])) for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        return _decode_record(hint, value, where)  # type: ignore[arg-type]
    return _decode_scalar(hint, value, where)


def _decode_union(options: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    for option in rest[:-1]:
        try:
            return _decode(option, value, where)
        except SchemaError:
            continue
    return _decode(rest[-1], value, where)


def _decode_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _mismatch(where, "a list", value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise _mismatch(where, f"a list of {len(arguments)}", value)
    return tuple(
        _decode(hint, entry, f"{where}[{index}]")
        for index, (hint, entry) in enumerate(zip(arguments, value, strict=True))
    )


def _decode_scalar(hint: type, value: object, where: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _mismatch(where, "a finite number", value)
        return number
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        if any(category(character) in ("Cc", "Cs") and character != "\n" for character in value):
            raise _mismatch(where, "text without control characters", value)
        return value
    names = {float: "a number", bool: "true or false", int: "an integer", str: "a string"}
    raise _mismatch(where, names[hint], value)


def _check(bound: object, value: Any, where: str) -> None:
    if isinstance(bound, Range) and not bound.minimum <= value <= bound.maximum:
        raise _mismatch(where, f"a number from {bound.minimum:g} to {bound.maximum:g}", value)
    if isinstance(bound, MaxLength) and len(value) > bound.maximum:
        raise _mismatch(where, f"at most {bound.maximum} long", f"{len(value)} long")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _mismatch(where: str, expected: str, found: object) -> SchemaError:
    shown = ascii(found)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return SchemaError(f"{where or 'document'}: expected {expected}, found {shown}")
