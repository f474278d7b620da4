"""Export a checkpoint, speak with it, and lay some frames side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import talksplat
from talksplat.atomic import write_bytes
from talksplat.bundle import Bundle
from talksplat.errors import TalksplatError
from talksplat.speech import speak
from talksplat.speech_features import read_features
from talksplat.video import contact_sheet, encode_png
from talksplat_export.export import export_checkpoint
from talksplat_export.options import ExportOptions

FloatArray = np.ndarray
SHOWN = 6

MakeUp = Callable[[Path, ExportOptions], tuple[Path, ExportOptions]]
"""Writes a checkpoint with random weights into a folder; returns it and the options it needs."""


def main(description: str, options: tuple[str, ...], make_up: MakeUp) -> int:
    """Command line of a sample.

    Args:
        description: of the sample.
        options: names of the :class:`ExportOptions` that it takes as paths or texts.
        make_up: used where no checkpoint is given.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: random weights")
    parser.add_argument("--features", type=Path, help=".npy of the speech; default: made up")
    parser.add_argument("--frames", type=int, default=25, help="how many to render (default: 25)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="default: out")
    for name in options:
        text = name in ("audio_encoder", "noise", "tracker")
        parser.add_argument(f"--{name.replace('_', '-')}", type=str if text else Path)
    args = parser.parse_args()
    try:
        _run(args, ExportOptions.given(vars(args)), make_up)
    except TalksplatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace, options: ExportOptions, make_up: MakeUp) -> None:
    checkpoint = args.checkpoint
    if checkpoint is None:
        print("RANDOM WEIGHTS: no checkpoint was given, so the frames show coloured fog, nobody.")
        checkpoint, options = make_up(args.output, options)
    bundle = export_checkpoint(
        checkpoint,
        args.output / f"{checkpoint.stem}.avatar",
        options=replace(options, name=checkpoint.stem),
        overwrite=True,
        progress=lambda step, number, total: print(f"[{number + 1}/{total}] {step}"),
        notice=lambda sentence: print(f"- {sentence}"),
    )
    parity = bundle.manifest.parity
    if parity is not None and parity.frames_psnr_db is not None:
        print(f"the bundle's frames agree with the checkpoint's to {parity.frames_psnr_db:.0f} dB")
    show(bundle, args.output / f"{checkpoint.stem}.png", args.features, args.frames)


def show(bundle: Bundle, picture: Path, features: Path | None, frames: int) -> None:
    """Render ``frames`` frames and put some of them into one picture."""
    audio = bundle.manifest.audio
    pcm = np.zeros(frames * audio.sample_rate // audio.fps, np.float32)
    avatar = talksplat.load(bundle.path)
    if features is not None:
        heard: FloatArray | None = read_features(features)
    elif audio.blocks is None:
        print("MADE-UP FEATURES: no --features given, the avatar hears smooth noise, not speech.")
        heard = made_up_features(frames * audio.feature_rate // audio.fps, audio.feature_size)
    else:
        heard = None
    with avatar.session(features=heard) as session:
        images = [frame.image for frame in speak(session, pcm)]
    chosen = [
        images[i] for i in np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
    ]
    write_bytes(picture, encode_png(contact_sheet(chosen, SHOWN)))
    print(f"{picture}: {len(chosen)} of {len(images)} frames")


def made_up_features(tokens: int, size: int) -> FloatArray:
    """[tokens, size]: noise that changes slowly, as features of speech do."""
    noise = np.random.default_rng(0).normal(size=(tokens + 8, size))
    smooth = np.stack([noise[i : i + tokens] for i in range(9)]).mean(axis=0) * 3
    return np.asarray(smooth, np.float32)
