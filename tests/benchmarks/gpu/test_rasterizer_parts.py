"""Parity and speed of the rasterizer, end to end on an imaginary GPU that runs the real kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.gpu.floors import Rates
from benchmarks.gpu.parity import Agreement
from benchmarks.gpu.rasterizer import EAGER, OURS, Measured, Size
from benchmarks.gpu.result import MissingError
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.timing import Times
from benchmarks.rasterizer.scenes import head

from benchmarks.gpu import gsplat_peer, parity, rasterizer

RATES = Rates(copy=1e12, multiply_add=1e13, matrix=None, launch=2e-6)
SETTINGS = Settings(sizes=(150,), channels=(3,), sides=(40,), rounds=2, calls=1)


@pytest.fixture(autouse=True)
def few_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "REPLAYS", 2)
    monkeypatch.setattr(parity, "ROOM", 16)


@pytest.fixture
def no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasterizer, "measure_rates", lambda device: RATES)


def test_the_gpu_draws_what_the_cpu_draws(fake_driver: Any) -> None:
    findings = parity.measure(SETTINGS)
    assert findings.failures == []
    (table,) = findings.tables
    assert [row[0] for row in table.rows] == [
        "150 × 3, gsplat",
        "150 × 3, gsplat-1.5",
        "150 × 3, inria",
        "150 × 32, inria",
        "150 × 32 in half precision, inria",
        "150 × 3, gsplat, antialiased",
        "150 × 3, gsplat-1.5, antialiased",
        "150, spherical harmonics of degree 3, inria",
        "150 × 3 over a picture, inria",
    ]
    for one in findings.figures["agreements"]:
        least = 60 if "half" in one["name"] else 90
        assert one["psnr_db"] is None or one["psnr_db"] > least
        assert one["replays_that_differ"] == 0
    assert "room" in findings.figures["overflow"]
    assert not fake_driver.leaks


def test_a_gpu_that_draws_something_else_is_told(
    fake_driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = parity.talksplat.rasterize

    def brighter(*arguments: Any, **options: Any) -> Any:
        colors, alphas = draw(*arguments, **options)
        return colors + np.float32(1e-3), alphas

    monkeypatch.setattr(parity.talksplat, "rasterize", brighter)
    failures = parity.measure(SETTINGS).failures
    assert any("150 × 3, inria: PSNR 60.0 dB, expected 90 dB" in failure for failure in failures)


def test_agreements_are_judged() -> None:
    good = Agreement("scene", 95.0, None, 1e-4, 0)
    assert parity.judge(good, 90) == []
    assert len(parity.judge(replace(good, psnr_db=89.9), 90)) == 1
    assert len(parity.judge(replace(good, alpha_psnr_db=float("nan")), 90)) == 1
    (failure,) = parity.judge(replace(good, replays_that_differ=3), 90)
    assert "3 of 2 replays differ" in failure


def test_bits_are_compared_not_values() -> None:
    nan = np.full((2, 3), np.nan, np.float32)
    assert parity.same_bits(nan, nan.copy())
    zero = np.zeros((2, 3), np.float32)
    assert not parity.same_bits(zero, -zero) and parity.same_bits(zero, zero[::-1])


def test_ours_is_timed_alone_without_gsplat(fake_driver: Any, no_rates: None) -> None:
    findings = rasterizer.measure(SETTINGS)
    assert any(note.startswith("Ours alone: ") for note in findings.notes)
    assert findings.failures == []
    speed, floor, kernels, rates = findings.tables
    assert speed.columns == ["scene", *(OURS, EAGER, rasterizer.HALF)]
    ((scene, *cells),) = speed.rows
    assert scene == "150 × 3, 40²" and all("(" in cell for cell in cells)
    (sizes,) = findings.figures["sizes"]
    assert {len(times) for times in sizes["device_ms"].values()} == {2}
    # The launches of a plan, each with a time of its own.
    assert kernels.columns[1:] == list(sizes["kernels_ms"]) and len(kernels.columns) > 4
    assert all(time >= 0 for time in sizes["kernels_ms"].values())
    assert len(floor.rows) == len(speed.rows) and rates.rows
    assert not fake_driver.leaks


def test_kernels_in_the_table_are_those_of_a_frame(fake_driver: Any, no_rates: None) -> None:
    rasterizer.measure(SETTINGS)
    (sizes,) = rasterizer.measure(SETTINGS).figures["sizes"]
    frame = [name.split()[0] for name in sizes["kernels_ms"]]
    assert fake_driver.launched[-len(frame) :] == frame


def measured(size: Size, ours: float, gsplat: float | None, psnr: float | None = 80.0) -> Measured:
    times = {OURS: Times([ours] * 3, [ours] * 3), EAGER: Times([1.0], [1.0])}
    times[rasterizer.HALF] = Times([ours], [ours])
    if gsplat is not None:
        times |= {name: Times([gsplat], [gsplat]) for name in rasterizer.PEERS}
    return Measured(size, times, {"a": 0.1, "b": 0.2}, 1000, psnr)


def test_the_goal_is_twice_as_fast_as_gsplat_where_it_was_set() -> None:
    goal, other = Size(50_000, 3, 512), Size(20_000, 3, 512)
    assert rasterizer.judge([measured(goal, 0.1, 0.2), measured(other, 0.1, 0.11)]) == []
    (failure,) = rasterizer.judge([measured(goal, 0.1, 0.19)])
    assert "1.90 times as fast as gsplat, expected 2 times" in failure
    (failure,) = rasterizer.judge([measured(other, 0.1, 0.5, psnr=30.0)])
    assert "30.0 dB" in failure
    assert rasterizer.judge([measured(goal, 0.1, None, None)]) == []


def test_tables_hold_ratios_and_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [measured(Size(50_000, 3, 512), 0.1, 0.3)]
    ((scene, *_, ratio, psnr),) = rasterizer.speed_table(found).rows
    assert (scene, ratio, psnr) == ("50,000 × 3, 512²", "3.00", "80.0 dB")
    (row,) = rasterizer.floor_table(found, RATES).rows
    # 56 bytes a Gaussian and 16 a pixel at 1 TB/s; two empty kernels of 2 µs.
    megabytes = (50_000 * 56 + 512 * 512 * 16) / 1e6
    assert row[1] == f"{megabytes:.1f}"
    gflop = 4_862_700 * 22 / 1e9
    assert row[2] == f"{gflop:.3f}"
    assert row[3] == f"{max(megabytes / 1e3, gflop / 10):.4f}"
    assert row[5] == "0.0040"


def test_a_kernel_that_a_size_does_not_launch_has_no_time() -> None:
    few, many = measured(Size(10, 3, 64), 0.1, None), measured(Size(10, 32, 64), 0.1, None)
    many.kernels = {"a": 0.3, "c": 0.4}
    table = rasterizer.kernel_table([few, many])
    assert table.columns == ["scene", "a", "b", "c"]
    assert [row[1:] for row in table.rows] == [["0.1000", "0.2000", ""], ["0.3000", "", "0.4000"]]


def test_gsplat_s_rules_follow_its_version() -> None:
    assert gsplat_peer.dialect_of("1.5.3") == "gsplat-1.5" == gsplat_peer.dialect_of("1.4.0")
    assert gsplat_peer.dialect_of("1.6.0") == "gsplat" == gsplat_peer.dialect_of("2.0.1")


def test_a_gsplat_that_cannot_draw_here_is_missing() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: gsplat may draw")
    with pytest.raises(MissingError, match="sees no GPU"):
        gsplat_peer.gsplat_version()


def test_scenes_are_of_the_size_that_was_asked_for(tmp_path: Path) -> None:
    (first, *_) = parity.cases((120,), 48)
    assert (first.scene.width, first.scene.height, len(first.scene.means)) == (48, 48, 120)
    np.testing.assert_array_equal(first.scene.means, head(120, 48, 48).means)
