"""Verification notices what is wrong with a bundle, wherever it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talksplat.bundle import Bundle, BundleWriter
from talksplat.errors import VerificationError
from talksplat_export.parity import psnr_db
from talksplat_export.probe_speech import probe_speech
from talksplat_export.verify import verify_bundle

Array = NDArray[Any]


def _tampered(
    bundle: Bundle, path: Path, file: str, tensor: str, change: Callable[[Array], Array]
) -> Bundle:
    """The same bundle with one tensor changed and its hashes right."""
    with BundleWriter(path) as writer:
        for name in bundle.manifest.graphs:
            writer.add_graph(name, bundle.graph_file(name).read_bytes())
        for name in bundle.manifest.files:
            if name.endswith(".safetensors"):
                tensors = bundle.tensors(name)
                if name == file:
                    tensors[tensor] = change(tensors[tensor])
                writer.add_tensors(name, tensors)
        return writer.commit(bundle.manifest)


def _wrong_quaternion_order(rest: Array) -> Array:
    return rest[:, [0, 1, 2, 4, 5, 6, 3, 7, 8, 9]]


@pytest.mark.parametrize(
    ("file", "tensor", "change", "message"),
    [
        ("baked", "face_rest", _wrong_quaternion_order, r"motion.onnx: face_quats"),
        ("baked", "mouth_general_attention", lambda a: a * 1.1, r"motion.onnx: mouth_means"),
        ("face", "shs", lambda shs: shs[:, ::-1], r"final frames reach"),
        ("tracks", "viewmats", lambda poses: np.roll(poses, 1, axis=0), r"final frames reach"),
        ("background", "image", lambda image: image[:, ::-1], r"final frames reach"),
        ("pncc", "basis", lambda basis: -basis, r"final frames reach"),
    ],
)
def test_a_wrong_tensor_is_noticed(
    bundle: Bundle,
    checkpoint_path: Path,
    tmp_path: Path,
    file: str,
    tensor: str,
    change: Callable[[Array], Array],
    message: str,
) -> None:
    wrong = _tampered(bundle, tmp_path / "wrong.avatar", f"{file}.safetensors", tensor, change)
    with pytest.raises(VerificationError, match=message):
        verify_bundle(wrong.path, checkpoint_path)


def test_psnr() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(black, black) == math.inf
    assert psnr_db(black + np.uint8(255), black) == 0.0
    assert psnr_db(black + np.uint8(1), black) == pytest.approx(20 * math.log10(255))


def test_made_up_speech_has_sound_and_silence() -> None:
    speech = probe_speech(2.0)
    assert speech.shape == (32000,)
    assert speech.dtype == np.float32
    assert 0.25 < np.abs(speech).max() <= 0.31
    loudness = np.abs(speech).reshape(-1, 160).max(axis=1)
    assert loudness.min() < 0.05 < np.median(loudness)
    assert np.array_equal(speech, probe_speech(2.0))
