"""The installed CUDA bindings take what they are given: they call a libcuda made for the host."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.plugins.cuda.host.library import GAUSSIAN_KERNELS, compile_kernels
from tests.sdk.cuda.fixtures import COMPOSITING_KERNELS

HERE = Path(__file__).parent

BEGINNING = """
import sys
import cuda.bindings
import numpy as np
from tests.sdk.cuda.fake_nvrtc import FakeNvrtc
cuda.bindings.nvrtc = sys.modules["cuda.bindings.nvrtc"] = FakeNvrtc()
from cuda.bindings import driver
import talksplat.images
from talksplat.cuda import *
from talksplat.cuda.compositing import Compositing
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.rasterizer import CudaRasterizer
from talksplat.errors import *
"""


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libcuda.so.1."""
    pytest.importorskip("cuda.bindings", reason="needs the CUDA bindings: cuda-python")
    folder = tmp_path_factory.mktemp("libcuda")
    sources = (HERE / "argument_sizes.cpp", HERE / "libcuda_on_host.cpp")
    compile_kernels(folder / "libcuda.so.1", (GAUSSIAN_KERNELS, COMPOSITING_KERNELS, *sources))
    return folder


def run(libcuda: Path, script: str, **environment: str) -> str:
    """What a script prints, whose driver is the one of the host."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(script)],
        cwd=HERE.parents[2],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(libcuda),
            "TALKSPLAT_CACHE": str(libcuda / "cache"),
            "HOST_CUDA_VERSION": "13000",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_device_and_its_memory(libcuda: Path) -> None:
    printed = run(
        libcuda,
        """
        with open_device() as device, Stream(device) as stream:
            print(device.name, device.compute_capability, device.driver_version)
            print(device.free_memory(), device.total_memory)
            values = np.arange(12, dtype=np.float32).reshape(3, 4)
            array, other = stream.to_device(values), DeviceArray.empty(device, (3, 4), "float32")
            stream.copy(array, other)
            pinned = PinnedBuffer.like(device, (3, 4), np.float32)
            stream.download(other, pinned)
            stream.synchronize()
            assert (pinned == values).all() and (array.numpy() == values).all()
            stream.zero(array)
            assert (array.numpy() == 0).all()
            with Event(device) as start, Event(device) as end:
                stream.record(start), stream.record(end)
                end.synchronize()
                assert 0 <= end.elapsed_since(start) < 1000
            stream.wait(Event(device, timing=False))
            array.__dlpack__(stream=1), other.__dlpack__(stream=2)
            del pinned
        try:
            DeviceBuffer(open_device(), 1 << 31)
        except BackendError as error:
            print(error)
        """,
    )
    name, memory, full = printed.splitlines()
    assert name == "Host (8, 9) 13000"
    assert memory == f"{2**30} {2**30}"
    assert "out of memory: 2,147,483,648 bytes were asked for" in full


def test_kernels_eager_and_replayed(libcuda: Path) -> None:
    printed = run(
        libcuda,
        """
        from benchmarks.rasterizer.scenes import head
        scene = head(400, 48, 40)
        with open_device() as device, Stream(device) as stream:
            kernels, compositing = KernelModule(device, "gaussian_rasterizer"), Compositing(device)
            rasterizer = CudaRasterizer(kernels, stream, gaussians=400, width=48, height=40)
            names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
            inputs = {name: stream.to_device(getattr(scene, name)) for name in names}
            picture = DeviceArray.empty(device, (40, 48, 3), np.uint8, stream)
            def frame():
                rasterizer.enqueue(**inputs)
                compositing.pack(stream, rasterizer.colors, picture)
            frame()
            stream.synchronize()
            rasterizer.check()
            eager = picture.numpy()
            stream.zero(picture)
            with stream.capture() as graph:
                frame()
            assert not picture.numpy().any()
            graph.launch(stream)
            assert (picture.numpy() == eager).all()
            colors, _ = talksplat.rasterize(*scene.arrays, 48, 40)
            expected = talksplat.images.to_uint8(colors[0])
            print(np.abs(eager.astype(int) - expected).max(), eager.max() > 100)
            try:
                with stream.capture():
                    stream.synchronize()
            except BackendError as error:
                print(error)
            for thing in (graph, rasterizer, compositing, kernels):
                thing.close()
        """,
    )
    difference, error = printed.splitlines()
    assert difference in ("0 True", "1 True")  # a rounding, before the truncation to bytes
    assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (said by the driver)" in error


def test_a_driver_too_old_for_the_bindings(libcuda: Path) -> None:
    script = """
    try:
        open_device()
    except BackendError as error:
        print(error)
    """
    assert "knows CUDA 11.4" in run(libcuda, script, HOST_CUDA_VERSION="11040")


def test_no_driver(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="needs the CUDA bindings: cuda-python")
    (tmp_path / "libcuda.so.1").write_text("not a library")
    script = """
    for _ in range(2):  # what is raised the second time differs
        try:
            open_device()
        except BackendError as error:
            print(error)
    """
    printed = run(tmp_path, script).splitlines()
    assert len(printed) == 2
    assert all(line.startswith("No NVIDIA driver was found (") for line in printed)


def test_advice_is_given_for_results_that_the_driver_has() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="needs the CUDA bindings")
    from talksplat.cuda import bindings

    assert not set(bindings._ADVICE) - set(driver.CUresult.__members__)
    assert not set(bindings._ADVICE) & bindings.LOST
