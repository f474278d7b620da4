"""A checkpoint of SDTalk and one picture become an avatar, and some of its frames a picture.

    python samples/sdtalk.py SDGTalk.pt --identity person.npz --features aud.npy

Without a person a procedural head is drawn and tracked with the built-in tracker; without a
checkpoint one with random weights and narrow layers is made up, in the layout of the authors' code.
What to pass and what to expect: docs/sdtalk.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from samples.families.sample import main

from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.heads.rendering import intrinsics, look_at, render
from talksplat_export.options import ExportOptions

OPTIONS = ("identity", "image", "tracker", "noise", "audio_encoder")
SIZE = 512


def random_checkpoint(folder: Path, options: ExportOptions) -> tuple[Path, ExportOptions]:
    """As the authors' training saves it, but narrow: the published one has 191 million weights."""
    from tests.export.checkpoints.sdtalk_files import SMALL_CONFIG, save_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random_sdtalk.pt"
    upsampler = replace(
        SMALL_CONFIG.upsampler,
        image_size=SIZE,
        encoder_widths=(4, 4, 4, 4, 6, 8, 8, 10),
        generator_widths=(6, 6, 6, 6, 8, 8, 12, 14),
    )
    save_checkpoint(path, replace(SMALL_CONFIG, vertices=5023, upsampler=upsampler))
    if options.identity is None and options.image is None:
        options = replace(options, image=draw_portrait(folder / "portrait.png"))
    return path, options


def draw_portrait(path: Path) -> Path:
    """A procedural head, on no background, as a picture to track."""
    print("drawing a procedural head to track: a minute, for its skin is computed, not loaded")
    camera = look_at(yaw=8, pitch=3)
    drawn = render(ProceduralHead(), NAMED["ada"], None, None, camera, intrinsics(SIZE), SIZE, SIZE)
    Image.fromarray((np.clip(drawn.rgba, 0, 1) * 255).astype(np.uint8), "RGBA").save(path)
    return path


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", OPTIONS, random_checkpoint))
