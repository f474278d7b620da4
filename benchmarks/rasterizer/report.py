"""The figures as Markdown tables; every number in them comes from the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.rasterizer.machine import Limits
from benchmarks.rasterizer.measure import Results

BEGIN = "<!-- written by `python -m benchmarks.rasterizer --document`: begin -->"
END = "<!-- end -->"

STAGES = ("project", "sort", "bin", "blend")

# Goals in milliseconds by (Gaussians, channels), for idle hardware with AVX-512 and two cores.
GOALS = {
    (20_000, 3): 3.0,
    (50_000, 3): 4.5,
    (176_000, 3): 9.0,
    (50_000, 32): 8.0,
    (176_000, 32): 15.0,
}


def tables(results: Results, limits: Limits) -> str:
    """All tables, with the line on the machine that they were taken on."""
    described = results.machine
    sections = [
        f"{described['processor']}, {described['cores']} cores, {results.threads} threads, "
        f"{results.best}; {described['system']}, Python {described['python']}, torch "
        f"{described['torch']}. Load average (1 minute) {described['load']:.1f} before and "
        f"{results.load_after:.1f} after; {results.rounds} interleaved rounds.",
        _speed(results, limits),
        _stages(results, limits),
        _variants(results),
        _work(results),
        _limits(limits),
    ]
    if results.peers:
        sections.append(_peers(results))
    return "\n\n".join(sections)


def blending_floor_ms(
    results: Results, limits: Limits, gaussians: int, channels: int
) -> float | None:
    """Time for the blending steps alone, if every core did nothing else at its best.

    Channels beyond three add a multiply-add per pixel of the block.
    """
    work, step = results.work[gaussians], limits.best_step_ns(results.best)
    if step is None or limits.multiply_adds_per_ns is None:
        return None
    steps, pixels = {"avx512": (work.steps_4x4, 16), "avx2": (work.steps_4x2, 8)}[results.best]
    more = pixels * max(0, channels - 3) / limits.multiply_adds_per_ns
    return steps * (step + more) / results.threads / 1e6


def project_floor_ms(limits: Limits, gaussians: int) -> float:
    """Time to read every Gaussian but its colour, and to write what blending needs of it: mean,
    conic, opacity, depth, all float32."""
    return 4 * gaussians * (3 + 4 + 3 + 1 + 2 + 3 + 1 + 1) / limits.copied_bytes_per_ns / 1e6


def memory_floor_ms(limits: Limits, gaussians: int, channels: int) -> float:
    """Time to read every Gaussian and write every pixel once."""
    floats = gaussians * (3 + 4 + 3 + 1 + channels) + 512 * 512 * (channels + 1)
    return 4 * floats / limits.copied_bytes_per_ns / 1e6


def _speed(results: Results, limits: Limits) -> str:
    rows = []
    for gaussians, channels in _scenes(results):
        timing = results.timing(gaussians, channels)
        assert timing is not None
        goal = GOALS.get((gaussians, channels))
        floor = blending_floor_ms(results, limits, gaussians, channels)
        rows.append(
            [
                f"{gaussians:,}",
                channels,
                f"{timing.least:.2f}",
                f"{timing.median:.2f}",
                "" if goal is None else f"{goal:g}",
                "" if floor is None else f"{floor:.2f}",
                "" if floor is None else f"{timing.least / floor:.1f}",
                f"{memory_floor_ms(limits, gaussians, channels):.2f}",
            ]
        )
    head = (
        "Gaussians",
        "channels",
        "min ms",
        "median ms",
        "goal ms",
        "blending floor ms",
        "min / floor",
        "memory floor ms",
    )
    return _table(head, rows)


def _stages(results: Results, limits: Limits) -> str:
    rows = []
    for gaussians, channels in _scenes(results):
        timing = results.timing(gaussians, channels)
        assert timing is not None
        stages = {name: timing.least_of(name) for name in STAGES}
        floors = {
            "project": project_floor_ms(limits, gaussians),
            "blend": blending_floor_ms(results, limits, gaussians, channels),
        }
        row = [f"{gaussians:,}", str(channels)]
        for name, spent in stages.items():
            row.append(f"{spent:.2f}")
            if name in floors:
                floor = floors[name]
                row.append("" if floor is None else f"{spent / floor:.1f}")
        rest = timing.least - sum(stages.values())
        rows.append([*row, f"{rest:.2f}"])
    head = ["Gaussians", "channels"]
    for name in STAGES:
        head += [f"{name} ms", "× floor"] if name in ("project", "blend") else [f"{name} ms"]
    return _table([*head, "rest ms"], rows)


def _variants(results: Results) -> str:
    variants: dict[str, dict[str, object]] = {
        "1 thread": {"threads": 1},
        "Morton order": {"in_morton_order": True},
    }
    for other in sorted({t.case.instructions for t in results.timings} - {results.best}):
        variants[other] = {"instructions": other}
    rows = []
    for gaussians, channels in _scenes(results):
        usual = results.timing(gaussians, channels)
        row: list[object] = [f"{gaussians:,}", channels]
        for changed in variants.values():
            timing = results.timing(gaussians, channels, **changed)
            assert usual is not None and timing is not None
            row += [f"{timing.least:.2f}", f"{timing.least / usual.least:.2f}"]
        rows.append(row)
    head = ["Gaussians", "channels"]
    for name in variants:
        head += [f"{name}: min ms", "ratio"]
    return _table(head, rows)


def _work(results: Results) -> str:
    head = (
        "Gaussians",
        "pairs blended",
        "tile entries",
        "longest list",
        "4×4 steps",
        "lanes per pair",
        "4×2 steps",
        "lanes per pair",
        "16×1 steps",
        "lanes per pair",
    )
    rows = [
        [
            f"{gaussians:,}",
            f"{work.pairs:,}",
            f"{work.tile_entries:,}",
            f"{work.longest_list:,}",
            f"{work.steps_4x4:,}",
            f"{16 * work.steps_4x4 / work.pairs:.2f}",
            f"{work.steps_4x2:,}",
            f"{8 * work.steps_4x2 / work.pairs:.2f}",
            f"{work.steps_16x1:,}",
            f"{16 * work.steps_16x1 / work.pairs:.2f}",
        ]
        for gaussians, work in results.work.items()
    ]
    return _table(head, rows)


def _limits(limits: Limits) -> str:
    rows = [["large copy, read and write", f"{limits.copied_bytes_per_ns:.0f} GB/s"]]
    if limits.multiply_adds_per_ns is not None:
        rows.append(["multiply-adds of one core", f"{2 * limits.multiply_adds_per_ns:.0f} GFLOP/s"])
    for name, step in (
        ("one blending step of 4×4 pixels, AVX-512", limits.step_4x4_ns),
        ("one blending step of 4×2 pixels, AVX2", limits.step_4x2_ns),
    ):
        if step is not None:
            rows.append([name, f"{step:.2f} ns"])
    return _table(("limit of the machine", "measured"), rows)


def _peers(results: Results) -> str:
    rows = []
    for peer in results.peers:
        ours = results.timing(peer.gaussians, 3)
        least = min(peer.samples)
        ratio = "" if ours is None else f"{least / ours.least:,.0f}"
        rows.append([peer.name, f"{peer.gaussians:,}", f"{least:,.0f}", ratio, f"{peer.psnr:.0f}"])
    head = ("peer", "Gaussians", "min ms", "times ours", "PSNR to ours, dB")
    return _table(head, rows)


def _scenes(results: Results) -> list[tuple[int, int]]:
    return list(dict.fromkeys((t.case.gaussians, t.case.channels) for t in results.timings))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def replace_tables(document: Path, text: str) -> None:
    """Put ``text`` between the marks in ``document``."""
    page = document.read_text()
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{document}: expected the lines {BEGIN!r} and {END!r}; add them")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
