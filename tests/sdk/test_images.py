"""Floats to bytes."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.errors import InputError
from talksplat.images import to_uint8


def truncated(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (3, 100), (129, 67)])
@pytest.mark.parametrize("channel_first", [False, True])
def test_same_bytes_as_numpy(size: tuple[int, int], channel_first: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-0.2, 1.2, size=(*size, 3)).astype(np.float32)
    image.flat[:3] = (0.0, 1.0, np.nextafter(np.float32(1), np.float32(0)))
    given = np.ascontiguousarray(image.transpose(2, 0, 1)) if channel_first else image
    np.testing.assert_array_equal(to_uint8(given), truncated(image))


def test_every_byte_keeps_its_value() -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.broadcast_to(
        (values / np.float32(255)).astype(np.float32)[:, None, None], (256, 4, 3)
    )
    np.testing.assert_array_equal(to_uint8(image), truncated(image))


def test_strides_are_followed() -> None:
    image = np.random.default_rng(1).uniform(size=(20, 30, 3)).astype(np.float32)
    for view in (image[::2, ::3], image[::-1], image[:, :, ::-1], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(to_uint8(view), truncated(view))


def test_what_is_not_a_number_is_black() -> None:
    image = np.full((4, 20, 3), np.nan, np.float32)
    image[0] = np.inf
    image[1] = -np.inf
    measured = to_uint8(image)
    assert (measured[0] == 255).all()
    assert (measured[1:] == 0).all()


def test_out_is_written_and_returned() -> None:
    image = np.random.default_rng(2).uniform(size=(6, 9, 3)).astype(np.float32)
    out = np.empty((6, 9, 3), np.uint8)
    assert to_uint8(image, out) is out
    np.testing.assert_array_equal(out, truncated(image))


def test_other_arrays_are_refused() -> None:
    with pytest.raises(InputError, match=r"image: expected float32 .*found float64"):
        to_uint8(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"found float32 \[4, 4, 4\]"):
        to_uint8(np.zeros((4, 4, 4), np.float32))
    with pytest.raises(InputError, match="out: expected C-contiguous uint8"):
        to_uint8(np.zeros((4, 4, 3), np.float32), np.zeros((4, 5, 3), np.uint8))
