"""One picture of what the heads can do: ``python -m talksplat_export.heads.contact_sheet``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.heads.rendering import intrinsics, look_at, render
from talksplat_export.heads.visemes import VISEMES, expression

BACKGROUND = np.array([0.47, 0.51, 0.55])
COLUMNS = 5


@dataclass(frozen=True)
class Shot:
    title: str
    name: str = "ada"
    weights: Mapping[str, float] = field(default_factory=dict)
    yaw: float = 0.0
    pitch: float = 0.0
    mouth: bool = False  # close up


def shots() -> Iterator[Shot]:
    """Views, people, expressions, visemes."""
    yield Shot("ada, right", yaw=-30)
    yield Shot("ada")
    yield Shot("ada, left", yaw=30)
    yield Shot("ada, profile", yaw=90)
    yield Shot("ada, above", pitch=25)
    for name in ("ben", "clara", "dario"):
        yield Shot(name, name, yaw=15)
    yield Shot("ben, smile", "ben", {"mouthSmile": 0.7, "cheekSquint": 0.5}, yaw=15)
    yield Shot("dario, profile", "dario", yaw=90)
    yield Shot("eyeBlink", weights={"eyeBlink": 1})
    yield Shot("browInnerUp", weights={"browInnerUp": 1, "eyeWide": 0.4})
    yield Shot("browDown", weights={"browDown": 1, "eyeSquint": 0.5})
    yield Shot("jawOpen", weights={"jawOpen": 1})
    yield Shot("mouthFrown", weights={"mouthFrown": 1})
    for viseme, weights in VISEMES.items():
        yield Shot(viseme, weights=weights, mouth=True)


def draw(model: ProceduralHead, shot: Shot, size: int) -> NDArray[np.uint8]:
    """[size, size, 3] of one shot."""
    camera = intrinsics(size, 2300.0 if shot.mouth else 1200.0)
    if shot.mouth:
        camera[1, 2] -= camera[1, 1] * 0.052 / 0.7
    weights = expression(shot.weights)
    viewmat = look_at(shot.yaw, shot.pitch)
    drawn = render(model, NAMED[shot.name], weights, None, viewmat, camera, size, size)
    return (np.clip(drawn.over(BACKGROUND), 0, 1) * 255).astype(np.uint8)


def contact_sheet(size: int) -> Image.Image:
    """All shots in a grid, each ``size`` pixels wide, with its title."""
    model = ProceduralHead()
    # Sorted by person: what is worked out once per identity is kept for a few only.
    order = sorted(enumerate(shots()), key=lambda numbered: numbered[1].name)
    rows = -(-len(order) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * size, rows * size))
    pen = ImageDraw.Draw(sheet)
    for number, shot in order:
        corner = (number % COLUMNS * size, number // COLUMNS * size)
        sheet.paste(Image.fromarray(draw(model, shot, size)), corner)
        place = (corner[0] + 5, corner[1] + 3)
        pen.text(place, shot.title, fill="white", stroke_width=2, stroke_fill=(40, 44, 50))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/heads.png"))
    parser.add_argument("--size", type=int, default=176, help="width of a picture in pixels")
    options = parser.parse_args()
    sheet = contact_sheet(options.size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # A palette keeps the picture small enough for git.
    sheet.quantize(256, kmeans=3).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
