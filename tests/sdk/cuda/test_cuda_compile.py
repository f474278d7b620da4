"""Compilation for the very device, and what is kept of it on disk."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from talksplat.cuda import compile as cuda_compile
from talksplat.cuda import open_device
from talksplat.cuda.compile import Architecture, architecture_of, compile_kernels
from talksplat.cuda.compositing import _KERNELS, Compositing
from talksplat.errors import BackendError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver
    from tests.sdk.cuda.fake_nvrtc import FakeNvrtc

ADA = Architecture("sm_89")


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "cuda").iterdir())


def test_a_second_start_compiles_nothing(fake_nvrtc: FakeNvrtc, tmp_path: Path) -> None:
    first = compile_kernels("compositing", ADA)
    assert compile_kernels("compositing", ADA) == first
    assert len(fake_nvrtc.compiled) == len(kept(tmp_path)) == 1


def test_compositing_merges_no_product_with_a_sum(fake_nvrtc: FakeNvrtc) -> None:
    compile_kernels("compositing", ADA)
    (options,) = fake_nvrtc.compiled
    assert {b"--fmad=false", b"--ftz=false", b"--prec-div=true"} <= set(options)
    assert not any(b"fast" in option for option in options)


@pytest.mark.parametrize("change", ["architecture", "version", "options", "sources", "kernels"])
def test_whatever_the_result_depends_on_is_part_of_the_key(
    fake_nvrtc: FakeNvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(cuda_compile.sources_folder(), sources)
    monkeypatch.setattr(cuda_compile, "sources_folder", lambda: sources)
    compile_kernels("compositing", ADA)
    kernels, architecture = "compositing", ADA
    if change == "architecture":
        architecture = Architecture("sm_90")
    elif change == "version":
        fake_nvrtc.version = (13, 1)
    elif change == "options":
        monkeypatch.setitem(cuda_compile._OPTIONS, "compositing", ("--std=c++20",))
    elif change == "sources":
        header = sources / "gaussian_rasterizer" / "host_device.h"
        header.write_text(header.read_text() + "\n")
    else:
        kernels = "gaussian_rasterizer"
    compile_kernels(kernels, architecture)  # type: ignore[arg-type]
    assert len(fake_nvrtc.compiled) == len(kept(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "emptied after the digest"])
def test_damaged_kernels_are_compiled_again(
    fake_nvrtc: FakeNvrtc, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    good = compile_kernels("compositing", ADA)
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    length = {"flipped": len(content), "cut": len(content) - 5, "emptied": 0}.get(damage, 32)
    file.write_bytes(content[:length])
    with caplog.at_level(logging.WARNING):
        assert compile_kernels("compositing", ADA) == good
    assert "damaged; compiling again" in caplog.text
    assert len(fake_nvrtc.compiled) == 2
    compile_kernels("compositing", ADA)
    assert len(fake_nvrtc.compiled) == 2, "what was compiled again was not kept"


def test_a_cache_that_cannot_be_written_is_done_without(
    fake_nvrtc: FakeNvrtc,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert compile_kernels("compositing", ADA)
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize("whose", ["folder", "file"])
def test_kernels_that_others_may_write_are_compiled_again(
    fake_nvrtc: FakeNvrtc, tmp_path: Path, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    good = compile_kernels("compositing", ADA)
    (file,) = kept(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    changed = file if whose == "file" else file.parent
    changed.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert compile_kernels("compositing", ADA) == good
    assert "can be written by others (mode 777); compiling again" in caplog.text
    assert ("cannot be kept" in caplog.text) == (whose == "folder")
    assert len(fake_nvrtc.compiled) == 2


def test_a_huge_file_of_kernels_is_not_read(
    fake_nvrtc: FakeNvrtc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = compile_kernels("compositing", ADA)
    with kept(tmp_path)[0].open("ab") as stream:
        stream.truncate(2**40)  # sparse: reading it would take all memory
    with caplog.at_level(logging.WARNING):
        assert compile_kernels("compositing", ADA) == good
    assert "expected at most 268435456 bytes" in caplog.text


def test_a_gpu_that_nvrtc_does_not_know_gets_ptx(fake_nvrtc: FakeNvrtc) -> None:
    assert architecture_of((8, 9)) == Architecture("sm_89")
    newer = architecture_of((13, 0))
    assert newer == Architecture("compute_120")
    assert compile_kernels("compositing", newer).startswith(b".version")
    assert architecture_of((8, 8)) == Architecture("compute_86")


def test_a_gpu_that_nvrtc_has_forgotten_is_refused(fake_nvrtc: FakeNvrtc) -> None:
    fake_nvrtc.architectures = (80, 90)
    with pytest.raises(BackendError, match=r"compute capability 8\.0 and later, the GPU has 7\.5"):
        architecture_of((7, 5))


def test_nvrtc_is_missing(fake_nvrtc: FakeNvrtc, fake_driver: FakeDriver) -> None:
    fake_nvrtc.version = None
    with (
        open_device() as device,
        pytest.raises(
            BackendError, match=r"not found \(Failed to dlopen.*pip install nvidia-cuda-nvrtc"
        ),
    ):
        Compositing(device)
    assert not fake_driver.leaks


def test_the_bindings_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendError, match="cuda-python"):
        compile_kernels("compositing", ADA)


def test_sources_that_do_not_compile_show_the_log(fake_nvrtc: FakeNvrtc, tmp_path: Path) -> None:
    fake_nvrtc.refuses = b"kernels.cu(3): error: expected a ;"
    with pytest.raises(BackendError, match=r"13\.0 could not .* sm_89.*\n.*expected a ;"):
        compile_kernels("compositing", ADA)
    assert not (tmp_path / "cache").exists()


def test_sources_that_were_not_installed(
    fake_nvrtc: FakeNvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_compile.resources, "files", lambda package: tmp_path)
    with pytest.raises(BackendError, match=r"sources of the CUDA kernels are missing.*sources"):
        compile_kernels("compositing", ADA)


def test_a_driver_that_refuses_what_was_compiled(
    fake_driver: FakeDriver,
) -> None:
    fake_driver.fail_next("cuModuleLoadData", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
    with (
        open_device() as device,
        pytest.raises(BackendError, match=r"UNSUPPORTED_PTX_VERSION.*update the NVIDIA driver"),
    ):
        Compositing(device)


@pytest.fixture
def real_nvrtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVRTC itself, which needs no GPU, and an empty cache."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-python")
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        pytest.skip(f"needs the library of NVRTC: {error}")
    monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path))


@pytest.mark.usefixtures("real_nvrtc")
@pytest.mark.parametrize("architecture", [75, 80, 86, 89, 90, 100, 120])
def test_compositing_compiles_for_every_generation(architecture: int) -> None:
    image = compile_kernels("compositing", Architecture(f"sm_{architecture}"))
    assert image.startswith(b"\x7fELF")
    for kernel in _KERNELS:
        assert kernel.encode() in image


@pytest.mark.usefixtures("real_nvrtc")
def test_compositing_rounds_after_every_operation() -> None:
    text = compile_kernels("compositing", Architecture("compute_75")).decode()
    for rounded in ("mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32"):
        assert rounded in text
    # Without .rn the driver may still merge what PTX keeps apart.
    for merged_or_rough in ("fma", "mul.f32", "add.f32", "sub.f32", ".ftz", ".approx", "div.full"):
        assert merged_or_rough not in text
