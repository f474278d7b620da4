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
    arguments.add_probe(parser)


def execute(args: argparse.Namespace) -> None:
    """Export and print the parity that was measured on the way."""
    lab = import_lab("export")
    with step_progress() as progress:
        bundle = lab.export_checkpoint(
            args.checkpoint,
            args.output,
            overwrite=args.overwrite,
            speech=args.probe,
            progress=progress,
        )
    print_parity(bundle.manifest.parity, bundle.manifest.tolerances)
    console.print(f"{bundle.path}: written and verified")
