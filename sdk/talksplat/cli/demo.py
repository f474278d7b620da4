"""``talksplat demo ada.avatar speech.wav -o out``: everything a newcomer wants to see."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from talksplat.atomic import write_bytes
from talksplat.audio import SAMPLE_RATE, read_audio
from talksplat.benchmark import benchmark
from talksplat.cli import arguments
from talksplat.cli.bench import print_report
from talksplat.cli.console import console, track
from talksplat.cli.inspect import print_parity
from talksplat.cli.run import note_length_of_features
from talksplat.speech import frame_count, speak
from talksplat.video import Mp4Writer, contact_sheet, encode_png, resize

_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_WIDTH = 6, 4, 192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="sound file of any rate")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out"), metavar="DIR", help="default: out"
    )
    arguments.add_features(parser)
    arguments.add_scene(parser)
    arguments.add_runtime(parser)


def execute(args: argparse.Namespace) -> None:
    """Write ``ada.mp4`` and ``ada.png`` for ``ada.avatar``, print parity and timing."""
    pcm = read_audio(args.speech)
    avatar = arguments.load_avatar(args)
    video = avatar.manifest.video
    height = round(_SHEET_WIDTH * video.height / video.width)
    frames = frame_count(len(pcm), args.fps)
    every = max(1, frames // (_SHEET_COLUMNS * _SHEET_ROWS))
    clip = args.output / f"{args.avatar.resolve().stem}.mp4"
    pictures = []
    with (
        arguments.open_session(avatar, args) as session,
        Mp4Writer(clip, video.width, video.height, Fraction(args.fps), SAMPLE_RATE) as writer,
    ):
        for frame in track(speak(session, pcm), f"Rendering {clip.name}", frames):
            writer.write(frame.image, frame.audio)
            if frame.index % every == 0:
                pictures.append(resize(frame.image, _SHEET_WIDTH, height))
    note_length_of_features(avatar, args.features, len(pcm))
    sheet = contact_sheet(pictures[: _SHEET_COLUMNS * _SHEET_ROWS], _SHEET_COLUMNS)
    write_bytes(clip.with_suffix(".png"), encode_png(sheet))
    if avatar.manifest.parity is not None:
        print_parity(avatar.manifest.parity, avatar.manifest.tolerances)
    (report,) = track(benchmark(avatar, pcm, 1, args.features), "Measuring", 1)
    print_report(report)
    console.print(f"{clip}: {frames} frames. {clip.with_suffix('.png')}: contact sheet.")
