"""The last step of adaptation: the refiner alone, on the finished avatar's own coarse pictures.

While Gaussians still move, what the refiner has to mend changes faster than it learns. Once they
are done their pictures are rendered once, and each step costs the refiner and nothing else.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from talksplat_export.families.d3talker import D3Talker, Identity, deform
from talksplat_export.training.clip import Clip
from talksplat_export.training.rendering import composite
from talksplat_export.training.trainer import clip_conditions, picture_loss


@torch.no_grad()
def coarse_pictures(model: D3Talker, identity: Identity, clip: Clip) -> Tensor:
    """What the rasterizer makes of every frame of a clip, float16 [T,3,H,W]."""
    locations = model.locate(identity)
    pictures = []
    for frame in tqdm(range(len(clip)), desc="coarse pictures", mininterval=2):
        deformations = model.deformations(identity, locations, clip_conditions(model, clip, frame))
        picture = composite(*deform(identity, deformations), clip.view(frame)).rgb
        pictures.append(picture.permute(2, 0, 1).half())
    return torch.stack(pictures)


def train_refiner(
    model: D3Talker,
    identity: Identity,
    clip: Clip,
    iterations: int,
    detail_weight: float,
    state: Path,
    rate: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train the refiner of a model in place; goes on from ``state`` if it is there.

    Args:
        model: its refiner is trained, the rest is left alone.
        identity: the finished identity.
        clip: the frames to learn from.
        iterations: steps of one frame.
        detail_weight: of an additional L1 on mouth and eyes.
        state: file that holds the state of an unfinished run.
        rate: of learning at the start; falls to nearly nothing along a cosine.
        seed: of the choice of frames.
    """
    optimizer = torch.optim.Adam(model.refiner.parameters(), betas=(0.9, 0.99), fused=True)
    generator = torch.Generator().manual_seed(seed)
    first = 0
    if state.exists():
        stored = torch.load(state, weights_only=True)
        first = stored["iteration"]
        model.refiner.load_state_dict(stored["refiner"])
        optimizer.load_state_dict(stored["optimizer"])
        generator.set_state(stored["generator"])
    if first >= iterations:
        return
    pictures = coarse_pictures(model, identity, clip)
    bar = tqdm(range(first, iterations), initial=first, total=iterations, desc="refiner")
    for iteration in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate * (
                0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
            )
        frame = int(torch.randint(len(clip), (), generator=generator))
        fine = model.refiner(pictures[frame][None].float())[0].permute(1, 2, 0)
        loss = picture_loss(fine, clip, frame, detail_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if iteration % 20 == 0:
            bar.set_postfix(fine=f"{float(loss.detach()):.4f}")
        if iteration % 500 == 499 or iteration + 1 == iterations:
            _save(state, iteration + 1, model, optimizer, generator)


def _save(
    path: Path,
    iteration: int,
    model: D3Talker,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "iteration": iteration,
            "refiner": model.refiner.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
        },
        partial,
    )
    partial.replace(path)
