"""The program that compute-sanitizer watches: here on the host, under an address sanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmarks.gpu.machine import find_nvcc
from benchmarks.gpu.result import MissingError
from benchmarks.gpu.settings import Settings
from tests.plugins.cuda.host.library import compile_kernels

from benchmarks.gpu import sanitizer

HOST = Path(__file__).parent / "host"
ADDRESSES = ("-fsanitize=address", "-fno-omit-frame-pointer")
GAUSSIANS = 200


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sanitize.cu with the rasterizer's own kernels, all compiled for the host."""
    folder = tmp_path_factory.mktemp("sanitize")
    library = compile_kernels(folder / "libkernels_on_host.so", flags=ADDRESSES)
    sources = (sanitizer.SOURCE, HOST / "enqueue_on_host.cpp", sanitizer.PLUGIN / "cuda/plan.cpp")
    built = folder / "sanitize"
    command = ["c++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", *ADDRESSES]
    command += ["-I", str(HOST), "-I", str(sanitizer.PLUGIN), "-x", "c++", *map(str, sources)]
    command += ["-x", "none", str(library), f"-Wl,-rpath,{folder}", "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def test_every_branch_draws_and_touches_nothing_beyond_its_tensors(program: Path) -> None:
    code, output = sanitizer.run([str(program), str(GAUSSIANS)])
    assert code == 0, output
    drawn = sanitizer.expected_cases(output)
    assert len(drawn) == len(set(drawn)) == len(output.splitlines()) >= 15
    assert {"no Gaussian", "not finite", "too many pairs"} <= set(drawn)


def test_a_picture_that_is_not_as_expected_is_told(tmp_path: Path, program: Path) -> None:
    text = sanitizer.SOURCE.read_text()
    marked = '{"three channels", usual},'
    assert marked in text
    source = tmp_path / "sanitize.cu"
    # A scene that is said to have no room, but has.
    source.write_text(text.replace(marked, '{"three channels", usual, false, false, true},'))
    built, kernels = tmp_path / "sanitize", program.with_name("libkernels_on_host.so")
    sources = (source, HOST / "enqueue_on_host.cpp", sanitizer.PLUGIN / "cuda/plan.cpp")
    command = ["c++", "-std=c++20", "-O1", *ADDRESSES, "-I", str(HOST)]
    command += ["-I", str(sanitizer.PLUGIN), "-x", "c++", *map(str, sources), "-x", "none"]
    command += [str(kernels), f"-Wl,-rpath,{kernels.parent}", "-o", str(built)]
    subprocess.run(command, check=True)
    code, output = sanitizer.run([str(built), str(GAUSSIANS)])
    assert code == 1 and sanitizer.judge(code) == "a picture is wrong"
    assert "three channels: " in output and "are not NaN" in output
    assert "three channels" not in sanitizer.expected_cases(output)


@pytest.mark.skipif(find_nvcc() is None, reason="nvcc is not installed")
def test_it_builds_for_a_gpu(tmp_path: Path) -> None:
    compiler = find_nvcc()
    assert compiler is not None
    built = sanitizer.build(compiler, "sm_80", tmp_path / "sanitize")
    assert built.stat().st_size > 100_000
    with pytest.raises(MissingError, match="sm_12345"):
        sanitizer.build(compiler, "sm_12345", tmp_path / "other")


def test_without_nvcc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "find_nvcc", lambda: None)
    with pytest.raises(MissingError, match="CUDA toolkit"):
        sanitizer.measure(Settings())


def test_verdicts_follow_the_exit_status_and_the_summary() -> None:
    found = """three channels: as expected, 7 pairs
========= ERROR SUMMARY: 2 errors
"""
    assert sanitizer.judge(sanitizer.FOUND) == "errors found"
    assert sanitizer.judge(-11) == "ended with -11"
    assert sanitizer.summary(found) == "ERROR SUMMARY: 2 errors"
    assert sanitizer.summary("nothing of the kind") == ""
    assert sanitizer.last_lines("a\nb\n c \n", 2) == "b / c"


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "LIMIT_S", 0.2)
    code, output = sanitizer.run(["sleep", "60"])
    assert sanitizer.judge(code) == "took too long" and "ended after" in output
