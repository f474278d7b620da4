"""``talksplat doctor [ada.avatar]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from talksplat.cli.arguments import note_passed_over
from talksplat.cli.console import console
from talksplat.doctor import Check, examine
from talksplat.errors import BackendError

_STYLES = {"ok": "green", "absent": "yellow", "broken": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "avatar", type=Path, nargs="?", metavar="AVATAR", help="a bundle to try as well"
    )


def execute(args: argparse.Namespace) -> None:
    """Print one line per check.

    Raises:
        BackendError: something that talksplat cannot do without is broken.
        BundleError: the bundle given cannot be used.
    """
    broken = []
    for check in examine():
        _print(check)
        if check.status == "broken":
            broken.append(check.name)
    if broken:
        raise BackendError(f"broken: {', '.join(broken)}. Repair as the lines above say.")
    if args.avatar:
        from talksplat.avatar import load

        with load(args.avatar) as avatar:
            features = None if avatar.has_audio_encoder else avatar.silence(1)
            with avatar.session(features=features) as session:
                delay = session.first_frame_samples
            note_passed_over(avatar.backend, avatar.passed_over)
        found = f"speaks; first frame after {delay} samples; backend {avatar.backend}"
        _print(Check(str(args.avatar), "ok", found))


def _print(check: Check) -> None:
    line = Text(f"{check.status:6}", _STYLES[check.status])
    line.append(f" {check.name}: {check.found}", "default")
    if check.fix:
        line.append(f"  → {check.fix}", "bold default")
    console.print(line)
