"""``talksplat run ada.avatar speech.wav -o out.mp4``."""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from pathlib import Path

from talksplat.audio import SAMPLE_RATE, read_audio
from talksplat.avatar import Avatar
from talksplat.cli import arguments
from talksplat.cli.console import console, track
from talksplat.errors import InputError
from talksplat.speech import frame_count, speak
from talksplat.speech_features import read_features
from talksplat.video import FrameSink, Mp4Writer, PngSequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="sound file of any rate")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="an .mp4 file, or a folder for PNG pictures",
    )
    arguments.add_features(parser)
    arguments.add_scene(parser)
    arguments.add_runtime(parser)


def execute(args: argparse.Namespace) -> None:
    """Render the speech."""
    pcm = read_audio(args.speech)
    avatar = arguments.load_avatar(args)
    start = time.perf_counter()
    frames = frame_count(len(pcm), args.fps)
    with (
        arguments.open_session(avatar, args) as session,
        frame_sink(args.output, avatar, args.fps) as sink,
    ):
        for frame in track(speak(session, pcm), f"Rendering {args.output.name}", frames):
            sink.write(frame.image, frame.audio)
    note_length_of_features(avatar, args.features, len(pcm))
    seconds = time.perf_counter() - start
    console.print(
        f"{args.output}: {frames} frames, {len(pcm) / SAMPLE_RATE:.2f} s of speech in "
        f"{seconds:.2f} s on {avatar.backend}, encoding included"
    )


def note_length_of_features(avatar: Avatar, features: Path | None, samples: int) -> None:
    """Say so if features are of another length than the speech, which goes on without them."""
    if features is None:
        return
    audio, rows = avatar.manifest.audio, read_features(features)
    found = len(rows) if rows.ndim == 3 else -(-len(rows) // audio.frame_tokens)
    needed = -(-samples // audio.frame_samples)
    if found != needed:
        console.print(
            f"{features}: features of {found} frames for speech of {needed}; the speech decides, "
            "frames beyond the features hear nothing"
        )


def frame_sink(path: Path, avatar: Avatar, fps: int) -> FrameSink:
    """The writer for a path: MP4 by its suffix, PNG pictures in a folder without one.

    Raises:
        InputError: another suffix.
    """
    video = avatar.manifest.video
    if path.suffix.lower() == ".mp4":
        return Mp4Writer(path, video.width, video.height, Fraction(fps), SAMPLE_RATE)
    if path.suffix:
        raise InputError(
            f"Cannot write {path}: expected an .mp4 file, or a folder name without a suffix for "
            "PNG pictures."
        )
    return PngSequence(path)
