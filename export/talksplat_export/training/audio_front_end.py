"""Trains the audio front end: log-mel encoder and audio → expression, together.

    python -m talksplat_export.training.audio_front_end captures/speech -o front_end.pt

The folder holds ``train/`` and any number of held-out parts beside it; below each lie utterances
with ``aud.wav``, ``expression.npz`` and ``phonemes.json`` (``samples/synthetic_capture`` writes
such folders, and a capture is one too). Features learn to name phonemes while the expression
learns to follow the curves. Interrupted training goes on where it last saved.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from talksplat.errors import CheckpointError, InputError, TalksplatError
from talksplat_export.audio_encoders.audio_to_motion import EXPRESSION_NAMES, AudioToMotion
from talksplat_export.audio_encoders.front_end import SAMPLES_PER_FRAME, FrontEnd, save_front_end
from talksplat_export.audio_encoders.log_mel import SAMPLE_RATE, SAMPLES_PER_TOKEN

_NO_PHONEME = -100  # torch's ignored class
_SAVE_EVERY = 250

# How far each shape parts the inner lips, for emphasis and for the score: the jaw most, lips some.
_LIP_OPENING = {
    "jawOpen": 1.0,
    "mouthClose": -1.0,
    "mouthFunnel": 0.25,
    "mouthLowerDownLeft": 0.25,
    "mouthLowerDownRight": 0.25,
    "mouthUpperUpLeft": 0.2,
    "mouthUpperUpRight": 0.2,
    "mouthPressLeft": -0.25,
    "mouthPressRight": -0.25,
    "mouthRollLower": -0.2,
    "mouthRollUpper": -0.2,
}
_CLOSED_BELOW = 0.02


@dataclass(frozen=True)
class TrainingConfig:
    """Steps, crops a step, frames a crop, peak learning rate, seed, and the weights of the loss."""

    steps: int = 2400
    batch: int = 20
    frames: int = 48
    learning_rate: float = 2e-3
    seed: int = 0
    velocity_weight: float = 1.0
    opening_weight: float = 1.0
    closed_emphasis: float = 3.0
    phoneme_weight: float = 0.02


@dataclass(frozen=True)
class Clip:
    """An utterance: ``pcm`` int16 [S], ``expression`` [T,E], ``phonemes`` [2T] class per token."""

    pcm: NDArray[np.int16]
    expression: NDArray[np.float32]
    phonemes: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """``pcm`` [B, left+640·F+right], ``expression`` [B,F,E], ``phonemes`` [B,2F]."""

    pcm: Tensor
    expression: Tensor
    phonemes: Tensor


@dataclass(frozen=True)
class Score:
    """On held-out clips: correlation with the ground truth, and mean error of all weights."""

    clips: int
    jaw_open: float
    lip_opening: float
    mean_absolute_error: float
    phoneme_accuracy: float


def lip_opening_weights() -> Tensor:
    """[E]: inner-lip opening is about this times an expression."""
    return torch.tensor([_LIP_OPENING.get(name, 0.0) for name in EXPRESSION_NAMES])


def phoneme_symbols(folders: Sequence[Path]) -> list[str]:
    """The IPA symbols that occur, sorted: the classes."""
    symbols: set[str] = set()
    for folder in folders:
        spoken = json.loads((folder / "phonemes.json").read_text(encoding="utf-8"))
        symbols.update(p["symbol"] for p in spoken["phonemes"])
    return sorted(symbols)


def load_clip(folder: Path, symbols: Sequence[str]) -> Clip:
    """Reads one utterance; symbols outside ``symbols`` carry no class."""
    pcm, rate = soundfile.read(folder / "aud.wav", dtype="int16")
    if rate != SAMPLE_RATE or pcm.ndim != 1:
        raise InputError(
            f"Expected {SAMPLE_RATE} Hz mono in {folder / 'aud.wav'}, found {rate} Hz, shape"
            f" {pcm.shape}."
        )
    with np.load(folder / "expression.npz", allow_pickle=False) as tracks:
        names = [str(name) for name in tracks["names"]]
        expression = tracks["weights"][:, [names.index(name) for name in EXPRESSION_NAMES]]
    spoken = json.loads((folder / "phonemes.json").read_text(encoding="utf-8"))
    classes = {symbol: index for index, symbol in enumerate(symbols)}
    token_times = (np.arange(2 * len(expression)) + 0.5) * SAMPLES_PER_TOKEN / SAMPLE_RATE
    phonemes = np.full(len(token_times), _NO_PHONEME, np.int64)
    for p in spoken["phonemes"]:
        inside = (token_times >= p["start_s"]) & (token_times < p["end_s"])
        phonemes[inside] = classes.get(p["symbol"], _NO_PHONEME)
    return Clip(pcm, expression.astype(np.float32), phonemes)


def crop(
    clip: Clip, frames: int, front_end: FrontEnd, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """A random stretch at a random speed, level, colour and noise: pcm, expression, phonemes."""
    padding = front_end.padding
    speed = random.uniform(0.92, 1.08)
    # The stretch may hang over the ends by half: the runtime meets starts and ends as well.
    first = random.uniform(-0.3 * frames, len(clip.expression) - 0.7 * frames * speed)
    own = np.arange(-padding.left_samples, SAMPLES_PER_FRAME * frames + padding.right_samples)
    source = first * SAMPLES_PER_FRAME + own * speed
    pcm = np.interp(source, np.arange(len(clip.pcm)), clip.pcm, left=0, right=0) / 32768
    pcm = _coloured(pcm, random) * 10 ** (random.uniform(-14, 5) / 20)
    if random.uniform() < 0.7:
        pcm = pcm + random.standard_normal(len(pcm)) * 10 ** random.uniform(-4.5, -2.2)
    middles = first + (np.arange(frames) + 0.5) * speed - 0.5
    track = np.arange(len(clip.expression))
    expression = np.stack(
        [np.interp(middles, track, column) for column in clip.expression.T], axis=1
    )
    tokens = np.floor(2 * first + (np.arange(2 * frames) + 0.5) * speed).astype(int)
    phonemes = clip.phonemes[np.clip(tokens, 0, len(clip.phonemes) - 1)]
    return np.clip(pcm, -1, 1).astype(np.float32), expression.astype(np.float32), phonemes


def _coloured(pcm: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A random tilt of the spectrum, as microphones and rooms have it."""
    tilt = random.uniform(-0.4, 0.4)
    return pcm + tilt * np.concatenate([[0.0], pcm[:-1]])


