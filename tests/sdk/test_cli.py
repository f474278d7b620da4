"""The command line: what it writes, what it prints, how it fails."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from synthetic_bundle import speech_like
from synthetic_families import VARIANTS, write_family_bundle

from talksplat import installation
from talksplat.cli import VERBS, main
from talksplat.errors import BackendError
from talksplat.video import read_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A second of sound at 44.1 kHz in stereo."""
    path = tmp_path / "speech.wav"
    sound = speech_like(44100)
    soundfile.write(path, np.stack([sound, sound], axis=1), 44100)
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    """Run a verb that must fail; its message, one line without a traceback."""
    assert main([str(argument) for argument in arguments]) == status
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.startswith(f"talksplat {arguments[0]}: error: ")
    return message


def test_run_writes_an_mp4(
    bundle_path: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "out.mp4"
    assert main(["run", str(bundle_path), str(speech), "-o", str(output)]) == 0
    assert "25 frames" in capsys.readouterr().out
    with av.open(str(output)) as container:
        assert container.streams.video[0].frames == 25


def test_run_writes_pictures_at_another_rate(
    bundle_path: Path, speech: Path, tmp_path: Path
) -> None:
    output = tmp_path / "frames"
    assert main(["run", str(bundle_path), str(speech), "-o", str(output), "--fps", "10"]) == 0
    assert len(list(output.iterdir())) == 10


@pytest.mark.parametrize("family", VARIANTS)
def test_every_verb_takes_every_family(
    family_bundles: dict[str, Path],
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    family: str,
) -> None:
    bundle, out = str(family_bundles[family]), tmp_path / "out"
    assert main(["run", bundle, str(speech), "-o", str(tmp_path / "frames")]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 25
    assert main(["demo", bundle, str(speech), "-o", str(out)]) == 0
    assert sorted(path.suffix for path in out.iterdir()) == [".mp4", ".png"]
    assert main(["bench", bundle, str(speech), "--rounds", "1"]) == 0
    assert main(["doctor", bundle]) == 0
    assert main(["inspect", bundle]) == 0
    printed = capsys.readouterr().out
    for word in ("real-time factor", "speaks; first frame after", family, "audio_encoder"):
        assert word in printed


@pytest.mark.parametrize("family", VARIANTS)
def test_every_verb_takes_an_avatar_that_hears_features(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    bundle = tmp_path / "deaf.avatar"
    write_family_bundle(bundle, replace(VARIANTS[family], encoder=False))
    features, frames = tmp_path / "aud.npy", tmp_path / "frames"
    np.save(features, np.zeros((25, 16, 4), np.float32))
    given = ["--features", str(features)]
    assert main(["run", str(bundle), str(speech), "-o", str(frames), *given]) == 0
    assert len(list(frames.iterdir())) == 25
    assert main(["demo", str(bundle), str(speech), "-o", str(tmp_path / "out"), *given]) == 0
    assert main(["bench", str(bundle), str(speech), "--rounds", "1", *given]) == 0
    assert main(["doctor", str(bundle)]) == 0
    assert main(["inspect", str(bundle)]) == 0
    printed = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    assert "no audio encoder inside" in printed
    assert "for speech of" not in printed
    np.save(features, np.zeros((33, 4), np.float32))
    assert main(["run", str(bundle), str(speech), "-o", str(tmp_path / "short"), *given]) == 0
    assert "features of 17 frames for speech of 25" in capsys.readouterr().out
    for verb in ("run", "demo"):
        message = fails(capsys, verb, bundle, speech, "-o", tmp_path / "none.mp4")
        assert "--features" in message
    np.save(features, np.zeros((25, 16, 5), np.float32))
    message = fails(capsys, "run", bundle, speech, "-o", tmp_path / "none.mp4", *given)
    assert "[T,16,4]" in message
    assert not (tmp_path / "none.mp4").exists()


def test_bench_of_an_avatar_that_hears_features_needs_neither(tmp_path: Path) -> None:
    bundle, path = tmp_path / "deaf.avatar", tmp_path / "report.json"
    write_family_bundle(bundle, replace(VARIANTS["talkinggaussian"], encoder=False))
    assert main(["bench", str(bundle), "--rounds", "1", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["first_frame_audio_ms"] == 40


def test_scene_from_files(
    family_bundles: dict[str, Path],
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Torso pictures, action units and camera of a capture; a bad one stops with nothing left."""
    torsos = tmp_path / "torso_imgs"
    torsos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(25):
        picture = rng.integers(0, 256, (48, 64, 4), dtype=np.uint8)
        Image.fromarray(picture).save(torsos / f"{number}.png")
    units = tmp_path / "au.csv"
    names = ", ".join(f"AU{unit:02d}_r" for unit in (1, 4, 5, 6, 7, 45))
    units.write_text(f"frame, {names}\n" + "".join(f"{n}, 1, 2, 3, 4, 5, 1\n" for n in range(25)))
    pose = tmp_path / "pose.npz"
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0])
    viewmat[2, 3] = 0.7
    np.savez(pose, viewmats=viewmat[None])
    scene = ["--background", torsos, "--upper-face", units, "--pose", pose]
    bundle, output = family_bundles["instag"], tmp_path / "frames"
    arguments = ["run", bundle, speech, "-o", output, *scene]
    assert main([str(argument) for argument in arguments]) == 0
    assert len(list(output.iterdir())) == 25
    transforms = tmp_path / "transforms_val.json"
    camera = np.diag([1.0, 1.0, 1.0, 1.0])
    camera[2, 3] = 0.7
    frames = [{"transform_matrix": camera.tolist(), "img_id": n} for n in (20, 21, 30)]
    transforms.write_text(json.dumps({"frames": frames}))
    scene[-1] = transforms
    message = fails(capsys, "run", bundle, speech, "-o", tmp_path / "x", *scene)
    assert "frames up to 30" in message
    scene[-1] = pose
    sdtalk = family_bundles["sdtalk"]
    message = fails(capsys, "run", sdtalk, speech, "-o", tmp_path / "x", "--upper-face", units)
    assert "lid openings" in message
    message = fails(capsys, "run", sdtalk, speech, "-o", tmp_path / "x", "--noise-seed", "1")
    assert "noise" in message
    (torsos / "20.png").write_bytes(b"cut off")
    message = fails(capsys, "run", bundle, speech, "-o", tmp_path / "late" / "x.mp4", *scene)
    assert "20.png" in message
    assert list((tmp_path / "late").iterdir()) == [] and not (tmp_path / "x").exists()


def test_run_refuses_other_outputs(
    bundle_path: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "run", bundle_path, speech, "-o", tmp_path / "out.avi")
    assert ".mp4" in message
    assert not (tmp_path / "out.avi").exists()


def test_bad_input_is_one_message_and_no_output(
    own_bundle: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    silent = tmp_path / "empty.wav"
    soundfile.write(silent, np.zeros(0), 16000)
    assert "no samples" in fails(capsys, "run", own_bundle, silent, "-o", output)
    (own_bundle / "motion.onnx").write_bytes(b"")
    assert "damaged" in fails(capsys, "run", own_bundle, speech, "-o", output)
    assert "found nothing" in fails(capsys, "inspect", tmp_path / "none.avatar")
    assert "out of range" not in fails(capsys, "bench", own_bundle, "--rounds", "0")
    assert not output.exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="found nothing"):
        main(["inspect", str(tmp_path / "none.avatar"), "--debug"])


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["run"], ["dance"], ["run", "a", "b", "-o", "c", "--fps", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_inspect_prints_everything(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle_path)]) == 0
    printed = capsys.readouterr().out
    for word in ("synthetic", "d3talker", "audio_encoder", "baked.safetensors", "Apache-2.0"):
        assert word in printed
    assert main(["inspect", str(bundle_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "d3talker"


def test_bench_reports_numbers_that_agree(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert main(["bench", str(bundle_path), "--rounds", "2", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert report["frames"] == 2 * 250
    assert report["timer"] in re.sub(r"\s+", " ", capsys.readouterr().out)
    assert (
        report["frame_p50_ms"]
        <= report["frame_p95_ms"]
        <= report["frame_p99_ms"]
        <= report["frame_max_ms"]
    )
    delay = report["first_frame_audio_ms"] + report["first_frame_compute_ms"]
    assert report["first_frame_delay_ms"] == pytest.approx(delay)
    # The parts are the whole: stages and Python make up the real-time factor.
    per_frame = sum(report["stages_ms"].values()) + report["python_ms"]
    factor = np.mean(report["real_time_factors"])
    assert per_frame / 40 == pytest.approx(factor, rel=1e-6)
    assert report["peak_memory_bytes"] > 20e6
    assert report["installed_bytes"] > 50e6


def test_installed_size_counts_what_pyproject_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[a-z]+", line)[0] for line in project["dependencies"]}  # type: ignore[index]
    assert names == set(installation.REQUIREMENTS)


def test_doctor_finds_this_installation_whole(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(bundle_path)]) == 0
    printed = capsys.readouterr().out
    assert "broken" not in printed
    assert "backend onnxruntime-cpu: usable" in printed


def test_square_brackets_are_printed_as_they_are(
    own_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_bundle.rename(own_bundle.parent / "a[bold]da.avatar")
    assert main(["inspect", str(path)]) == 0
    assert main(["doctor", str(path)]) == 0
    assert capsys.readouterr().out.count("a[bold]da.avatar") == 2


def test_doctor_names_what_is_broken_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from talksplat import doctor

    def broken() -> str:
        raise ImportError("libstdc++.so.6: version not found")

    monkeypatch.setattr(doctor, "_rasterizer", broken)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "libstdc++" in captured.out and "pip install" in captured.out
    assert "broken: rasterizer" in captured.err


def test_demo_writes_video_and_contact_sheet(
    bundle_path: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["demo", str(bundle_path), str(speech), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["synthetic.mp4", "synthetic.png"]
    assert read_image(out / "synthetic.png").shape == (4 * 148 + 4, 6 * 196 + 4, 3)
    assert "real-time factor" in capsys.readouterr().out


def test_export_and_verify_say_how_to_install_the_extra(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from talksplat.cli import lab

    monkeypatch.setattr(lab.util, "find_spec", lambda name: None)
    for arguments in (["export", "x.pt", "-o", "x.avatar"], ["verify", bundle_path, "x.pt"]):
        assert "talksplat[export]" in fails(capsys, *arguments)
    with pytest.raises(BackendError):
        lab.import_lab("export")


# Python's own finder, made blind: as if these were not installed.
BLOCKER = """
import sys
from importlib.machinery import PathFinder
class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "talksplat_export", "PIL"}:
            return None
        return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
"""


def run_blocked(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python where torch, onnx and the lab side cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_whole_run_without_torch_onnx_and_the_lab_side(
    bundle_path: Path, speech: Path, tmp_path: Path
) -> None:
    assert run_blocked("import torch").returncode != 0
    result = run_blocked("import talksplat; talksplat.load, talksplat.rasterize")
    assert result.returncode == 0, result.stderr
    output = tmp_path / "out.mp4"
    arguments = ["run", str(bundle_path), str(speech), "-o", str(output)]
    result = run_blocked(f"from talksplat.cli import main; sys.exit(main({arguments!r}))")
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size > 1000
    result = run_blocked("from talksplat.cli import main; sys.exit(main(['doctor']))")
    assert result.returncode == 0 and "talksplat[export]" in result.stdout


def test_full_disk_ends_with_an_error_and_nothing_half_written(
    bundle_path: Path, speech: Path, tmp_path: Path
) -> None:
    """A real limit of the operating system, in a process of its own."""
    output = tmp_path / "full" / "out.mp4"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "talksplat",
            "run",
            str(bundle_path),
            str(speech),
            "-o",
            str(output),
        ],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)),
    )
    assert result.returncode == 1
    assert "Cannot write" in result.stderr and "Traceback" not in result.stderr
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(bundle_path: Path, tmp_path: Path, number: int) -> None:
    speech = tmp_path / "long.wav"
    soundfile.write(speech, np.zeros(16000 * 600), 16000)
    output = tmp_path / "stopped" / "out.mp4"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "talksplat",
            "run",
            str(bundle_path),
            str(speech),
            "-o",
            str(output),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (output.parent.exists() and list(output.parent.iterdir())):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in message and "Traceback" not in message
    assert list(output.parent.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_error(bundle_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "talksplat", "inspect", str(bundle_path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(timeout=60)
    process.stderr.close()
