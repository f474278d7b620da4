"""``talksplat build`` on the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from composed_frames import ComposedFrame, random_inputs
from safetensors.numpy import load_file

from talksplat.bundle import Bundle
from talksplat.cli import build as verb
from talksplat.cli import main
from talksplat.families import frame_program

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

RTX = ["--backend", "tensorrt-rtx"]


def words(text: str) -> str:
    return re.sub(r"[\s│]+", " ", text)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["build", *map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("talksplat build: error: ")
    return message


def test_it_prints_what_it_built_and_what_it_found(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], cache_of_the_test: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    for now in ("built", "found"):
        assert main(["build", str(bundle_path), *RTX, "--jobs", "2"]) == 0
        printed = capsys.readouterr()
        assert len(re.findall(rf"\d\.\d\d {now}\b", words(printed.out))) == 5
        assert "8.0 and later" in printed.out and str(cache_of_the_test) in words(printed.out)
        assert ("none was built yet" in words(printed.err)) == (now == "built")
    assert main(["build", str(bundle_path), *RTX, "--precision", "fp16"]) == 0
    # The made-up refiner holds no products: it is the same graph in both precisions.
    assert len(re.findall(r"\d\.\d\d built\b", words(capsys.readouterr().out))) == 4


def test_it_lists_and_clears_the_cache(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], cache_of_the_test: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert main(["build", str(bundle_path), *RTX]) == 0
    capsys.readouterr()
    assert main(["build", "--list"]) == 0
    printed = words(capsys.readouterr().out)
    assert "synthetic:" in printed and "refiner, fp32" in printed
    assert main(["build", "--clear"]) == 0
    assert "10 files removed" in words(capsys.readouterr().out)
    assert not list((cache_of_the_test / "engines").iterdir())


def test_ctrl_c_leaves_nothing(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, cache_of_the_test: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    told: list[str] = []

    @contextmanager
    def interrupting() -> Iterator[object]:
        def progress(what: str, number: int, total: int) -> None:
            told.append(what)
            if len(told) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        yield progress

    monkeypatch.setattr(verb, "step_progress", interrupting)
    assert main(["build", str(bundle_path), *RTX]) == 130
    assert {what.split(",")[0] for what in told} == {"Building synthetic: audio_encoder"}
    assert not list((cache_of_the_test / "engines").iterdir())


def test_tensorrt_missing(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    message = fails(capsys, bundle_path, "--backend", "tensorrt")
    assert "pip install 'talksplat[gpu]'" in message


def test_an_unwritable_cache_folder(
    bundle_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path / "file"))
    assert "Engines cannot be kept in" in fails(capsys, bundle_path, *RTX)


def test_a_gpu_that_cannot_be_used_is_told(
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    install_driver: Callable[..., FakeDriver],
) -> None:
    """Engines for all GPUs from Ampere on would not run on the Turing GPU that is here."""
    pytest.importorskip("tensorrt_rtx")
    install_driver(version=11040)
    assert main(["build", str(bundle_path), *RTX]) == 0
    printed = words(capsys.readouterr().out)
    assert "The GPU here cannot be built for: The NVIDIA driver knows CUDA 11.4" in printed
    assert "Building for compute capability 8.0 and later." in printed


def test_with_a_gpu_nothing_is_said_of_it(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], fake_driver: FakeDriver
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert main(["build", str(bundle_path), *RTX]) == 0
    printed = words(capsys.readouterr().out)
    assert "cannot be built for" not in printed and "Building for" not in printed


def test_without_a_gpu_it_only_says_what_it_builds_for(
    bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    install_driver: Callable[..., FakeDriver],
) -> None:
    pytest.importorskip("tensorrt_rtx")
    install_driver(installed=False)
    assert main(["build", str(bundle_path), *RTX]) == 0
    printed = words(capsys.readouterr().out)
    assert printed.startswith("Building for compute capability 8.0 and later.")


def test_a_cache_that_others_may_write_is_told_before_building(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], cache_of_the_test: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    (cache_of_the_test / "engines").mkdir(parents=True)
    (cache_of_the_test / "engines").chmod(0o777)
    assert "can be written by others (mode 777)" in words(fails(capsys, bundle_path, *RTX))
    assert not list((cache_of_the_test / "engines").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected an avatar bundle and --backend"),
        (
            ["--backend", "onnxruntime"],
            "expects -o and a file to write that ends in .onnx, found none",
        ),
        (["--backend", "onnxruntime", "-o", "frame"], "that ends in .onnx, found frame"),
        ([*RTX, "--jobs", "0"], "--jobs must be at least 1, found 0"),
        ([*RTX, "--all-targets", "sm86"], "expected -o and a folder"),
        ([*RTX, "--all-targets", "ampere", "-o", "x"], "as in sm86,sm120, found 'ampere'"),
        ([*RTX, "--all-targets", "sm86,sm42", "-o", "x"], "found 4.2"),
    ],
)
def test_wrong_usage(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert message in fails(capsys, bundle_path, *arguments)


def test_a_bundle_without_a_backend_and_the_other_way_round(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "Expected an avatar bundle" in fails(capsys, *RTX)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_frame_as_one_onnx_file(bundle_path: Path, tmp_path: Path, precision: str) -> None:
    output = tmp_path / "frame.onnx"
    arguments = ["--backend", "onnxruntime", "-o", str(output), "--precision", precision]
    assert main(["build", str(bundle_path), *arguments]) == 0
    model = onnx.load(output)
    assert [value.name for value in model.graph.output] == ["picture", "coverage", "status"]
    constants = load_file(tmp_path / "frame.safetensors")
    program = frame_program(Bundle.open(bundle_path))
    assert {value.name for value in model.graph.input} == set(program.inputs) | set(constants)
    graph = ComposedFrame(model, replace(program, constants=constants))
    picture, _, _ = graph.run(next(random_inputs(program)))
    assert picture.std() > 10


def test_nothing_is_imported_that_is_not_needed(cache_of_the_test: Path) -> None:
    """A field installation without any extra can load the package and look into its cache."""
    blocked = ("torch", "onnx", "tensorrt", "tensorrt_rtx", "cuda", "talksplat_export")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
        "from talksplat.cli import main; sys.exit(main(['build', '--list']))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
