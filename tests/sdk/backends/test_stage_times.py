"""Stages timed on the device: the same frames, and every stage with a time of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_bundle import speech_like
from tests.sdk.backends.conftest import GpuMachine, frames_of

import talksplat
from talksplat import families
from talksplat.bundle import Bundle
from talksplat.speech import speak

CLIP = speech_like(5 * 640)


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "onnxruntime-cuda"])
@pytest.mark.parametrize("family", ["d3talker", "sdtalk"])
def test_every_stage_of_the_program_is_timed(
    gpu: GpuMachine, all_bundles: dict[str, Path], family: str, backend: str
) -> None:
    path = all_bundles[family]
    untimed = frames_of(path, backend, CLIP)
    with (
        talksplat.load(path, backend, 1, stage_times=True) as avatar,
        avatar.session() as session,
    ):
        timed = list(speak(session, CLIP))
    stages = {step.stage for step in families.frame_program(Bundle.open(path)).steps}
    # The first frame of a session is made call by call, the others by replaying.
    for frame, plain in zip(timed, untimed, strict=True):
        np.testing.assert_array_equal(frame.image, plain.image)
        assert stages <= set(frame.timings) and not stages <= set(plain.timings)
        assert all(frame.timings[stage] >= 0 for stage in stages)
        assert sum(frame.timings[stage] for stage in stages) > 0
        assert frame.timings["frame"] >= 0  # what the host did besides


def test_a_frame_that_is_one_engine_is_one_stage(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    with (
        talksplat.load(all_bundles["sdtalk"], "tensorrt", 1, stage_times=True) as avatar,
        avatar.session() as session,
    ):
        (first, *_) = speak(session, CLIP)
    assert first.timings["frame"] > 0


def test_the_cpu_times_its_stages_anyway(all_bundles: dict[str, Path]) -> None:
    with (
        talksplat.load(all_bundles["sdtalk"], "onnxruntime-cpu", stage_times=True) as avatar,
        avatar.session() as session,
    ):
        (first, *_) = speak(session, CLIP)
    assert {"motion", "rasterize", "refiner"} <= set(first.timings)
