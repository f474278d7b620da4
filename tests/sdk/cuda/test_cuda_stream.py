"""Streams, events, and graphs that are captured once and launched again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np
import pytest

from talksplat.cuda import (
    Device,
    DeviceArray,
    DeviceBuffer,
    Event,
    Graph,
    PinnedBuffer,
    Stream,
    open_device,
)
from talksplat.cuda.compositing import Compositing
from talksplat.errors import BackendError, DeviceLostError, InputError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver


@pytest.fixture
def compositing(device: Device) -> Iterator[Compositing]:
    with Compositing(device) as opened:
        yield opened


def test_a_stream_waits_for_an_event_of_another(device: Device, stream: Stream) -> None:
    array = DeviceArray.empty(device, (3,), np.float32)
    with Stream(device) as other, Event(device, timing=False) as filled:
        other.zero(array)
        other.record(filled)
        stream.wait(filled)
        target = PinnedBuffer.like(device, (3,), np.float32)
        stream.download(array, target)
        stream.synchronize()
        np.testing.assert_array_equal(target, 0)


def test_time_between_events(device: Device, stream: Stream) -> None:
    with Event(device) as start, Event(device) as end:
        stream.record(start)
        stream.zero(DeviceArray.empty(device, (1 << 20,), np.float32, stream))
        stream.record(end)
        end.synchronize()
        assert 0 <= end.elapsed_since(start) < 10_000


def test_time_before_the_event_says_to_synchronize(device: Device, stream: Stream) -> None:
    with Event(device) as start, Event(device) as end:
        stream.record(start)
        stream.record(end)
        with pytest.raises(BackendError, match=r"CUDA_ERROR_NOT_READY.*synchronize first"):
            end.elapsed_since(start)


class Frame:
    """Some work with pinned memory at both ends and kernels between."""

    def __init__(self, device: Device, stream: Stream, compositing: Compositing) -> None:
        self.source = PinnedBuffer.like(device, (9, 11, 3), np.uint8)
        self.target = PinnedBuffer.like(device, (9, 11, 3), np.uint8)
        picture, result = (DeviceArray.empty(device, (9, 11, 3), np.uint8) for _ in range(2))
        image, layered = (DeviceArray.empty(device, (1, 3, 9, 11), np.float32) for _ in range(2))
        alpha = stream.to_device(np.random.default_rng(1).random((1, 1, 9, 11), np.float32))

        def work() -> None:
            stream.upload(self.source, picture)
            compositing.unpack(stream, picture, image)
            compositing.over(stream, image, alpha, image, layered)
            compositing.pack(stream, layered, result)
            stream.download(result, self.target)

        self.work = work


def test_a_replay_makes_the_same_bits_as_the_calls_did(
    fake_driver: FakeDriver, device: Device, stream: Stream, compositing: Compositing
) -> None:
    frame = Frame(device, stream, compositing)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (5, *frame.source.shape), np.uint8)
    expected = []
    for picture in pictures:
        frame.source[:] = picture
        frame.work()
        stream.synchronize()
        expected.append(frame.target.copy())
    assert len({one.tobytes() for one in expected}) == 5
    fake_driver.launched.clear()

    with stream.capture() as graph:
        frame.work()
    stream.synchronize()
    assert not fake_driver.launched, "captured work was done"
    calls = fake_driver.calls.copy()
    for picture, one in zip(pictures, expected, strict=True):
        frame.source[:] = picture
        frame.target[:] = 0
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(frame.target, one)
    made = fake_driver.calls - calls
    assert {name for name in made if not name.startswith("cuCtx")} == {
        "cuGraphLaunch",
        "cuStreamSynchronize",
    }
    for _ in range(2):
        graph.close()


def test_what_was_recorded_is_thrown_away_after_an_error(
    device: Device, stream: Stream, fake_driver: FakeDriver
) -> None:
    array = stream.to_device(np.ones(3, np.float32))
    with pytest.raises(KeyError, match="on purpose"), stream.capture() as graph:
        stream.zero(array)
        raise KeyError("on purpose")
    np.testing.assert_array_equal(array.numpy(), 1)
    with pytest.raises(BackendError, match="holds nothing"):
        graph.launch(stream)
    assert fake_driver.alive()["graph"] == 0
    with stream.capture() as graph:
        stream.zero(array)
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(array.numpy(), 0)


def test_an_allocation_cannot_be_captured(device: Device, stream: Stream) -> None:
    message = r"CAPTURE_UNSUPPORTED.*before or after the capture"
    with pytest.raises(BackendError, match=message), stream.capture():
        DeviceBuffer(device, 8)
    stream.synchronize()


def test_waiting_cannot_be_captured(device: Device, stream: Stream) -> None:
    with pytest.raises(BackendError, match="CAPTURE_UNSUPPORTED"), stream.capture():
        stream.synchronize()
    stream.synchronize()


def test_a_capture_that_was_spoiled_says_so(stream: Stream) -> None:
    message = r"CAPTURE_INVALIDATED.*failed earlier"
    with pytest.raises(BackendError, match=message), stream.capture():
        refused = pytest.raises(BackendError, match="CAPTURE_UNSUPPORTED")
        with refused:
            stream.synchronize()
    stream.synchronize()


def test_copies_of_other_than_pinned_memory_cannot_be_captured(
    device: Device, stream: Stream
) -> None:
    array = DeviceArray.empty(device, (3,), np.float32)
    with pytest.raises(InputError, match="source: expected pinned memory"), stream.capture():
        stream.upload(np.zeros(3, np.float32), array)
    with pytest.raises(InputError, match="target: expected pinned memory"), stream.capture():
        stream.download(array, np.zeros(3, np.float32))


def test_a_capture_in_a_capture_is_refused(stream: Stream) -> None:
    refused = pytest.raises(BackendError, match="being captured already")
    with refused, stream.capture(), stream.capture():
        pass


def test_a_graph_is_launched_after_its_capture(stream: Stream) -> None:
    refused = pytest.raises(BackendError, match="its capture has not ended")
    with refused, stream.capture() as graph:
        graph.launch(stream)


def test_garbage_that_is_collected_in_a_capture_is_freed_after_it(
    fake_driver: FakeDriver, device: Device, stream: Stream
) -> None:
    array = stream.to_device(np.ones(3, np.float32))
    garbage = [DeviceBuffer(device, 8), PinnedBuffer(device, 8), Event(device)]
    with stream.capture() as graph:
        garbage.clear()
        gc.collect()
        stream.zero(array)
        assert fake_driver.calls["cuMemFree"] == 0
    assert fake_driver.calls["cuMemFree"] == 1
    graph.launch(stream)
    np.testing.assert_array_equal(array.numpy(), 1)  # not waited for
    stream.synchronize()
    np.testing.assert_array_equal(array.numpy(), 0)


def test_a_capture_does_not_disturb_other_threads(device: Device, fake_driver: FakeDriver) -> None:
    capturing, done = Barrier(2, timeout=30), Barrier(2, timeout=30)

    def capture() -> Graph:
        with Stream(device) as stream:
            array = DeviceArray.empty(device, (3,), np.float32)
            with stream.capture() as graph:
                capturing.wait()
                stream.zero(array)
                done.wait()
            return graph

    def allocate() -> None:
        capturing.wait()
        with DeviceBuffer(device, 8), Stream(device) as stream:
            stream.to_device(np.ones(3, np.float32))
        done.wait()

    with ThreadPoolExecutor(2) as threads:
        work = [threads.submit(capture), threads.submit(allocate)]
        graph, _ = (one.result() for one in work)
    graph.close()


def test_a_device_lost_in_a_replay(
    fake_driver: FakeDriver, device: Device, stream: Stream, compositing: Compositing
) -> None:
    frame = Frame(device, stream, compositing)
    frame.source[:] = 1
    with stream.capture() as graph:
        frame.work()
    fake_driver.lose_device("CUDA_ERROR_LAUNCH_FAILED")
    graph.launch(stream)
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"):
        stream.synchronize()
    with pytest.raises(DeviceLostError, match="lost earlier"):
        graph.launch(stream)
    graph.close()


def test_a_device_lost_in_a_capture(
    fake_driver: FakeDriver, device: Device, stream: Stream
) -> None:
    array = DeviceArray.empty(device, (3,), np.float32)
    with pytest.raises(DeviceLostError, match="ECC"), stream.capture():
        stream.zero(array)
        fake_driver.fail_next("cuMemsetD8Async", "CUDA_ERROR_ECC_UNCORRECTABLE")
        stream.zero(array)
    stream.close()
    device.close()
    with open_device() as again, Stream(again) as fresh, fresh.capture() as graph:
        pass
    graph.close()


def test_what_cannot_be_made_into_a_graph_leaves_nothing_behind(
    fake_driver: FakeDriver, device: Device, stream: Stream
) -> None:
    array = DeviceArray.empty(device, (3,), np.float32)
    fake_driver.fail_next("cuGraphInstantiate", "CUDA_ERROR_OUT_OF_MEMORY")
    refused = pytest.raises(BackendError, match=r"cuGraphInstantiate .*OUT_OF_MEMORY")
    with refused, stream.capture():
        stream.zero(array)
    assert fake_driver.alive()["graph"] == 0
