"""The command: what it runs, and what it makes of parts that are missing, break, crash or hang."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmarks.gpu.probes import Question
from benchmarks.gpu.result import Findings, MissingError, Result
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.timing import Case, Times, interleaved, percentile

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import device_tests, machine, parts, probes
from talksplat.cuda_version import cuda_version_text
from talksplat.errors import BackendError


def test_settings_survive_the_command_line() -> None:
    settings = Settings(output=Path("a b"), sizes=(7,), seconds=0.5)
    stored = json.loads(json.dumps(settings.as_dict()))
    found = Settings.from_dict(stored)
    assert (found.output, list(found.sizes), found.seconds) == (Path("a b"), [7], 0.5)
    assert found.speech == settings.speech and found.checkpoint.is_file()


def test_the_command_line_becomes_settings() -> None:
    args = command.parse(["parity", "ada", "--sizes", "10", "20", "--sides", "64", "--quick"])
    assert args.parts == ["parity", "ada"]
    settings = command.settings_of(args)
    assert settings.sizes == (10, 20) and settings.sides == (64,) and settings.channels == (3, 32)
    assert settings.rounds == command.QUICK["rounds"] < Settings().rounds
    assert command.settings_of(command.parse([])) == Settings()


def test_an_unknown_part_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(["speed"])
    assert "unknown part 'speed'; expected some of probes, parity" in capsys.readouterr().err


def test_every_part_can_be_measured() -> None:
    for name in parts.PARTS:
        module = parts.importlib.import_module(f"benchmarks.gpu.{name}")
        assert callable(module.measure)


def test_without_a_gpu_there_are_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def describe(commit: str) -> Any:
        raise BackendError("no driver")

    monkeypatch.setattr(machine, "describe", describe)
    assert command.main(["--output", str(tmp_path / "out")]) == 1
    assert "No figures without a GPU: no driver" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_machine_is_described(fake_driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.describe("abc")
    assert (found.device, found.compute_capability, found.commit) == ("Imaginary GPU", "8.9", "abc")
    assert found.memory_bytes == 2**31 and "numpy" in found.packages
    assert found.driver.endswith(f"CUDA {cuda_version_text(fake_driver._version)}")
    assert machine.git_commit() != ""
    json.dumps(found.as_dict())


@pytest.fixture
def part(fake_driver: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a function in the place of a part."""

    def put(measure: Any) -> None:
        module = ModuleType("benchmarks.gpu.parity")
        module.measure = measure  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "benchmarks.gpu.parity", module)

    return put


def test_whatever_becomes_of_a_part_is_a_result(part: Any) -> None:
    def raises(error: Exception) -> Any:
        def measure(settings: Settings) -> Findings:
            raise error

        return measure

    part(lambda settings: Findings((), {"a": 1}))
    found = parts.run("parity", Settings(), "python …", "abc")
    assert (found.status, found.message, found.findings.figures) == ("measured", "", {"a": 1})
    assert found.command == "python …" and found.machine["commit"] == "abc"
    part(raises(MissingError("no nvcc")))
    assert parts.run("parity", Settings(), "python …").status == "missing"
    part(raises(BackendError("lost")))
    assert parts.run("parity", Settings(), "python …").message == "lost"
    part(raises(ZeroDivisionError("oh")))
    found = parts.run("parity", Settings(), "python …")
    assert (found.status, found.message) == ("failed", "ZeroDivisionError: oh")
    part(lambda settings: Findings((), {}, (), ["80 dB"]))
    assert parts.run("parity", Settings(), "python …").status == "failed"


def run_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, limit: float) -> Result:
    monkeypatch.setitem(parts.PARTS, "parity", parts.Part("Parity", limit))
    wait = command.wait
    with monkeypatch.context() as context:
        context.setattr(command, "wait", lambda _, limit: wait([sys.executable, "-c", code], limit))
        return command.run_part(
            "parity", Settings(output=tmp_path), "python …", "", {"device": "a GPU"}
        )


def test_a_part_that_crashes_or_hangs_does_not_take_the_run_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stale = tmp_path / "parity.json"
    stale.write_text("{}")
    found = run_part(monkeypatch, tmp_path, "import os; os.abort()", 60)
    assert found.status == "failed" and "ended with -6 and left no result" in found.message
    found = run_part(monkeypatch, tmp_path, "import time; time.sleep(60)", 0.5)
    assert found.status == "failed" and "not done after 0.5 s" in found.message
    assert found.machine == {"device": "a GPU"}


def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(1.5); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert command.wait([sys.executable, "-c", code], 0.7) is None
    time.sleep(1.5)
    assert not mark.exists()


