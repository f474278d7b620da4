"""``talksplat verify ada.avatar ada.pt``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.cli import arguments
from talksplat.cli.inspect import print_parity
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint it was made from"
    )


def execute(args: argparse.Namespace) -> None:
    """Measure again and print; beyond the manifest's tolerances it is an error."""
    print_parity(import_lab("verify").verify_bundle(args.avatar, args.checkpoint))
