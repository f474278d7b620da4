"""Memory of the device and of the host, arrays in it, and how others take them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from talksplat.cuda import Device, DeviceArray, DeviceBuffer, PinnedBuffer, Stream, open_device
from talksplat.errors import BackendError, InputError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

Install = Callable[..., "FakeDriver"]
DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_come_back_as_they_went(stream: Stream, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, (3, 1, 7)).astype(dtype)
    array = stream.to_device(values)
    assert (array.shape, array.dtype, array.ndim) == (values.shape, values.dtype, 3)
    assert (array.size, array.nbytes) == (values.size, values.nbytes)
    copy = array.numpy()
    np.testing.assert_array_equal(copy, values)
    assert copy.dtype == values.dtype


def test_arrays_of_nothing(stream: Stream) -> None:
    array = stream.to_device(np.zeros((0, 4), np.float32))
    assert array.numpy().shape == (0, 4)
    assert array.__cuda_array_interface__["data"] == (0, False)


@pytest.mark.parametrize("dtype", ["float64", "complex64", "U3", "object"])
def test_other_dtypes_are_refused(device: Device, dtype: str) -> None:
    with pytest.raises(InputError, match="dtype: expected one of float32"):
        DeviceArray.empty(device, (2,), dtype)


def test_copies_are_done_in_order(stream: Stream, device: Device) -> None:
    values = np.arange(6, dtype=np.float32)
    first, second = (DeviceArray.empty(device, (6,), np.float32, stream) for _ in range(2))
    stream.upload(values, first)
    values[:] = -1  # not pinned: it was taken at once
    stream.copy(first, second)
    stream.zero(first)
    np.testing.assert_array_equal(second.numpy(), np.arange(6))
    np.testing.assert_array_equal(first.numpy(), np.zeros(6))


def test_pinned_memory_is_read_and_written_when_the_stream_gets_there(
    stream: Stream, device: Device
) -> None:
    source = PinnedBuffer.like(device, (4,), np.int32)
    target = PinnedBuffer.like(device, (4,), np.int32)
    target[:] = -1
    array = DeviceArray.empty(device, (4,), np.int32)
    stream.upload(source, array)
    source[:] = [1, 2, 3, 4]  # before the copy is done
    stream.download(array, target)
    np.testing.assert_array_equal(target, -1)
    stream.synchronize()
    np.testing.assert_array_equal(target, [1, 2, 3, 4])


def test_a_pinned_array_keeps_its_buffer(device: Device, fake_driver: FakeDriver) -> None:
    view = PinnedBuffer.like(device, (2, 3), np.float32)[1:, ::2]
    gc.collect()
    assert fake_driver.alive()["pinned"] == 1
    view[:] = 5
    del view
    assert fake_driver.alive()["pinned"] == 0


def test_arrays_share_a_buffer(stream: Stream, device: Device) -> None:
    with DeviceBuffer(device, 64) as buffer:
        whole = buffer.array((64,), np.uint8)
        stream.upload(np.arange(64, dtype=np.uint8), whole)
        part = buffer.array((2, 2), np.float32, offset=16, stream=stream)
        assert part.pointer == buffer.pointer + 16
        assert part.numpy().tobytes() == bytes(range(16, 32))
        assert part.reshape(4).shape == (4,)


@pytest.mark.parametrize(
    ("shape", "offset"), [((17,), 0), ((16,), 4), ((1,), 2), ((1,), -4), ((2**40,), 0)]
)
def test_what_does_not_fit_a_buffer_is_refused(
    device: Device, shape: tuple[int, ...], offset: int
) -> None:
    with (
        DeviceBuffer(device, 64) as buffer,
        pytest.raises(InputError, match="expected within 64 bytes and aligned to 4"),
    ):
        buffer.array(shape, np.float32, offset=offset)
    with (
        PinnedBuffer(device, 62) as pinned,
        pytest.raises(InputError, match="62 bytes"),
    ):
        pinned.array((2**40,), np.float32)


def test_negative_sizes_are_refused(device: Device) -> None:
    for make in (DeviceBuffer, PinnedBuffer):
        with pytest.raises(InputError, match="bytes: expected 0 or more, found -1"):
            make(device, -1)
    with pytest.raises(InputError, match="shape"):
        DeviceArray.empty(device, (-1, -1), np.float32)
    with pytest.raises(InputError, match="reshape"):
        DeviceArray.empty(device, (4,), np.float32).reshape(3)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (np.zeros((2, 3), np.float64), "expected float32 .2, 3., found float64 .2, 3."),
        (np.zeros((3, 2), np.float32), "found float32 .3, 2."),
        (np.zeros((3, 2), np.float32).T, "C-contiguous"),
    ],
)
def test_copies_of_other_shapes_are_refused(
    stream: Stream, device: Device, host: np.ndarray[Any, Any], message: str
) -> None:
    array = DeviceArray.empty(device, (2, 3), np.float32)
    with pytest.raises(InputError, match=f"source: .*{message}"):
        stream.upload(host, array)
    with pytest.raises(InputError, match=f"target: .*{message}"):
        stream.download(array, host)
    with pytest.raises(InputError, match="24 bytes do not fit 4"):
        stream.copy(array, DeviceArray.empty(device, (1,), np.float32))
    locked = np.zeros((2, 3), np.float32)
    locked.flags.writeable = False
    with pytest.raises(InputError, match="can be written"):
        stream.download(array, locked)


def test_out_of_memory_says_what_was_asked_and_what_is_free(install_driver: Install) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    install_driver(gpus=(Gpu("Small", memory=10_000),))
    with open_device() as device, DeviceBuffer(device, 4_000):
        with pytest.raises(
            BackendError,
            match=r"GPU 0 \(Small\) is out of memory: 8,000 bytes .* 6,000 of 10,000 are free",
        ):
            DeviceBuffer(device, 8_000)
        DeviceBuffer(device, 6_000).close()  # the device is not lost


def test_no_host_memory_to_lock(fake_driver: FakeDriver, device: Device) -> None:
    fake_driver.fail_next("cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(BackendError, match="cuMemHostAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        PinnedBuffer(device, 8)


def test_memory_is_freed_once(fake_driver: FakeDriver, device: Device) -> None:
    buffer, pinned = DeviceBuffer(device, 8), PinnedBuffer(device, 8)
    for _ in range(2):
        buffer.close()
        pinned.close()
    del buffer, pinned
    assert fake_driver.calls["cuMemFree"] == fake_driver.calls["cuMemFreeHost"] == 1


def test_an_array_keeps_its_memory_and_its_device(fake_driver: FakeDriver) -> None:
    device = open_device()
    with Stream(device) as stream:
        array = stream.to_device(np.arange(3, dtype=np.int32)).reshape(3, 1)
    device.close()
    gc.collect()
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 0
    np.testing.assert_array_equal(array.numpy()[:, 0], [0, 1, 2])
    del array
    assert fake_driver.calls["cuDevicePrimaryCtxRelease"] == 1
    assert not fake_driver.leaks


# How others take arrays.


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


class _ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


def consume(capsule: object) -> tuple[Any, Callable[[], None]]:
    """What a consumer does: take the structure, rename the capsule; and how it lets go."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    kinds = {b"dltensor": _Managed, b"dltensor_versioned": _ManagedVersioned}
    kind: Any = kinds[name]
    address = api.PyCapsule_GetPointer(capsule, name)
    managed = kind.from_address(address)
    api.PyCapsule_SetName(capsule, USED[name])
    return managed, lambda: managed.deleter(address)


USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}
CODES = {  # DLDataTypeCode, bits
    "float32": (2, 32),
    "float16": (2, 16),
    "uint8": (1, 8),
    "int8": (0, 8),
    "int32": (0, 32),
    "int64": (0, 64),
    "bool": (6, 8),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (2, 3)])
def test_a_dlpack_capsule_says_what_the_array_is(
    install_driver: Install, dtype: str, max_version: tuple[int, int] | None
) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    install_driver(gpus=(Gpu(), Gpu()))
    with open_device(1) as device:
        array = DeviceBuffer(device, 300).array((3, 4, 1), dtype)
        managed, let_go = consume(array.__dlpack__(max_version=max_version))
        versioned = max_version is not None and max_version[0] >= 1
        assert isinstance(managed, _ManagedVersioned) == versioned
        if versioned:
            assert managed.major == 1
            assert managed.flags & 1 == 0  # not read-only
        tensor = managed.tensor
        assert tensor.data == array.pointer
        assert (tensor.device_type, tensor.device_id) == array.__dlpack_device__() == (2, 1)
        assert tensor.shape[: tensor.ndim] == [3, 4, 1]
        assert not tensor.strides or tensor.strides[: tensor.ndim] == [4, 1, 1]
        assert (tensor.code, tensor.bits, tensor.lanes) == (*CODES[dtype], 1)
        assert tensor.byte_offset == 0
        let_go()


