"""Reads torch files as data: tensors, numbers, strings and containers of them, never code.

A torch file is a pickle, and a pickle may name any function to be called while it is read.
``weights_only`` restricts that to the few that build tensors; everything else is refused here with
the name of what the file asked for.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from talksplat.errors import CheckpointError

_FORBIDDEN_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_torch_file(path: Path) -> Any:
    """The content of a ``torch.save`` file, on the CPU.

    Raises:
        CheckpointError: missing, truncated, not a torch file, asks to run code, or holds NaN.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"Expected a checkpoint file at {path}, found {found}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler
        raise CheckpointError(_damage(path)) from error
    _check_finite(content, path, "")
    return content


def _refusal(path: Path, reason: str) -> str:
    if forbidden := _FORBIDDEN_GLOBAL.search(reason):
        return (
            f"{path} is not safe to read: a checkpoint holds tensors, numbers and text only, this "
            f"one asks to run {forbidden[1]!r} while it is read. Nothing was run. Get the "
            "checkpoint from someone you trust, or save its state dicts alone."
        )
    return _damage(path)


def _damage(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return (
            f"{path} is not a whole torch file: expected a zip archive as torch.save writes it, "
            "found something else or a part of one. Copy the checkpoint again."
        )
    return f"{path} is damaged: its tensors cannot be read. Copy the checkpoint again."


def _check_finite(content: Any, path: Path, where: str) -> None:
    if isinstance(content, Tensor):
        if content.is_floating_point() and not bool(torch.isfinite(content).all()):
            raise CheckpointError(
                f"Tensor {where.removeprefix('.')!r} of {path} holds NaN or infinity; expected "
                "finite numbers. The training diverged: use an earlier checkpoint."
            )
    elif isinstance(content, dict):
        for key, value in content.items():
            _check_finite(value, path, f"{where}.{key}")
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            _check_finite(value, path, f"{where}[{index}]")
