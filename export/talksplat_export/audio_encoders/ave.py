"""AVE, SyncTalk's audio-visual encoder (Peng et al., 2024): one token of 512 per video frame.

A convolutional network, of the layout of Wav2Lip's audio encoder (Prajwal et al., 2020), looks at
16 mel frames, 0.2 s, as a picture 80 high and 16 wide. SyncTalk, TalkingGaussian and InsTaG put
two copies of the first token before a clip and two of the last one after it, so token t sees the
sound from 2 frames before frame t on.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from talksplat.errors import CheckpointError, InputError
from talksplat.manifest import AudioBlocks
from talksplat_export.audio_encoders.base import SAMPLE_RATE, ClipEncoder, StreamingForm
from talksplat_export.checkpoints.torch_file import read_torch_file

TOKEN_SIZE = 512
MELS = 80
MEL_FRAMES = 16

_WINDOW = 800
_HOP = 200
_EMPHASIS = 0.97
_LOWEST_HERTZ = 55.0
_HIGHEST_HERTZ = 7600.0
_FLOOR = 1e-5  # amplitude, -100 dB
_REFERENCE_DECIBEL = 20.0
_REPEATED = 2
_BLOCK = 5  # frames that are a whole number of mel frames: 5 of 40 ms are 16 of 12.5 ms
_MEL_FRAMES_OF_BLOCK = 16
# Before the first sample of a block, and after its last one: token t begins at mel frame
# floor(16 (t - 2) / 5), which is centred on sample 200 times that; one sample more for emphasis.
_LEFT_SAMPLES = 1801
_RIGHT_SAMPLES = 1400

_CHECKPOINT = "audio_visual_encoder.pth of SyncTalk"


class MelSpectrogram(nn.Module):
    """Emphasised sound [B,S] to mel levels [B,80,(S-800)//200+1] in -4..4, 80 frames a second.

    Slaney's mel bands of equal area over the amplitude of the spectrum, in decibel from -100 to 0
    above the reference of 20 dB, scaled to -4..4.
    """

    basis: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(_WINDOW, dtype=torch.float64)
        window = torch.hann_window(_WINDOW, periodic=True, dtype=torch.float64)
        bins = torch.arange(_WINDOW // 2 + 1, dtype=torch.float64)
        angles = 2 * math.pi / _WINDOW * bins[:, None] * n
        basis = torch.cat([torch.cos(angles), torch.sin(angles)]) * window
        self.register_buffer("basis", basis.float()[:, None], persistent=False)
        self.register_buffer("bands", _mel_bands().float()[:, :, None], persistent=False)

    def forward(self, emphasised: Tensor) -> Tensor:
        """See the class."""
        spectrum = nn.functional.conv1d(emphasised[:, None], self.basis, stride=_HOP)
        real, imaginary = spectrum.chunk(2, dim=1)
        amplitude = torch.sqrt(real * real + imaginary * imaginary)
        mel = nn.functional.conv1d(amplitude, self.bands)
        decibel = torch.log(mel.clamp_min(_FLOOR)) * (20.0 / math.log(10.0))
        return ((decibel - _REFERENCE_DECIBEL + 100.0) * 0.08 - 4.0).clamp(-4.0, 4.0)


class ConvBlock(nn.Module):
    """Convolution, batch norm, its input added where ``residual``, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] to [B,C',H',W']."""
        y = self.conv_block(x)
        return torch.relu(x + y if self.residual else y)


def _residual(width: int) -> ConvBlock:
    return ConvBlock(width, width, residual=True)


class AveEncoder(ClipEncoder):
    """``pcm`` [1, 1801 + 640 L + 1400], L a multiple of 5, to ``features`` [1,L,512].

    ``network`` has the names of SyncTalk's checkpoint.
    """

    features = "ave"
    feature_rate = 25
    feature_size = TOKEN_SIZE
    usual_form = StreamingForm(block_frames=_BLOCK, context_frames=0, look_ahead_frames=0)

    def __init__(self, name: str = "random weights") -> None:
        super().__init__()
        self.origin = f"AVE of SyncTalk, {name[-100:]}"
        self.mel = MelSpectrogram()
        self.network = nn.Sequential(
            ConvBlock(1, 32),
            _residual(32),
            _residual(32),
            ConvBlock(32, 64, stride=(3, 1)),
            _residual(64),
            _residual(64),
            ConvBlock(64, 128, stride=3),
            _residual(128),
            _residual(128),
            ConvBlock(128, 256, stride=(3, 2)),
            _residual(256),
            ConvBlock(256, TOKEN_SIZE, padding=0),
            ConvBlock(TOKEN_SIZE, TOKEN_SIZE, kernel=1, padding=0),
        )

    def forward(self, pcm: Tensor) -> Tensor:
        """See the class."""
        mel = self.mel(pcm[:, 1:] - _EMPHASIS * pcm[:, :-1])
        blocks = (mel.shape[2] - MEL_FRAMES + 3) // _MEL_FRAMES_OF_BLOCK
        token = torch.arange(_BLOCK * blocks, device=pcm.device)
        # floor(16 (t - 2) / 5), of which the first, -7, is the window's first mel frame.
        starts = (_MEL_FRAMES_OF_BLOCK * token + 3) // _BLOCK
        return self._tokens(mel, starts)[None]

    def clip(self, pcm: Tensor) -> Tensor:
        """See :meth:`ClipEncoder.clip`: as many tokens as upstream makes, a little more than the
        clip has frames.

        Raises:
            InputError: the clip is shorter than 16 mel frames, 0.1875 s.
        """
        before = nn.functional.pad(pcm, (1, 0))
        emphasised = before[1:] - _EMPHASIS * before[:-1]
        mel = self.mel(nn.functional.pad(emphasised, (_WINDOW // 2, _WINDOW // 2))[None])
        spare = mel.shape[2] - MEL_FRAMES
        if spare < 0:
            raise InputError(
                f"AVE hears {MEL_FRAMES} mel frames, {_HOP * (MEL_FRAMES - 1)} samples, at once; "
                f"found a clip of {pcm.shape[0]} samples."
            )
        token = torch.arange(spare * _BLOCK // _MEL_FRAMES_OF_BLOCK + 2)
        starts = (_MEL_FRAMES_OF_BLOCK * token // _BLOCK).clamp(max=spare)
        tokens = self._tokens(mel, starts)
        first, last = tokens[:1], tokens[-1:]
        return torch.cat([first.expand(_REPEATED, -1), tokens, last.expand(_REPEATED, -1)])

    def window(self, form: StreamingForm) -> tuple[AudioBlocks, nn.Module]:
        """See :meth:`ClipEncoder.window`. What a token sees is fixed; blocks differ from the clip
        only at its ends, where zeros stand in place of repeated tokens."""
        if form.block_frames % _BLOCK or form.context_frames or form.look_ahead_frames:
            raise InputError(
                f"AVE streams in blocks of {_BLOCK}, {2 * _BLOCK}, … frames, without context or "
                f"look-ahead of its own; found {form}."
            )
        blocks = AudioBlocks(
            block_frames=form.block_frames,
            left_samples=_LEFT_SAMPLES,
            right_samples=_RIGHT_SAMPLES,
            left_tokens=0,
            right_tokens=0,
        )
        return blocks, self

    def _tokens(self, mel: Tensor, starts: Tensor) -> Tensor:
        """[1,80,M] and the first mel frame of every token [L] to [L,512]."""
        columns = starts[:, None] + torch.arange(MEL_FRAMES, device=mel.device)
        pictures = mel[0][:, columns].transpose(0, 1)
        return self.network(pictures[:, None]).flatten(1)


def load_ave(path: Path) -> AveEncoder:
    """SyncTalk's ``audio_visual_encoder.pth``, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, unsafe, or of another shape.
    """
    content = read_torch_file(path)
    encoder = AveEncoder(path.name)
    expected = encoder.network.state_dict()
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(
            f"Expected {_CHECKPOINT} at {path}, a state dict; found a {type(content).__name__}."
        )
    state = {key.removeprefix("audio_encoder."): value for key, value in content.items()}
    if state.keys() != expected.keys():
        missing = sorted(expected.keys() - state.keys())
        unknown = sorted(state.keys() - expected.keys())
        raise CheckpointError(
            f"Expected {_CHECKPOINT} at {path} with {len(expected)} tensors; missing: "
            f"{', '.join(missing[:3]) or 'none'}; unknown: {', '.join(unknown[:3]) or 'none'}."
        )
    for key, tensor in expected.items():
        found = state[key]
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CheckpointError(
                f"{key} of {path} must have the shape {list(tensor.shape)}, found {shape}."
            )
    encoder.network.load_state_dict(state)
    return encoder.eval().requires_grad_(False)


def _mel_bands() -> Tensor:
    """Triangles [80, 401] between centres equally spaced on Slaney's mel scale, each of area 2/Hz
    of its base (Auditory Toolbox, Slaney 1998)."""
    lowest, highest = _to_mel(_LOWEST_HERTZ), _to_mel(_HIGHEST_HERTZ)
    step = (highest - lowest) / (MELS + 1)
    edges = torch.tensor(
        [_to_hertz(lowest + step * index) for index in range(MELS + 2)], dtype=torch.float64
    )
    hertz = torch.arange(_WINDOW // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / _WINDOW
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
    return torch.minimum(rising, falling).clamp_min(0.0) * 2.0 / (high - low)


_LINEAR_HERTZ = 200.0 / 3.0  # per mel, up to 1 kHz
_BREAK_HERTZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK_HERTZ:
        return hertz / _LINEAR_HERTZ
    return _BREAK_HERTZ / _LINEAR_HERTZ + math.log(hertz / _BREAK_HERTZ) / _LOG_STEP


def _to_hertz(mel: float) -> float:
    linear = mel * _LINEAR_HERTZ
    if linear < _BREAK_HERTZ:
        return linear
    return _BREAK_HERTZ * math.exp((mel - _BREAK_HERTZ / _LINEAR_HERTZ) * _LOG_STEP)
