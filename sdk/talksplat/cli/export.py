"""``talksplat export ada.pt -o ada.avatar``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.cli.inspect import print_parity
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="trained checkpoint")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="AVATAR", help="bundle to make"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")


def execute(args: argparse.Namespace) -> None:
    """Export and print the parity that was measured on the way."""
    bundle = import_lab("export").export_checkpoint(
        args.checkpoint, args.output, overwrite=args.overwrite
    )
    if bundle.manifest.parity is not None:
        print_parity(bundle.manifest.parity)
