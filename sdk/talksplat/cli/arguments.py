"""Groups of arguments that verbs share, so that a flag means the same everywhere."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from talksplat.avatar import Avatar, load
from talksplat.backends import BACKENDS, PassedOver, Precision
from talksplat.cli.console import console, step_progress
from talksplat.session import Session


def add_avatar(parser: argparse.ArgumentParser) -> None:
    """The bundle, first positional argument."""
    parser.add_argument("avatar", type=Path, metavar="AVATAR", help="avatar bundle (a folder)")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """What runs the graphs."""
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--backend",
        default="auto",
        choices=("auto", *BACKENDS),
        help="what runs the graphs (default: the best this machine has)",
    )
    group.add_argument(
        "--precision",
        default="fp32",
        choices=get_args(Precision),
        help="of TensorRT's engines (default: fp32); fp16 is faster",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: every core)")


def add_scene(parser: argparse.ArgumentParser) -> None:
    """What is seen besides speech."""
    group = parser.add_argument_group("scene")
    group.add_argument(
        "--fps", type=int, default=25, metavar="N", help="frames per second (default: 25)"
    )
    group.add_argument(
        "--pose",
        type=Path,
        metavar="FILE",
        help="camera track: transforms .json (OpenGL camera to world) or .npz with viewmats",
    )
    group.add_argument(
        "--upper-face",
        type=Path,
        metavar="FILE",
        help="blinks and brows: OpenFace's .csv, or .npy [T,6] (for SDTalk the eyes)",
    )
    group.add_argument(
        "--background",
        type=Path,
        metavar="PATH",
        help="picture behind the avatar, scaled to fit, or a folder of pictures, one per frame",
    )
    group.add_argument(
        "--noise-seed",
        type=int,
        metavar="N",
        help="seed of the refiner's noise, where that is an input (default: 0)",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    """What the avatar hears, if it does not hear the speech itself."""
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="the speech's features as .npy, [T,W,D] or [L,D], instead of the avatar's own encoder",
    )


def add_probe(parser: argparse.ArgumentParser) -> None:
    """On what parity is measured."""
    parser.add_argument(
        "--probe",
        type=Path,
        metavar="SPEECH",
        help="sound file to measure parity on (default: a second of made-up vowels)",
    )


FAMILIES = ("d3talker", "talkinggaussian", "instag", "sdtalk")


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """What a checkpoint of other people's code does not say; ``verify`` takes what ``export`` took.

    None is the family's default everywhere, so that an option of another family is noticed.
    """
    any_family = parser.add_argument_group("checkpoint")
    any_family.add_argument(
        "--family", choices=FAMILIES, help="an error if it is another (default: recognised)"
    )
    any_family.add_argument(
        "--audio-encoder",
        metavar="PATH_OR_ID",
        help="HuBERT or wav2vec 2.0 (folder or hub id) or AVE (file) that it was trained with; "
        "without it the bundle is fed features",
    )
    gaussian_talker = parser.add_argument_group("TalkingGaussian, InsTaG")
    gaussian_talker.add_argument(
        "--mouth",
        type=Path,
        metavar="FILE",
        help="chkpnt_mouth_latest.pth, where CHECKPOINT is chkpnt_face_latest.pth",
    )
    gaussian_talker.add_argument(
        "--mouth-dilation",
        type=int,
        metavar="SIDE",
        help="pixels, odd, 0 for none (default: 0 for TalkingGaussian, 13 for InsTaG)",
    )
    for option, text in (
        ("--mouth-attention", "the mouth's audio passes region attention"),
        ("--personalized", "InsTaG: add the personal field, upstream's flag of this name"),
        ("--unaligned", "InsTaG: without the aligner, as in pre-training"),
    ):
        gaussian_talker.add_argument(option, action="store_true", default=None, help=text)
    person = parser.add_argument_group("SDTalk")
    person.add_argument(
        "--identity", type=Path, metavar="NPZ", help="person.npz: whom to show, tracked"
    )
    person.add_argument(
        "--image", type=Path, metavar="PICTURE", help="whom to show, to be tracked here"
    )
    person.add_argument(
        "--tracker",
        metavar="MODULE:FUNCTION",
        help="what tracks it (default: a tracker that knows the procedural heads only)",
    )
    person.add_argument(
        "--noise",
        choices=("stored", "zero", "input"),
        help="the refiner's noise (default: stored, which does not flicker)",
    )


def load_avatar(args: argparse.Namespace) -> Avatar:
    """The avatar that :func:`add_avatar` and :func:`add_runtime` ask for."""
    with step_progress() as progress:
        avatar = load(
            args.avatar,
            backend=args.backend,
            threads=args.threads,
            precision=args.precision,
            progress=progress,
        )
    note_passed_over(avatar.backend, avatar.passed_over)
    return avatar


def note_passed_over(backend: str, passed_over: Sequence[PassedOver]) -> None:
    """Say in one line why better backends are not used, unless that is only for want of a GPU."""
    reasons = [
        f"not {', '.join(passed.names)} ({_first_sentence(passed.reason)})"
        for passed in passed_over
        if not passed.expected
    ]
    if reasons:
        console.print(f"on {backend}: {'; '.join(reasons)}. More: talksplat doctor")


def _first_sentence(text: str) -> str:
    return textwrap.shorten(text.split(". ")[0].rstrip("."), 160, placeholder=" …")


def open_session(avatar: Avatar, args: argparse.Namespace) -> Session:
    """The session that :func:`add_scene` and :func:`add_features` ask for."""
    return avatar.session(
        fps=args.fps,
        features=args.features,
        pose=args.pose,
        upper_face=args.upper_face,
        background=args.background,
        noise=args.noise_seed,
    )
