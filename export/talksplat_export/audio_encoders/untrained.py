"""The published speech architectures with random weights: what one costs, without having it."""

from __future__ import annotations

from typing import Any

import torch

from talksplat.errors import BackendError
from talksplat_export.audio_encoders.speech_model import SpeechModel

_LARGE_NORMS = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_XLS_R_1B = {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "intermediate_size": 5120,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert-base": ("Hubert", {}),
    "hubert-large": ("Hubert", {**_LARGE, **_LARGE_NORMS}),
    "wav2vec2-base": ("Wav2Vec2", {}),
    "wav2vec2-large": ("Wav2Vec2", _LARGE),
    "xls-r-1b": ("Wav2Vec2", {**_XLS_R_1B, **_LARGE_NORMS}),
}
"""Name → class of transformers, and what of its configuration is not the default. As published:
hubert-base-ls960, hubert-large-ls960-ft, wav2vec2-base, wav2vec2-large, wav2vec2-xls-r-1b."""


def untrained_speech_model(name: str, seed: int = 0, **sizes: Any) -> SpeechModel:
    """One of :data:`ARCHITECTURES`; ``sizes`` replace its configuration.

    Raises:
        BackendError: transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise BackendError(
            "HuBERT and wav2vec 2.0 need transformers: pip install 'talksplat[speech]'."
        ) from error
    kind, configuration = ARCHITECTURES[name]
    config = getattr(transformers, f"{kind}Config")(**{**configuration, **sizes})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(config)
    return SpeechModel(model, None, True, f"{name}, untrained")
