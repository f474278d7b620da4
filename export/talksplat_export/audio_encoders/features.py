"""Features of a clip, as a ``.npy`` file that every session takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from talksplat.atomic import atomic_file
from talksplat.errors import InputError
from talksplat_export.audio_encoders.base import ClipEncoder
from talksplat_export.audio_encoders.load import load_encoder

FloatArray = NDArray[np.float32]


def compute_features(
    pcm: FloatArray, source: str | Path, *, layer: int | None = None, normalise: bool | None = None
) -> tuple[FloatArray, ClipEncoder]:
    """Features of a whole clip, as upstream code computes them.

    Args:
        pcm: [S] in -1..1 at 16 kHz.
        source, layer, normalise: see :func:`load_encoder`.

    Returns:
        [L,D], and the encoder that made them.

    Raises:
        CheckpointError, BackendError: as :func:`load_encoder`.
        InputError: the clip is too short, or an option does not fit the encoder.
    """
    encoder = load_encoder(source, layer=layer, normalise=normalise)
    with torch.inference_mode():
        return encoder.clip(torch.from_numpy(pcm)).numpy(), encoder


def write_features(features: FloatArray, path: Path) -> None:
    """Write a ``.npy`` file, whole or not at all.

    Raises:
        InputError: the name has another suffix.
        OutputError: it cannot be written.
    """
    if path.suffix != ".npy":
        raise InputError(f"Expected a name ending in .npy, found {path.name!r}.")
    with atomic_file(path) as staging, staging.open("wb") as stream:
        np.save(stream, features, allow_pickle=False)