def test_a_consumed_capsule_keeps_the_memory_until_its_consumer_lets_go(
    fake_driver: FakeDriver, stream: Stream
) -> None:
    capsule = stream.to_device(np.ones(3, np.float32)).__dlpack__()
    managed, let_go = consume(capsule)
    del capsule
    gc.collect()
    assert fake_driver.alive()["memory"] == 1
    np.testing.assert_array_equal(fake_driver.view(managed.tensor.data, (3,), np.float32), 1)
    let_go()
    assert fake_driver.alive()["memory"] == 0


def test_an_unconsumed_capsule_frees_the_memory_when_it_is_dropped(
    fake_driver: FakeDriver, stream: Stream
) -> None:
    capsule = stream.to_device(np.ones(3, np.float32)).__dlpack__()
    assert fake_driver.alive()["memory"] == 1
    del capsule
    assert fake_driver.alive()["memory"] == 0


@pytest.mark.parametrize(("asked", "waits"), [(None, 1), (1, 1), (2, 2)])
def test_a_consumer_on_a_default_stream_is_made_to_wait(
    fake_driver: FakeDriver, device: Device, stream: Stream, asked: int | None, waits: int
) -> None:
    array = DeviceArray.empty(device, (2,), np.float32, stream)
    stream.zero(array)
    capsule = array.__dlpack__(stream=asked)
    seen: list[float] = []
    with device.current():
        fake_driver.enqueue(
            waits, lambda: seen.extend(fake_driver.view(array.pointer, (2,), np.float32))
        )
        fake_driver.cuStreamSynchronize(waits)
    assert seen == [0, 0]  # and not NaN, what was there before
    del capsule


def test_a_consumer_on_another_stream_is_made_to_wait(
    fake_driver: FakeDriver, device: Device, stream: Stream
) -> None:
    array = DeviceArray.empty(device, (2,), np.float32, stream)
    target = np.full(2, 7, np.float32)
    stream.zero(array)
    with Stream(device) as other:
        synchronized = fake_driver.calls["cuStreamSynchronize"]
        capsule = array.__dlpack__(stream=other.handle)
        assert fake_driver.calls["cuStreamSynchronize"] == synchronized, "the host waited"
        other.download(array, target)
        other.synchronize()
    np.testing.assert_array_equal(target, 0)
    del capsule


@pytest.mark.parametrize("asked", ["itself", -1])
def test_a_consumer_that_need_not_wait_does_not(
    fake_driver: FakeDriver, device: Device, stream: Stream, asked: int | str
) -> None:
    array = DeviceArray.empty(device, (2,), np.float32, stream)
    array.__dlpack__(stream=stream.handle if asked == "itself" else asked)
    assert fake_driver.calls["cuStreamWaitEvent"] == 0


def test_complete_arrays_let_nobody_wait(fake_driver: FakeDriver, stream: Stream) -> None:
    array = stream.to_device(np.ones(2, np.float32))
    array.__dlpack__()
    assert fake_driver.calls["cuStreamWaitEvent"] == 0
    assert array.__cuda_array_interface__["stream"] is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"copy": True}, "copy=True"),
        ({"dl_device": (1, 0)}, r"dl_device: expected \(2, 0\), found \(1, 0\)"),
        ({"stream": 0}, "stream: expected .* found 0"),
        ({"stream": -2}, "stream: expected .* found -2"),
    ],
)
def test_what_cannot_be_exported_is_a_buffer_error(
    device: Device, asked: dict[str, Any], message: str
) -> None:
    array = DeviceArray.empty(device, (2,), np.float32)
    with pytest.raises(BufferError, match=message):
        array.__dlpack__(**asked)
    array.__dlpack__(copy=False, dl_device=(2, 0))


def test_the_cuda_array_interface(device: Device, stream: Stream) -> None:
    array = DeviceArray.empty(device, (2, 5, 3), np.float16, stream)
    assert array.__cuda_array_interface__ == {
        "version": 3,
        "shape": (2, 5, 3),
        "typestr": "<f2",
        "data": (array.pointer, False),
        "strides": None,
        "stream": stream.handle,
    }
