"""The benchmark counts what it says, its peers draw the same picture, and its page is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.rasterizer import measure, report, torch_baseline
from benchmarks.rasterizer.machine import Limits
from benchmarks.rasterizer.scenes import head, in_morton_order
from benchmarks.rasterizer.work import count_work

import talksplat
from talksplat_export import oracle

WIDTH, HEIGHT = 72, 56  # not whole tiles


def test_work_is_counted_pixel_by_pixel() -> None:
    scene = head(300, WIDTH, HEIGHT)
    means, quats, scales, opacities, _, viewmats, Ks = map(torch.from_numpy, scene.arrays)
    seen = oracle.project(means, quats, scales, opacities, viewmats[0], Ks[0], WIDTH, HEIGHT)
    pairs, blocks_8x4, blocks_4x4, blocks_4x2, blocks_16x1 = 0, set(), set(), set(), set()
    for row in range(HEIGHT):
        for column in range(WIDTH):
            pixel = torch.tensor([[column + 0.5, row + 0.5]], dtype=torch.float64)
            alphas = oracle.drawn_alphas(pixel, seen.means2d, seen.conics, seen.opacities, "gsplat")
            for entry in alphas[0].nonzero()[:, 0].tolist():
                pairs += 1
                blocks_8x4.add((entry, row // 4, column // 8))
                blocks_4x4.add((entry, row // 4, column // 4))
                blocks_4x2.add((entry, row // 2, column // 4))
                blocks_16x1.add((entry, row, column // 16))
    work = count_work(scene)
    assert work.pairs == pairs > 0
    assert work.steps_8x4 == len(blocks_8x4)
    assert work.steps_4x4 == len(blocks_4x4)
    assert work.steps_4x2 == len(blocks_4x2)
    assert work.steps_16x1 == len(blocks_16x1)
    assert work.longest_list <= work.seen == len(seen.indices)


@pytest.mark.parametrize("draw", [torch_baseline.draw_with_gsplat, torch_baseline.draw_vectorized])
def test_the_peers_draw_the_same_picture(draw) -> None:
    scene = head(400, WIDTH, HEIGHT, channels=5)
    expected = talksplat.rasterize(*scene.arrays, WIDTH, HEIGHT, dialect="gsplat-1.5")
    for image, other in zip(draw(scene), expected, strict=True):
        np.testing.assert_allclose(image.numpy(), other, rtol=0, atol=1e-3)


def test_the_same_head_every_time() -> None:
    for array, other in zip(head(100).arrays, head(100).arrays, strict=True):
        np.testing.assert_array_equal(array, other)
    assert not np.array_equal(head(100).means, head(100, seed=1).means)


def test_morton_order_keeps_the_picture_and_brings_neighbours_together() -> None:
    scene = head(2000, WIDTH, HEIGHT)
    ordered = in_morton_order(scene)
    pictures = [talksplat.rasterize(*s.arrays, WIDTH, HEIGHT)[0] for s in (scene, ordered)]
    np.testing.assert_allclose(pictures[0], pictures[1], rtol=0, atol=1e-6)
    steps = [np.linalg.norm(np.diff(s.means, axis=0), axis=1).mean() for s in (scene, ordered)]
    assert steps[1] < 0.2 * steps[0]


def test_tables_say_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = measure.head
    monkeypatch.setattr(measure, "head", lambda *a, **k: small(*a, **k, width=WIDTH, height=HEIGHT))
    results = measure.measure(
        sizes=[300], channels=[3], threads=1, rounds=1, torch_size=300, torch_rounds=1
    )
    best = results.timing(300, 3)
    assert best is not None and 0 < best.least <= best.median
    limits = Limits(
        step_4x4_ns=5.0, step_4x2_ns=4.0, multiply_adds_per_ns=60.0, copied_bytes_per_ns=40.0
    )
    tables = report.tables(results, limits)
    assert f"| 300 | 3 | {best.least:.2f} |" in tables
    assert "vectorised torch" in tables

    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.replace_tables(page, tables)
    assert page.read_text() == f"before\n{report.BEGIN}\n\n{tables}\n\n{report.END}\nafter\n"
    (tmp_path / "other.md").write_text("no marks")
    with pytest.raises(SystemExit, match="add them"):
        report.replace_tables(tmp_path / "other.md", tables)


def test_more_channels_raise_the_floor_by_their_multiply_adds() -> None:
    limits = Limits(5.0, 4.0, 16.0, 40.0)
    work = count_work(head(50, WIDTH, HEIGHT))
    results = measure.Results({}, 0.0, 2, "avx512", 1, [], {50: work}, [])
    three, many = (report.blending_floor_ms(results, limits, 50, n) for n in (3, 32))
    assert three == pytest.approx(work.steps_4x4 * 5.0 / 2 / 1e6)
    assert many == pytest.approx(work.steps_4x4 * (5.0 + 29) / 2 / 1e6)
