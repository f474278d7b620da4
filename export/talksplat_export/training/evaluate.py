"""Scores of a bundle on captures it has not seen, frame against frame.

    python -m talksplat_export.training.evaluate out/ada.avatar captures/ada \
        --held-out captures/ada:val captures/ada_other_voice

The frames come out of the runtime, as an app would get them: the capture's sound goes in, its
cameras and action units are the pose and upper-face tracks. The first capture only teaches the
reader of lip openings what the mouth looks like.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import talksplat
from talksplat_export.training.capture import SAMPLES_PER_FRAME, Capture, read_capture
from talksplat_export.training.scores import LipReader, correlation, psnr, ssim

FloatArray = NDArray[np.floating]
Frames = NDArray[np.uint8]

_INNER_UPPER_LIP = (61, 62, 63)
_INNER_LOWER_LIP = (67, 66, 65)
_SHIFT = 5


@dataclass(frozen=True)
class Scores:
    """Means over one held-out capture.

    Attributes:
        capture: its name.
        frames: how many were compared.
        psnr_db: mean over frames; ``psnr_db_lowest`` the worst frame.
        mouth_psnr_db: of the box around the mouth.
        ssim: structural similarity.
        lip_correlation: of the inner-lip opening read off the generated frames with the capture's.
        lip_correlation_of_reader: of the opening read off the capture's own frames; the ceiling.
        shifted_lip_correlation: the same with the sound delayed by five frames.
        shifted_mouth_psnr_db: ``mouth_psnr_db`` with the sound delayed by five frames.
    """

    capture: str
    frames: int
    psnr_db: float
    psnr_db_lowest: float
    mouth_psnr_db: float
    ssim: float
    lip_correlation: float
    lip_correlation_of_reader: float
    shifted_lip_correlation: float
    shifted_mouth_psnr_db: float


def inner_lip_opening(landmarks: FloatArray) -> FloatArray:
    """Mean distance [T] in pixels between the inner lips, from landmarks [T,68,2]."""
    upper, lower = landmarks[:, list(_INNER_UPPER_LIP)], landmarks[:, list(_INNER_LOWER_LIP)]
    opening: FloatArray = np.linalg.norm(upper - lower, axis=2).mean(axis=1)
    return opening


def mouth_centres(landmarks: FloatArray) -> FloatArray:
    """Where the mouth is [T,2], from landmarks that speech does not move: nose and eye corners."""
    nose = landmarks[:, 27:36].mean(axis=1)
    eyes = landmarks[:, [36, 39, 42, 45]].mean(axis=1)
    centres: FloatArray = nose + 0.9 * (nose - eyes)
    return centres


def speak(avatar: talksplat.Avatar, capture: Capture, delay: int = 0) -> Frames:
    """Frames [T,H,W,3] of the avatar saying what the capture says, ``delay`` frames late."""
    pcm = capture.pcm.numpy()
    silence = np.zeros(delay * SAMPLES_PER_FRAME, np.float32)
    pcm = np.concatenate([silence, pcm])[: len(capture) * SAMPLES_PER_FRAME]
    viewmats = capture.viewmats.numpy()
    upper_face = capture.upper_face.numpy()
    with avatar.session(pose=viewmats, upper_face=upper_face) as session:
        session.push(pcm)
        session.end()
        return np.stack([frame.image for frame in session.frames()])


def evaluate(avatar: talksplat.Avatar, reader: LipReader, capture: Capture) -> Scores:
    """Score an avatar on one capture."""
    targets = capture.frames.numpy()
    centres = mouth_centres(capture.landmarks)
    truth = inner_lip_opening(capture.landmarks)
    frames = speak(avatar, capture)
    shifted = speak(avatar, capture, delay=_SHIFT)
    per_frame = psnr(frames, targets)
    box = _mouth_box(capture)
    return Scores(
        capture=capture.name,
        frames=len(capture),
        psnr_db=float(per_frame.mean()),
        psnr_db_lowest=float(per_frame.min()),
        mouth_psnr_db=float(psnr(frames[box], targets[box]).mean()),
        ssim=float(ssim(frames, targets).mean()),
        lip_correlation=correlation(reader.read(frames, centres), truth),
        lip_correlation_of_reader=correlation(reader.read(targets, centres), truth),
        shifted_lip_correlation=correlation(reader.read(shifted, centres), truth),
        shifted_mouth_psnr_db=float(psnr(shifted[box], targets[box]).mean()),
    )


def fit_reader(capture: Capture) -> LipReader:
    """A reader of lip openings that has seen one capture's own frames."""
    centres = mouth_centres(capture.landmarks)
    width = float(np.ptp(capture.landmarks[:, 48:60, 0], axis=1).max())
    return LipReader.fit(
        capture.frames.numpy(), centres, inner_lip_opening(capture.landmarks), span=1.6 * width
    )


def _mouth_box(capture: Capture) -> tuple[slice, slice, slice]:
    lips = capture.landmarks[:, 48:68]
    left, top = lips.min(axis=(0, 1)).astype(int) - 16
    right, bottom = lips.max(axis=(0, 1)).astype(int) + 16
    return slice(None), slice(top, bottom), slice(left, right)


def markdown(avatar: str, scores: Sequence[Scores]) -> str:
    """The table as a page."""
    lines = [
        f"# Quality of {avatar}",
        "",
        "Written by `python -m talksplat_export.training.evaluate`, which says what they mean.",
        "",
        "| | " + " | ".join(score.capture for score in scores) + " |",
        "|---|" + "---|" * len(scores),
    ]
    for name in asdict(scores[0]):
        if name != "capture":
            values = " | ".join(f"{getattr(score, name):.4g}" for score in scores)
            lines.append(f"| {name} | {values} |")
    return "\n".join(lines) + "\n"


def _read_split(name: str) -> Capture:
    folder, _, split = name.partition(":")
    return read_capture(Path(folder), split or "train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m talksplat_export.training.evaluate",
        description="Score a bundle on captures it has not seen.",
    )
    parser.add_argument("avatar", type=Path, help="bundle")
    parser.add_argument("capture", type=Path, help="capture it was trained on")
    parser.add_argument(
        "--held-out",
        nargs="+",
        required=True,
        metavar="FOLDER[:val]",
        help="captures to score on; with :val their validation split",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    avatar = talksplat.load(options.avatar)
    reader = fit_reader(read_capture(options.capture))
    scores = [evaluate(avatar, reader, _read_split(name)) for name in options.held_out]
    table = Table("", *(score.capture for score in scores), title=options.avatar.name)
    for name in asdict(scores[0]):
        if name != "capture":
            table.add_row(name, *(f"{getattr(score, name):.4g}" for score in scores))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(avatar.manifest.name, scores))


if __name__ == "__main__":
    main()
