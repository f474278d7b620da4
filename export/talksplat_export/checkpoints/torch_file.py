"""Reads torch files as data: tensors, numbers, strings and containers of them, never code.

A torch file is a pickle, and a pickle may name any function to be called while it is read.
``weights_only`` restricts that to the few that build tensors; everything else is refused here with
the name of what the file asked for.

Optimisers leave NumPy floats behind (a learning rate that a NumPy function made). Those become
plain floats here: the names that NumPy pickles them under lead to :class:`_FloatType` and
:func:`_float_scalar`, so that nothing of NumPy itself is called.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from talksplat.errors import CheckpointError

_FORBIDDEN_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_NUMPY_SCALAR = "NumPy scalar of type"
_FOREIGN_SCALAR = re.compile(_NUMPY_SCALAR + r" '(\w+)'")
_PICKLE_START = b"\x80"


class _FloatType:
    """Stands for ``numpy.dtype`` of a float64 or float32 scalar."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in ("f8", "f4"):
            raise pickle.UnpicklingError(f"{_NUMPY_SCALAR} {code!r}")
        self.format = {"f8": "d", "f4": "f"}[code]
        self.byte_order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = ">" if state[1] == ">" else "<"


def _float_scalar(kind: _FloatType, data: bytes) -> float:
    """Stands for ``numpy.core.multiarray.scalar``."""
    value: float = struct.unpack(kind.byte_order + kind.format, data)[0]
    return value


_NUMPY_FLOATS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_float_scalar, "numpy.core.multiarray.scalar"),
    (_float_scalar, "numpy._core.multiarray.scalar"),
    (_FloatType, "numpy.dtype"),
]
"""What NumPy 1 and NumPy 2 pickle a float scalar as, and what is built instead."""


def read_torch_file(path: Path) -> Any:
    """The content of a ``torch.save`` file, on the CPU.

    Raises:
        CheckpointError: missing, truncated, not a torch file, asks to run code, or holds NaN.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"Expected a checkpoint file at {path}, found {found}.")
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_NUMPY_FLOATS):
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(content, path, "")
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler
        raise CheckpointError(_damage(path)) from error
    return content


def _check_archive(path: Path) -> None:
    """Only zip archives with plain entries: sizes in them cannot promise more than the file holds.

    Older torch files are bare pickles, whose sizes are believed before anything is checked.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            bare_pickle = stream.read(1) == _PICKLE_START
        found = (
            "a bare pickle, which could run code while it is read. Nothing was run. Save it again"
            " with a current torch"
            if bare_pickle
            else "something else or a part of one. Copy the checkpoint again"
        )
        raise CheckpointError(
            f"{path} is not a whole torch file: expected a zip archive as torch.save writes it, "
            f"found {found}."
        )
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(
                f"{path} is not a torch file: torch.save does not compress its entries, this "
                "archive does. Save the checkpoint again with torch.save."
            )


def _refusal(path: Path, reason: str) -> str:
    if forbidden := _FORBIDDEN_GLOBAL.search(reason):
        return (
            f"{path} is not safe to read: a checkpoint holds tensors, numbers and text only, this "
            f"one asks to run {forbidden[1]!r} while it is read. Nothing was run. Get the "
            "checkpoint from someone you trust, or save its state dicts alone."
        )
    if scalar := _FOREIGN_SCALAR.search(reason):
        return (
            f"{path} holds a NumPy value of type {scalar[1]!r}: expected tensors, plain numbers "
            "and text, and of NumPy float64 and float32 scalars alone. Save it as a plain number."
        )
    return _damage(path)


def _damage(path: Path) -> str:
    return f"{path} is damaged: its tensors cannot be read. Copy the checkpoint again."


def _check_tensors(content: Any, path: Path, where: str) -> None:
    """Every tensor is dense, as large as its own bytes, and finite."""
    if isinstance(content, Tensor):
        name = where.removeprefix(".")
        dense = content.layout == torch.strided
        if not dense or content.nbytes > content.untyped_storage().nbytes():
            raise CheckpointError(
                f"Tensor {name!r} of {path} is not plain: expected a dense tensor with all its "
                "numbers in the file. Save contiguous tensors."
            )
        if content.is_floating_point() and not bool(torch.isfinite(content).all()):
            raise CheckpointError(
                f"Tensor {name!r} of {path} holds NaN or infinity; expected finite numbers. The "
                "training diverged: use an earlier checkpoint."
            )
    elif isinstance(content, dict):
        for key, value in content.items():
            _check_tensors(value, path, f"{where}.{key}")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            _check_tensors(value, path, f"{where}[{index}]")
