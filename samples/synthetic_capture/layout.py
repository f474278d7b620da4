"""The folder layout of a capture, as TalkingGaussian and InsTaG read it.

ori_imgs/0.jpg 0.lms   the video's frames, 68 landmarks as "x y" lines
gt_imgs/0.jpg          head and torso over the background
torso_imgs/0.png       RGBA: the torso without a head
parsing/0.png          regions by colour
teeth_mask/0.npy       bool [H,W]: inside of the mouth
bc.jpg                 the background
aud.wav au.csv         16 kHz speech, action units per frame
transforms_train.json transforms_val.json   OpenGL camera-to-world per frame
expression.npz phonemes.json                the truth that only a synthetic capture knows
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talksplat_export.heads.model import INSIDE_MOUTH_REGIONS, Region

# RGB of the parsing images.
_FACE = (0, 0, 255)
_HAIR = (0, 0, 0)
_MOUTH = (100, 100, 100)
_NECK = (0, 255, 0)
_TORSO = (255, 0, 0)
_BACKGROUND = (255, 255, 255)
_PARSING_COLORS = {
    Region.BACKGROUND: _BACKGROUND,
    Region.HAIR: _HAIR,
    Region.NECK: _NECK,
    Region.CLOTHES: _TORSO,
    **dict.fromkeys(INSIDE_MOUTH_REGIONS, _MOUTH),
}
_JPEG = {"quality": 98, "subsampling": 0}


class CaptureFolder:
    """Where everything of one capture lies, and how it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        for name in ("ori_imgs", "gt_imgs", "torso_imgs", "parsing", "teeth_mask"):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def has_frame(self, frame: int) -> bool:
        """Whether a frame is complete: its ground truth is written last."""
        return self._gt(frame).is_file()

    def write_background(self, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Writes ``bc.jpg`` and returns it as readers will see it."""
        data = _encoded(background, "JPEG", **_JPEG)
        (self.path / "bc.jpg").write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)))

    def write_frame(
        self,
        frame: int,
        image: NDArray[np.uint8],
        regions: NDArray[np.uint8],
        torso: NDArray[np.uint8],
        landmarks: NDArray[np.float64],
    ) -> None:
        """``image`` [H,W,3], ``regions`` [H,W], ``torso`` RGBA [H,W,4], ``landmarks`` [68,2]."""
        photograph = _encoded(image, "JPEG", **_JPEG)
        (self.path / "ori_imgs" / f"{frame}.jpg").write_bytes(photograph)
        np.savetxt(self.path / "ori_imgs" / f"{frame}.lms", landmarks, "%.3f")
        torso_path = self.path / "torso_imgs" / f"{frame}.png"
        torso_path.write_bytes(_encoded(torso, "PNG", compress_level=1))
        parsing = _encoded(parsing_image(regions), "PNG", compress_level=1)
        (self.path / "parsing" / f"{frame}.png").write_bytes(parsing)
        inside = np.isin(regions, [int(region) for region in INSIDE_MOUTH_REGIONS])
        np.save(self.path / "teeth_mask" / f"{frame}.npy", inside)
        partial = self._gt(frame).with_suffix(".part")
        partial.write_bytes(photograph)
        partial.replace(self._gt(frame))

    def write_transforms(
        self,
        name: str,
        frames: range,
        camera_to_world: NDArray[np.float64],
        focal: float,
        size: int,
    ) -> None:
        """``transforms_{name}.json`` for ``frames`` of ``camera_to_world`` [T,4,4]."""
        content = {
            "focal_len": focal,
            "cx": size / 2,
            "cy": size / 2,
            "frames": [
                {
                    "img_id": frame,
                    "aud_id": frame,
                    "transform_matrix": camera_to_world[frame].tolist(),
                }
                for frame in frames
            ],
        }
        (self.path / f"transforms_{name}.json").write_text(json.dumps(content, indent=1) + "\n")

    def _gt(self, frame: int) -> Path:
        return self.path / "gt_imgs" / f"{frame}.jpg"


def parsing_image(regions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Regions [H,W] to the parsing colours [H,W,3]; what has no colour of its own is face."""
    colors = [_PARSING_COLORS.get(region, _FACE) for region in Region]
    return np.array(colors, np.uint8)[regions]


def _encoded(image: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
