"""``talksplat bench --gpu``, on an imaginary one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_bundle import speech_like
from tests.sdk.backends.conftest import GpuMachine

from talksplat import gpu_benchmark
from talksplat.cli import main
from talksplat.errors import BackendError
from talksplat.gpu_benchmark import GpuReport, Plan, benchmark_gpu
from talksplat.session_load import SessionLoad

CLIP = speech_like(6 * 640)
SHORT = Plan(rounds=1, seconds=0.2, sessions=2)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_a_gpu_adds_memory_stages_and_sessions(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    said: list[str] = []
    report, found = benchmark_gpu(
        all_bundles["d3talker"], CLIP, backend=backend, threads=1, plan=SHORT, step=said.append
    )
    assert report.backend == found.on_device.backend == backend
    assert report.frames == found.on_device.frames == 6
    assert (found.device, found.compute_capability) == ("Imaginary GPU", "8.9")
    assert found.avatar_bytes > 0 and found.session_bytes > 0
    assert found.load_seconds > 0 and found.first_session_seconds > 0 and found.first_frame_ms > 0
    assert {"pncc", "frame"} <= set(found.stages_ms)
    if backend != "tensorrt":  # there a frame is one engine
        assert {"motion", "rasterize", "refiner"} <= set(found.stages_ms)
        assert not {"rasterize", "refiner"} & set(report.stages_ms)
    assert [load.sessions for load in found.loads][:1] == [1]
    assert found.most_sessions <= 2
    assert "Frames, device" in said


def test_the_command_prints_and_writes_it(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = gpu_benchmark.benchmark_gpu

    def briefly(path: Path, pcm: object, features: object, **options: object) -> object:
        options["plan"] = SHORT
        return measure(path, CLIP, None if features is None else features[:6], **options)  # type: ignore[index,arg-type]

    monkeypatch.setattr("talksplat.cli.bench.benchmark_gpu", briefly)
    written = tmp_path / "report.json"
    avatar = str(all_bundles["sdtalk"])
    arguments = ["bench", avatar, "--gpu", "--backend", "tensorrt-rtx", "--precision", "fp16"]
    assert main([*arguments, "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    assert "Imaginary GPU" in printed and "fp16" in printed
    assert "frames left on the device" in printed and "sessions in time" in printed
    document = json.loads(written.read_text())
    assert document["backend"] == "tensorrt-rtx" and document["frames"] == 6
    assert document["gpu"]["device"] == "Imaginary GPU"
    assert document["gpu"]["loads"][0]["sessions"] == 1


def test_without_a_gpu_it_says_so(
    all_bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    avatar = str(all_bundles["sdtalk"])
    assert main(["bench", avatar, "--gpu", "--backend", "onnxruntime-cpu"]) == 1
    assert "expects a backend that uses a GPU" in capsys.readouterr().err


def test_a_machine_whose_best_is_the_cpu_is_no_gpu(
    all_bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = gpu_benchmark.load
    monkeypatch.setattr(
        gpu_benchmark, "load", lambda path, *_, **__: load(path, "onnxruntime-cpu", 1)
    )
    with pytest.raises(BackendError, match="No GPU to measure on: asked for"):
        benchmark_gpu(all_bundles["sdtalk"], CLIP, plan=SHORT)


def test_most_sessions_is_the_largest_number_in_time() -> None:
    def load(sessions: int, p95: float) -> SessionLoad:
        return SessionLoad(sessions, 10, p95, p95, p95, p95)

    def report(*loads: SessionLoad) -> GpuReport:
        facts = ("a GPU", "8.9", "13.0", "fp32", 1.0, 1.0, 1.0, 1, 1, {})
        return GpuReport(*facts, on_device=None, loads=list(loads))  # type: ignore[arg-type]

    assert report().most_sessions == 0 == report(load(1, 50)).most_sessions
    assert report(load(1, 5), load(4, 60), load(2, 10), load(3, 39)).most_sessions == 3
