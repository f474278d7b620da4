"""What every family takes as its ears: PCM to feature tokens, of a clip and of a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from talksplat.errors import InputError
from talksplat.manifest import AudioBlocks
from talksplat_export.audio_encoders.weights import LARGEST_GRAPH
from talksplat_export.families.base import Array, Graph
from talksplat_export.onnx_export import export_graph

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = 640


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
        origin: which weights, hidden layer and normalisation; for ``created_with`` of the manifest.
    """

    module: nn.Module
    features: str
    feature_rate: int
    feature_size: int
    blocks: AudioBlocks
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    origin: str = ""

    def graph(self) -> Graph:
        """``audio_encoder.onnx`` of a bundle: the window of one block."""
        blocks = self.blocks
        samples = SAMPLES_PER_FRAME * blocks.block_frames
        pcm = torch.zeros(1, blocks.left_samples + samples + blocks.right_samples)
        return Graph("audio_encoder", self.module, {"pcm": pcm, **self.constants}, ("features",))

    def tensors(self) -> dict[str, dict[str, Array]]:
        """Files that the graph needs beside it: file → name → array."""
        if not self.constants:
            return {}
        arrays = {name: tensor.numpy() for name, tensor in self.constants.items()}
        return {"baked_audio_encoder.safetensors": arrays}


@dataclass(frozen=True)
class StreamingForm:
    """How much an encoder hears at once.

    Attributes:
        block_frames: frames made at once; the first of them waits for the last.
        context_frames: frames heard before the block, computed again with every block.
        look_ahead_frames: frames heard after it, waited for.
    """

    block_frames: int
    context_frames: int
    look_ahead_frames: int

    def __post_init__(self) -> None:
        if self.block_frames < 1 or min(self.context_frames, self.look_ahead_frames) < 0:
            raise InputError(
                "A streaming form needs blocks of at least 1 frame, context and look-ahead of at "
                f"least 0; found {self}."
            )


class ClipEncoder(nn.Module, ABC):
    """An audio encoder as it is published: for whole clips. Frame f's tokens begin at sample 640 f.

    ``forward`` takes ``pcm`` [1,S] to ``features`` [1,L,D], S free; :meth:`clip` is what upstream
    code computes of a whole file, its ends and pieces included.

    Attributes:
        features: name of the features, as in the manifest.
        feature_rate: tokens per second.
        feature_size: D.
        origin: which weights, hidden layer and normalisation.
        usual_form: the streaming form where none is asked for.
    """

    features: str
    feature_rate: int
    feature_size: int
    origin: str
    usual_form: StreamingForm

    @abstractmethod
    def clip(self, pcm: Tensor) -> Tensor:
        """A whole clip [S] to its features [L,D], L about S · ``feature_rate`` / 16000.

        Raises:
            InputError: the clip is shorter than what one token hears.
        """

    @abstractmethod
    def window(self, form: StreamingForm) -> tuple[AudioBlocks, nn.Module]:
        """What a block reads, and the module that makes its own tokens of that.

        Raises:
            InputError: the encoder cannot take this form.
        """

    @property
    def frame_tokens(self) -> int:
        """Tokens per video frame."""
        return self.feature_rate * SAMPLES_PER_FRAME // SAMPLE_RATE


def export_clip_encoder(encoder: ClipEncoder, opset: int = 18) -> bytes:
    """ONNX model of an encoder for clips of any length: ``pcm`` [1,S] to ``features`` [1,L,D].

    Lengths that make at least one token are allowed. For use outside a bundle.

    Raises:
        InputError: the weights do not fit into an ONNX file.
    """
    size = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    if size > LARGEST_GRAPH:
        raise InputError(
            f"The weights of {encoder.origin} take {size / 1e9:.1f} GB; an ONNX file holds "
            f"{LARGEST_GRAPH / 1e9:.1f} GB. Export an avatar with this encoder: a bundle keeps its "
            "weights beside the graph."
        )
    graph = Graph("audio_encoder", encoder, {"pcm": torch.zeros(1, SAMPLE_RATE)}, ("features",))
    return export_graph(graph, opset, ({1: "samples"},))
