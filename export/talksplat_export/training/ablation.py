"""What each part of D3-Talker is worth, as in the paper's ablation table.

    python -m talksplat_export.training.ablation captures/ada \
        --pretrain captures/ben captures/clara captures/dario --front-end front_end.pt \
        --avatar samples/avatars/ada.pt -o training/ablation --markdown docs/ablation.md

Every row is trained anew, on a shorter schedule and at half resolution, and scored on frames of the
capture that were held out; several times from different seeds, for on a schedule so short chance
weighs as much as some of the parts. Finished rows are kept, so a stopped run goes on. The refiner
learns last and slowest, so it is also left out of a finished avatar, at full resolution.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.families.d3talker import D3Talker, D3TalkerConfig, Identity, deform
from talksplat_export.training.capture import Capture, read_capture
from talksplat_export.training.clip import Clip
from talksplat_export.training.evaluate import fit_reader, inner_lip_opening, mouth_centres
from talksplat_export.training.refining import train_refiner
from talksplat_export.training.rendering import composite, truncate_to_uint8
from talksplat_export.training.scores import LipReader, correlation, psnr, ssim
from talksplat_export.training.stages import Studio
from talksplat_export.training.trainer import (
    Schedule,
    Trainer,
    active_deformations,
    clip_conditions,
)


@dataclass(frozen=True)
class Variant:
    """One row: what is taken away.

    Attributes:
        name: of the row.
        pretrained: whether the General Field saw other identities before.
        contrast: whether the similarity contrastive loss was used there.
        general: whether the General Field (Facial Motion) takes part.
        individual: whether the Individual Field (audio) takes part.
        refined: whether the refiner is run on the picture.
    """

    name: str
    pretrained: bool = True
    contrast: bool = True
    general: bool = True
    individual: bool = True
    refined: bool = True


CONTRAST_WEIGHT = 0.02
"""λ of L_SC in the rows that have it."""

VARIANTS = (
    Variant("full"),
    Variant("without refiner", refined=False),
    Variant("without L_SC", contrast=False),
    Variant("without pre-training", pretrained=False, contrast=False),
    Variant("General Field only", individual=False),
    Variant("Individual Field only", general=False),
)


@dataclass(frozen=True)
class Row:
    """Scores of a variant on held-out frames; ``error`` is the mean absolute one, of 255."""

    variant: str
    psnr_db: float
    mouth_psnr_db: float
    error: float
    ssim: float
    lip_correlation: float


def half_size(capture: Capture) -> Capture:
    """A capture at half resolution: every pixel the mean of four."""

    def halve(pictures: torch.Tensor) -> torch.Tensor:
        blocks = pictures.unfold(-3, 2, 2).unfold(-3, 2, 2)
        return blocks.float().mean(dim=(-1, -2)).to(torch.uint8)

    K = capture.K.clone()
    K[:2] /= 2
    return replace(
        capture,
        frames=torch.stack([halve(frame) for frame in capture.frames]),
        mouth_masks=capture.mouth_masks[:, ::2, ::2],
        K=K,
        plate=halve(capture.plate),
        landmarks=capture.landmarks / np.float32(2),
    )


@torch.no_grad()
def render(model: D3Talker, identity: Identity, clip: Clip, variant: Variant) -> NDArray[np.uint8]:
    """All frames of a clip, [T,H,W,3]."""
    locations = model.locate(identity)
    frames = []
    for frame in range(len(clip)):
        found = model.deformations(identity, locations, clip_conditions(model, clip, frame))
        found = active_deformations(found, variant.general, variant.individual)
        picture = composite(*deform(identity, found), clip.view(frame)).rgb
        if variant.refined:
            picture = model.refiner(picture.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        frames.append(truncate_to_uint8(picture).numpy())
    return np.stack(frames)


def score(variant: Variant, frames: NDArray[np.uint8], capture: Capture, reader: LipReader) -> Row:
    """Compare frames with the capture's own."""
    targets = capture.frames.numpy()
    lips = capture.landmarks[:, 48:68]
    (left, top), (right, bottom) = lips.min(axis=(0, 1)) - 8, lips.max(axis=(0, 1)) + 8
    box = np.s_[:, int(top) : int(bottom), int(left) : int(right)]
    opening = reader.read(frames, mouth_centres(capture.landmarks))
    return Row(
        variant.name,
        float(psnr(frames, targets).mean()),
        float(psnr(frames[box], targets[box]).mean()),
        float(np.abs(frames.astype(np.int16) - targets).mean()),
        float(ssim(frames, targets).mean()),
        correlation(opening, inner_lip_opening(capture.landmarks)),
    )


