"""The host that runs CUDA kernels: what it promises, and what it must notice. Then one part of the
rasterizer alone: the sort."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from tests.plugins.cuda.host.library import HERE, PLUGINS, HostLibrary, compile_kernels


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    library = tmp_path_factory.mktemp("probes") / "probes.so"
    return HostLibrary(compile_kernels(library, [HERE / "probes.cu"], [f"-I{PLUGINS}"]))


def run(probes: HostLibrary, kernel: str, threads: int, out: np.ndarray) -> np.ndarray:
    arguments = struct.pack("<QQQ", out.ctypes.data, out.size, 0)
    probes.launch(kernel, (1, 1, 1), (threads, 1, 1), 0, arguments)
    return out


@pytest.mark.parametrize(("kernel", "threads"), [("probe_race", 128), ("probe_warp_race", 32)])
def test_a_missing_barrier_shows_under_other_orders_of_threads(
    probes: HostLibrary, kernel: str, threads: int
) -> None:
    results = set()
    for seed in range(5):
        probes.seed(seed)
        results.add(run(probes, kernel, threads, np.zeros(threads, np.uint32)).tobytes())
    assert len(results) > 1


def test_with_the_barrier_no_order_shows(probes: HostLibrary) -> None:
    for seed in range(5):
        probes.seed(seed)
        ranks = run(probes, "probe_barrier", 128, np.zeros(128, np.uint32))
        np.testing.assert_array_equal(ranks, (np.arange(128) + 1) % 128)


@pytest.mark.parametrize("kernel", ["probe_deadlock", "probe_absent_lane"])
def test_threads_that_wait_forever_are_an_error_and_the_next_launch_works(
    probes: HostLibrary, kernel: str
) -> None:
    with pytest.raises(RuntimeError, match="wait at different barriers"):
        run(probes, kernel, 32, np.zeros(32, np.uint32))
    assert run(probes, "probe_barrier", 128, np.zeros(128, np.uint32))[0] == 1


def test_shared_memory_begins_as_rubbish(probes: HostLibrary) -> None:
    assert (run(probes, "probe_rubbish", 32, np.zeros(32, np.uint32)) == 2**32 - 1).all()


def test_lanes_hear_each_other_as_on_a_device(probes: HostLibrary) -> None:
    out = run(probes, "probe_lanes", 64, np.zeros(8 * 64 + 1, np.uint32))
    assert out[-1] == 64
    lanes = out[:-1].reshape(64, 8)
    thread = np.arange(64)
    assert (lanes[:, 0] == sum(1 << lane for lane in range(0, 32, 3))).all()
    np.testing.assert_array_equal(lanes[:, 1], 107 + thread // 32 * 32)
    np.testing.assert_array_equal(lanes[:, 2], np.where(thread % 32 < 2, thread, thread - 2))
    np.testing.assert_array_equal(lanes[:, 3], thread // 32)
    assert (lanes[:, 4:] == [1, 1, 64, 12]).all()


@pytest.mark.parametrize(
    ("grid", "threads", "shared", "arguments", "message"),
    [
        ((1, 1, 1), 1025, 0, bytes(24), "1024 threads"),
        ((1, 70000, 1), 32, 0, bytes(24), "grid"),
        ((1, 1, 1), 32, 64, bytes(24), "dynamic"),
        ((1, 1, 1), 32, 0, bytes(8), "17 to 4096"),
    ],
)
def test_launches_that_a_device_would_refuse(
    probes: HostLibrary,
    grid: tuple[int, int, int],
    threads: int,
    shared: int,
    arguments: bytes,
    message: str,
) -> None:
    with pytest.raises(RuntimeError, match=message):
        probes.launch("probe_rubbish", grid, (threads, 1, 1), shared, arguments)
    with pytest.raises(RuntimeError, match="no kernel"):
        probes.launch("probe_unheard_of", (1, 1, 1), (32, 1, 1), 0, bytes(24))


LENGTHS = [*range(20), 31, 32, 33, 63, 64, 65, 100, 127, 129, 255, 257, 511, 513, 1000, 2047, 2048]


@pytest.mark.parametrize("seed", range(2))
def test_lists_of_every_length_are_sorted_in_shared_memory(probes: HostLibrary, seed: int) -> None:
    probes.seed(seed)
    rng = np.random.default_rng(seed)
    for length in LENGTHS:
        check_sorted(probes, rng.integers(0, 2**63, length, dtype=np.uint64))
        check_sorted(probes, rng.integers(0, 3, length, dtype=np.uint64))


@pytest.mark.parametrize("length", [2049, 4096, 4097, 6144, 9001])
def test_longer_lists_are_merged_in_global_memory(probes: HostLibrary, length: int) -> None:
    rng = np.random.default_rng(length)
    check_sorted(probes, rng.integers(0, 2**63, length, dtype=np.uint64))
    check_sorted(probes, np.arange(length, dtype=np.uint64)[::-1].copy())


def check_sorted(probes: HostLibrary, keys: np.ndarray) -> None:
    """Nothing behind the list is touched, either."""
    guarded = np.concatenate([keys, np.zeros(8, np.uint64)])
    behind = guarded[-8:].copy()
    arguments = struct.pack("<QQQ", guarded.ctypes.data, len(keys), 0)
    probes.launch("probe_sort", (1, 1, 1), (256, 1, 1), 0, arguments)
    np.testing.assert_array_equal(guarded[:-8], np.sort(keys))
    np.testing.assert_array_equal(guarded[-8:], behind)
