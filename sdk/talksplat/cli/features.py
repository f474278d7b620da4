"""``talksplat features speech.wav --encoder hubert-large -o aud.npy``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.audio import read_audio
from talksplat.cli.console import console
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="sound file of any rate")
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="PATH",
        help="HuBERT or wav2vec 2.0: a folder or hub id; AVE: audio_visual_encoder.pth",
    )
    parser.add_argument(
        "--layer", type=int, metavar="N", help="hidden state of HuBERT and wav2vec 2.0 (last)"
    )
    parser.add_argument(
        "--normalise",
        choices=("yes", "no"),
        help="whether they normalise the waveform (default: what their folder says)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="NPY", help="array [L,D] to write"
    )


def execute(args: argparse.Namespace) -> None:
    """Encode the whole clip and write its tokens."""
    lab = import_lab("audio_encoders.features")
    normalise = None if args.normalise is None else args.normalise == "yes"
    features, encoder = lab.compute_features(
        read_audio(args.speech), args.encoder, layer=args.layer, normalise=normalise
    )
    lab.write_features(features, args.output)
    tokens, size = features.shape
    console.print(
        f"{args.output}: {tokens} tokens of {size}, {encoder.feature_rate} a second. "
        f"{encoder.origin}"
    )
