"""Memory that is handed out again and again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from talksplat.cuda import BufferPool, DeviceBuffer, Stream, open_device
from talksplat.errors import BackendError, DeviceLostError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver


def test_what_is_dropped_is_taken_again_and_only_a_few_are_kept(fake_driver: FakeDriver) -> None:
    with open_device() as device, BufferPool(device, 100) as pool:
        arrays = [pool.take().array((100,), "uint8") for _ in range(10)]
        assert len({array.pointer for array in arrays}) == fake_driver.alive()["memory"] == 10
        arrays.clear()
        kept = fake_driver.alive()["memory"]
        assert 2 <= kept <= 5
        again = [pool.take() for _ in range(kept)]
        assert fake_driver.calls["cuMemAlloc"] == 10
        del again
    assert not fake_driver.alive() and not fake_driver.leaks


def test_what_is_in_use_when_the_pool_is_closed_is_freed_when_it_is_dropped(
    fake_driver: FakeDriver,
) -> None:
    device = open_device()
    pool = BufferPool(device, 8)
    view = pool.take().array((2,), "float32").reshape(1, 2)
    pool.close()
    device.close()
    del pool
    gc.collect()
    assert fake_driver.alive() == {"memory": 1}
    del view
    assert not fake_driver._contexts and not fake_driver.leaks


def test_a_pool_has_an_end_as_other_memory_has(fake_driver: FakeDriver) -> None:
    with open_device() as device, BufferPool(device, 2**30) as pool:
        first = pool.take()
        with pytest.raises(BackendError, match="out of memory"), DeviceBuffer(device, 2**30):
            pool.take()
        del first
        device.mark_lost("on purpose")
        with pytest.raises(DeviceLostError, match="on purpose"):
            pool.take()


def test_a_stream_waits_for_another_without_the_host(fake_driver: FakeDriver) -> None:
    done: list[str] = []
    with open_device() as device, Stream(device) as one, Stream(device) as other:
        with device.current():
            fake_driver.enqueue(one.handle, lambda: done.append("one"))
        other.wait_for(one.handle)
        with device.current():
            fake_driver.enqueue(other.handle, lambda: done.append("other"))
        assert not done
        other.synchronize()
    assert done == ["one", "other"]
