"""Who a procedural head is: shape, colours and hair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = tuple[float, float, float]
HairStyle = Literal["bald", "short", "crop", "bob", "bun", "curls"]


@dataclass(frozen=True)
class Identity:
    """Parameters of a procedural head.

    Shape parameters are about -1..1 with 0 the average head; amounts are 0..1; colours are sRGB
    0..1.
    """

    head_width: float = 0.0
    head_depth: float = 0.0
    cranium_height: float = 0.0
    jaw_width: float = 0.0
    chin_length: float = 0.0
    chin_width: float = 0.0
    chin_forward: float = 0.0
    neck_width: float = 0.0
    cheekbones: float = 0.0
    cheek_fullness: float = 0.0
    brow_ridge: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_bridge: float = 0.0
    nose_tip_up: float = 0.0
    mouth_width: float = 0.0
    lip_fullness: float = 0.0
    eye_size: float = 0.0
    eye_spacing: float = 0.0
    eye_opening: float = 0.0
    eye_tilt: float = 0.0
    ear_size: float = 0.0

    skin_color: Color = (0.85, 0.64, 0.54)
    redness: float = 0.5
    freckles: float = 0.0
    wrinkles: float = 0.0
    stubble: float = 0.0
    lip_color: Color = (0.72, 0.38, 0.36)
    eye_color: Color = (0.30, 0.42, 0.50)
    brow_thickness: float = 0.5
    lashes: float = 0.8
    hair_style: HairStyle = "short"
    hair_color: Color = (0.24, 0.14, 0.08)
    clothes_color: Color = (0.20, 0.28, 0.38)
    seed: int = 0
