"""The two front ends as one thing that is trained, saved and loaded together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from talksplat.errors import CheckpointError
from talksplat_export.audio_encoders.audio_to_motion import (
    EXPRESSION_NAMES,
    TOKENS_PER_FRAME,
    AudioToMotion,
    AudioToMotionConfig,
)
from talksplat_export.audio_encoders.log_mel import (
    SAMPLES_PER_TOKEN,
    LogMelEncoder,
    LogMelEncoderConfig,
)

SAMPLES_PER_FRAME = SAMPLES_PER_TOKEN * TOKENS_PER_FRAME


@dataclass(frozen=True)
class Padding:
    """Samples before and after the frames wanted that the front end must be given."""

    left_samples: int
    right_samples: int


class FrontEnd(nn.Module):
    """PCM to feature tokens (``encoder``) and those to expression (``audio_to_motion``)."""

    def __init__(self, encoder: LogMelEncoder, audio_to_motion: AudioToMotion) -> None:
        super().__init__()
        self.encoder = encoder
        self.audio_to_motion = audio_to_motion

    @classmethod
    def untrained(cls) -> FrontEnd:
        """Both networks at their usual sizes, weights random."""
        return cls(LogMelEncoder(), AudioToMotion())

    @property
    def padding(self) -> Padding:
        """What both together need around a block of frames; the right side is look-ahead."""
        return Padding(
            self.encoder.left_samples + SAMPLES_PER_TOKEN * self.audio_to_motion.left_tokens,
            self.encoder.right_samples + SAMPLES_PER_TOKEN * self.audio_to_motion.right_tokens,
        )

    def forward(self, pcm: Tensor) -> tuple[Tensor, Tensor]:
        """``pcm`` [B, left + 640·F + right] to all features [B,2F+16,D] and expression [B,F,E]."""
        features = self.encoder(pcm)
        return features, self.audio_to_motion(features)

    def whole_clip(self, pcm: Tensor) -> tuple[Tensor, Tensor]:
        """A whole clip [S] to features [2F,D] and expression [F,E], F = ceil(S/640).

        Zeros stand before the start and after the end, as at run time.
        """
        frames = -(-pcm.shape[0] // SAMPLES_PER_FRAME)
        padding = self.padding
        after = frames * SAMPLES_PER_FRAME - pcm.shape[0] + padding.right_samples
        padded = nn.functional.pad(pcm, (padding.left_samples, after))
        features, expression = self(padded[None])
        left, right = self.audio_to_motion.left_tokens, self.audio_to_motion.right_tokens
        return features[0, left : features.shape[1] - right], expression[0]


def save_front_end(front_end: FrontEnd, path: Path) -> None:
    """Writes ``config``, both state dicts and ``expression_names``; replaces ``path`` at once."""
    content = {
        "config": {
            "encoder": asdict(front_end.encoder.config),
            "audio_to_motion": asdict(front_end.audio_to_motion.config),
        },
        "encoder": front_end.encoder.state_dict(),
        "audio_to_motion": front_end.audio_to_motion.state_dict(),
        "expression_names": list(EXPRESSION_NAMES),
    }
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(content, partial)
    partial.replace(path)


def load_front_end(path: Path) -> FrontEnd:
    """Reads what :func:`save_front_end` wrote, in evaluation mode.

    Raises:
        CheckpointError: the file is missing, unsafe, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        encoder = LogMelEncoder(LogMelEncoderConfig(**content["config"]["encoder"]))
        motion = AudioToMotion(AudioToMotionConfig(**content["config"]["audio_to_motion"]))
        encoder.load_state_dict(content["encoder"])
        motion.load_state_dict(content["audio_to_motion"])
        names = tuple(content["expression_names"])
    except Exception as error:
        raise CheckpointError(
            f"Expected an audio front end in {path}, as talksplat_export.training.audio_front_end"
            f" writes it; reading it failed: {error}"
        ) from error
    if names != EXPRESSION_NAMES:
        raise CheckpointError(
            f"Expected the {len(EXPRESSION_NAMES)} expression names {EXPRESSION_NAMES} in {path},"
            f" found {names}. Train the front end again."
        )
    return FrontEnd(encoder, motion).eval()