def random_batch(
    clips: Sequence[Clip], config: TrainingConfig, front_end: FrontEnd, step: int
) -> Batch:
    """The batch of one step; a function of the seed and the step, so that resuming is exact."""
    random = np.random.default_rng([config.seed, step])
    chosen = random.integers(len(clips), size=config.batch)
    crops = [crop(clips[index], config.frames, front_end, random) for index in chosen]
    pcm, expression, phonemes = (
        torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True)
    )
    return Batch(pcm, expression, phonemes)


class FrontEndLoss(nn.Module):
    """Expression, its velocity, the lips' opening with closed lips emphasised, and phonemes."""

    scale: Tensor
    opening: Tensor

    def __init__(self, config: TrainingConfig, deviation: Tensor, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        # Rare shapes matter as much as common ones, though not down to noise.
        self.register_buffer("scale", 1.0 / (deviation + 0.05))
        self.register_buffer("opening", lip_opening_weights())
        self.phoneme_head = nn.Linear(width, classes)

    def forward(self, features: Tensor, predicted: Tensor, batch: Batch) -> Tensor:
        config = self.config
        error = (predicted - batch.expression) * self.scale
        velocity = error[:, 1:] - error[:, :-1]
        target = batch.expression @ self.opening
        closed = 1.0 + (config.closed_emphasis - 1.0) * (target < _CLOSED_BELOW).float()
        opening = ((predicted @ self.opening - target).abs() * closed).mean()
        names = nn.functional.cross_entropy(
            self.phoneme_head(features).flatten(0, 1), batch.phonemes.flatten()
        )
        loss: Tensor = (
            (error * error).mean()
            + config.velocity_weight * (velocity * velocity).mean()
            + config.opening_weight * opening
            + config.phoneme_weight * names
        )
        return loss


def own_tokens(features: Tensor, motion: AudioToMotion) -> Tensor:
    """The tokens of the frames themselves, without those left and right of them."""
    return features[:, motion.left_tokens : features.shape[1] - motion.right_tokens]


@torch.no_grad()
def score(front_end: FrontEnd, clips: Sequence[Clip], loss: FrontEndLoss) -> Score:
    """Whole clips through the front end as at run time."""
    predicted, truth, hits, named = [], [], 0, 0
    for clip in clips:
        pcm = torch.from_numpy(clip.pcm.astype(np.float32) / 32768)
        features, expression = front_end.whole_clip(pcm)
        predicted.append(expression)
        truth.append(torch.from_numpy(clip.expression))
        classes = torch.from_numpy(clip.phonemes)
        known = classes != _NO_PHONEME
        hits += int((loss.phoneme_head(features).argmax(1) == classes)[known].sum())
        named += int(known.sum())
    p, t = torch.cat(predicted), torch.cat(truth)
    jaw = EXPRESSION_NAMES.index("jawOpen")
    return Score(
        len(clips),
        _correlation(p[:, jaw], t[:, jaw]),
        _correlation(p @ loss.opening, t @ loss.opening),
        float((p - t).abs().mean()),
        hits / max(named, 1),
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def train(
    clips: Sequence[Clip],
    classes: int,
    config: TrainingConfig,
    resume_from: Path | None,
) -> tuple[FrontEnd, FrontEndLoss]:
    """Trains from scratch, or from ``resume_from`` where that exists; saves its state there."""
    torch.manual_seed(config.seed)
    front_end = FrontEnd.untrained()
    expression = torch.from_numpy(np.concatenate([clip.expression for clip in clips]))
    front_end.audio_to_motion.start_at(expression.mean(dim=0))
    width = front_end.encoder.config.feature_width
    loss = FrontEndLoss(config, expression.std(dim=0), width, classes)
    parts = nn.ModuleDict({"front_end": front_end, "loss": loss})
    optimizer = torch.optim.AdamW(parts.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    step = 0
    if resume_from is not None and resume_from.is_file():
        state = torch.load(resume_from, map_location="cpu", weights_only=True)
        if state["config"] != asdict(config):
            raise CheckpointError(
                f"Expected {resume_from} to come from the same training, found {state['config']}"
                f" where {asdict(config)} is asked for. Delete it or ask for the same again."
            )
        parts.load_state_dict(state["parts"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    with tqdm(total=config.steps, initial=step, desc="front end", unit="step") as progress:
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config.steps)
            batch = random_batch(clips, config, front_end, step)
            features, predicted = front_end(batch.pcm)
            value = loss(own_tokens(features, front_end.audio_to_motion), predicted, batch)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
            optimizer.step()
            step += 1
            progress.update()
            progress.set_postfix(loss=f"{value.item():.4f}")
            if resume_from is not None and (step % _SAVE_EVERY == 0 or step == config.steps):
                state = {"config": asdict(config), "parts": parts.state_dict(), "step": step}
                _save({**state, "optimizer": optimizer.state_dict()}, resume_from)
    return front_end.eval(), loss.eval()


def _schedule(step: int, steps: int) -> float:
    """Warm up over 50 steps, then half a cosine down to 2 %."""
    return min(1.0, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * step / steps))


def _save(state: dict[str, object], path: Path) -> None:
    partial = path.with_suffix(path.suffix + ".part")
    torch.save(state, partial)
    partial.replace(path)


def utterances(folder: Path) -> list[Path]:
    """Every folder below ``folder`` that holds an utterance, sorted."""
    return sorted(path.parent for path in folder.rglob("phonemes.json"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see the module's text."""
    defaults = TrainingConfig()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("speech", type=Path, help="folder with train/ and held-out parts")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    options = parser.parse_args(arguments)
    training = utterances(options.speech / "train")
    if not training:
        raise InputError(
            f"Expected utterances below {options.speech / 'train'}, found none. Make some with"
            " samples/synthetic_capture/make_speech.py."
        )
    symbols = phoneme_symbols(training)
    clips = [load_clip(f, symbols) for f in tqdm(training, desc="reading", unit="clip")]
    config = TrainingConfig(steps=options.steps, batch=options.batch, seed=options.seed)
    started = time.monotonic()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    state = options.output.with_suffix(".training.pt")
    front_end, loss = train(clips, len(symbols), config, state)
    save_front_end(front_end, options.output)
    scores = {"training_seconds": round(time.monotonic() - started)}
    parts: dict[str, object] = {}
    for part in sorted(p for p in options.speech.iterdir() if p.is_dir() and p.name != "train"):
        result = score(front_end, [load_clip(f, symbols) for f in utterances(part)], loss)
        parts[part.name] = asdict(result)
        print(f"{part.name}: {result}")
    report = json.dumps({**scores, "parts": parts}, indent=1)
    options.output.with_suffix(".json").write_text(report + "\n")


if __name__ == "__main__":
    try:
        main()
    except TalksplatError as error:
        sys.exit(f"error: {error}")
