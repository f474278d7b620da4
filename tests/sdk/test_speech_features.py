"""Precomputed features: what is read, what is refused, and the windows cut from them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talksplat.errors import InputError
from talksplat.manifest import WindowContract
from talksplat.speech_features import FeatureWindows, check_features, read_features

DEEPSPEECH = WindowContract(4, 3, 16, 8)
HUBERT = WindowContract(4, 3, 2, 0)
AVE = WindowContract(4, 3, 1, 0)
SDTALK = WindowContract(0, 0, 16, 8)


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_of_numpy_are_read_as_float32(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    np.save(tmp_path / "aud.npy", np.asarray(values, dtype, order=order))
    features = read_features(tmp_path / "aud.npy")
    assert features.dtype == np.float32 and features.flags.c_contiguous
    np.testing.assert_array_equal(features, values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a NumPy array file"),
        (pickle.dumps({"a": 1}), "not a NumPy array file"),
        (saved(np.array([[object()]], object)), "object"),
        (saved(np.zeros((2, 2), np.int64)), "int64"),
        (saved(np.zeros((2, 2), [("a", np.float32)])), "must hold"),
        (saved(np.zeros((2, 2), np.float32))[:-1], "damaged"),
        (saved(np.zeros((2, 2), np.float32)) + b"x", "damaged"),
        (saved(np.zeros(4, np.float32)), "found \\[4\\]"),
        (saved(np.zeros((0, 4), np.float32)), "found \\[0, 4\\]"),
        (saved(np.zeros((1, 2, 2, 2), np.float32)), "found \\[1, 2, 2, 2\\]"),
        (saved(np.array([[0.0], [np.nan]])), "row 1 holds NaN"),
        (saved(np.array([[1e300]])), "row 0 holds NaN or infinity"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "aud.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_features(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read_features(tmp_path / "none.npy")


def test_pickled_objects_are_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "trapped",))

    (tmp_path / "aud.npy").write_bytes(saved(np.array([[Trap()]], object)))
    with pytest.raises(InputError):
        read_features(tmp_path / "aud.npy")
    assert not (tmp_path / "trapped").exists()


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path: Path) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (1_000_000, 4096, 4096)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    (tmp_path / "aud.npy").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="damaged or too large"):
        read_features(tmp_path / "aud.npy")


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.integers(0, 300),
)
def test_damaged_files_are_refused_or_read_whole(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], keep: int
) -> None:
    content = bytearray(saved(np.ones((3, 2, 4), np.float32)))
    for position, value in edits:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(content[:keep] if keep < len(content) else content)
    try:
        features = read_features(path)
    except InputError:
        return
    assert features.ndim in (2, 3) and np.isfinite(features).all()


def test_arrays_are_checked_as_files_are() -> None:
    assert check_features(np.ones((2, 3), np.float16)).dtype == np.float32
    for array in (np.ones((2, 3), np.int32), np.ones(3), np.full((1, 1), np.inf), [["a"]]):
        with pytest.raises(InputError):
            check_features(array)


@pytest.mark.parametrize("window", [DEEPSPEECH, HUBERT, AVE], ids=["deepspeech", "hubert", "ave"])
def test_windows_per_frame_are_zero_beyond_both_ends(window: WindowContract) -> None:
    array = np.random.default_rng(0).normal(size=(6, window.tokens, 3)).astype(np.float32)
    windows = FeatureWindows(array, window, feature_size=3, frame_tokens=2)
    assert windows.frames == 6
    for frame in range(-9, 15):
        heard = windows.at(frame)
        assert heard.shape == (8, window.tokens, 3)
        for row, source in enumerate(range(frame - 4, frame + 4)):
            inside = 0 <= source < 6
            np.testing.assert_array_equal(heard[row], array[source] if inside else 0)


@pytest.mark.parametrize("window", [DEEPSPEECH, SDTALK], ids=["deepspeech", "sdtalk"])
@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_windows_are_cut_from_tokens(window: WindowContract, tokens: int) -> None:
    """Token t of a clip holds t + 1, so that 0 is told from what lies beyond the clip."""
    array = np.arange(1, tokens + 1, dtype=np.float32)[:, None].repeat(5, axis=1)
    windows = FeatureWindows(array, window, feature_size=5, frame_tokens=2)
    assert windows.frames == -(-tokens // 2)
    for frame in range(-6, windows.frames + 6):
        heard = windows.at(frame)
        for row, source in enumerate(
            range(frame - window.frames_before, frame + window.frames_after + 1)
        ):
            for column, token in enumerate(range(2 * source - 8, 2 * source + 8)):
                inside = 0 <= source < windows.frames and 0 <= token < tokens
                assert (heard[row, column] == (token + 1 if inside else 0)).all()


def test_tokens_and_the_windows_cut_from_them_are_the_same_features() -> None:
    """As upstream cuts DeepSpeech's windows: 8 zero tokens at each end, 16 tokens every 2."""
    tokens = np.random.default_rng(1).normal(size=(30, 29)).astype(np.float32)
    padded = np.pad(tokens, ((8, 8), (0, 0)))
    cut = np.stack([padded[start : start + 16] for start in range(0, 30, 2)])
    by_frame = FeatureWindows(cut, DEEPSPEECH, 29, 2)
    by_token = FeatureWindows(tokens, DEEPSPEECH, 29, 2)
    assert by_frame.frames == by_token.frames == 15
    for frame in range(15):
        np.testing.assert_array_equal(by_frame.at(frame), by_token.at(frame))


def test_ave_is_taken_in_both_layouts() -> None:
    array = np.random.default_rng(2).normal(size=(7, 512)).astype(np.float32)
    expected = FeatureWindows(array, AVE, 512, 1).at(5)
    for layout in (array[:, :, None], array[:, None, :]):
        np.testing.assert_array_equal(FeatureWindows(layout, AVE, 512, 1).at(5), expected)


def test_features_of_another_encoder_are_refused() -> None:
    for shape in ((9, 16, 44), (9, 2, 29), (9, 1024), (9, 29, 16)):
        with pytest.raises(InputError, match=r"\[T,16,29\].*\[L,29\]"):
            FeatureWindows(np.zeros(shape, np.float32), DEEPSPEECH, 29, 2)


def test_a_window_belongs_to_the_caller() -> None:
    array = np.ones((4, 2, 3), np.float32)
    windows = FeatureWindows(array, HUBERT, 3, 2)
    windows.at(2)[:] = 5.0
    assert windows.at(2).max() == 1.0 and array.max() == 1.0