@dataclass(frozen=True)
class Ablation:
    """The material of all rows and how long to train.

    Attributes:
        studio: heads, front end, PNCC mesh.
        config: sizes of the model, at half resolution.
        others: clips to pre-train on.
        capture: to adapt to, at half resolution.
        held_out: to score on, at half resolution.
        iterations: of pre-training and of adaptation.
        gaussians: of face and mouth.
        directory: for training states and finished rows.
    """

    studio: Studio
    config: D3TalkerConfig
    others: Sequence[Clip]
    capture: Capture
    held_out: Capture
    iterations: int
    gaussians: tuple[int, int]
    directory: Path

    def row(self, variant: Variant, seed: int) -> Row:
        """Train and score one variant from one seed, or read it back."""
        directory = self.directory / f"seed_{seed}"
        directory.mkdir(parents=True, exist_ok=True)
        kept = directory / f"{variant.name.replace(' ', '_')}.json"
        if kept.exists():
            return Row(**json.loads(kept.read_text()))
        model, identity = self._train(variant, seed, directory)
        frames = render(model, identity, self.studio.clip(self.held_out), variant)
        row = score(variant, frames, self.held_out, fit_reader(self.capture))
        kept.write_text(json.dumps(asdict(row), indent=1) + "\n")
        return row

    def _train(self, variant: Variant, seed: int, directory: Path) -> tuple[D3Talker, Identity]:
        # Running the refiner or not is a matter of the last step: both are one training.
        trained = replace(variant, refined=True)
        name = "_".join(
            key for key, value in asdict(trained).items() if value is True and key != "refined"
        )
        torch.manual_seed(seed)
        model = D3Talker(self.config)
        schedule = Schedule(
            iterations=self.iterations,
            static_iterations=self.iterations // 8,
            refiner_start=self.iterations // 2,
            seed=seed,
        )
        if variant.pretrained:
            people = [self._identity(clip.name) for clip in self.others]
            stage = f"pretrain_{'with' if variant.contrast else 'without'}_contrast"
            contrast = replace(
                schedule, contrast_weight=CONTRAST_WEIGHT if variant.contrast else 0.0
            )
            Trainer(model, people, self.others, contrast).run(directory / stage, title=stage)
        identity = self._identity(self.capture.identity)
        schedule = replace(schedule, general=variant.general, individual=variant.individual)
        clips = [self.studio.clip(self.capture)]
        Trainer(model, [identity], clips, schedule, shared_rate=0.5).run(
            directory / name, title=variant.name
        )
        if variant.general and variant.individual:  # the last step of adaptation, as for ada
            train_refiner(
                model,
                identity,
                clips[0],
                self.iterations,
                schedule.detail_weight,
                directory / name / "refiner.pt",
                seed=seed,
            )
        return model, identity

    def _identity(self, name: str) -> Identity:
        return self.studio.identity(name, self.config, *self.gaussians)


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Mean and standard deviation over seeds, a line per variant."""
    scores = {
        "psnr_db": ("PSNR dB", 2),
        "mouth_psnr_db": ("mouth PSNR dB", 2),
        "error": ("mean absolute error of 255", 3),
        "ssim": ("SSIM", 4),
        "lip_correlation": ("lip correlation", 3),
    }
    lines = [
        "| | " + " | ".join(title for title, _ in scores.values()) + " |",
        "|---" * (len(scores) + 1) + "|",
    ]
    for name, found in rows.items():
        cells = [name]
        for score_name, (_, digits) in scores.items():
            values = np.array([getattr(row, score_name) for row in found])
            spread = f" ± {values.std():.{digits}f}" if len(found) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def finished_avatar(checkpoint: Path, capture_folder: Path, studio: Studio) -> dict[str, list[Row]]:
    """A trained avatar with and without its refiner, on held-out frames at full resolution."""
    avatar = AvatarCheckpoint.load(checkpoint)
    held_out = read_capture(capture_folder, "val")
    clip, reader = studio.clip(held_out), fit_reader(read_capture(capture_folder))
    rows = {}
    for variant in (variant for variant in VARIANTS if variant.name in ("full", "without refiner")):
        frames = render(avatar.model, avatar.identity, clip, variant)
        rows[variant.name] = [score(variant, frames, held_out, reader)]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and score every row."""
    parser = argparse.ArgumentParser(prog="python -m talksplat_export.training.ablation")
    parser.add_argument("capture", type=Path, help="to adapt to and, held-out frames, to score on")
    parser.add_argument("--pretrain", type=Path, nargs="+", required=True)
    parser.add_argument("--front-end", type=Path, required=True)
    parser.add_argument("--avatar", type=Path, required=True, help="finished checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    config = D3TalkerConfig()
    config = replace(config, refiner=replace(config.refiner, image_size=256))
    studio = Studio.open(options.front_end, config)
    ablation = Ablation(
        studio,
        config,
        [studio.clip(half_size(read_capture(path))) for path in options.pretrain],
        half_size(read_capture(options.capture)),
        half_size(read_capture(options.capture, "val")),
        options.iterations,
        (8000, 2000),
        options.output,
    )
    rows = {
        variant.name: [ablation.row(variant, seed) for seed in options.seeds]
        for variant in VARIANTS
    }
    avatar = finished_avatar(options.avatar, options.capture, studio)
    page = f"""# What each part of D3-Talker is worth

Written by `python -m talksplat_export.training.ablation`, which says how rows are made.
Frames are held-out ones.

## Trained anew without it
{options.iterations} iterations at half resolution, {len(options.seeds)} seeds;
mean ± standard deviation.

{table(rows)}
## Left out of {options.avatar.name}
{table(avatar)}"""
    print(page)
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()
