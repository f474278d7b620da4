"""``talksplat verify ada.avatar ada.pt``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.bundle import Bundle
from talksplat.cli import arguments
from talksplat.cli.console import console, step_progress
from talksplat.cli.inspect import print_parity
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint it was made from"
    )
    arguments.add_probe(parser)
    arguments.add_checkpoint_options(parser)


def execute(args: argparse.Namespace) -> None:
    """Measure again and print; beyond the manifest's tolerances it is an error."""
    verify, parity = import_lab("verify"), import_lab("parity")
    options = import_lab("options").ExportOptions.given(vars(args))
    with step_progress() as progress:
        measured = verify.measure_bundle(
            args.avatar,
            args.checkpoint,
            options=options,
            speech=args.probe,
            progress=progress,
        )
    tolerances = Bundle.open(args.avatar).manifest.tolerances
    print_parity(measured, tolerances)
    parity.check_parity(measured, tolerances)
    console.print(f"{args.avatar}: computes what {args.checkpoint} computes")
