"""What only a GPU can show; skipped, with the reason, where there is none.

``python -m pytest -rs tests/sdk/cuda/test_cuda_on_a_gpu.py``
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks.rasterizer.scenes import head
from tests.plugins.comparison import psnr

import talksplat
from talksplat import compositing as on_host
from talksplat.cuda import Device, DeviceArray, Event, PinnedBuffer, Stream, open_device
from talksplat.cuda.compositing import Compositing
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.rasterizer import CudaRasterizer
from talksplat.errors import BackendError
from talksplat.images import to_uint8

ROOT = Path(__file__).parents[3]


@pytest.fixture
def device() -> Iterator[Device]:
    try:
        opened = open_device()
    except BackendError as error:
        pytest.skip(f"needs a GPU: {str(error).partition(';')[0]}")
    with opened:
        yield opened


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    with Stream(device) as opened:
        yield opened


def test_memory_and_copies(device: Device, stream: Stream) -> None:
    values = np.random.default_rng(0).random((33, 70), np.float32)
    there = stream.to_device(values)
    pinned = PinnedBuffer.like(device, values.shape, values.dtype)
    with Event(device) as start, Event(device) as end:
        stream.record(start)
        stream.download(there, pinned)
        stream.record(end)
        end.synchronize()
        assert end.elapsed_since(start) > 0
    np.testing.assert_array_equal(pinned, values)
    free = device.free_memory()
    assert 0 < free <= device.total_memory


def test_out_of_memory_does_not_lose_the_device(device: Device, stream: Stream) -> None:
    with pytest.raises(BackendError, match=r"out of memory: [\d,]+ bytes"):
        DeviceArray.empty(device, (2 * device.total_memory,), np.uint8)
    np.testing.assert_array_equal(stream.to_device(np.arange(3)).numpy(), [0, 1, 2])


def test_compositing_has_numpys_bits(device: Device, stream: Stream) -> None:
    random = np.random.default_rng(1)
    height, width = 333, 517
    picture = random.integers(0, 256, (height, width, 3), np.uint8)
    image, behind = random.random((2, 1, 3, height, width), np.float32)
    alpha, other = random.random((2, 1, 1, height, width), np.float32) ** 8
    alpha.flat[:4] = [1e-45, 1e-39, 1 - 2**-24, 0.1]

    def empty(*shape: int, dtype: str = "float32") -> DeviceArray:
        return DeviceArray.empty(device, shape, dtype, stream)

    with Compositing(device) as kernels:
        unpacked = empty(1, 3, height, width)
        kernels.unpack(stream, stream.to_device(picture), unpacked)
        expected = np.divide(picture, np.float32(255)).transpose(2, 0, 1)[None]
        assert unpacked.numpy().tobytes() == expected.tobytes()

        there = {"image": image, "alpha": alpha, "behind": behind, "other": other}
        arrays = {name: stream.to_device(values) for name, values in there.items()}
        over = empty(1, 3, height, width)
        kernels.over(stream, arrays["image"], arrays["alpha"], arrays["behind"], over)
        expected = on_host.over(image, alpha, behind, np.empty_like(image))
        assert over.numpy().tobytes() == expected.tobytes()

        packed = empty(height, width, 3, dtype="uint8")
        kernels.pack(stream, over, packed)
        np.testing.assert_array_equal(packed.numpy(), to_uint8(expected[0]))

        dilated, scratch = empty(*alpha.shape), empty(*alpha.shape)
        kernels.dilate(stream, arrays["alpha"], 13, dilated, scratch)
        assert dilated.numpy().tobytes() == on_host.dilate(alpha, 13).tobytes()

        kernels.coverage(stream, [arrays["alpha"], arrays["other"]], scratch)
        assert scratch.numpy().tobytes() == on_host.coverage(alpha, other).tobytes()


@pytest.mark.parametrize("dialect", ["gsplat", "gsplat-1.5", "inria"])
@pytest.mark.parametrize("channels", [3, 32])
def test_the_picture_is_that_of_the_processor_and_replays_are_the_same(
    device: Device, stream: Stream, channels: int, dialect: str
) -> None:
    scene = head(20_000, channels=channels)
    expected, _ = talksplat.rasterize(*scene.arrays, 512, 512, dialect=dialect)
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
    inputs = {name: stream.to_device(getattr(scene, name)) for name in names}
    with (
        KernelModule(device, "gaussian_rasterizer") as kernels,
        CudaRasterizer(
            kernels,
            stream,
            gaussians=20_000,
            width=512,
            height=512,
            channels=channels,
            dialect=dialect,
        ) as rasterizer,
    ):
        rasterizer.enqueue(**inputs)
        eager = rasterizer.colors.numpy()
        rasterizer.check()
        with stream.capture() as graph:
            rasterizer.enqueue(**inputs)
        for _ in range(20):
            stream.zero(rasterizer.colors)
            graph.launch(stream)
            assert rasterizer.colors.numpy().tobytes() == eager.tobytes()
            rasterizer.check()
        graph.close()
    # 90 dB of the peak: both work in float32, with sums in another order.
    assert psnr(eager.transpose(0, 2, 3, 1) - expected.astype(np.float64)) >= 90


def test_torch_takes_arrays_without_a_copy(device: Device, stream: Stream) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch that sees the GPU")
    array = DeviceArray.empty(device, (1024, 1024), np.float32, stream)
    stream.zero(array)
    tensor = torch.from_dlpack(array)
    assert tensor.data_ptr() == array.pointer
    assert tensor.device == torch.device("cuda", device.index)
    del array
    assert float((tensor + 1).sum()) == 1024 * 1024  # torch's stream waited for ours


def test_cupy_takes_arrays_without_a_copy(device: Device, stream: Stream) -> None:
    cupy = pytest.importorskip("cupy")
    array = DeviceArray.empty(device, (1024, 1024), np.float32, stream)
    stream.zero(array)
    for taken in (cupy.from_dlpack(array), cupy.asarray(array)):
        assert taken.data.ptr == array.pointer
        assert float((taken + 1).sum()) == 1024 * 1024


def test_a_stray_write_loses_the_device_and_the_process_goes_on(device: Device) -> None:
    """In a process of its own, as the error is one that cannot be undone for others."""
    script = """
    import numpy as np
    from cuda.bindings import nvrtc
    from talksplat.cuda import Stream, open_device
    from talksplat.cuda.kernels import Kernel
    from talksplat.errors import DeviceLostError

    source = b'extern "C" __global__ void stray(int* where) { *where = 1; }'
    device = open_device()
    stream = Stream(device)
    held = stream.to_device(np.ones(4, np.float32))
    program = nvrtc.nvrtcCreateProgram(source, b"stray.cu", 0, None, None)[1]
    major, minor = device.compute_capability
    option = f"--gpu-architecture=sm_{major}{minor}".encode()
    assert nvrtc.nvrtcCompileProgram(program, 1, [option])[0].value == 0
    image = bytearray(nvrtc.nvrtcGetCUBINSize(program)[1])
    nvrtc.nvrtcGetCUBIN(program, image)
    module = device.call("cuModuleLoadData", bytes(image))
    kernel = Kernel(device, device.call("cuModuleGetFunction", module, b"stray"))
    kernel.launch(stream, (1, 1, 1), (1, 1, 1), (1 << 44).to_bytes(8, "little"))
    try:
        stream.synchronize()
    except DeviceLostError as error:
        print(error)
    try:
        held.numpy()
    except DeviceLostError as error:
        print(error)
    stream.close()
    device.close()
    with open_device() as again, Stream(again) as fresh:
        assert (fresh.to_device(np.arange(3)).numpy() == [0, 1, 2]).all()
    print("a new context works")
    """
    device.close()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lost, after, works = done.stdout.splitlines()
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in lost
    assert "lost earlier" in after
    assert works == "a new context works"
