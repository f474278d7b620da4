"""Windows over absolute positions do not depend on how rows arrived or were forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talksplat.errors import InputError
from talksplat.ring import Ring


def rows(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.float32)[:, None] * np.array([1, 10], np.float32)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pieces=st.lists(st.integers(0, 9), max_size=12), margin=st.integers(0, 5))
def test_windows_are_those_of_the_whole(pieces: list[int], margin: int) -> None:
    whole = rows(sum(pieces))
    ring = Ring((2,))
    for piece in pieces:
        ring.append(whole[ring.end : ring.end + piece])
        ring.forget(ring.end - margin)
        assert ring.end - ring.start <= max(margin, piece) + margin
        padded = np.concatenate([whole[: ring.end], np.zeros((4, 2), np.float32)])
        window = ring.zero_padded(ring.start, ring.end + 4)
        np.testing.assert_array_equal(window, padded[ring.start :])
    assert ring.end == len(whole)


def test_zeros_before_and_after() -> None:
    ring = Ring(())
    ring.append(np.array([1, 2, 3], np.float32))
    assert ring.zero_padded(-2, 5).tolist() == [0, 0, 1, 2, 3, 0, 0]
    assert ring.zero_padded(7, 9).tolist() == [0, 0]
    assert ring.zero_padded(-9, -7).tolist() == [0, 0]


def test_clamped_repeats_the_ends() -> None:
    ring = Ring(())
    ring.append(np.array([1, 2, 3], np.float32))
    assert ring.clamped(-2, 5).tolist() == [1, 1, 1, 2, 3, 3, 3]


def test_forgotten_rows_are_refused_rather_than_wrong() -> None:
    ring = Ring(())
    ring.append(np.arange(10, dtype=np.float32))
    ring.forget(4)
    assert ring.zero_padded(4, 6).tolist() == [4, 5]
    with pytest.raises(InputError):
        ring.zero_padded(3, 6)
    with pytest.raises(InputError):
        ring.zero_padded(-1, 1)


def test_memory_is_bounded_by_what_is_kept() -> None:
    ring = Ring((2,))
    for _ in range(1000):
        ring.append(rows(10))
        ring.forget(ring.end - 20)
    assert len(ring._rows) <= 4 * 30
