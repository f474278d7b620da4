"""Whole frames on an imaginary GPU, and torch's frames, which must be the checkpoint's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from benchmarks.gpu.floors import Rates, Work
from benchmarks.gpu.gsplat_peer import peer_draw
from benchmarks.gpu.probes import Answer
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.torch_frames import AdaFrames, SdtalkFrames
from benchmarks.gpu.whole_frames import Measured, PeerTimes
from tests.export.avatar_factory import make_checkpoint, probe_speech
from tests.export.checkpoints.sdtalk_files import SMALL_CONFIG, make_person, save_checkpoint

from benchmarks import sdtalk_full_size
from benchmarks.gpu import ada, frame_work, sdtalk, whole_frames
from talksplat.bundle import Bundle
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.export import export_checkpoint
from talksplat_export.families.load import load_family
from talksplat_export.families.sdtalk_export import SdtalkExport
from talksplat_export.options import ExportOptions

RATES = Rates(copy=1e12, multiply_add=1e13, matrix=None, launch=2e-6)
CPU = torch.device("cpu")
FRAMES = 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A small avatar with random weights, exported."""
    folder = tmp_path_factory.mktemp("avatar")
    make_checkpoint(face=80, mouth=20).save(folder / "random.pt")
    export_checkpoint(folder / "random.pt", folder / "random.avatar")
    pcm = probe_speech(FRAMES * 640).numpy()
    soundfile.write(folder / "speech.wav", pcm, 16000, subtype="FLOAT")
    return Settings(
        ada=folder / "random.avatar",
        checkpoint=folder / "random.pt",
        speech=folder / "speech.wav",
        frames=FRAMES,
        seconds=0.1,
        sessions=1,
    )


