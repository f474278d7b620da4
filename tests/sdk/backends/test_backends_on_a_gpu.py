"""Whole frames on a real GPU with the real libraries; skipped, with the reason, without them.

``python -m pytest -rs tests/sdk/backends/test_backends_on_a_gpu.py``
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic_bundle import speech_like
from tests.sdk.backends.conftest import frames_of
from tests.sdk.backends.test_frames import (
    CAPTURING,
    CLIP,
    FAMILIES,
    GPU_BACKENDS,
    alphas,
    assert_same,
    images,
    inputs_of,
    only_frame,
    psnr,
    stream,
)

import talksplat
from talksplat import Frame, families
from talksplat.backends import Options, open_backend
from talksplat.bundle import Bundle
from talksplat.errors import BackendError
from talksplat.speech import speak
from talksplat.timings import Timings


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines and kernels are made for these tests, and made once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=GPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    skip_unless_usable(name)
    return name


def skip_unless_usable(name: str) -> None:
    try:
        open_backend(name, Options(threads=1)).close()
    except BackendError as error:
        pytest.skip(f"{name} cannot be used here: {error}")


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_those_of_the_cpu(
    all_bundles: dict[str, Path], family: str, backend: str
) -> None:
    expected = frames_of(all_bundles[family], "onnxruntime-cpu", CLIP)
    found = frames_of(all_bundles[family], backend, CLIP)
    assert psnr(images(found), images(expected), 255) >= 90
    assert psnr(alphas(found), alphas(expected), 1) >= 90


@pytest.mark.parametrize("name", CAPTURING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_replayed_frame_is_the_eager_one_bit_for_bit(
    all_bundles: dict[str, Path], family: str, name: str
) -> None:
    skip_unless_usable(name)
    program = families.frame_program(Bundle.open(all_bundles[family]))
    inputs = inputs_of(program, 1)
    with (
        talksplat.load(all_bundles[family], name, 1) as avatar,
        only_frame(avatar).runner() as runner,
    ):
        eager = runner.run(inputs, Timings())
        assert runner.captured
        runner.run(inputs_of(program, 2), Timings())
        replayed = runner.run(inputs, Timings())
    np.testing.assert_array_equal(replayed.image, eager.image)
    np.testing.assert_array_equal(replayed.alpha, eager.alpha)


@pytest.mark.parametrize("family", FAMILIES)
def test_streaming_is_offline_bit_for_bit(
    all_bundles: dict[str, Path], family: str, backend: str
) -> None:
    with talksplat.load(all_bundles[family], backend, 1) as avatar:
        with avatar.session() as session:
            offline = list(speak(session, CLIP))
        with avatar.session() as session:
            assert_same(stream(session, 641), offline)


def test_sessions_at_once_do_not_disturb_each_other(
    all_bundles: dict[str, Path], backend: str
) -> None:
    speeches = [speech_like(640 * 25, seed=seed) for seed in range(4)]
    with talksplat.load(all_bundles["d3talker"], backend, 1) as avatar:

        def frames(number: int) -> list[Frame]:
            with avatar.session() as session:
                return list(speak(session, speeches[number]))

        alone = [frames(number) for number in range(len(speeches))]
        together: dict[int, list[Frame]] = {}
        threads = [
            threading.Thread(target=lambda number=number: together.update({number: frames(number)}))
            for number in range(len(speeches))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, expected in enumerate(alone):
        assert_same(together[number], expected)


def test_frames_on_the_device_outlive_session_and_avatar(
    all_bundles: dict[str, Path], backend: str
) -> None:
    on_the_host = frames_of(all_bundles["sdtalk"], backend, CLIP)
    on_the_device = frames_of(all_bundles["sdtalk"], backend, CLIP, frames="device")
    for found, expected in zip(on_the_device, on_the_host, strict=True):
        np.testing.assert_array_equal(found.image.numpy(), expected.image)
        np.testing.assert_array_equal(found.alpha.numpy(), expected.alpha)
