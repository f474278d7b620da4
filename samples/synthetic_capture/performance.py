"""A performance: what is heard and every track that moves the head while it is heard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from talksplat_export.heads.blendshapes import ARKIT_NAMES
from talksplat_export.heads.visemes import expression

from .head_motion import neck_rotations
from .mouth import FRAMES_PER_SECOND, mouth_weights
from .speech import SAMPLE_RATE, Speech
from .upper_face import ACTION_UNITS, UpperFace, upper_face

_LIPS_PART = expression(
    {"jawOpen": 1.2, "mouthLowerDown": 0.3, "mouthUpperUp": 0.3, "mouthFunnel": 0.3}
)


@dataclass(frozen=True)
class Performance:
    """One clip at 25 fps: T = ceil(samples / 640) frames.

    ``expression`` [T,52] ARKIT weights 0..1 of the whole face, ``upper_face`` [T,6] action units,
    ``neck_rotations`` [T,3] axis-angle, how the head turns on its neck.
    """

    speech: Speech
    expression: NDArray[np.float32]
    upper_face: UpperFace
    neck_rotations: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.expression)


def perform(speech: Speech, seed: int) -> Performance:
    """The mouth follows from the speech alone; blinks, brows and head from ``seed`` too."""
    upper = upper_face(speech, seed)
    weights = np.clip(mouth_weights(speech) + upper.weights, 0.0, 1.0)
    return Performance(speech, weights, upper, neck_rotations(speech, seed))


def write_tracks(performance: Performance, folder: Path) -> None:
    """Writes ``aud.wav``, ``phonemes.json``, ``expression.npz`` and ``au.csv`` into ``folder``.

    The npz holds ``names`` [52] and ``weights`` [T,52], ``upper_face`` [T,6] in 0..1, and
    ``neck_rotations`` [T,3].
    """
    folder.mkdir(parents=True, exist_ok=True)
    speech = performance.speech
    soundfile.write(folder / "aud.wav", speech.pcm, SAMPLE_RATE, subtype="PCM_16")
    spoken = {
        "text": speech.text,
        "voice": speech.voice,
        "phonemes": [
            {"symbol": p.symbol, "start_s": p.start_s, "end_s": p.end_s, "stress": p.stress}
            for p in speech.phonemes
        ],
    }
    (folder / "phonemes.json").write_text(json.dumps(spoken, ensure_ascii=False, indent=1) + "\n")
    np.savez(
        folder / "expression.npz",
        names=np.array(ARKIT_NAMES),
        weights=performance.expression,
        upper_face=performance.upper_face.activation,
        neck_rotations=performance.neck_rotations,
    )
    _write_action_units(performance, folder / "au.csv")


def _write_action_units(performance: Performance, path: Path) -> None:
    """Columns as OpenFace writes them, the space before every name but the first included.

    AU25, lips part, is there for readers that choose frames by it.
    """
    columns = ["frame", " face_id", " timestamp", " confidence", " success"]
    columns += [f" AU{unit:02d}_r" for unit in ACTION_UNITS] + [" AU25_r"]
    lips_part = 5.0 * np.clip(performance.expression @ _LIPS_PART, 0.0, 1.0)
    table = np.column_stack([performance.upper_face.intensities, lips_part])
    lines = [",".join(columns)]
    for frame, intensities in enumerate(table):
        values = ", ".join(f"{value:.4f}" for value in intensities)
        lines.append(f"{frame + 1}, 0, {frame / FRAMES_PER_SECOND:.3f}, 1.00, 1, {values}")
    path.write_text("\n".join(lines) + "\n")
