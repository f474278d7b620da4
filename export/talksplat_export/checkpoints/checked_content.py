"""Values out of an untrusted checkpoint, each with the type and shape that is expected of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from talksplat import schema
from talksplat.errors import CheckpointError

_LARGEST_SIZE = 16384
"""No width, side or count of layers in a config is larger; bounds what a bad file can allocate."""

Module = TypeVar("Module", bound=nn.Module)
Record = TypeVar("Record")


class CheckedContent:
    """The nested dict of a checkpoint. Keys are given one by one: ``text("licence", "name")``.

    Every method raises :class:`CheckpointError` where the file holds something else; the message
    names the place, what was expected and what was found.

    Args:
        path: the file, for messages.
        content: what it holds.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self._content = content

    def value(self, *keys: str) -> Any:
        """Whatever is there."""
        value: Any = self._content
        for depth, key in enumerate(keys):
            if not isinstance(value, dict) or key not in value:
                raise CheckpointError(
                    f"{self.path} is not complete: it lacks {'.'.join(keys[: depth + 1])!r}. "
                    "docs/export.md says what a checkpoint holds."
                )
            value = value[key]
        return value

    def text(self, *keys: str) -> str:
        """A text that is not empty."""
        value = self.value(*keys)
        if not isinstance(value, str) or not value:
            raise self.error(f"{'.'.join(keys)} expects a text", repr(value))
        return value

    def texts(self, *keys: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.value(*keys)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{'.'.join(keys)} expects a list of texts", repr(value))
        return tuple(value)

    def mapping(self, *keys: str) -> dict[str, Any]:
        """A dict with names as keys."""
        value = self.value(*keys)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.error(f"{'.'.join(keys)} expects a dict with names as keys", _kind(value))
        return dict(value)

    def tensor(
        self, *keys: str, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """A tensor; ``None`` in ``shape`` is any size."""
        value = self.value(*keys)
        axes = ",".join("*" if size is None else str(size) for size in shape)
        expected = f"{'.'.join(keys)} expects {_dtype_name(dtype)} [{axes}]"
        if not isinstance(value, Tensor):
            raise self.error(expected, _kind(value))
        fits = value.dim() == len(shape) and all(
            size is None or size == found for size, found in zip(shape, value.shape, strict=True)
        )
        if not fits or value.dtype != dtype:
            raise self.error(expected, _describe(value))
        return value.contiguous()

    def record(self, cls: type[Record], values: Mapping[str, Any], where: str) -> Record:
        """A dataclass from plain values, checked as manifests are."""
        try:
            return schema.decode(cls, schema.parse(json.dumps(values)), where)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: {error}.") from error

    def config(self, cls: type[Record], *keys: str) -> Record:
        """A dataclass of network sizes."""
        stored = self.mapping(*keys)
        for size in _integers(stored):
            if not 0 <= size <= _LARGEST_SIZE:
                expected = f"{'.'.join(keys)} expects sizes from 0 to {_LARGEST_SIZE}"
                raise self.error(expected, size)
        return self.record(cls, stored, ".".join(keys))

    def module(self, build: Callable[[], Module], *keys: str) -> Module:
        """A network filled with a state dict, in evaluation mode.

        Its shapes are compared on torch's meta device first, before memory is taken for them.
        """
        where, state = ".".join(keys), self.mapping(*keys)
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise self.error(f"{where}.{name} expects a tensor", _kind(value))
        try:
            with torch.device("meta"):
                blank = build().state_dict()
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{self.path}: no network can be built for {where}: {error}."
            ) from error
        expected = {name: _describe(tensor) for name, tensor in blank.items()}
        found = {name: _describe(tensor) for name, tensor in state.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                wanted = expected.get(name, "no such tensor")
                raise self.error(
                    f"{where}.{name} expects {wanted} by the config",
                    found.get(name, "no such tensor"),
                )
        module = build()
        self._check_integers(where, module, state)
        module.load_state_dict(state)
        return module.eval().requires_grad_(False)

    def error(self, expected: str, found: object) -> CheckpointError:
        """To be raised where ``found`` is not what is expected."""
        return CheckpointError(f"{self.path}: {expected}, found {str(found)[:80]}.")

    def _check_integers(self, where: str, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Integers of a network are table offsets, which follow from the config: never trusted."""
        for name, own in module.state_dict().items():
            if not own.is_floating_point() and not torch.equal(own, state[name]):
                raise self.error(
                    f"{where}.{name} expects {own.tolist()} by the config", state[name].tolist()
                )


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
