"""Reads captures in the folder layout of TalkingGaussian and InsTaG.

One folder per identity: ``ori_imgs/``, ``gt_imgs/``, ``torso_imgs/``, ``teeth_mask/``,
``bc.jpg`` or ``bc.png``, ``aud.wav``, ``au.csv``, ``transforms_train.json`` and
``transforms_val.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from talksplat.errors import InputError
from talksplat.tracks import OPENFACE_CEILING, read_upper_face

FloatArray = NDArray[np.float32]
ByteImage = NDArray[np.uint8]

SAMPLES_PER_FRAME = 640


@dataclass(frozen=True)
class Capture:
    """Consecutive frames of one person speaking.

    Attributes:
        name: of the folder, with the split where it is not the training one.
        identity: which procedural head was filmed, or the folder's name.
        frames: uint8 [T,H,W,3], truncated from 0..1.
        mouth_masks: bool [T,H,W], inside of the mouth.
        viewmats: [T,4,4], world → camera, OpenCV.
        K: [3,3], pixels.
        plate: uint8 [H,W,3], torso over background, what a moving head is drawn over.
        pcm: [S], 16 kHz.
        upper_face: [T,6], intensities of the action units 1,4,5,6,7,45 divided by 5 (45: by 2,
            where TalkingGaussian clips it), so that all lie in 0..1.
        landmarks: [T,68,2], x and y in pixels, iBUG 300-W order.
    """

    name: str
    identity: str
    frames: Tensor
    mouth_masks: Tensor
    viewmats: Tensor
    K: Tensor
    plate: Tensor
    pcm: Tensor
    upper_face: Tensor
    landmarks: FloatArray

    def __len__(self) -> int:
        return self.frames.shape[0]


def read_capture(folder: Path, split: str = "train") -> Capture:
    """Read one split of a capture.

    Args:
        folder: of the capture.
        split: ``"train"`` or ``"val"``: which ``transforms_{split}.json``.

    Raises:
        InputError: a file is missing or does not fit the others; names it.
    """
    transforms = _read_json(folder / f"transforms_{split}.json")
    entries = transforms["frames"]
    ids = [int(entry["img_id"]) for entry in entries]
    if not ids or ids != list(range(ids[0], ids[0] + len(ids))):
        raise InputError(f"{folder}: the {split} frames must follow one another without gaps.")
    frames = np.stack([_read_image(_find(folder / "gt_imgs", str(i))) for i in ids])
    height, width = frames.shape[1:3]
    camera_to_world = np.array([entry["transform_matrix"] for entry in entries], np.float64)
    focal = float(transforms["focal_len"])
    K = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
    pcm, rate = soundfile.read(folder / "aud.wav", dtype="float32")
    if rate != 16000 or pcm.ndim != 1:
        raise InputError(f"{folder / 'aud.wav'} must be 16 kHz mono, found {rate} Hz.")
    first, last = ids[0] * SAMPLES_PER_FRAME, (ids[-1] + 1) * SAMPLES_PER_FRAME
    upper_face = read_upper_face(folder / "au.csv", np.float32(1) / OPENFACE_CEILING)
    return Capture(
        name=folder.name if split == "train" else f"{folder.name} ({split})",
        identity=_read_identity(folder),
        frames=torch.from_numpy(frames),
        mouth_masks=torch.from_numpy(
            np.stack([np.load(folder / "teeth_mask" / f"{i}.npy").astype(bool) for i in ids])
        ),
        viewmats=torch.from_numpy(opengl_to_viewmats(camera_to_world)),
        K=torch.tensor(K, dtype=torch.float32),
        plate=torch.from_numpy(_read_plate(folder, str(ids[0]))),
        pcm=torch.from_numpy(pcm[first:last]),
        upper_face=torch.from_numpy(upper_face.rows[ids]),
        landmarks=np.stack(
            [np.loadtxt(folder / "ori_imgs" / f"{i}.lms", dtype=np.float32) for i in ids]
        ),
    )


def opengl_to_viewmats(camera_to_world: NDArray[np.floating]) -> FloatArray:
    """World → camera, OpenCV, from camera → world, OpenGL: negate two columns, invert. [T,4,4]."""
    flipped = camera_to_world * np.array([1, -1, -1, 1])
    return np.ascontiguousarray(np.linalg.inv(flipped), np.float32)


def _read_plate(folder: Path, frame: str) -> ByteImage:
    """The torso of a frame over the background; captures of talksplat keep the torso still."""
    background = _read_image(_find(folder, "bc"))
    torso = np.asarray(Image.open(folder / "torso_imgs" / f"{frame}.png").convert("RGBA"))
    alpha = torso[..., 3:].astype(np.float32) / 255
    plate = torso[..., :3] * alpha + background * (1 - alpha)
    return np.asarray(np.round(plate), np.uint8)


def _read_identity(folder: Path) -> str:
    scene = folder / "scene.json"
    return str(json.loads(scene.read_text())["identity"]) if scene.is_file() else folder.name


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: cameras of every frame, as TalkingGaussian writes.")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _read_image(path: Path) -> ByteImage:
    return np.asarray(Image.open(path).convert("RGB"))


def _find(folder: Path, stem: str) -> Path:
    for suffix in (".png", ".jpg"):
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise InputError(f"{folder} has neither {stem}.png nor {stem}.jpg.")