def differing(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Share of bytes that differ by more than one."""
    return float((np.abs(one.astype(int) - other) > 1).mean())


def test_torch_draws_the_frames_of_the_checkpoint(settings: Settings) -> None:
    checkpoint = AvatarCheckpoint.load(settings.checkpoint)
    pcm, _ = soundfile.read(settings.speech, dtype="float32")
    from talksplat_export.families.d3talker_reference import D3TalkerReference

    expected = D3TalkerReference(checkpoint, 1).render(pcm).frames
    draw = peer_draw(False, checkpoint.rasterizer.dialect)
    frames = AdaFrames(checkpoint, settings.speech, CPU, draw)
    stages: list[str] = []
    found = [frames.frame(number, stages.append).numpy() for number in range(len(expected))]
    assert stages[:5] == ["upload", "motion", "rasterize", "refiner", "output"]
    assert differing(np.stack(found), expected) < 1e-3
    assert not np.array_equal(found[0], found[-1])


def test_torch_draws_the_frames_of_sdtalk(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "SDGTalk.pt", SMALL_CONFIG)
    make_person().save(tmp_path / "person.npz")
    options = ExportOptions(identity=tmp_path / "person.npz")
    family = load_family(tmp_path / "SDGTalk.pt", options)
    assert isinstance(family, SdtalkExport)
    reference = family.reference(probe_speech(FRAMES * 640).numpy())
    assert reference.features is not None
    frames = SdtalkFrames(family, reference.features, FRAMES, CPU, peer_draw(False, "inria"))
    found = [frames.frame(number, lambda stage: None).numpy() for number in range(FRAMES)]
    assert differing(np.stack(found), reference.frames) < 1e-3


@pytest.fixture
def all_answer_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are asked in processes of their own, where the GPU is no imaginary one."""
    monkeypatch.setattr(
        whole_frames.probes, "ask", lambda name: Answer(name, name != "tensorrt", "seen", 0.1)
    )


def test_every_backend_is_measured_or_named(
    gpu: Any, all_answer_yes: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_frames, "measure_rates", lambda device: RATES)
    monkeypatch.setattr(whole_frames, "COMPARED", 2)
    counted = {"motion": Work(matrix_flops=1e6), "refiner": Work(bytes=1e6)}
    monkeypatch.setattr(whole_frames, "work_of", lambda bundle: counted)
    backends = (("tensorrt-rtx", "fp32"), ("onnxruntime-cuda", "fp32"), ("tensorrt-rtx", "fp8"))
    monkeypatch.setattr(whole_frames, "BACKENDS", (*backends, ("tensorrt", "fp32")))
    monkeypatch.setattr(whole_frames, "LEAST_DB", {"fp32": 50.0, "fp16": 30.0})

    open_avatar = whole_frames.benchmark_gpu

    def refuse(*arguments: Any, **options: Any) -> Any:
        if options["precision"] == "fp8":
            raise whole_frames.BackendError("no such precision")
        return open_avatar(*arguments, **options)

    monkeypatch.setattr(whole_frames, "benchmark_gpu", refuse)
    findings = ada.measure(settings)
    assert findings.failures == []
    frames, stages, start, sessions, _ = findings.tables
    *ours, torch_row = frames.rows
    assert [row[0] for row in ours] == ["tensorrt-rtx, fp32", "onnxruntime-cuda, fp32"]
    assert torch_row[0] == "torch eager + talksplat.rasterize on the CPU"
    assert "Not measured, tensorrt-rtx fp8: no such precision" in findings.notes
    assert "Not measured, tensorrt fp32: seen" in findings.notes
    assert any(note.startswith("Torch's frames are not drawn by gsplat") for note in findings.notes)
    names = [row[0] for row in stages.rows]
    assert names[:2] == ["motion", "refiner"] and {"rasterize", "output", "pncc"} <= set(names)
    assert len(start.rows) == 2 and [row[1] for row in sessions.rows] == ["1", "1"]
    assert findings.figures["torch"]["stages"].keys() >= {"motion", "rasterize", "refiner"}


def test_without_a_backend_the_reasons_are_told(
    fake_driver: Any,
    all_answer_yes: None,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whole_frames, "measure_rates", lambda device: RATES)
    monkeypatch.setattr(whole_frames, "work_of", lambda bundle: {})
    monkeypatch.setattr(whole_frames, "BACKENDS", (("onnxruntime-cuda", "fp32"),))
    findings = ada.measure(replace(settings, ada=tmp_path / "made.avatar"))
    assert (tmp_path / "made.avatar").is_dir()  # from the checkpoint, where there is no bundle
    assert any(note.startswith("Not measured, onnxruntime-cuda fp32") for note in findings.notes)
    assert "No backend with a GPU could be measured; the reasons are above." in findings.notes
    assert findings.tables[0].rows[0][0].startswith("torch eager")


def measured(psnr: float | None, precision: str = "fp32") -> Measured:
    return Measured("a backend", precision, None, None, psnr)  # type: ignore[arg-type]


def test_pictures_must_be_the_cpu_s() -> None:
    assert whole_frames.judge(measured(None)) == [] == whole_frames.judge(measured(60.0))
    assert "49.0 dB" in whole_frames.judge(measured(49.0))[0]
    assert whole_frames.judge(measured(35.0, "fp16")) == []
    assert len(whole_frames.judge(measured(29.0, "fp16"))) == 1


def test_stages_stand_next_to_their_floors() -> None:
    peer = PeerTimes("torch", [4.0, 6.0], {"motion": 1.5, "output": 0.25})
    work = {"motion": Work(bytes=2e9, matrix_flops=4e9)}
    table = whole_frames.stage_table([], peer, work, RATES)
    assert table.rows == [
        ["motion", "1.500", "2000.0", "4.000", "2.0000"],
        ["output", "0.250", "", "", ""],
    ]
    assert peer.mean == 5.0
    assert whole_frames.frame_table([], peer).rows[-1][-3:] == ("5.00", "1.00", "")


def test_work_of_a_frame_is_kept_by_name_and_sizes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "work.json"
    frame_work.main([str(settings.ada), "--output", str(kept)])
    monkeypatch.setattr(frame_work, "FILE", kept)
    bundle = Bundle.open(settings.ada)
    counted = frame_work.count(bundle)

    def again(bundle: Bundle) -> Any:
        pytest.fail("counted again")

    monkeypatch.setattr(frame_work, "count", again)
    assert frame_work.work_of(bundle) == counted
    assert set(counted) >= {"audio_encoder", "motion", "rasterize", "refiner", "output"}
    size = 64 * 64
    output = counted["output"].bytes  # coverage of two alphas; three channels to bytes
    assert output == 3 * 4 * size + 3 * (4 * size + size)
    gaussians, pictures = 100 * (11 + 4 * 3) * 4, 2 * (3 + 3 + 1) * 4 * size
    unpacked = counted["rasterize"].bytes - gaussians - pictures
    assert unpacked == 3 * (4 * size + size)
    assert counted["rasterize"].flops > 0

    other = replace(bundle.manifest, video=replace(bundle.manifest.video, width=65))
    monkeypatch.setattr(frame_work, "count", lambda bundle: {"counted": Work()})
    bundle = Bundle.open(settings.ada)
    object.__setattr__(bundle, "manifest", other)
    assert frame_work.work_of(bundle) == {"counted": Work()}


def test_the_frames_of_a_run_are_all_kept() -> None:
    """As counted from the shipped avatar; parity with the count is another test's."""
    names: Sequence[str] = list(frame_work.json.loads(frame_work.FILE.read_text()))
    assert names == ["ada", "person"]


def test_sdtalk_is_made_exported_and_measured(
    gpu: Any, all_answer_yes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdtalk_full_size, "SdtalkConfig", lambda: SMALL_CONFIG)
    monkeypatch.setattr(sdtalk_full_size, "MASKED_VERTICES", 20)
    monkeypatch.setattr(whole_frames, "measure_rates", lambda device: RATES)
    monkeypatch.setattr(whole_frames, "COMPARED", 2)
    monkeypatch.setattr(whole_frames, "work_of", lambda bundle: {"motion": Work(bytes=1e6)})
    monkeypatch.setattr(whole_frames, "BACKENDS", (("onnxruntime-cuda", "fp32"),))
    settings = Settings(sdtalk=tmp_path / "made", frames=2, seconds=0.1, sessions=1)
    findings = sdtalk.measure(settings)
    assert findings.failures == []
    assert (tmp_path / "made/person.avatar/manifest.json").is_file()
    ours, torch_row = findings.tables[0].rows
    assert ours[0] == "onnxruntime-cuda, fp32" and torch_row[0].startswith("torch eager")
    written = (tmp_path / "made/person.avatar/manifest.json").stat().st_mtime_ns
    sdtalk.measure(settings)  # what is there is not made again
    assert (tmp_path / "made/person.avatar/manifest.json").stat().st_mtime_ns == written


def run_on_meta(frames: AdaFrames | SdtalkFrames) -> list[str]:
    """Stages of a frame that come to their end on a device that holds no numbers."""
    stages: list[str] = []
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        frames.frame(0, stages.append)  # but they cannot be read
    return stages


def draw_on_meta(**arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Stands for gsplat: everything it is given must be on the device."""
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    size = (1, arguments["height"], arguments["width"])
    channels = 3 if "sh_degree" in arguments else arguments["colors"].shape[-1]
    colors = torch.empty(*size, channels, device="meta")
    return colors, torch.empty(*size, 1, device="meta")


def test_nothing_of_torch_s_frames_stays_on_the_cpu(settings: Settings, tmp_path: Path) -> None:
    meta, most = torch.device("meta"), ["upload", "motion", "rasterize", "refiner"]
    checkpoint = AvatarCheckpoint.load(settings.checkpoint)
    assert run_on_meta(AdaFrames(checkpoint, settings.speech, meta, draw_on_meta)) == most
    save_checkpoint(tmp_path / "SDGTalk.pt", SMALL_CONFIG)
    make_person().save(tmp_path / "person.npz")
    options = ExportOptions(identity=tmp_path / "person.npz")
    family = load_family(tmp_path / "SDGTalk.pt", options)
    assert isinstance(family, SdtalkExport)
    tokens = np.zeros((4, family.checkpoint.feature_size), np.float32)
    assert run_on_meta(SdtalkFrames(family, tokens, 2, meta, draw_on_meta)) == most
