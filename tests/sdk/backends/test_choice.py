"""Which backend is taken, and what is said of the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
from synthetic_bundle import speech_like
from tests.sdk.backends.conftest import GpuMachine, frames_of, install_modules
from tests.sdk.backends.test_failures import built
from tests.sdk.backends.test_frames import images, psnr

import talksplat
from talksplat.backends import BACKENDS, choose
from talksplat.cli import main
from talksplat.errors import BackendError, DeviceLostError, InputError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

CLIP = speech_like(640 * 6)


def test_auto_takes_the_best_and_says_why_the_better_ones_were_not(gpu: GpuMachine) -> None:
    takes = {
        "tensorrt": lambda: gpu.tensorrt.plugin_libraries.clear(),
        "tensorrt-rtx": lambda: setattr(gpu.rtx, "version", "2.0"),
        "onnxruntime-cuda": lambda: gpu.onnxruntime.providers.clear(),
        "onnxruntime-cpu": lambda: None,
    }
    passed: list[str] = []
    for name, break_it in takes.items():
        choice = choose("auto", 1)
        assert choice.backend.name == name
        assert choice.reason.startswith("best usable here")
        assert all(f"not {better}: " in choice.reason for better in passed)
        choice.backend.close()
        assert not gpu.driver.alive()
        break_it()
        passed.append(name)
        _reimport(gpu)


def _reimport(gpu: GpuMachine) -> None:
    from tests.sdk.backends.fake_tensorrt import fake_tensorrt

    for machine in (gpu.tensorrt, gpu.rtx):
        machine.plugins.clear()
        sys.modules[machine.flavour] = fake_tensorrt(machine)


def test_a_backend_that_was_asked_for_is_not_replaced(gpu: GpuMachine, bundle_path: Path) -> None:
    with talksplat.load(bundle_path, "onnxruntime-cuda", 1) as avatar:
        assert (avatar.backend, avatar.backend_reason) == ("onnxruntime-cuda", "asked for")
    gpu.onnxruntime.providers.remove("CUDAExecutionProvider")
    with pytest.raises(BackendError):
        talksplat.load(bundle_path, "onnxruntime-cuda", 1)


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="Unknown backend 'cuda'; expected 'auto' or one of"):
        choose("cuda", 1)


def test_without_a_driver_auto_is_quick_and_imports_no_tensorrt(
    install_driver: Callable[..., FakeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_driver(installed=False)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    asked = []
    from talksplat.cuda import device

    find_version = device._version
    monkeypatch.setattr(device, "_version", lambda driver: (asked.append(1), find_version(driver)))
    choice = choose("auto", 1)
    assert choice.backend.name == "onnxruntime-cpu"
    assert len(asked) == 3  # once for each backend, and nothing else is looked for
    assert not {"tensorrt", "tensorrt_rtx"} & set(sys.modules)


def test_loading_on_this_machine_is_quiet_and_leaves_tensorrt_alone_without_a_driver(
    bundle_path: Path,
) -> None:
    program = (
        "import sys, talksplat\n"
        f"avatar = talksplat.load({str(bundle_path)!r}, 'auto', 1)\n"
        "if avatar.backend == 'onnxruntime-cpu' and 'driver' in avatar.backend_reason:\n"
        "    assert not {'tensorrt', 'tensorrt_rtx', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", ["d3talker", "instag", "sdtalk"])
def test_what_was_built_ahead_is_not_built_again(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    family: str,
    backend: str,
    precision: str,
) -> None:
    path = all_bundles[family]
    build = ["build", str(path), "--backend", backend, "--precision", precision]
    assert main(build) == 0
    assert "built" in capsys.readouterr().out
    assert not built(path, backend, precision)


def test_engines_in_float16_show_nearly_the_same_frames(
    gpu: GpuMachine, family_bundles: dict[str, Path]
) -> None:
    path = family_bundles["sdtalk"]
    expected = frames_of(path, "onnxruntime-cpu", CLIP)
    for backend in ("tensorrt", "tensorrt-rtx"):
        with (
            talksplat.load(path, backend, 1, precision="fp16") as avatar,
            avatar.session() as session,
        ):
            session.push(CLIP)
            session.end()
            found = list(session.frames())
        # The refiner computes with 11 bits; 8 of them are seen.
        assert 45 < psnr(images(found), images(expected), 255) < 90


def test_the_order_of_backends_is_what_the_command_line_offers() -> None:
    assert list(BACKENDS) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu"]


def test_a_lost_device_is_no_reason_to_take_the_cpu(gpu: GpuMachine, bundle_path: Path) -> None:
    avatar = talksplat.load(bundle_path, "auto", 1)
    gpu.driver.lose_device("CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(DeviceLostError):
        avatar.session()
    with pytest.raises(DeviceLostError, match="not closed yet"):
        talksplat.load(bundle_path, "auto", 1)
    avatar.close()
    talksplat.load(bundle_path, "auto", 1).close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TALKSPLAT_ENGINES", "/nowhere/typo"), ("TALKSPLAT_CACHE", "relative/folder")],
)
def test_what_the_user_got_wrong_is_no_reason_to_take_another_backend(
    gpu: GpuMachine,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=variable):
        talksplat.load(bundle_path, "auto", 1)
    assert not gpu.driver._contexts


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, CLIP, 16_000)
    return path


def verbs(avatar: Path, speech: Path) -> list[list[str]]:
    return [
        ["run", str(avatar), str(speech), "-o", str(speech.parent / "speech.mp4")],
        ["bench", str(avatar), str(speech), "--rounds", "1"],
        ["doctor", str(avatar)],
    ]


def test_every_verb_says_in_a_line_why_better_backends_are_not_used(
    gpu: GpuMachine,
    bundle_path: Path,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu.rtx.version = "2.0"
    gpu.tensorrt.version = "9.3.0"
    install_modules(gpu, monkeypatch)
    for verb in verbs(bundle_path, speech):
        assert main(verb) == 0
        lines = [
            line
            for line in capsys.readouterr().out.splitlines()
            if line.startswith("on onnxruntime-cuda: ")
        ]
        assert len(lines) == 1, verb
        assert "not tensorrt (" in lines[0] and "found 9.3.0); not tensorrt-rtx (" in lines[0]
        assert len(lines[0]) < 400
    assert main([*verbs(bundle_path, speech)[0], "--backend", "onnxruntime-cpu"]) == 0
    assert "not tensorrt" not in capsys.readouterr().out


def test_a_driver_that_is_too_old_is_said_and_none_at_all_is_not(
    install_driver: Callable[..., FakeDriver],
    bundle_path: Path,
    speech: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, bench, _ = verbs(bundle_path, speech)
    install_driver(version=11_080)
    assert main(run) == main(bench) == 0
    line = "on onnxruntime-cpu: not tensorrt, tensorrt-rtx, onnxruntime-cuda (The NVIDIA driver"
    assert capsys.readouterr().out.count(f"{line} knows CUDA 11.8") == 2
    install_driver(installed=False)
    assert main(run) == main(bench) == 0
    assert "not tensorrt" not in capsys.readouterr().out
