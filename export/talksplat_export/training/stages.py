"""The two stages of D3-Talker on captures: pre-training over identities, adaptation to one.

    python -m talksplat_export.training.stages pretrain captures/* \
        --front-end front_end.pt -o training/general
    python -m talksplat_export.training.stages adapt captures/ada \
        --front-end front_end.pt --general training/general/general.pt -o training/ada

Both resume where they were stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from talksplat.manifest import Camera, Licence, RasterizerContract
from talksplat.pncc import PnccRenderer
from talksplat_export.audio_encoders.audio_to_motion import EXPRESSION_NAMES
from talksplat_export.audio_encoders.front_end import FrontEnd, load_front_end
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint, PnccMesh, Tracks
from talksplat_export.families.d3talker import D3Talker, D3TalkerConfig, Identity
from talksplat_export.heads import identities
from talksplat_export.heads.identity import Identity as HeadIdentity
from talksplat_export.heads.procedural import ProceduralHead
from talksplat_export.training.capture import Capture, read_capture
from talksplat_export.training.clip import Box, Clip
from talksplat_export.training.conditioning import ConditionTrack
from talksplat_export.training.initialisation import gaussians_on_surface
from talksplat_export.training.refining import train_refiner
from talksplat_export.training.tracked_head import face_surface, mouth_surface, pncc_mesh
from talksplat_export.training.trainer import Schedule, Trainer

DIALECT: Final = "inria"
LICENCE = Licence("Apache-2.0", "talksplat authors; a procedural head, no real person")


@dataclass(frozen=True)
class Studio:
    """What all captures share: the heads' model, the audio front end and the PNCC mesh."""

    head: ProceduralHead
    front_end: FrontEnd
    pncc: PnccMesh

    @classmethod
    def open(cls, front_end: Path, config: D3TalkerConfig) -> Studio:
        """Load the front end and draw up the PNCC mesh of the average head."""
        head = ProceduralHead()
        pncc = pncc_mesh(head, HeadIdentity(), EXPRESSION_NAMES, config.pncc_size)
        return cls(head, load_front_end(front_end), pncc)

    def clip(self, capture: Capture) -> Clip:
        """A capture with its drivers, all of them from its sound and its action units."""
        with torch.no_grad():
            features, expression = self.front_end.whole_clip(capture.pcm)
        mesh = self.pncc
        renderer = PnccRenderer(
            mesh.template.numpy(),
            mesh.basis.numpy(),
            mesh.faces.numpy(),
            mesh.colors.numpy(),
            mesh.camera,
        )
        upper_face = capture.upper_face.numpy()
        return Clip(
            capture.identity,
            capture.frames,
            capture.mouth_masks,
            capture.viewmats,
            capture.K,
            capture.plate.float() / 255,
            _details(capture),
            ConditionTrack.draw(features, expression, upper_face, renderer),
        )

    def identity(self, name: str, config: D3TalkerConfig, face: int, mouth: int) -> Identity:
        """A new identity: Gaussians on the surface of the tracked head, an untrained field."""
        who = identities.NAMED[name]
        return Identity(
            config,
            gaussians_on_surface(face_surface(self.head, who), face, config.sh_degree, seed=1),
            gaussians_on_surface(mouth_surface(self.head, who), mouth, config.sh_degree, seed=2),
        )


def pretrain(
    captures: Sequence[Path],
    front_end: Path,
    directory: Path,
    schedule: Schedule,
    config: D3TalkerConfig,
    gaussians: tuple[int, int],
) -> Path:
    """Stage 1: train the shared part over several identities.

    Returns:
        ``directory / "general.pt"``, the shared part's config and state.
    """
    torch.manual_seed(schedule.seed)
    studio = Studio.open(front_end, config)
    clips = [studio.clip(read_capture(path)) for path in captures]
    model = D3Talker(config)
    people = [studio.identity(clip.name, config, *gaussians) for clip in clips]
    Trainer(model, people, clips, schedule).run(directory, title="pre-training")
    path = directory / "general.pt"
    torch.save({"config": config.as_dict(), "model": model.state_dict()}, path)
    return path


