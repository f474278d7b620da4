"""Speech models of the published architectures with random weights, small ones by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from talksplat_export.audio_encoders.untrained import ARCHITECTURES

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (24,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def make_model(architecture: str, seed: int = 0, **sizes: Any) -> Any:
    """An untrained model, small unless ``sizes`` say otherwise.

    Norms and biases are random too, so that none can be left out unseen.
    """
    kind, configuration = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**{**configuration, **SMALL, **sizes})
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "attention" in name:
                parameter.mul_(4.0)  # untrained attention is all but even
    return model


def save_model(folder: Path, architecture: str, normalise: bool = True, **sizes: Any) -> Path:
    """A folder as save_pretrained writes it."""
    make_model(architecture, **sizes).save_pretrained(folder)
    extractor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": normalise,
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_value": 0.0,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder
