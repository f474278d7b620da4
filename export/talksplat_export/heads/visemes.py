"""Mouth shapes of speech: fifteen visemes as weights of ARKit blendshapes.

The fifteen are those that lip-sync tools agree on (Oculus, Ready Player Me, VRM); a weight
without ``Left`` or ``Right`` at its end stands for both sides. The weights belong to the
procedural head: they were set by looking at its renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES

VISEMES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "sil": {},
        # Lips pressed: p, b, m.
        "PP": {"mouthPress": 0.6, "mouthRollLower": 0.35, "mouthRollUpper": 0.3},
        # Lower lip under the upper teeth: f, v.
        "FF": {
            "jawOpen": 0.05,
            "mouthRollLower": 0.75,
            "mouthUpperUp": 0.4,
            "mouthShrugLower": 0.3,
        },
        # Tongue between the teeth: th.
        "TH": {
            "jawOpen": 0.2,
            "tongueOut": 0.6,
            "mouthLowerDown": 0.25,
            "mouthUpperUp": 0.2,
        },
        # Tongue behind the upper teeth: t, d.
        "DD": {
            "jawOpen": 0.15,
            "mouthLowerDown": 0.3,
            "mouthUpperUp": 0.2,
            "mouthStretch": 0.1,
        },
        # Tongue's back raised: k, g.
        "kk": {
            "jawOpen": 0.2,
            "mouthLowerDown": 0.2,
            "mouthUpperUp": 0.15,
            "mouthStretch": 0.1,
        },
        # Lips forward, teeth close: tsh, dzh, sh.
        "CH": {
            "jawOpen": 0.1,
            "mouthFunnel": 0.6,
            "mouthPucker": 0.25,
            "mouthLowerDown": 0.2,
            "mouthUpperUp": 0.25,
        },
        # Teeth together, lips apart: s, z.
        "SS": {
            "jawOpen": 0.05,
            "mouthStretch": 0.3,
            "mouthSmile": 0.15,
            "mouthLowerDown": 0.4,
            "mouthUpperUp": 0.3,
        },
        "nn": {"jawOpen": 0.13, "mouthLowerDown": 0.2, "mouthUpperUp": 0.12},
        "RR": {"jawOpen": 0.14, "mouthFunnel": 0.4, "mouthPucker": 0.3},
        "aa": {"jawOpen": 0.7, "mouthLowerDown": 0.25, "mouthUpperUp": 0.2},
        "E": {
            "jawOpen": 0.38,
            "mouthStretch": 0.35,
            "mouthSmile": 0.2,
            "mouthLowerDown": 0.25,
            "mouthUpperUp": 0.2,
        },
        "I": {
            "jawOpen": 0.2,
            "mouthStretch": 0.4,
            "mouthSmile": 0.3,
            "mouthLowerDown": 0.25,
            "mouthUpperUp": 0.2,
        },
        "O": {"jawOpen": 0.5, "mouthFunnel": 0.6, "mouthPucker": 0.35},
        "U": {"jawOpen": 0.2, "mouthPucker": 0.8, "mouthFunnel": 0.4},
    }
)


def expression(weights: Mapping[str, float]) -> NDArray[np.float32]:
    """Expression vector [52] of named weights; a name without side sets left and right.

    Raises:
        KeyError: a name is neither an ARKit blendshape nor the stem of a left-right pair.
    """
    vector = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, weight in weights.items():
        sides = (name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right")
        for side in sides:
            vector[ARKIT_INDEX[side]] += weight
    return vector


def viseme_expression(name: str) -> NDArray[np.float32]:
    """Expression vector [52] of one of :data:`VISEMES`.

    Raises:
        KeyError: the name is none of the fifteen.
    """
    return expression(VISEMES[name])