def adapt(
    capture_folder: Path,
    front_end: Path,
    general: Path | None,
    directory: Path,
    schedule: Schedule,
    gaussians: tuple[int, int],
    shared_rate: float,
    refiner_iterations: int,
    config: D3TalkerConfig | None = None,
) -> Path:
    """Stage 2: a new identity on top of a pre-trained shared part.

    Args:
        capture_folder: of the new identity; its name is that of a procedural head.
        front_end: the audio front end.
        general: from :func:`pretrain`; ``None`` starts from scratch with ``config``.
        directory: for the training state and the checkpoint.
        schedule: lengths and weights.
        gaussians: of face and mouth.
        shared_rate: factor on the shared part's learning rates.
        refiner_iterations: of the refiner alone, when all else is done.
        config: without ``general``, the sizes.

    Returns:
        ``directory / f"{name}.pt"``, an :class:`AvatarCheckpoint`.
    """
    torch.manual_seed(schedule.seed)
    stored = None if general is None else torch.load(general, weights_only=True)
    if stored is not None:
        config = D3TalkerConfig.from_dict(stored["config"])
    config = config or D3TalkerConfig()
    studio = Studio.open(front_end, config)
    capture = read_capture(capture_folder)
    model = D3Talker(config)
    if stored is not None:
        model.load_state_dict(stored["model"])
    identity = studio.identity(capture.identity, config, *gaussians)
    clip = studio.clip(capture)
    trainer = Trainer(model, [identity], [clip], schedule, shared_rate)
    trainer.run(directory, title=f"adapting to {capture.identity}")
    if schedule.refiner:
        state = directory / "refiner.pt"
        train_refiner(
            model,
            identity,
            clip,
            refiner_iterations,
            schedule.detail_weight,
            state,
            seed=schedule.seed,
        )
    checkpoint = AvatarCheckpoint(
        name=capture.identity,
        model=model,
        identity=identity,
        front_end=studio.front_end,
        expression_names=EXPRESSION_NAMES,
        pncc=studio.pncc,
        background=capture.plate,
        tracks=Tracks(capture.viewmats, capture.upper_face),
        camera=_camera(capture.K),
        rasterizer=RasterizerContract(
            dialect=DIALECT,
            rasterize_mode="classic",
            sh_degree=config.sh_degree,
            near_plane=0.2,
            eps2d=0.3,
        ),
        licence=LICENCE,
        training={
            "frames": len(capture),
            "schedule": dataclasses.asdict(schedule),
            "pre_trained": general is not None,
        },
    )
    path = directory / f"{capture.identity}.pt"
    checkpoint.save(path)
    return path


def _details(capture: Capture) -> tuple[Box, ...]:
    """Boxes around the mouth and around the eyes, brows excluded."""
    size = (int(capture.frames.shape[1]), int(capture.frames.shape[2]))
    margin = round(0.03 * size[0])
    parts = (slice(48, 68), slice(36, 48))
    return tuple(Box.around(capture.landmarks[:, part], margin, size) for part in parts)


def _camera(K: Tensor) -> Camera:
    x, y, z = ((float(a), float(b), float(c)) for a, b, c in K)
    return Camera((x, y, z))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of both stages."""
    parser = argparse.ArgumentParser(
        prog="python -m talksplat_export.training.stages",
        description="Pre-train D3-Talker over identities, or adapt it to one.",
    )
    verbs = parser.add_subparsers(dest="stage", required=True)
    for stage in ("pretrain", "adapt"):
        verb = verbs.add_parser(stage)
        verb.add_argument("captures", type=Path, nargs="+" if stage == "pretrain" else 1)
        verb.add_argument("--front-end", type=Path, required=True, help="audio front end (.pt)")
        verb.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
        verb.add_argument("--iterations", type=int, default=3000 if stage == "pretrain" else 6000)
        verb.add_argument("--face-gaussians", type=int, default=16000)
        verb.add_argument("--mouth-gaussians", type=int, default=3000)
        verb.add_argument("--seed", type=int, default=0)
        verb.add_argument("--threads", type=int, default=2)
    verbs.choices["pretrain"].add_argument("--contrast", type=float, default=0.02, help="λ_SC")
    adapting = verbs.choices["adapt"]
    adapting.add_argument("--general", type=Path, help="pre-trained shared part")
    adapting.add_argument(
        "--without", choices=("general", "individual", "refiner"), action="append", default=[]
    )
    adapting.add_argument("--refiner-iterations", type=int, default=2000)
    adapting.add_argument("--shared-rate", type=float, default=0.5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    gaussians = (options.face_gaussians, options.mouth_gaussians)
    without = getattr(options, "without", [])
    schedule = Schedule(
        iterations=options.iterations,
        static_iterations=min(400, options.iterations // 8),
        refiner_start=options.iterations // 2,
        refiner_every=3,
        contrast_weight=getattr(options, "contrast", 0.0),
        general="general" not in without,
        individual="individual" not in without,
        refiner="refiner" not in without,
        seed=options.seed,
    )
    if options.stage == "pretrain":
        path = pretrain(
            options.captures,
            options.front_end,
            options.output,
            schedule,
            D3TalkerConfig(),
            gaussians,
        )
    else:
        path = adapt(
            options.captures[0],
            options.front_end,
            options.general,
            options.output,
            schedule,
            gaussians,
            options.shared_rate,
            options.refiner_iterations,
        )
    print(path)


if __name__ == "__main__":
    main()
