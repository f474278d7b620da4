"""``talksplat ply theirs.pth -o face.ply``."""

from __future__ import annotations

import argparse
from pathlib import Path

from talksplat.cli.console import console
from talksplat.cli.lab import import_lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "source", type=Path, metavar="FILE", help="checkpoint, or a .ply to write again"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PLY", help="file to make"
    )
    parser.add_argument(
        "--region",
        choices=("face", "mouth"),
        default="face",
        help="of an avatar that has both (default: face)",
    )
    parser.add_argument("--ascii", action="store_true", help="as text, not binary")


def execute(args: argparse.Namespace) -> None:
    """Write, and say what was written."""
    lab = import_lab("point_cloud")
    gaussians = lab.write_point_cloud(
        args.source, args.output, region=args.region, ascii=args.ascii
    )
    degree = round(gaussians.shs.shape[1] ** 0.5) - 1
    console.print(
        f"{args.output}: {len(gaussians.means)} Gaussians, spherical harmonics of degree {degree}, "
        "scales before exp as viewers take them"
    )
    if gaussians.binding is not None:
        console.print(
            "their positions are in the frames of triangles, as GaussianAvatars binds them"
        )
