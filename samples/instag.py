"""A checkpoint of InsTaG becomes an avatar, and some of its frames a picture.

    python samples/instag.py chkpnt_fuse_latest.pth --capture may --features may/aud.npy

Without a checkpoint one with random weights is made up, in the layout of the authors' code. What
to pass and what to expect: docs/instag.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.families.sample import main

from talksplat_export.options import ExportOptions

OPTIONS = ("capture", "transforms", "background", "upper_face", "audio_encoder")


def random_checkpoint(folder: Path, options: ExportOptions) -> tuple[Path, ExportOptions]:
    """As the authors' training saves it."""
    from tests.export.checkpoints.talkinggaussian_files import fused, save

    folder.mkdir(parents=True, exist_ok=True)
    content = fused("instag", "ave", face=4000, mouth=1000)
    return save(content, folder / "random_instag.pth"), options


if __name__ == "__main__":
    raise SystemExit(main(__doc__ or "", OPTIONS, random_checkpoint))
