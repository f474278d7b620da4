"""The training loop of D3-Talker: pre-training over identities and adaptation to one.

Stage 1 (D3-Talker, section 3.5) trains the General Field, every identity's Individual Field and
Gaussians and the refiner with L1 + λ·D-SSIM + λ_SC·L_SC + λ_C2F·L_C2F; stage 2 keeps what is
shared and starts a new Individual Field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from talksplat_export.families.d3talker import (
    Conditions,
    D3Talker,
    Deformations,
    FieldLocations,
    Identity,
    deform,
)
from talksplat_export.training.clip import Clip
from talksplat_export.training.losses import image_loss, similarity_contrast
from talksplat_export.training.rendering import CoarsePicture, composite


@dataclass(frozen=True)
class Schedule:
    """How long and with what weights to train.

    Attributes:
        iterations: optimiser steps, one frame each.
        static_iterations: steps at the start that train the Gaussians at rest only.
        refiner_start: step at which the refiner joins.
        refiner_every: the refiner is trained on one step in so many.
        contrast_weight: λ_SC.
        detail_weight: of an additional L1 on the boxes of mouth and eyes.
        blink_share: of the steps that draw a frame with lids closing, which are rare otherwise.
        separation_weight: of the face's opacity inside the mouth, which belongs to the other set.
        movement_weight: of the mean size of the deformations, so that stillness is the default.
        relocate_every: steps between look-ups of moved Gaussians in the grids.
        general: whether the General Field (Facial Motion) takes part.
        individual: whether the Individual Field (audio) takes part.
        refiner: whether the coarse-to-fine network takes part.
        seed: of the choice of frames.
    """

    iterations: int
    static_iterations: int = 300
    refiner_start: int = 1000
    refiner_every: int = 2
    contrast_weight: float = 0.0
    detail_weight: float = 0.5
    blink_share: float = 0.2
    separation_weight: float = 0.05
    movement_weight: float = 0.0
    relocate_every: int = 250
    general: bool = True
    individual: bool = True
    refiner: bool = True
    seed: int = 0


@dataclass(frozen=True)
class StepReport:
    """Losses of one step, for the progress bar and the log."""

    coarse: float
    fine: float | None
    contrast: float | None


class Trainer:
    """Trains a model and identities on clips, one clip per identity.

    Args:
        model: the shared part.
        identities: one per clip.
        clips: training frames.
        schedule: lengths and weights.
        share: factor on the learning rates of the shared part (below 1 when adapting).
    """

    def __init__(
        self,
        model: D3Talker,
        identities: Sequence[Identity],
        clips: Sequence[Clip],
        schedule: Schedule,
        shared_rate: float = 1.0,
    ) -> None:
        self.model = model
        self.identities = nn.ModuleList(identities)
        self.clips = list(clips)
        self.schedule = schedule
        self.iteration = 0
        self._blinks = [clip.blinks() for clip in clips]
        self._locations: list[FieldLocations | None] = [None] * len(self.clips)
        groups = list(_shared_groups(model, shared_rate))
        for identity in identities:
            groups += _identity_groups(identity)
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self._base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._generator = torch.Generator().manual_seed(schedule.seed)

    def run(self, directory: Path, save_every: int = 500, title: str = "training") -> None:
        """Train to the end of the schedule, resuming from ``directory`` if it holds a state."""
        directory.mkdir(parents=True, exist_ok=True)
        state = directory / "state.pt"
        if state.exists():
            self._restore(state)
        log = (directory / "log.jsonl").open("a")
        bar = tqdm(
            total=self.schedule.iterations, initial=self.iteration, desc=title, mininterval=2
        )
        with log, bar:
            while self.iteration < self.schedule.iterations:
                report = self.step()
                bar.update()
                if self.iteration % 20 == 0:
                    bar.set_postfix(
                        {key: f"{value:.4f}" for key, value in asdict(report).items() if value}
                    )
                    log.write(json.dumps({"iteration": self.iteration, **asdict(report)}) + "\n")
                if self.iteration % save_every == 0 or self.iteration == self.schedule.iterations:
                    log.flush()
                    self._save(state)

    def step(self) -> StepReport:
        """One optimiser step on one random frame of one random identity."""
        schedule = self.schedule
        self._set_rates()
        which = self._draw(len(self.clips))
        clip, identity = self.clips[which], self.identities[which]
        assert isinstance(identity, Identity)
        frame = self._draw_frame(which)
        moving = self.iteration >= schedule.static_iterations
        contrast: Tensor | None = None
        loss = torch.zeros(())
        deformations: Deformations | None = None
        if moving:
            locations = self._locate(which)
            conditions = clip_conditions(self.model, clip, frame)
            deformations = self._deformations(identity, locations, conditions)
            if schedule.contrast_weight > 0 and len(self.clips) > 1:
                contrast = self._contrast(which, locations, conditions, deformations)
                loss = loss + schedule.contrast_weight * contrast
            if schedule.movement_weight > 0:
                loss = loss + schedule.movement_weight * _movement(deformations)
        coarse = composite(*deform(identity, deformations), clip.view(frame))
        coarse_loss = self._coarse_loss(coarse, clip, frame)
        loss = loss + coarse_loss
        refine = (
            schedule.refiner
            and self.iteration >= schedule.refiner_start
            and self.iteration % schedule.refiner_every == 0
        )
        fine_loss = self._fine_loss(coarse, clip, frame) if refine else None
        if fine_loss is not None:
            loss = loss + fine_loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.iteration += 1
        return StepReport(
            float(coarse_loss.detach()),
            None if fine_loss is None else float(fine_loss.detach()),
            None if contrast is None else float(contrast.detach()),
        )

    def _draw(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self._generator))

    def _draw_frame(self, which: int) -> int:
        blinks = self._blinks[which]
        if blinks and self._draw(1000) < 1000 * self.schedule.blink_share:
            return blinks[self._draw(len(blinks))]
        return self._draw(len(self.clips[which]))

    def _set_rates(self) -> None:
        """Cosine decay to a twentieth."""
        progress = self.iteration / max(self.schedule.iterations, 1)
        factor = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    def _locate(self, which: int) -> FieldLocations:
        known = self._locations[which]
        if known is None or self.iteration % self.schedule.relocate_every == 0:
            identity = self.identities[which]
            assert isinstance(identity, Identity)
            known = self._locations[which] = self.model.locate(identity)
        return known

    def _deformations(
        self, identity: Identity, locations: FieldLocations, conditions: Conditions
    ) -> Deformations:
        found = self.model.deformations(identity, locations, conditions)
        return active_deformations(found, self.schedule.general, self.schedule.individual)

    def _contrast(
        self,
        which: int,
        locations: FieldLocations,
        conditions: Conditions,
        deformations: Deformations,
    ) -> Tensor:
        individuals = []
        for index, other in enumerate(self.identities):
            assert isinstance(other, Identity)
            if index == which:
                individuals.append(deformations.individual_face[:, :3])
                continue
            # All Individual Fields share one grid layout, so a location holds for each of them.
            field = other.individual.face
            found = field(locations.individual_face, conditions.audio, conditions.upper_face)
            individuals.append(found[:, :3])
        return similarity_contrast(deformations.general_face[:, :3], individuals, which)

    def _coarse_loss(self, coarse: CoarsePicture, clip: Clip, frame: int) -> Tensor:
        loss = picture_loss(coarse.rgb, clip, frame, self.schedule.detail_weight)
        inside = clip.mouth_masks[frame]
        if self.schedule.separation_weight > 0 and bool(inside.any()):
            loss = loss + self.schedule.separation_weight * coarse.face_alpha[inside].mean()
        return loss

    def _fine_loss(self, coarse: CoarsePicture, clip: Clip, frame: int) -> Tensor:
        picture = coarse.rgb.detach().permute(2, 0, 1)[None]
        fine = self.model.refiner(picture)[0].permute(1, 2, 0)
        return picture_loss(fine, clip, frame, self.schedule.detail_weight)

    def _save(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "iteration": self.iteration,
                "model": self.model.state_dict(),
                "identities": self.identities.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self._generator.get_state(),
            },
            partial,
        )
        partial.replace(path)

    def _restore(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        self.identities.load_state_dict(state["identities"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])


def picture_loss(picture: Tensor, clip: Clip, frame: int, detail_weight: float) -> Tensor:
    """L1 + λ·D-SSIM of a picture [H,W,3], and an additional L1 on mouth and eyes."""
    target = clip.picture(frame)
    loss = image_loss(picture.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None])
    for box in clip.details:
        loss = loss + detail_weight * (box.cut(picture) - box.cut(target)).abs().mean()
    return loss


def clip_conditions(model: D3Talker, clip: Clip, frame: int) -> Conditions:
    """The conditions of one frame of a clip."""
    track = clip.track
    return model.conditions(
        track.pncc_window(frame, model.config.tcn_radius),
        track.audio_window(frame),
        track.upper_face[frame][None],
    )


def active_deformations(found: Deformations, general: bool, individual: bool) -> Deformations:
    """Deformations with one of the two fields switched off, as ablations do."""
    return Deformations(
        found.general_face * float(general),
        found.individual_face * float(individual),
        found.general_mouth * float(general),
        found.individual_mouth * float(individual),
    )


def _movement(deformations: Deformations) -> Tensor:
    face = deformations.general_face + deformations.individual_face
    return face.abs().mean()


def _shared_groups(model: D3Talker, rate: float) -> Iterator[dict[str, object]]:
    for part in (model.general.face, model.general.mouth):
        yield from _field_groups(part, rate)
    conditions = [model.motion_encoder, model.temporal, model.audio_branch]
    yield {
        "params": [p for part in conditions for p in part.parameters()],
        "lr": 1e-3 * rate,
    }
    yield {"params": list(model.refiner.parameters()), "lr": 2e-3 * rate}


def _field_groups(part: nn.Module, rate: float) -> Iterator[dict[str, object]]:
    grids = [p for name, p in part.named_parameters() if name.endswith("embeddings")]
    others = [p for name, p in part.named_parameters() if not name.endswith("embeddings")]
    # TalkingGaussian: grids 5e-3, perceptrons 5e-4; ours are doubled for its shorter schedule.
    yield {"params": grids, "lr": 1e-2 * rate}
    yield {"params": others, "lr": 1e-3 * rate}


def _identity_groups(identity: Identity) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = []
    for gaussians in (identity.face, identity.mouth):
        groups += [
            {"params": [gaussians.means], "lr": 4e-5},
            {"params": [gaussians.raw_scales], "lr": 1e-2},
            {"params": [gaussians.raw_quats], "lr": 2e-3},
            {"params": [gaussians.raw_opacities], "lr": 3e-2},
            {"params": [gaussians.shs_dc], "lr": 5e-3},
            {"params": [gaussians.shs_rest], "lr": 5e-4},
        ]
    for part in (identity.individual.face, identity.individual.mouth):
        groups += list(_field_groups(part, 1.0))
    return groups