def test_all_parts_are_run_and_reported(
    fake_driver: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(
        name: str, settings: Settings, given: str, commit: str, where: dict[str, Any]
    ) -> Result:
        assert settings.output.is_absolute()
        assert given == f"python -m benchmarks.gpu {name} --sides 64 --quick"
        status: Any = "missing" if name == "probes" else "measured"
        found = Result(name, status, given, where, 1.0, Findings((), {}), "")
        found.write(settings.output)
        return found

    monkeypatch.setattr(command, "run_part", run)
    assert command.main(["--output", str(tmp_path), "--sides", "64", "--quick"]) == 0
    printed = capsys.readouterr().out
    for name, one in parts.PARTS.items():
        assert f"== {name}: " in printed and f"### {one.title}" in printed
    assert (tmp_path / "report.md").is_file()


def test_questions_are_asked_in_processes_of_their_own() -> None:
    # There is no GPU here, and whatever is missing is the answer.
    found = probes.ask("gsplat")
    if found.works is None:
        assert "gsplat" in found.found
    assert found.seconds > 0


def test_answers_tell_missing_from_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(outcome: Any) -> dict[str, Any]:
        def answer() -> str:
            if isinstance(outcome, Exception):
                raise outcome
            return str(outcome)

        monkeypatch.setitem(probes.QUESTIONS, "nvcc", Question("?", answer))
        return probes.answer("nvcc")

    assert ask("fine") == {"works": True, "found": "fine"}
    assert ask(MissingError("none")) == {"works": None, "found": "none"}
    assert ask(ModuleNotFoundError("no module"))["works"] is None
    assert ask(RuntimeError("broke")) == {"works": False, "found": "RuntimeError: broke"}


def test_a_question_that_ends_its_process_is_answered_no(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def instead(arguments: Any, **options: Any) -> Any:
        return run([sys.executable, "-c", "import os; os.abort()"], **options)

    monkeypatch.setattr(probes.subprocess, "run", instead)
    found = probes.ask("tensorrt-rtx")
    assert found.works is False and "ended with -6" in found.found


def test_the_probed_graph_is_what_it_says() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, (first, second) = probes.small_graph()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = np.ones((1, probes.SIZE), np.float32)
    (found,) = session.run(["y"], {"x": x})
    np.testing.assert_allclose(found, np.maximum(x @ first, 0) @ second, rtol=1e-4, atol=1e-4)


def test_tests_that_need_a_gpu_are_found_and_their_reasons_kept() -> None:
    names = [file.name for file in device_tests.files()]
    assert {"test_cuda_on_a_gpu.py", "test_backends_on_a_gpu.py"} <= set(names)
    findings = device_tests.measure(Settings())
    (table,) = findings.tables
    assert len(table.rows) > 8 and findings.failures == []
    for name, verdict, said in table.rows:
        assert name.startswith("test_") and verdict in ("passed", "skipped")
        assert said or verdict == "passed"


def test_a_failed_test_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "results.xml"
    written.write_text(
        "<testsuites><testsuite><testcase name='a'><failure message='80 dB&#10;more'/></testcase>"
        "<testcase name='b'><skipped message='no GPU'/></testcase><testcase name='c'/>"
        "<testcase name='d'><error message='oh'/></testcase></testsuite></testsuites>"
    )
    assert device_tests.read_outcomes(written) == [
        ("a", "failed", "80 dB"),
        ("b", "skipped", "no GPU"),
        ("c", "passed", ""),
        ("d", "failed", "oh"),
    ]


def test_tables_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "nvrtc": probes.Answer("Does it compile?", True, "yes it does", 1.25),
        "gsplat": probes.Answer("Does it build?", None, "not there", 0.5),
    }
    monkeypatch.setattr(probes, "QUESTIONS", answers)
    monkeypatch.setattr(probes, "ask", answers.__getitem__)
    (table,) = probes.measure(Settings()).tables
    assert table.rows == [
        ("Does it compile?", "yes", "yes it does", "1.2"),
        ("Does it build?", "not installed", "not there", "0.5"),
    ]


class CountingStopwatch:
    """Says that every call took as long as it is the how manieth."""

    def __init__(self) -> None:
        self.calls = 0

    def start(self) -> None:
        self.calls += 1

    def stop(self) -> float:
        return float(self.calls)


def test_cases_take_turns_after_their_warm_up() -> None:
    order: list[str] = []
    watches = {name: CountingStopwatch() for name in "ab"}
    cases = {name: Case(lambda n=name: order.append(n), watches[name]) for name in "ab"}
    times = interleaved(cases, rounds=2, calls=3, warm_up=1)
    assert "".join(order) == "ab" + "aaabbb" * 2
    assert times["a"].device == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert len(times["b"].wall) == 6 and all(wall > 0 for wall in times["b"].wall)
    assert times["a"].median == 4.5 and times["a"].p95 == pytest.approx(6.75)


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([1.0, 2.0], 50) == 1.5
    assert Times([3.0], [4.0]).wall_median == 4.0


def test_the_rates_kernels_compile_for_every_generation() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="needs the CUDA bindings: cuda-python")
    from benchmarks.gpu.rates import SOURCE, compile_for

    for architecture in ("sm_75", "sm_90", "compute_90"):
        assert len(compile_for(architecture, SOURCE)) > 1000
