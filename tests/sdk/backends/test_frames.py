"""Frames of the GPU backends: those of the CPU, captured or not, however audio is cut."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_bundle import HEIGHT, WIDTH, speech_like
from synthetic_families import VARIANTS

import talksplat
from talksplat import Frame, Session
from talksplat.speech import speak
from tests.sdk.backends.conftest import GpuMachine, frames_of

FAMILIES = ("d3talker", *VARIANTS)
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
CLIP = speech_like(640 * 8 - 40)


def images(frames: list[Frame]) -> NDArray[np.uint8]:
    return np.stack([frame.image for frame in frames])


def alphas(frames: list[Frame]) -> NDArray[np.float32]:
    return np.stack([frame.alpha for frame in frames])


def psnr(found: NDArray[np.generic], expected: NDArray[np.generic], peak: float) -> float:
    error = np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    np.testing.assert_array_equal(images(found), images(expected))
    np.testing.assert_array_equal(alphas(found), alphas(expected))


@pytest.fixture(scope="module")
def on_the_cpu(all_bundles: dict[str, Path]) -> dict[str, list[Frame]]:
    return {name: frames_of(path, "onnxruntime-cpu", CLIP) for name, path in all_bundles.items()}


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_those_of_the_cpu(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    on_the_cpu: dict[str, list[Frame]],
    family: str,
    backend: str,
) -> None:
    expected = on_the_cpu[family]
    found = frames_of(all_bundles[family], backend, CLIP)
    print((images(found)!=images(expected)).mean(), psnr(images(found),images(expected),255), psnr(alphas(found),alphas(expected),1))
