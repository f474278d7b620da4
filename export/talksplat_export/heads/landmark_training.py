"""Trains the landmark finder on pictures of the procedural heads.

``python -m talksplat_export.heads.landmark_training`` draws blends of the named heads in random
poses, expressions, framings and light, and writes ``landmarks.npz`` beside this file: the cascade,
and the heads' own shapes at the points that :mod:`talksplat_export.tracker` places in a picture.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from talksplat.atomic import atomic_file
from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES
from talksplat_export.heads.cutout import cut_out
from talksplat_export.heads.head_points import select_points
from talksplat_export.heads.identities import NAMED
from talksplat_export.heads.landmark_finder import (
    Gradients,
    LandmarkFinder,
    face_radius,
)
from talksplat_export.heads.model import FloatArray, HeadModel
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.heads.rendering import intrinsics, look_at, render

Array = NDArray[np.float64]
Blend = tuple[float, ...]

_SIZE = 256
_DIRECTIONS = 24
_STEPS = 4
_STARTS_PER_PICTURE = 4
_RIDGE = (3e3, 3e2, 2e2, 1e2, 1e2)


class BlendedHead(ProceduralHead):
    """Heads between the named ones; an identity is a weight for each."""

    def template(self, identity: Any) -> FloatArray:
        """[V,3], blended."""
        return _blend(identity, [super(BlendedHead, self).template(i) for i in NAMED.values()])

    def texture(self, identity: Any) -> FloatArray:
        """[H,W,3], blended."""
        return _blend(identity, [super(BlendedHead, self).texture(i) for i in NAMED.values()])

    def vertices(self, identity: Any, expression: Any = None, joints: Any = None) -> FloatArray:
        """[V,3], blended."""
        parts = (super(BlendedHead, self).vertices(i, expression) for i in NAMED.values())
        return _blend(identity, list(parts))


@dataclass(frozen=True)
class Example:
    """A crop's gradients and its landmarks, [68,2] in 0..1 of the crop."""

    picture: Gradients
    landmarks: Array


