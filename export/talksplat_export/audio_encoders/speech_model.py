"""HuBERT and wav2vec 2.0 as audio encoders, with the weights that ``transformers`` reads.

HuBERT: Hsu et al., 2021. wav2vec 2.0: Baevski et al., 2020; XLS-R: Babu et al., 2021. Seven
convolutions make one token of every 320 samples, which sees 400; a transformer follows. Two things
let a token depend on its whole clip: attention, and the normalisation of the waveform (with the
base models also that of the first convolution). So a stream is encoded in windows, and how far
that is from the whole clip is measured: ``streaming.py``.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from talksplat.errors import BackendError, CheckpointError, InputError
from talksplat.manifest import AudioBlocks
from talksplat_export.audio_encoders.base import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    ClipEncoder,
    StreamingForm,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPES = ("hubert", "wav2vec2")
PIECE_TOKENS = 1000
"""Longest run of tokens that attend to one another: long clips are cut, as upstream cuts them."""

_AGREEMENT = 1e-4
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_UNHEARD = 1e4  # below every attention score by far, and finite
_USUAL_FORM = StreamingForm(block_frames=5, context_frames=100, look_ahead_frames=5)


class SpeechModel(ClipEncoder):
    """``pcm`` [1,S] to hidden states [1,L,D] with L = (S - 400) // 320 + 1.

    Args:
        model: a ``HubertModel`` or ``Wav2Vec2Model`` of transformers, which is changed (weight
            normalisation is folded).
        layer: which hidden state: 0 is before the transformer, n after its layer n; None is the
            last one, which alone has passed the final norm of the large models.
        normalise: bring the waveform to zero mean and unit variance first.
        name: what the weights are called.

    Raises:
        InputError: no such layer.
        CheckpointError: not such a model, or the installed transformers computes it differently.
    """

    def __init__(
        self, model: PreTrainedModel, layer: int | None, normalise: bool, name: str
    ) -> None:
        super().__init__()
        config: Any = model.config
        if config.model_type not in MODEL_TYPES:
            raise CheckpointError(
                f"{name} is a {config.model_type!r} model; expected one of "
                f"{', '.join(MODEL_TYPES)}."
            )
        layers = config.num_hidden_layers
        if layer is not None and not 0 <= layer <= layers:
            raise InputError(f"{name} has hidden states 0 to {layers}; asked for {layer}.")
        model.train(False).requires_grad_(False)
        model.set_attn_implementation("eager")
        expected = _published(model, layer)
        self.usual_form = _USUAL_FORM
        self.layer = layers if layer is None else layer
        self.normalise = normalise
        self.features = config.model_type
        self.feature_size = int(config.hidden_size)
        self.hop = math.prod(config.conv_stride)
        self.receptive_field = _receptive_field(config.conv_kernel, config.conv_stride)
        if SAMPLES_PER_FRAME % self.hop:
            raise CheckpointError(
                f"{name} makes a token of every {self.hop} samples; expected a whole number of "
                f"tokens per frame of {SAMPLES_PER_FRAME} samples."
            )
        self.feature_rate = SAMPLE_RATE // self.hop
        how = "waveform normalised" if normalise else "waveform as it is"
        self.origin = f"{name[-100:]}, hidden state {self.layer} of {layers}, {how}"
        parts: Any = model
        encoder = parts.encoder
        self.convolutions = parts.feature_extractor
        self.projection = parts.feature_projection
        self.position = encoder.pos_conv_embed
        for module in self.position.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        stable = bool(config.do_stable_layer_norm)
        last = layer is None or layer == layers
        self.norm_before = nn.Identity() if stable else encoder.layer_norm
        self.layers = encoder.layers[: self.layer]
        self.norm_after = encoder.layer_norm if stable and last else nn.Identity()
        self.eval().requires_grad_(False)
        _check_agreement(self, expected, name)

    def forward(self, pcm: Tensor) -> Tensor:
        """See the class."""
        return self.encode(normalise_waveform(pcm) if self.normalise else pcm)

    def encode(self, waveform: Tensor) -> Tensor:
        """As :meth:`forward`, of a waveform that is normalised already."""
        return self.attend(self.convolutions(waveform))

    def attend(self, convolved: Tensor, first: Tensor | None = None) -> Tensor:
        """Convolved sound [1,C,L] to hidden states [1,L,D].

        Args:
            convolved: what the convolutions make of a waveform.
            first: scalar, the first token that exists; those before it are not attended to.
        """
        hidden = _first(self.projection(convolved.transpose(1, 2)))
        unheard = None
        if first is not None:
            token = torch.arange(hidden.shape[1], device=hidden.device)
            exists = (token >= first).to(hidden.dtype)
            hidden = hidden * exists[None, :, None]
            unheard = ((exists - 1.0) * _UNHEARD)[None, None, None]
        hidden = self.norm_before(hidden + self.position(hidden))
        for layer in self.layers:
            hidden = _first(layer(hidden, attention_mask=unheard))
        return self.norm_after(hidden)

    def window(self, form: StreamingForm) -> tuple[AudioBlocks, nn.Module]:
        """See :meth:`ClipEncoder.window`. Each window is normalised by itself: :class:`Window`."""
        blocks = AudioBlocks(
            block_frames=form.block_frames,
            left_samples=SAMPLES_PER_FRAME * form.context_frames,
            right_samples=SAMPLES_PER_FRAME * form.look_ahead_frames
            + self.receptive_field
            - self.hop,
            left_tokens=0,
            right_tokens=0,
        )
        first = self.frame_tokens * form.context_frames
        return blocks, Window(self, first, self.frame_tokens * form.block_frames)

    def clip(self, pcm: Tensor) -> Tensor:
        """See :meth:`ClipEncoder.clip`: (S - 80) // 320 tokens, whose clip is normalised as a whole
        and encoded in pieces of :data:`PIECE_TOKENS` tokens.

        Raises:
            InputError: the clip is too short for a token.
        """
        if pcm.shape[0] < self.receptive_field:
            raise InputError(
                f"A token of {self.features} hears {self.receptive_field} samples; found a clip of "
                f"{pcm.shape[0]}."
            )
        waveform = normalise_waveform(pcm[None]) if self.normalise else pcm[None]
        tail = self.receptive_field - self.hop
        step = PIECE_TOKENS * self.hop
        pieces = [
            self.encode(waveform[:, start : start + step + tail])[0]
            for start in range(0, pcm.shape[0] - self.receptive_field + 1, step)
        ]
        return torch.cat(pieces)


class Window(nn.Module):
    """``pcm`` [1,S] of a block with its surroundings to the block's own ``features`` [1,L,D].

    Before an utterance there are zeros, which the whole clip does not have. So zeros at the start
    of the context are left out: of the mean and variance of the waveform, of the first
    convolution's norm and of attention. The first blocks of an utterance are thereby what they are
    in the clip, but for what comes later in it. Zeros after the context count as silence.

    Args:
        encoder: what is run on the window.
        first: the block's first own token in the window, also the length of the context in tokens.
        count: how many are its own.
    """

    def __init__(self, encoder: SpeechModel, first: int, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.first = first
        self.count = count

    def forward(self, pcm: Tensor) -> Tensor:
        """See the class."""
        encoder = self.encoder
        start = self._start(pcm)
        if encoder.normalise:
            pcm = _normalise_from(pcm, start * encoder.hop)
        layers: Any = encoder.convolutions.conv_layers
        hidden = pcm[:, None]
        for index, layer in enumerate(layers):
            if index == 0 and isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
                hop = layer.conv.stride[0]
                hidden = _norm_from(layer.conv(hidden), start * (encoder.hop // hop), layer)
            else:
                hidden = layer(hidden)
        features = encoder.attend(hidden, start)
        return features[:, self.first : self.first + self.count]

    def _start(self, pcm: Tensor) -> Tensor:
        """The token in which the sound begins, as a scalar; at most the block's first own one."""
        sample = torch.arange(pcm.shape[1], device=pcm.device)
        sounding = torch.where(pcm[0] != 0.0, sample, pcm.shape[1])
        return (sounding.amin(dim=0) // self.encoder.hop).clamp(max=self.first)


def _normalise_from(pcm: Tensor, start: Tensor) -> Tensor:
    """As :func:`normalise_waveform` of the samples from ``start`` on; those before stay zero."""
    counted = (torch.arange(pcm.shape[1], device=pcm.device) >= start).to(pcm.dtype)
    count = counted.sum()
    centred = (pcm - (pcm * counted).sum() / count) * counted * 1000.0
    return centred / torch.sqrt((centred * centred).sum() / count + 0.1)


def _norm_from(convolved: Tensor, start: Tensor, layer: Any) -> Tensor:
    """The first layer's norm of every channel over time, from ``start`` on, and its activation."""
    norm: nn.GroupNorm = layer.layer_norm
    counted = (torch.arange(convolved.shape[2], device=convolved.device) >= start).to(
        convolved.dtype
    )
    count = counted.sum()
    mean = (convolved * counted).sum(dim=2, keepdim=True) / count
    centred = convolved - mean
    variance = (centred * centred * counted).sum(dim=2, keepdim=True) / count
    # A thousand times larger on both sides, as in normalise_waveform.
    scaled = centred * 1000.0 / torch.sqrt(variance * 1e6 + norm.eps * 1e6)
    return layer.activation(scaled * norm.weight[:, None] + norm.bias[:, None])


def load_speech_model(
    source: str | Path, *, layer: int | None = None, normalise: bool | None = None
) -> SpeechModel:
    """HuBERT or wav2vec 2.0 from a folder or the Hugging Face hub.

    Args:
        source: a folder as ``save_pretrained`` writes it, or a hub id such as
            "facebook/hubert-large-ls960-ft".
        layer: see :class:`SpeechModel`.
        normalise: see :class:`SpeechModel`; by default what ``preprocessor_config.json`` says.

    Raises:
        CheckpointError: nothing there, not such a model, or the hub cannot be reached and the model
            is not in its cache.
        BackendError: transformers is not installed.
        InputError: no such layer, or ``normalise`` must be given.
    """
    try:
        import transformers
    except ImportError as error:
        raise BackendError(
            "HuBERT and wav2vec 2.0 need transformers: pip install 'talksplat[speech]'."
        ) from error
    name = str(source)
    if normalise is None:
        normalise = _normalises(source)
    model = _fetch(
        transformers.AutoModel,
        source,
        "a model of transformers",
        dtype=torch.float32,
        weights_only=True,  # a .bin file of weights is a pickle
    )
    if isinstance(source, Path) or Path(source).is_dir():
        name = Path(source).resolve().name
    return SpeechModel(model, layer, normalise, name)


def normalise_waveform(pcm: Tensor) -> Tensor:
    """Zero mean, unit variance over [1,S]: ``(x - mean) / sqrt(variance + 1e-7)``.

    Written a thousand times larger, which is the same: graph optimisers take adding 1e-7 for adding
    nothing, and digital silence would become 0 / 0.
    """
    centred = (pcm - pcm.mean(dim=-1, keepdim=True)) * 1000.0
    variance = (centred * centred).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + 0.1)


