"""Log-mel audio encoder: PCM to 50 feature tokens a second, with valid convolutions only.

No padding happens inside, so a window that holds the receptive field gives exactly what the whole
clip gives; whoever calls supplies the samples left and right of the tokens wanted, zeros beyond
the ends of the clip. There is no FFT operator either: the windowed Fourier basis is a strided
convolution, which every ONNX runtime and TensorRT have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000
SAMPLES_PER_TOKEN = 320
_WINDOW = 400
_HOP = 160
_FFT_SIZE = 512
_LOWEST_HERTZ = 60.0
_HIGHEST_HERTZ = 7600.0
_POWER_FLOOR = 1e-7  # a sine at -64 dB of full scale; what is softer is noise
_LOG_CENTRE = -11.0  # natural log of mel power: about the mean and the spread over speech
_LOG_SPREAD = 4.0
_SLOPE = 0.1


@dataclass(frozen=True)
class LogMelEncoderConfig:
    """Sizes of the encoder: mel bands, hidden width, residual layers, width D of a token."""

    mels: int = 40
    hidden_width: int = 128
    layers: int = 3
    feature_width: int = 32


class LogMel(nn.Module):
    """PCM [B,S] in -1..1 to normalised log-mel [B,mels,(S-400)//160+1], 100 frames a second.

    A Hann window of 25 ms every 10 ms, power spectrum, triangular mel bands (O'Shaughnessy's
    scale) from 60 Hz to 7.6 kHz, natural log with a floor.
    """

    basis: Tensor
    bands: Tensor
    floor: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        bands, bins = _mel_bands(mels)
        self.register_buffer("basis", _fourier_basis(bins), persistent=False)
        self.register_buffer("bands", bands[:, :, None], persistent=False)
        # As the bias of a convolution: graph optimisers take adding so small a number for adding
        # nothing, and drop it.
        self.register_buffer("floor", torch.full((mels,), _POWER_FLOOR), persistent=False)

    def forward(self, pcm: Tensor) -> Tensor:
        spectrum = nn.functional.conv1d(pcm[:, None], self.basis, stride=_HOP)
        real, imaginary = spectrum.chunk(2, dim=1)
        power = nn.functional.conv1d(real * real + imaginary * imaginary, self.bands, self.floor)
        return (torch.log(power) - _LOG_CENTRE) / _LOG_SPREAD


class ValidResidual(nn.Module):
    """Convolution of width 3 without padding, added to the middle of its input."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        middle = x[:, :, self.dilation : -self.dilation]
        return middle + nn.functional.leaky_relu(self.conv(x), _SLOPE)


class LogMelEncoder(nn.Module):
    """PCM [B, left_samples + 320·L + right_samples] to features [B,L,D] in -1..1.

    Token t of a clip owns samples ``[320 t, 320 (t+1))``. The receptive field is centred on them.
    """

    def __init__(self, config: LogMelEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or LogMelEncoderConfig()
        width = self.config.hidden_width
        self.log_mel = LogMel(self.config.mels)
        self.pair = nn.Conv1d(self.config.mels, width, 4, stride=2)
        self.layers = nn.Sequential(*(ValidResidual(width) for _ in range(self.config.layers)))
        self.head = nn.Conv1d(width, self.config.feature_width, 1)

    @property
    def left_samples(self) -> int:
        """Samples needed before the first token's own."""
        # n tokens take n + 2·layers pairs, those 2(n + 2·layers) + 2 mel frames.
        frames_for_none = 2 * (2 * self.config.layers) + 2
        return (_HOP * (frames_for_none - 1) + _WINDOW) // 2

    @property
    def right_samples(self) -> int:
        """Samples needed after the last token's own."""
        return self.left_samples

    def forward(self, pcm: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.pair(self.log_mel(pcm)), _SLOPE)
        return torch.tanh(self.head(self.layers(x))).transpose(1, 2)


def _fourier_basis(bins: list[int]) -> Tensor:
    """Hann-windowed cosines, then sines, [2·len(bins), 1, 400]; a full-scale sine reads 0.5."""
    n = torch.arange(_WINDOW, dtype=torch.float64)
    window = torch.hann_window(_WINDOW, periodic=True, dtype=torch.float64)
    window = window / window.sum()
    angles = 2 * math.pi / _FFT_SIZE * torch.tensor(bins, dtype=torch.float64)[:, None] * n
    basis = torch.cat([torch.cos(angles), torch.sin(angles)]) * window
    return basis.float()[:, None]


def _mel_bands(mels: int) -> tuple[Tensor, list[int]]:
    """Triangular bands [mels, len(bins)] and the Fourier bins that any of them uses."""
    # On the CPU even when a module is built on the meta device, to compare shapes: which bins are
    # used depends on values.
    edges = (_mel(_LOWEST_HERTZ), _mel(_HIGHEST_HERTZ), mels + 2)
    edges_mel = torch.linspace(*edges, device="cpu").double()
    bins = torch.arange(_FFT_SIZE // 2 + 1, dtype=torch.float64, device="cpu")
    hertz = bins * SAMPLE_RATE / _FFT_SIZE
    position = 2595.0 * torch.log10(1.0 + hertz / 700.0)
    step = edges_mel[1] - edges_mel[0]
    bands = torch.clamp(1.0 - (position - edges_mel[1:-1, None]).abs() / step, min=0.0)
    used = [index for index in range(len(hertz)) if bool(bands[:, index].any())]
    return bands[:, used].float(), used


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)
