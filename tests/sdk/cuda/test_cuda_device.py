"""Opening a GPU, sharing it, losing it; and everything that can be missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from talksplat.cuda import DeviceArray, PinnedBuffer, Stream, open_device
from talksplat.errors import BackendError, DeviceLostError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

Install = Callable[..., "FakeDriver"]


def test_a_device_says_what_it_is(install_driver: Install) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    install_driver(gpus=(Gpu("First"), Gpu("Second", (12, 0), 3 << 30)), version=13_010)
    with open_device(1) as device:
        assert device.index == 1
        assert device.name == "Second"
        assert device.compute_capability == (12, 0)
        assert device.driver_version == 13_010
        assert device.total_memory == device.free_memory() == 3 << 30


def test_the_context_is_shared_and_ends_with_its_last_user(fake_driver: FakeDriver) -> None:
    with open_device() as first:
        with open_device() as second:
            assert fake_driver.calls["cuDevicePrimaryCtxRetain"] == 1
            second.close()  # twice does no harm
            second.close()
        assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 0
        assert first.free_memory() > 0
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 1
    assert fake_driver.calls["cuDevicePrimaryCtxReset"] == 0


def test_a_closed_device_says_so(fake_driver: FakeDriver) -> None:
    device = open_device()
    device.close()
    with pytest.raises(BackendError, match="device 0 is closed; open it again"):
        device.free_memory()
    with pytest.raises(BackendError, match="current: device 0 is closed"):
        device.current()


def test_a_forgotten_device_is_given_back(fake_driver: FakeDriver) -> None:
    device = open_device()
    stream = Stream(device)
    del stream, device
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 1
    assert not fake_driver.leaks


def test_every_thread_may_call_and_keeps_its_own_context(fake_driver: FakeDriver) -> None:
    def work(seed: int) -> bool:
        before = int(fake_driver.cuCtxGetCurrent()[1])
        values = np.random.default_rng(seed).random(1000, np.float32)
        with Stream(device) as stream:
            copy = stream.to_device(values).numpy()
        return bool((copy == values).all()) and int(fake_driver.cuCtxGetCurrent()[1]) == before

    with open_device() as device, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(16)))


def test_a_context_of_the_caller_is_current_again_afterwards(fake_driver: FakeDriver) -> None:
    with open_device() as device:
        own = fake_driver.other_context()
        fake_driver.cuCtxPushCurrent(own)
        device.free_memory()
        with device.current():
            assert int(fake_driver.cuCtxGetCurrent()[1]) != own
        assert int(fake_driver.cuCtxGetCurrent()[1]) == own
        fake_driver.cuCtxPopCurrent()


# What can be missing.


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match=r"cuda-python 12\.6 .* not installed.*pip install"):
        open_device()


def test_no_driver(install_driver: Install) -> None:
    install_driver(installed=False)
    with pytest.raises(BackendError, match=r"No NVIDIA driver was found \(Failed to dlopen"):
        open_device()


def test_a_driver_that_does_not_answer(install_driver: Install) -> None:
    install_driver(version=0)  # what a library without a kernel module reports
    with pytest.raises(BackendError, match="does not answer"):
        open_device()


def test_a_driver_older_than_the_bindings_says_both_versions(install_driver: Install) -> None:
    driver = install_driver(version=11_080)
    major = driver.CUDA_VERSION // 1000
    with pytest.raises(
        BackendError, match=rf"knows CUDA 11\.8; .* need CUDA {major}\.0 .*'cuda-python<{major}'"
    ):
        open_device()


def test_an_older_driver_of_the_same_major_version_will_do(install_driver: Install) -> None:
    driver = install_driver()
    driver = install_driver(version=driver.CUDA_VERSION // 1000 * 1000)
    open_device().close()


def test_no_device(install_driver: Install) -> None:
    install_driver(gpus=())
    with pytest.raises(BackendError, match=r"CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES"):
        open_device()


@pytest.mark.parametrize("index", [-1, 1, 7])
def test_no_such_device(fake_driver: FakeDriver, index: int) -> None:
    with pytest.raises(BackendError, match=f"GPU {index} was asked for; the driver sees 1"):
        open_device(index)


def test_a_gpu_from_before_turing_is_refused(install_driver: Install) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    install_driver(gpus=(Gpu("Old", (7, 0)),))
    with pytest.raises(BackendError, match=r"Old\) has compute capability 7\.0; .* needs 7\.5"):
        open_device()


def test_no_memory_for_a_context(fake_driver: FakeDriver) -> None:
    fake_driver.fail_next("cuDevicePrimaryCtxRetain", "CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(BackendError, match=r"cuDevicePrimaryCtxRetain .*CUDA_ERROR_OUT_OF_MEMORY"):
        open_device()
    open_device().close()


# Losing it.

LOSSES = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
]


def lose(driver: FakeDriver, stream: Stream, result: str) -> None:
    driver.lose_device(result)
    array = DeviceArray.empty(stream.device, (4,), np.float32)
    stream.zero(array)
    with pytest.raises(DeviceLostError, match=f"{result}.*load it again"):
        stream.synchronize()


@pytest.mark.parametrize("result", LOSSES)
def test_a_lost_device_fails_until_it_is_opened_anew(fake_driver: FakeDriver, result: str) -> None:
    device = open_device()
    stream = Stream(device)
    array = stream.to_device(np.ones(5, np.float32))
    lose(fake_driver, stream, result)

    assert device.lost
    calls = fake_driver.calls.total()
    for attempt in (
        stream.synchronize,
        array.numpy,
        array.__dlpack__,
        device.check_alive,
        lambda: Stream(device),
        lambda: DeviceArray.empty(device, (1,), np.float32),
    ):
        with pytest.raises(DeviceLostError, match="lost earlier"):
            attempt()
    for _ in range(2):
        stream.close()
    assert fake_driver.calls.total() == calls, "a lost context was called"

    device.close()  # the array is still held: its memory is gone all the same
    device.close()
    assert fake_driver.calls["cuDevicePrimaryCtxReset"] == 1
    with open_device() as again, Stream(again) as fresh:
        np.testing.assert_array_equal(fresh.to_device(np.arange(3)).numpy(), [0, 1, 2])
        del array
    assert not fake_driver.leaks


def test_a_lost_device_is_not_opened_before_its_users_are_closed(fake_driver: FakeDriver) -> None:
    one, other = open_device(), open_device()
    lose(fake_driver, Stream(one), "CUDA_ERROR_LAUNCH_FAILED")
    one.close()
    with pytest.raises(DeviceLostError, match="1 of its users are not closed yet"):
        open_device()
    assert other.lost
    other.close()
    open_device().close()


def test_a_loss_that_only_a_picture_sees_does_not_keep_the_device(fake_driver: FakeDriver) -> None:
    with open_device() as device, Stream(device) as stream:
        picture = stream.to_device(np.ones(3, np.float32))
    fake_driver.fail_next("cuMemcpyDtoH", "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceLostError):
        picture.numpy()
    with open_device() as again, Stream(again) as fresh:
        np.testing.assert_array_equal(fresh.to_device(np.arange(3)).numpy(), [0, 1, 2])
        with pytest.raises(DeviceLostError):
            picture.numpy()
        del picture
    assert not fake_driver.leaks


def test_a_loss_that_another_library_saw(fake_driver: FakeDriver) -> None:
    with open_device() as device:
        device.mark_lost("TensorRT failed in enqueue.")
        with pytest.raises(DeviceLostError, match=r"TensorRT failed in enqueue\."):
            device.free_memory()
    open_device().close()


def test_a_gpu_that_stays_lost_says_so_when_it_is_opened(fake_driver: FakeDriver) -> None:
    with open_device() as device:
        lose(fake_driver, Stream(device), "CUDA_ERROR_ECC_UNCORRECTABLE")
    fake_driver.fail_next("cuDevicePrimaryCtxRetain", "CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(DeviceLostError, match="restart the program"):
        open_device()


# The end.


def test_nothing_complains_when_the_interpreter_ends(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="needs the CUDA bindings: cuda-python")
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        import cuda.bindings
        from tests.sdk.cuda.fake_driver import FakeDriver
        cuda.bindings.driver = sys.modules["cuda.bindings.driver"] = fake = FakeDriver()
        from talksplat.cuda import Event, PinnedBuffer, Stream, open_device
        device = open_device()
        stream = Stream(device)
        event = stream.record(Event(device))
        array = stream.to_device(np.ones(3, np.float32))
        pinned = PinnedBuffer.like(device, (4,), "float32")
        capsule = array.__dlpack__()
        with stream.capture() as graph:
            stream.zero(array)
        graph.launch(stream)
        sys.lost = device if "lose" in sys.argv else None
        if sys.lost:
            device.mark_lost("on purpose")
        cycle = [device, stream, event, array, pinned, capsule, graph]
        cycle.append(cycle)
        """
    )
    root = Path(__file__).parents[3]
    for words in ([], ["lose"]):
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "ignore", "-c", script, *words],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_torch_is_not_needed() -> None:
    script = "import sys; sys.modules['torch'] = None; import talksplat.cuda.rasterizer"
    subprocess.run([sys.executable, "-c", script], check=True)


