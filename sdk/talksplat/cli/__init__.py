"""The command line: one module per verb, each with ``HELP``, ``add_arguments`` and ``execute``.

A verb's module is imported only when the verb is used, so that ``talksplat inspect`` needs no
rasterizer and ``talksplat export`` alone needs torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import talksplat
from talksplat.cli.interruption import interruptible
from talksplat.errors import TalksplatError

# verb -> what it does, in the order of `talksplat --help`
VERBS = {
    "run": "speech and an avatar to a video (MP4) or pictures (PNG)",
    "bench": "measure first-frame delay, time per frame and memory",
    "inspect": "print what a bundle holds, checked",
    "build": "make TensorRT engines of an avatar, for this GPU or ahead of time",
    "doctor": "check this installation and say how to repair it",
    "demo": "video, contact sheet, parity and timing of an avatar in one go",
    "features": "speech features of a sound file, as .npy (needs the speech extra)",
    "export": "make a bundle from a trained checkpoint (needs the export extra)",
    "ply": "write the Gaussians of a checkpoint as a .ply (needs the export extra)",
    "verify": "compare a bundle with its checkpoint again (needs the export extra)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((option for option in options if option in VERBS), None)
    args = _parser(verb).parse_args(options)
    try:
        with interruptible():
            import_module(f"talksplat.cli.{args.verb}").execute(args)
        return 0
    except KeyboardInterrupt:
        print("talksplat: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except TalksplatError as error:
        if args.debug:
            raise
        print(f"talksplat {args.verb}: error: {error}", file=sys.stderr)
    except Exception as error:
        if args.debug:
            raise
        print(
            f"talksplat {args.verb}: internal error: {type(error).__name__}: {error}. "
            "Run it again with --debug and report what it prints.",
            file=sys.stderr,
        )
    return 1


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the chosen verb's arguments are filled in."""
    parser = argparse.ArgumentParser(
        prog="talksplat",
        description="Audio-driven 3D Gaussian talking heads, from audio to frames.",
    )
    parser.add_argument("--version", action="version", version=talksplat.__version__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        subparser = verbs.add_parser(verb, help=summary, description=f"{summary.capitalize()}.")
        subparser.add_argument(
            "--debug", action="store_true", help="print the traceback of an error"
        )
        if verb == chosen:
            import_module(f"talksplat.cli.{verb}").add_arguments(subparser)
    return parser
