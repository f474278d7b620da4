"""The kernels between graphs have NumPy's bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from talksplat import compositing as on_host
from talksplat.cuda import Device, DeviceArray, Stream
from talksplat.cuda.compositing import MAX_LAYERS, Compositing
from talksplat.errors import InputError
from talksplat.images import to_uint8

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

Floats = NDArray[np.float32]

# Sizes that are no multiples of a block's threads, too.
SIZES = [(1, 1), (7, 5), (16, 16), (33, 50)]
# What a careless kernel would get wrong: denormals, values beside 1, what is not a number.
ODD = np.array(
    [0, 1, 1e-45, 1e-39, 2**-25, 1 - 2**-24, 1 + 2**-23, 0.1, 1 / 3, 254.5 / 255], np.float32
)


@pytest.fixture
def kernels(device: Device) -> Iterator[Compositing]:
    with Compositing(device) as opened:
        yield opened


def values(seed: int, *shape: int) -> Floats:
    """Numbers in 0..1 of which a third are odd."""
    random = np.random.default_rng(seed)
    plain = random.random(shape, np.float32)
    return np.where(random.random(shape) < 1 / 3, random.choice(ODD, shape), plain)


def empty(stream: Stream, *shape: int, dtype: str = "float32") -> DeviceArray:
    return DeviceArray.empty(stream.device, shape, dtype, stream)


def same_bits(found: Floats, expected: Floats) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_unpack(stream: Stream, kernels: Compositing, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = empty(stream, 1, 3, *size)
    kernels.unpack(stream, stream.to_device(picture), image)
    expected = np.divide(picture, np.float32(255)).transpose(2, 0, 1)[None]
    same_bits(image.numpy(), expected)


def test_unpack_of_every_byte(stream: Stream, kernels: Compositing) -> None:
    picture = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    image = empty(stream, 1, 3, 1, 256)
    kernels.unpack(stream, stream.to_device(picture), image)
    same_bits(image.numpy()[0, 1, 0], np.arange(256, dtype=np.uint8) / np.float32(255))


@pytest.mark.parametrize("size", SIZES)
def test_pack(stream: Stream, kernels: Compositing, size: tuple[int, int]) -> None:
    image = values(1, 1, 3, *size) * np.float32(1.5) - np.float32(0.25)
    wrong = np.random.default_rng(2).random(image.shape) < 0.1
    image[wrong] = np.resize(np.float32([np.nan, np.inf, -np.inf, -0.0]), wrong.sum())
    picture = empty(stream, *size, 3, dtype="uint8")
    kernels.pack(stream, stream.to_device(image), picture)
    np.testing.assert_array_equal(picture.numpy(), to_uint8(image[0]))


def test_what_was_unpacked_is_packed_to_the_same_bytes(
    stream: Stream, kernels: Compositing
) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8)
    image, again = empty(stream, 1, 3, 40, 30), empty(stream, 40, 30, 3, dtype="uint8")
    kernels.unpack(stream, stream.to_device(picture), image)
    kernels.pack(stream, image, again)
    np.testing.assert_array_equal(again.numpy(), to_uint8(image.numpy()[0]))


@pytest.mark.parametrize("size", [1, 3, 5, 13, 33])
@pytest.mark.parametrize("shape", SIZES)
def test_dilate(stream: Stream, kernels: Compositing, shape: tuple[int, int], size: int) -> None:
    alpha = values(size, 1, 1, *shape) ** 8
    alpha[0, 0, shape[0] // 2, shape[1] // 2] = np.nan
    dilated, scratch = (empty(stream, 1, 1, *shape) for _ in range(2))
    kernels.dilate(stream, stream.to_device(alpha), size, dilated, scratch)
    same_bits(dilated.numpy(), on_host.dilate(alpha, size))


@pytest.mark.parametrize("channels", [1, 3, 32])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("into", ["another", "image", "behind"])
def test_over(
    stream: Stream, kernels: Compositing, channels: int, size: tuple[int, int], into: str
) -> None:
    image, behind = values(4, 1, channels, *size), values(5, 1, channels, *size)
    alpha = values(6, 1, 1, *size)
    arrays = {
        "another": empty(stream, 1, channels, *size),
        "image": stream.to_device(image),
        "behind": stream.to_device(behind),
    }
    kernels.over(stream, arrays["image"], stream.to_device(alpha), arrays["behind"], arrays[into])
    stream.synchronize()
    same_bits(arrays[into].numpy(), on_host.over(image, alpha, behind, np.empty_like(image)))


@pytest.mark.parametrize("layers", range(1, MAX_LAYERS + 1))
@pytest.mark.parametrize("size", SIZES)
def test_coverage(stream: Stream, kernels: Compositing, layers: int, size: tuple[int, int]) -> None:
    alphas = [values(layer, 1, 1, *size) for layer in range(layers)]
    covered = empty(stream, 1, 1, *size)
    kernels.coverage(stream, [stream.to_device(alpha) for alpha in alphas], covered)
    same_bits(covered.numpy(), on_host.coverage(*alphas))


def test_steps_allocate_and_wait_for_nothing(
    fake_driver: FakeDriver, stream: Stream, kernels: Compositing
) -> None:
    alpha, image = stream.to_device(values(0, 1, 1, 8, 8)), stream.to_device(values(1, 1, 3, 8, 8))
    scratch, result = empty(stream, 1, 1, 8, 8), empty(stream, 1, 1, 8, 8)
    picture = empty(stream, 8, 8, 3, dtype="uint8")

    def steps() -> None:
        kernels.pack(stream, image, picture)
        kernels.unpack(stream, picture, image)
        kernels.over(stream, image, alpha, image, image)
        kernels.dilate(stream, alpha, 3, result, scratch)
        kernels.coverage(stream, [alpha, result], scratch)

    before = fake_driver.calls.copy()
    steps()
    assert set(fake_driver.calls - before) <= {
        "cuLaunchKernel",
        "cuCtxGetCurrent",
        "cuCtxPushCurrent",
        "cuCtxPopCurrent",
    }


def test_what_does_not_fit_is_refused(stream: Stream, kernels: Compositing) -> None:
    image, alpha = empty(stream, 1, 3, 4, 6), empty(stream, 1, 1, 4, 6)
    picture, floats = empty(stream, 4, 6, 3, dtype="uint8"), empty(stream, 4, 6, 3)
    turned, other = empty(stream, 1, 3, 6, 4), empty(stream, 1, 1, 6, 4)
    for message, call in {
        r"picture: expected uint8 \[4, 6, 3\], found float32": lambda: kernels.unpack(
            stream, floats, image
        ),
        r"image: expected float32 \[1, 3, 4, 6\], found float32 \[1, 3, 6, 4\]": (
            lambda: kernels.unpack(stream, picture, turned)
        ),
        r"picture: expected uint8 \[6, 4, 3\]": lambda: kernels.pack(stream, turned, picture),
        r"image: expected float32 \[1, 3, 4, 6\], found float32 \[1, 1": lambda: kernels.pack(
            stream, alpha, picture
        ),
        r"scratch: expected float32 \[1, 1, 4, 6\]": lambda: kernels.dilate(
            stream, alpha, 3, alpha, other
        ),
        "size: expected an odd number of pixels, found 4": lambda: kernels.dilate(
            stream, alpha, 4, alpha, alpha
        ),
        "dilate: expected three different arrays": lambda: kernels.dilate(
            stream, alpha, 3, alpha, alpha
        ),
        r"behind: expected float32 \[1, 3, 4, 6\]": lambda: kernels.over(
            stream, image, alpha, turned, image
        ),
        r"alpha: expected float32 \[1, 1, 4, 6\]": lambda: kernels.over(
            stream, image, other, image, image
        ),
        "alphas: expected 1 to 4, found 0": lambda: kernels.coverage(stream, [], alpha),
        "alphas: expected 1 to 4, found 5": lambda: kernels.coverage(stream, [alpha] * 5, alpha),
    }.items():
        with pytest.raises(InputError, match=message):
            call()


def test_images_too_large_for_the_kernels_are_refused(device: Device, stream: Stream) -> None:
    picture = DeviceArray(device, 256, (2**16, 2**15, 3), np.dtype("uint8"), None)
    image = DeviceArray(device, 256, (1, 3, 2**16, 2**15), np.dtype("float32"), None)
    with Compositing(device) as kernels, pytest.raises(InputError, match="at most 2147483647"):
        kernels.unpack(stream, picture, image)