# What the stand-in for the driver does not forgive.


def test_a_context_that_ended_or_is_lost_cannot_be_made_current(fake_driver: FakeDriver) -> None:
    with open_device() as device:
        handle = device.context._handle
        fake_driver._contexts[0].lost = "CUDA_ERROR_LAUNCH_FAILED"
        assert fake_driver.cuCtxPushCurrent(handle)[0].name == "CUDA_ERROR_LAUNCH_FAILED"
        device.mark_lost("on purpose")
    with open_device() as again:
        assert fake_driver.cuCtxPushCurrent(handle)[0].name == "CUDA_ERROR_INVALID_CONTEXT"
        again.free_memory()


def test_what_is_held_for_another_library_ends_with_the_context_current(
    fake_driver: FakeDriver,
) -> None:
    ends: list[bool] = []

    class Foreign:
        def __del__(self) -> None:
            ends.append(int(fake_driver.cuCtxGetCurrent()[1]) != 0)

    device = open_device()
    closed, dropped = device.hold(Foreign()), device.hold(Foreign())
    closed.close()
    closed.close()
    assert closed.made is None and ends == [True]
    device.close()
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 0
    del dropped
    assert ends == [True, True]
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 1

    device = open_device()
    late, stream = device.hold(Foreign()), Stream(device)
    with pytest.raises(BackendError, match="on purpose"), stream.capture():
        del late
        assert len(ends) == 2  # nothing may be freed in a capture
        raise BackendError("on purpose")
    assert ends == [True] * 3

    lost = device.hold(Foreign())
    device.mark_lost("on purpose")
    lost.close()
    assert len(ends) == 4
    device.close()


def test_memory_of_the_host_that_is_freed_while_it_is_copied_is_noted(
    fake_driver: FakeDriver,
) -> None:
    with open_device() as device, Stream(device) as stream:
        pinned, array = PinnedBuffer(device, 8), DeviceArray.empty(device, (8,), "uint8")
        stream.upload(pinned.array((8,), "uint8"), array)
        pinned.close()
        assert fake_driver.freed_in_use == [pinned.pointer]
        fake_driver.freed_in_use.clear()