def _normalises(source: str | Path) -> bool:
    from transformers import Wav2Vec2FeatureExtractor

    if Path(source).is_dir() and not (Path(source) / "preprocessor_config.json").is_file():
        raise InputError(
            f"{source} has no preprocessor_config.json, which says whether the waveform is "
            "normalised; say it yourself: --normalise yes or no (HuBERT and XLS-R: yes)."
        )
    extractor = _fetch(Wav2Vec2FeatureExtractor, source, "a preprocessor_config.json")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise CheckpointError(
            f"{source} hears {extractor.sampling_rate} Hz; expected {SAMPLE_RATE} Hz."
        )
    return bool(extractor.do_normalize)


def _fetch(kind: Any, source: str | Path, what: str, **options: Any) -> Any:
    """``kind.from_pretrained``: a folder, then the hub's cache, then the hub itself."""
    folder = Path(source).is_dir()
    if not folder and (isinstance(source, Path) or not _HUB_ID.fullmatch(str(source))):
        found = "a file" if Path(source).exists() else "nothing"
        raise CheckpointError(f"Expected a folder with {what} at {source}, found {found}.")
    options |= {"trust_remote_code": False}
    try:
        return kind.from_pretrained(str(source), local_files_only=True, **options)
    except pickle.UnpicklingError as error:
        raise _unsafe(source) from error
    except Exception as error:  # transformers and its readers raise many kinds
        if folder:
            raise CheckpointError(
                f"Expected {what} in {source}, as save_pretrained writes it: {_one_line(error)}"
            ) from error
    _check_hub(str(source))
    try:
        return kind.from_pretrained(str(source), **options)
    except pickle.UnpicklingError as error:
        raise _unsafe(source) from error
    except Exception as error:
        raise CheckpointError(
            f"Expected {what} of {source} on the Hugging Face hub: {_one_line(error)}"
        ) from error


