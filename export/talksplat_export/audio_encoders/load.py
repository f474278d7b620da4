"""One door to every audio encoder that talksplat exports."""

from __future__ import annotations

from pathlib import Path

from talksplat.errors import InputError
from talksplat_export.audio_encoders.ave import load_ave
from talksplat_export.audio_encoders.base import ClipEncoder
from talksplat_export.audio_encoders.speech_model import load_speech_model


def load_encoder(
    source: str | Path, *, layer: int | None = None, normalise: bool | None = None
) -> ClipEncoder:
    """An audio encoder from its weights.

    Args:
        source: a file: AVE, SyncTalk's ``audio_visual_encoder.pth``; a folder or a hub id: HuBERT
            or wav2vec 2.0.
        layer: hidden state of HuBERT and wav2vec 2.0, default the last.
        normalise: whether they normalise the waveform, default what their folder says.

    Raises:
        CheckpointError: missing, damaged, unsafe or of another kind.
        BackendError: transformers is needed and not installed.
        InputError: an option does not fit the encoder.
    """
    if not Path(source).is_file():
        return load_speech_model(source, layer=layer, normalise=normalise)
    if layer is not None or normalise is not None:
        raise InputError(
            f"{source} is a file, taken for AVE, which has no choice of hidden state or "
            "normalisation; leave these options out."
        )
    return load_ave(Path(source))
