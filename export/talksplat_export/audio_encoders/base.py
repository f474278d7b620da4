"""What every family takes as its ears: a module from PCM to feature tokens, and how to stream it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from talksplat.manifest import AudioBlocks


@dataclass(frozen=True)
class AudioEncoder:
    """An audio encoder in the streaming form that goes into a bundle.

    Attributes:
        module: ``pcm`` [1,S] in -1..1 at 16 kHz, then the tensors of ``constants``, to ``features``
            [1,L,D]; in evaluation mode. S is the window of one block, L its tokens.
        features: name of the features, as in the manifest: "hubert", "wav2vec2", "ave", ...
        feature_rate: tokens per second.
        feature_size: D.
        blocks: how the module is run on a stream.
        constants: weights that do not fit into an ONNX file (2 GiB); inputs of the graph after
            ``pcm``, stored in ``baked_audio_encoder.safetensors``. Mostly empty.
    """

    module: nn.Module
    features: str
    feature_rate: int
    feature_size: int
    blocks: AudioBlocks
    constants: Mapping[str, Tensor] = field(default_factory=dict)