def _unsafe(source: str | Path) -> CheckpointError:
    return CheckpointError(
        f"The weights of {source} are not safe to read: expected tensors alone, found a pickle "
        "that asks for something else while it is read. Nothing was run. Take a copy "
        "with .safetensors weights."
    )


def _check_hub(name: str) -> None:
    """Say plainly why the hub does not give a model that is not in its cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        hf_hub_download(name, "config.json")
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} is neither a folder nor in the cache of the Hugging Face hub, and the hub "
            "cannot be reached. Check the network, or download the model elsewhere and give its "
            "folder."
        ) from error
    except Exception as error:  # no such model, no permission, no such file
        raise CheckpointError(
            f"The Hugging Face hub does not give {name}: {_one_line(error)} Check the id."
        ) from error


def _one_line(error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return (first if len(first) <= 300 else first[:297] + "...").rstrip(".") + "."


def _published(model: PreTrainedModel, layer: int | None) -> tuple[Tensor, Tensor]:
    """A quarter of a second of noise and what transformers makes of it."""
    noise = torch.randn(1, SAMPLE_RATE // 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if layer in (None, model.config.num_hidden_layers):  # versions differ on its last norm
            return noise, model(noise).last_hidden_state
        return noise, model(noise, output_hidden_states=True).hidden_states[layer]


def _check_agreement(encoder: SpeechModel, expected: tuple[Tensor, Tensor], name: str) -> None:
    """The parts are called one by one here; another transformers may join them otherwise."""
    noise, published = expected
    with torch.inference_mode():
        found = encoder.encode(noise)
    if found.shape != published.shape or not bool((found - published).abs().max() <= _AGREEMENT):
        raise CheckpointError(
            f"{name} is computed differently by the installed transformers: expected hidden states "
            f"{list(published.shape)} within {_AGREEMENT:.0e}. Install transformers 5."
        )


def _first(output: Any) -> Tensor:
    """Layers of some versions and models return tuples."""
    return output[0] if isinstance(output, tuple) else output


def _receptive_field(kernels: list[int], strides: list[int]) -> int:
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
