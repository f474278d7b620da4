"""Named heads."""

from __future__ import annotations

from types import MappingProxyType

from talksplat_export.heads.identity import Identity

ADA = Identity(
    head_width=-0.3, jaw_width=-1.1, chin_length=-0.3, chin_width=-0.8, neck_width=-0.8, cheekbones=0.4,
    cheek_fullness=0.4, brow_ridge=-0.6, nose_length=-0.3, nose_width=-0.4, nose_tip_up=0.6,
    lip_fullness=0.4, eye_size=0.5, eye_opening=0.5, eye_tilt=0.3, redness=0.55, freckles=0.35,
    skin_color=(0.87, 0.67, 0.57), lip_color=(0.74, 0.37, 0.36), eye_color=(0.27, 0.38, 0.33),
    brow_thickness=0.4, lashes=1.0, hair_style="bob", hair_color=(0.30, 0.145, 0.075),
    clothes_color=(0.16, 0.30, 0.38), seed=3,
)  # fmt: skip

BEN = Identity(
    head_width=0.3, jaw_width=0.5, chin_length=0.4, chin_width=0.5, chin_forward=0.4, neck_width=0.6,
    brow_ridge=0.7, nose_length=0.3, nose_width=0.7, nose_bridge=0.0, mouth_width=0.4, lip_fullness=0.6,
    eye_size=-0.2, eye_opening=-0.2, ear_size=0.4, redness=0.2, stubble=0.45,
    skin_color=(0.47, 0.31, 0.23), lip_color=(0.46, 0.25, 0.23), eye_color=(0.22, 0.13, 0.08),
    brow_thickness=0.9, lashes=0.6, hair_style="crop", hair_color=(0.085, 0.07, 0.06),
    clothes_color=(0.46, 0.22, 0.16), seed=5,
)  # fmt: skip

CLARA = Identity(
    head_width=0.0, jaw_width=-0.2, chin_length=-0.2, cheek_fullness=-0.3, neck_width=-0.4, cheekbones=0.3,
    nose_length=0.4, nose_width=0.2, nose_tip_up=-0.4, mouth_width=0.1, lip_fullness=-0.5,
    eye_size=-0.2, eye_opening=-0.5, eye_tilt=-0.4, ear_size=0.5, redness=0.75, wrinkles=0.9,
    skin_color=(0.90, 0.72, 0.64), lip_color=(0.74, 0.45, 0.43), eye_color=(0.33, 0.45, 0.55),
    brow_thickness=0.2, lashes=0.6, hair_style="bun", hair_color=(0.66, 0.64, 0.62),
    clothes_color=(0.42, 0.20, 0.36), seed=8,
)  # fmt: skip

DARIO = Identity(
    head_width=0.2, head_depth=0.2, jaw_width=0.2, chin_length=0.1, chin_width=0.3, neck_width=0.3,
    cheekbones=0.2, brow_ridge=0.4, nose_length=0.5, nose_bridge=0.7, nose_width=0.2, mouth_width=0.2,
    eye_spacing=0.2, redness=0.4, stubble=0.65, skin_color=(0.76, 0.56, 0.43),
    lip_color=(0.64, 0.36, 0.32), eye_color=(0.36, 0.24, 0.11), brow_thickness=1.0, lashes=0.7,
    hair_style="short", hair_color=(0.10, 0.07, 0.05), clothes_color=(0.24, 0.25, 0.27), seed=13,
)  # fmt: skip

NAMED = MappingProxyType({"ada": ADA, "ben": BEN, "clara": CLARA, "dario": DARIO})
"""Heads of different sex, age, skin and hair; ``ada`` is the shipped avatar."""