def draw(head: BlendedHead, blend: Blend, random: np.random.Generator) -> tuple[Image.Image, Array]:
    """A picture on a random backdrop and its landmarks [68,2] in pixels."""
    expression = np.zeros(len(ARKIT_NAMES))
    for name, most in (("jawOpen", 0.5), ("mouthSmileLeft", 0.6), ("eyeBlinkLeft", 0.7)):
        amount = random.uniform(0, most) * (random.random() < 0.5)
        expression[ARKIT_INDEX[name]] = amount
        if name.endswith("Left"):
            expression[ARKIT_INDEX[name.replace("Left", "Right")]] = amount
    distance = random.uniform(0.6, 1.6)
    viewmat = look_at(random.normal(0, 11), random.normal(0, 6), distance)
    roll = np.radians(random.normal(0, 5))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]
    viewmat = turn @ viewmat
    viewmat[:2, 3] += random.uniform(-0.03, 0.03, 2)
    # At 0.7 m, 1200 pixels of focal length per 512 show the head and the collar.
    focal = random.uniform(0.55, 1.25) * 1200 * distance / 0.7
    K = intrinsics(_SIZE, focal)
    model: HeadModel[Any] = head
    drawn = render(model, blend, expression, None, viewmat, K, _SIZE, _SIZE)
    vertices = head.vertices(blend, expression)[head.landmarks]
    screen = (vertices @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
    rgba = drawn.rgba.astype(np.float64)
    rgba = rgba / (255 if rgba.max() > 2 else 1)
    gain = random.uniform(0.75, 1.15, 3) * random.uniform(0.8, 1.1)
    rgb = np.clip(rgba[..., :3] * gain, 0, 1)
    image = np.concatenate([rgb, rgba[..., 3:]], -1)
    return Image.fromarray((image * 255).astype(np.uint8), "RGBA"), screen[:, :2] / screen[:, 2:]


def example(picture: Image.Image, landmarks: Array) -> Example:
    """As :class:`LandmarkFinder` sees it."""
    cutout = cut_out(picture)
    left, top, side = cutout.box
    return Example(Gradients(cutout.crop()), (landmarks - (left, top)) / side)


def train(examples: list[Example], random: np.random.Generator) -> dict[str, Any]:
    """The cascade as ``landmarks.npz`` holds it."""
    truth = np.stack([item.landmarks.ravel() for item in examples])
    mean = truth.mean(axis=0)
    basis = np.linalg.svd(truth - mean, full_matrices=False)[2][:_DIRECTIONS]
    targets = (truth - mean) @ basis.T
    overview = np.stack([item.picture.overview() for item in examples])
    # The first look is learned on one half for the other, lest later steps see too good a start.
    steps = [_ridge(overview, targets, _RIDGE[0])]
    half = np.arange(len(examples)) % 2 == 0
    start = np.empty_like(targets)
    for part in (half, ~half):
        start[~part] = _apply(overview[~part], _ridge(overview[part], targets[part], _RIDGE[0]))
    weights = np.repeat(start, _STARTS_PER_PICTURE, axis=0)
    spread = (start - targets).std(axis=0)
    weights += 0.5 * spread * random.normal(size=weights.shape)
    wanted = np.repeat(targets, _STARTS_PER_PICTURE, axis=0)
    owners = np.repeat(np.arange(len(examples)), _STARTS_PER_PICTURE)
    for number in range(1, _STEPS + 1):
        seen = np.stack(
            [
                examples[owner].picture.at((mean + weight @ basis).reshape(-1, 2))
                for owner, weight in zip(owners, weights, strict=True)
            ]
        )
        step = _ridge(seen, wanted - weights, _RIDGE[number])
        weights = weights + _apply(seen, step)
        steps.append(step)
        error = np.linalg.norm(((weights - wanted) @ basis).reshape(len(weights), -1, 2), axis=-1)
        radius = np.mean([face_radius(item.landmarks) for item in examples])
        print(f"step {number}: mean error {error.mean() / radius:.4f} of the face's radius")
    typical = np.mean([item.picture.at(item.landmarks) for item in examples], axis=0)
    scales = np.array([np.abs(step).max() / 127 for step in steps])
    arrays: dict[str, Any] = {
        f"step{i}": (step / scale).astype(np.float16)
        for i, (step, scale) in enumerate(zip(steps, scales, strict=True))
    }
    return arrays | {
        "count": np.array(len(steps)),
        "scales": scales,
        "mean": mean.astype(np.float32),
        "basis": basis.astype(np.float32),
        "typical": typical.astype(np.float32),
    }


def calibrate(arrays: dict[str, Any], examples: list[Example]) -> float:
    """The least likeness that passes, from pictures outside the training: what 99 of 100 heads
    reach, a fifth more lenient."""
    steps = tuple(
        arrays[f"step{i}"].astype(np.float64) * arrays["scales"][i]
        for i in range(int(arrays["count"]))
    )
    finder = LandmarkFinder(arrays["mean"], arrays["basis"], steps, arrays["typical"], -1.0)
    likeness, errors = [], []
    for item in examples:
        found, alike = finder.search(item.picture)
        likeness.append(alike)
        distance = np.linalg.norm(found - item.landmarks, axis=-1).mean()
        errors.append(distance / face_radius(item.landmarks))
    print(
        f"held out: error mean {np.mean(errors):.4f}, 95 % {np.percentile(errors, 95):.4f}, "
        f"largest {np.max(errors):.4f} of the face's radius; likeness 1 % "
        f"{np.percentile(likeness, 1):.3f}"
    )
    return float(0.8 * np.percentile(likeness, 1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pictures", type=int, default=900)
    parser.add_argument("--blends", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).with_name("landmarks.npz")
    )
    args = parser.parse_args()
    random, head = np.random.default_rng(args.seed), BlendedHead()
    blends: list[Blend] = [tuple(row) for row in np.eye(len(NAMED))]
    blends += [tuple(random.dirichlet([0.7] * len(NAMED))) for _ in range(args.blends)]
    examples = []
    for number in range(args.pictures):
        blend = blends[number * len(blends) // args.pictures]
        examples.append(example(*draw(head, blend, random)))
        if number % 100 == 99:
            print(f"{number + 1} of {args.pictures} pictures")
    held_out = tuple(random.dirichlet([0.7] * len(NAMED)))
    unseen = [example(*draw(head, held_out, random)) for _ in range(100)]
    arrays = train(examples, random)
    arrays["likeness"] = calibrate(arrays, unseen)
    templates = np.stack([ProceduralHead().template(identity) for identity in NAMED.values()])
    chosen = select_points(head, templates.mean(axis=0))
    mean = templates.mean(axis=0)
    shapes = np.linalg.svd((templates - mean).reshape(len(templates), -1), full_matrices=False)
    directions = (shapes[1][:-1, None] * shapes[2][:-1]).reshape(-1, *mean.shape)
    directions /= np.sqrt(len(templates))
    arrays |= {
        "points": mean[chosen.vertices].astype(np.float32),
        "point_directions": directions[:, chosen.vertices].astype(np.float16),
        "mask": chosen.mask,
        "landmark_points": mean[head.landmarks].astype(np.float32),
        "landmark_directions": directions[:, head.landmarks].astype(np.float32),
    }
    with atomic_file(args.output) as staging, staging.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    print(f"{args.output}: {args.output.stat().st_size} bytes")


def _ridge(features: Array, targets: Array, strength: float) -> Array:
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    penalty = strength * np.eye(design.shape[1])
    penalty[-1, -1] = 0
    return np.linalg.solve(design.T @ design + penalty, design.T @ targets)


def _apply(features: Array, step: Array) -> Array:
    return features @ step[:-1] + step[-1]


def _blend(weights: Blend, parts: list[FloatArray]) -> FloatArray:
    return np.tensordot(np.asarray(weights, np.float32), np.stack(parts), 1)


if __name__ == "__main__":
    main()
