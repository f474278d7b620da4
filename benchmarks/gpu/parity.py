"""Does the GPU draw what the CPU draws, the same in every replay, and say when it cannot?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import talksplat
from benchmarks.gpu.drawing import Drawing, Replay
from benchmarks.gpu.result import Findings, Table
from benchmarks.gpu.settings import Settings
from benchmarks.rasterizer.scenes import Array, Scene, head
from talksplat.cuda import Stream, open_device
from talksplat.cuda.kernels import KernelModule
from talksplat.errors import BackendError

LEAST_DB = 90.0
"""Of float32 pictures; two orders of the same sums differ by some 110 dB, one pixel that stops a
Gaussian earlier by some 95."""

LEAST_HALF_DB = 60.0
"""With colours kept in half precision, which holds numbers of 0..1 to 11 bits: an error spread
evenly within 2^-12 of them is 77 dB below 1, and the weights of a picture add up to 1 at most."""

REPLAYS = 50
ROOM = 64
"""Gaussian-tile pairs, far fewer than a head needs."""


@dataclass(frozen=True)
class Case:
    """One picture that both draw."""

    name: str
    scene: Scene
    options: dict[str, Any]
    half_colors: bool = False

    @property
    def least_db(self) -> float:
        """What it must reach."""
        return LEAST_HALF_DB if self.half_colors else LEAST_DB


@dataclass(frozen=True)
class Agreement:
    """How far the GPU's picture is from the CPU's.

    Attributes:
        psnr_db: of colours, for a peak of 1; infinite (None in JSON) where they are equal.
        alpha_psnr_db: of alphas.
        largest: difference of any number.
        replays: captured and launched again, by how many bits of any number they ever differed.
    """

    name: str
    psnr_db: float | None
    alpha_psnr_db: float | None
    largest: float
    replays_that_differ: int


def cases(sizes: Sequence[int], side: int, seed: int = 0) -> Iterator[Case]:
    """Both dialects at every size, and each further rule once, at the smallest size."""
    for size in sizes:
        scene = head(size, side, side, seed=seed)
        for dialect in ("gsplat", "gsplat-1.5", "inria"):
            yield Case(f"{size:,} × 3, {dialect}", scene, {"dialect": dialect})
        many = head(size, side, side, channels=32, seed=seed)
        yield Case(f"{size:,} × 32, inria", many, {"dialect": "inria"})
        yield Case(f"{size:,} × 32 in half precision, inria", many, {"dialect": "inria"}, True)
    few = head(min(sizes), side, side, seed=seed)
    for dialect in ("gsplat", "gsplat-1.5"):
        options = {"dialect": dialect, "rasterize_mode": "antialiased"}
        yield Case(f"{len(few.means):,} × 3, {dialect}, antialiased", few, options)
    rng = np.random.default_rng(seed)
    shs = (0.3 * rng.normal(size=(len(few.means), 16, 3))).astype(np.float32)
    yield Case(
        f"{len(few.means):,}, spherical harmonics of degree 3, inria",
        replace(few, colors=shs),
        {"dialect": "inria", "sh_degree": 3},
    )
    behind = rng.uniform(size=(3, side, side)).astype(np.float32)
    yield Case(
        f"{len(few.means):,} × 3 over a picture, inria",
        few,
        {"dialect": "inria", "background": behind},
    )


def measure(settings: Settings) -> Findings:
    """Compare, replay, and overflow on purpose."""
    failures, found = [], []
    side = settings.sides[0]
    with (
        open_device() as device,
        Stream(device) as stream,
        KernelModule(device, "gaussian_rasterizer") as kernels,
    ):
        for case in cases(settings.sizes, side):
            agreement = compare(kernels, stream, case)
            found.append(agreement)
            failures += judge(agreement, case.least_db)
        scene = head(min(settings.sizes), side, side)
        said, overflow_failures = overflow(kernels, stream, scene)
    failures += overflow_failures
    rows = [
        (
            one.name,
            decibels(one.psnr_db),
            decibels(one.alpha_psnr_db),
            f"{one.largest:.1e}",
            str(one.replays_that_differ),
        )
        for one in found
    ]
    columns = ("scene", "PSNR", "PSNR of alphas", "largest difference", "replays that differ")
    return Findings(
        tables=[
            Table(f"GPU against CPU; {REPLAYS} replays against the eager frame", columns, rows)
        ],
        figures={"agreements": [asdict(one) for one in found], "overflow": said},
        notes=[
            f"Expected: {LEAST_DB:.0f} dB, {LEAST_HALF_DB:.0f} dB in half precision, and no replay "
            "that differs in any bit.",
            f"With room for {ROOM} pairs the rasterizer said: {said}",
        ],
        failures=failures,
    )


def compare(kernels: KernelModule, stream: Stream, case: Case) -> Agreement:
    """Draw one case on both, then replay it."""
    with Drawing(
        kernels, stream, case.scene, half_colors=case.half_colors, **case.options
    ) as drawing:
        drawing.enqueue()
        eager = drawing.images()
        colors, alphas = drawing.picture()
        drawing.rasterizer.check()
        with Replay(drawing) as replay:
            differing = 0
            for _ in range(REPLAYS):
                replay.launch()
                replayed = drawing.images()
                differing += not all(map(same_bits, replayed, eager))
    expected, expected_alphas = on_the_cpu(case)
    return Agreement(
        case.name,
        psnr_db(colors, expected),
        psnr_db(alphas, expected_alphas),
        float(max(np.abs(colors - expected).max(), np.abs(alphas - expected_alphas).max())),
        differing,
    )


def on_the_cpu(case: Case) -> tuple[Array, Array]:
    """Colours [H,W,D] and alphas [H,W] by ``talksplat.rasterize``."""
    options = dict(case.options)
    background = options.pop("background", None)
    if background is not None:
        options["backgrounds"] = background.transpose(1, 2, 0)[None]
    scene = case.scene
    colors, alphas = talksplat.rasterize(*scene.arrays, scene.width, scene.height, **options)
    return colors[0], alphas[0, :, :, 0]


def judge(agreement: Agreement, least_db: float) -> list[str]:
    """What does not hold of one case."""
    failures = []
    for what, value in (("", agreement.psnr_db), (" of alphas", agreement.alpha_psnr_db)):
        if value is not None and not value >= least_db:  # NaN too
            failures.append(
                f"{agreement.name}: PSNR{what} {value:.1f} dB, expected {least_db:.0f} dB"
            )
    if agreement.replays_that_differ:
        failures.append(
            f"{agreement.name}: {agreement.replays_that_differ} of {REPLAYS} replays differ from "
            "the eager frame"
        )
    return failures


def overflow(kernels: KernelModule, stream: Stream, scene: Scene) -> tuple[str, list[str]]:
    """What is said when the pairs have no room, and what does not hold of that."""
    with Drawing(kernels, stream, scene, tile_entries=ROOM) as drawing:
        drawing.enqueue()
        colors, alphas = drawing.picture()
        failures = [
            f"too many pairs: expected NaN in every {name}, found numbers"
            for name, array in (("colour", colors), ("alpha", alphas))
            if not np.isnan(array).all()
        ]
        try:
            drawing.rasterizer.check()
        except BackendError as error:
            return str(error), failures
    return "nothing", [*failures, "too many pairs: expected an error, found none"]


def psnr_db(image: Array, reference: Array) -> float | None:
    """Peak signal-to-noise ratio for a peak of 1, dB; None where both are equal."""
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return None if error == 0 else -10 * math.log10(error)


def decibels(value: float | None) -> str:
    """As shown."""
    return "equal" if value is None else f"{value:.1f} dB"


def same_bits(one: Array, other: Array) -> bool:
    """Whether two float32 arrays hold the same bits, NaN included."""
    return bool(
        np.array_equal(
            np.ascontiguousarray(one).view(np.uint32), np.ascontiguousarray(other).view(np.uint32)
        )
    )
