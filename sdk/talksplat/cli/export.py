"""``talksplat export ada.pt -o ada.avatar``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.cli import arguments
from talksplat.cli.console import console, step_progress
from talksplat.cli.inspect import print_parity
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="trained checkpoint")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="AVATAR", help="bundle to make"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    parser.add_argument("--name", help="the avatar's name (default: that of the bundle)")
    arguments.add_probe(parser)
    arguments.add_checkpoint_options(parser)
    capture = parser.add_argument_group(
        "cameras and background (TalkingGaussian, InsTaG)",
        "no checkpoint holds them; default: a still camera straight in front, black behind",
    )
    capture.add_argument(
        "--capture",
        type=Path,
        metavar="FOLDER",
        help="what it was trained on: transforms_*.json, bc.jpg, torso_imgs, au.csv",
    )
    capture.add_argument(
        "--transforms", type=Path, metavar="JSON", help="cameras, instead of the capture's"
    )
    capture.add_argument(
        "--background", type=Path, metavar="PICTURE", help="instead of the capture's bc.jpg"
    )
    capture.add_argument(
        "--upper-face", type=Path, metavar="CSV", help="action units, instead of its au.csv"
    )


def execute(args: argparse.Namespace) -> None:
    """Export and print the parity that was measured on the way."""
    lab = import_lab("export")
    options = import_lab("options").ExportOptions.given(vars(args))
    with step_progress() as progress:
        bundle = lab.export_checkpoint(
            args.checkpoint,
            args.output,
            options=options,
            overwrite=args.overwrite,
            speech=args.probe,
            progress=progress,
            notice=lambda sentence: console.print(f"· {sentence}"),
        )
    print_parity(bundle.manifest.parity, bundle.manifest.tolerances)
    console.print(f"{bundle.path}: written and verified")
