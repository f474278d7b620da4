"""The rates of a device: what is launched for them, and what is made of the times."""

from __future__ import annotations

import ctypes
import struct
import sys

import pytest

pytest.importorskip("cuda.bindings.nvrtc", reason="needs the CUDA bindings: cuda-python")

from benchmarks.gpu.floors import Rates
from tests.sdk.cuda.fake_driver import FakeDriver

from benchmarks.gpu import rates
from talksplat.cuda import open_device


class Kernels:
    """Those of rates.cu on the host: a copy is a copy, the others do nothing."""

    def __init__(self) -> None:
        self.sizes = {"multiply_adds": 16, "copy": 24, "nothing": 8}
        self.launched: list[tuple[str, tuple[int, int, int], tuple[int, int, int]]] = []

    def argument_bytes(self, kernel: str) -> int | None:
        return self.sizes.get(kernel)

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        arguments: bytes,
    ) -> None:
        self.launched.append((kernel, grid, block))
        if kernel == "copy":
            source, target, count = struct.unpack("PPq", arguments)
            ctypes.memmove(target, source, 16 * count)
        if kernel == "multiply_adds":
            values, passes = struct.unpack("Pq", arguments)
            factor, term, _ = (ctypes.c_float * 3).from_address(values)
            assert 0 < factor < 1 and term > 0 and passes == rates.PASSES


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """A GPU that runs them; NVRTC is the real one."""
    # Torch looks at the bindings, too, and is to see the real ones.
    pytest.importorskip("torch")
    import cuda.bindings

    found = Kernels()
    fake = FakeDriver(found)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)  # type: ignore[misc]
    monkeypatch.setattr(cuda.bindings, "driver", fake, raising=False)
    monkeypatch.setattr("talksplat.cuda.device._contexts", {})
    monkeypatch.setattr(rates, "COPIED", 2**16)
    return found


def test_rates_are_measured_by_kernels_that_do_nothing_else(kernels: Kernels) -> None:
    with open_device() as device:
        found = rates.measure_rates(device)
    assert found.copy > 0 and found.multiply_add > 0 and found.launch > 0
    names = [name for name, *_ in kernels.launched]
    assert names.count("nothing") % rates.LAUNCHES == 0 < names.count("nothing")
    assert {"copy", "multiply_adds"} <= set(names)
    assert {block for name, _, block in kernels.launched if name == "copy"} == {(256, 1, 1)}


def test_the_counts_are_those_of_the_source() -> None:
    source = rates.SOURCE.read_text()
    assert f"kChains = {rates.CHAINS};" in source
    assert f"kUnroll = {rates.UNROLL};" in source


def test_rates_are_shown_in_their_units() -> None:
    table = rates.table(Rates(copy=4.3e12, multiply_add=6.1e13, matrix=7.9e14, launch=1.25e-6))
    assert [row[1] for row in table.rows] == [
        "4,300 GB/s",
        "61.0 TFLOP/s",
        "790 TFLOP/s",
        "1.25 µs",
    ]
    table = rates.table(Rates(copy=1e12, multiply_add=1e13, matrix=None, launch=1e-6))
    assert table.rows[2][1] == "no torch with CUDA"
