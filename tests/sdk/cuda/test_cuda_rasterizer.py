"""The rasterizer on a device, against the one on the processor; the kernels run on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from benchmarks.rasterizer.scenes import Array, Scene, head, looking_at_origin
from tests.plugins.comparison import psnr

import talksplat
from talksplat.cuda import Device, DeviceArray, Stream
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.rasterizer import CudaRasterizer, check_status
from talksplat.errors import BackendError, DeviceLostError, InputError

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

DECIBELS = 90.0
"""What a picture must reach; both work in float32, with sums in another order."""

WIDTH, HEIGHT = 72, 56  # no multiples of a tile


@pytest.fixture
def kernels(device: Device) -> Iterator[KernelModule]:
    with KernelModule(device, "gaussian_rasterizer") as opened:
        yield opened


class Drawing:
    """A scene on the device and its rasterizer."""

    def __init__(self, kernels: KernelModule, stream: Stream, scene: Scene, **rules: Any) -> None:
        options = {**scene.options, **rules}
        backgrounds = options.pop("backgrounds", None)
        spherical = options.get("sh_degree") is not None
        if backgrounds is not None:
            image = backgrounds if backgrounds.ndim == 4 else backgrounds[:, None, None, :]
            backgrounds = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
            options["one_background"] = backgrounds.shape[2:] == (1, 1)
        colors = scene.colors.astype(np.float16 if options.get("half_colors") else np.float32)
        self.stream = stream
        self.rasterizer = CudaRasterizer(
            kernels,
            stream,
            gaussians=len(scene.means),
            width=scene.width,
            height=scene.height,
            channels=colors.shape[-1],
            cameras=len(scene.viewmats),
            sh_bases=colors.shape[1] if spherical else None,
            **options,
        )
        self.inputs = {
            "means": stream.to_device(scene.means),
            "quats": stream.to_device(scene.quats),
            "scales": stream.to_device(scene.scales),
            "opacities": stream.to_device(scene.opacities),
            "colors": stream.to_device(colors),
            "viewmats": stream.to_device(scene.viewmats),
            "Ks": stream.to_device(scene.Ks),
            "backgrounds": None if backgrounds is None else stream.to_device(backgrounds),
        }

    def enqueue(self) -> None:
        self.rasterizer.enqueue(**self.inputs)

    def draw(self) -> tuple[Array, Array]:
        """[C,H,W,X] and [C,H,W,1]."""
        self.enqueue()
        return self.result()

    def result(self) -> tuple[Array, Array]:
        self.stream.synchronize()
        self.rasterizer.check()
        colors, alphas = self.rasterizer.colors.numpy(), self.rasterizer.alphas.numpy()
        return colors.transpose(0, 2, 3, 1), alphas.transpose(0, 2, 3, 1)


Draw = Callable[..., Drawing]


@pytest.fixture
def drawing(kernels: KernelModule, stream: Stream) -> Iterator[Draw]:
    made: list[Drawing] = []

    def make(scene: Scene, **rules: Any) -> Drawing:
        made.append(Drawing(kernels, stream, scene, **rules))
        return made[-1]

    yield make
    while made:
        one = made.pop()
        one.rasterizer.close()
        one.rasterizer.close()  # twice does no harm
        del one  # and its inputs with it


def spherical(scene: Scene) -> Scene:
    random = np.random.default_rng(5)
    shs = random.normal(0, 0.3, (len(scene.means), 4, 3)).astype(np.float32)
    return replace(scene, colors=shs, options={"sh_degree": 1})


def over_an_image(scene: Scene) -> Scene:
    shape = (1, scene.height, scene.width, scene.colors.shape[-1])
    behind = np.random.default_rng(6).random(shape, np.float32)
    return replace(scene, options={**scene.options, "backgrounds": behind})


def over_a_colour(scene: Scene) -> Scene:
    behind = np.random.default_rng(7).random((1, scene.colors.shape[-1]), np.float32)
    return replace(scene, options={**scene.options, "backgrounds": behind})


def from_two_cameras(scene: Scene) -> Scene:
    other = looking_at_origin(0.8, yaw=-0.6)[None]
    return replace(
        scene,
        viewmats=np.concatenate([scene.viewmats, other]),
        Ks=np.concatenate([scene.Ks, scene.Ks]),
    )


def scene(channels: int = 3, count: int = 1500) -> Scene:
    return head(count, WIDTH, HEIGHT, channels)


SCENES = {
    "colours": scene(),
    "features": scene(32),
    "spherical harmonics": spherical(scene()),
    "over an image": over_an_image(scene()),
    "over a colour": over_a_colour(scene()),
    "two cameras": from_two_cameras(scene()),
    "depth": replace(scene(), options={"render_mode": "RGB+ED"}),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("dialect", ["gsplat", "gsplat-1.5", "inria"])
def test_the_picture_is_that_of_the_processor(drawing: Draw, name: str, dialect: str) -> None:
    found = drawing(SCENES[name], dialect=dialect).draw()
    expected = talksplat.rasterize(
        *SCENES[name].arrays, WIDTH, HEIGHT, dialect=dialect, **SCENES[name].options
    )
    assert expected[1].max() > 0.5, "an empty picture proves nothing"
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert psnr(one - other.astype(np.float64)) >= DECIBELS


def test_the_antialiased_mode(drawing: Draw) -> None:
    found, _ = drawing(SCENES["colours"], rasterize_mode="antialiased").draw()
    expected, _ = talksplat.rasterize(
        *SCENES["colours"].arrays, WIDTH, HEIGHT, rasterize_mode="antialiased"
    )
    assert psnr(found - expected.astype(np.float64)) >= DECIBELS


def test_half_colours_are_those_rounded_to_half(drawing: Draw) -> None:
    features = SCENES["features"]
    found, _ = drawing(features, half_colors=True).draw()
    rounded = replace(features, colors=features.colors.astype(np.float16).astype(np.float32))
    expected, _ = talksplat.rasterize(*rounded.arrays, WIDTH, HEIGHT)
    assert psnr(found - expected.astype(np.float64)) >= DECIBELS


def test_a_replay_is_bit_identical_to_the_calls(
    fake_driver: FakeDriver, drawing: Draw, stream: Stream
) -> None:
    draws = drawing(SCENES["features"])
    first = [array.copy() for array in draws.draw()]
    with stream.capture() as graph:
        draws.enqueue()
    for array in (draws.rasterizer.colors, draws.rasterizer.alphas):
        stream.zero(array)
    before = fake_driver.calls.copy()
    graph.launch(stream)
    for one, other in zip(draws.result(), first, strict=True):
        assert one.tobytes() == other.tobytes()
    assert not (fake_driver.calls - before).keys() & {"cuMemAlloc", "cuLaunchKernel"}
    graph.close()


def test_a_replay_draws_what_the_inputs_are_by_then(drawing: Draw, stream: Stream) -> None:
    draws = drawing(SCENES["colours"])
    with stream.capture() as graph:
        draws.enqueue()
    moved = SCENES["colours"].means + np.float32([0.02, -0.01, 0.03])
    stream.upload(moved, draws.inputs["means"])
    graph.launch(stream)
    replayed, _ = (array.copy() for array in draws.result())
    expected, _ = drawing(replace(SCENES["colours"], means=moved)).draw()
    assert replayed.tobytes() == expected.tobytes()
    graph.close()


def test_one_workspace_per_rasterizer_on_one_stream(drawing: Draw) -> None:
    """Mouth, then face over it, as a frame program does."""
    mouth = drawing(over_an_image(scene(count=300)))
    face = drawing(over_an_image(scene(count=900)))
    face.inputs["backgrounds"] = mouth.rasterizer.colors
    mouth.enqueue()
    found, _ = face.draw()
    mouth_scene, face_scene = over_an_image(scene(count=300)), scene(count=900)
    behind, _ = talksplat.rasterize(*mouth_scene.arrays, WIDTH, HEIGHT, **mouth_scene.options)
    expected, _ = talksplat.rasterize(*face_scene.arrays, WIDTH, HEIGHT, backgrounds=behind)
    assert psnr(found - expected.astype(np.float64)) >= DECIBELS


def test_no_gaussians(drawing: Draw) -> None:
    empty = replace(
        over_a_colour(scene()),
        **{name: getattr(scene(), name)[:0] for name in ("means", "quats", "scales")},
        opacities=np.zeros(0, np.float32),
        colors=np.zeros((0, 3), np.float32),
    )
    colors, alphas = drawing(empty).draw()
    np.testing.assert_array_equal(alphas, 0)
    expected = np.broadcast_to(empty.options["backgrounds"][:, None, None, :], colors.shape)
    np.testing.assert_array_equal(colors, expected)


# What goes wrong is said.


@pytest.mark.parametrize("broken", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(drawing: Draw, broken: str, value: float) -> None:
    bad = getattr(SCENES["colours"], broken).copy()
    bad.flat[-1] = value
    draws = drawing(replace(SCENES["colours"], **{broken: bad}))
    with pytest.raises(InputError, match=rf"must be finite.* otherwise in {broken}$"):
        draws.draw()
    for array in (draws.rasterizer.colors, draws.rasterizer.alphas):
        assert np.isnan(array.numpy()).all()
    draws.inputs[broken] = draws.stream.to_device(getattr(SCENES["colours"], broken))
    assert np.isfinite(draws.draw()[0]).all(), "the error outlived its frame"


@pytest.mark.parametrize(("broken", "value"), [("viewmats", np.nan), ("Ks", 0.0), ("Ks", np.inf)])
def test_cameras_that_are_none_are_named(drawing: Draw, broken: str, value: float) -> None:
    bad = getattr(SCENES["colours"], broken).copy()
    bad[0, 0, 0] = value
    with pytest.raises(InputError, match=f"otherwise in {broken}$"):
        drawing(replace(SCENES["colours"], **{broken: bad})).draw()


def test_overflow_beyond_any_room_advises_none() -> None:
    counted_to = 2**31 - 1
    with pytest.raises(BackendError, match="there is room for 64; move the camera away"):
        check_status(np.array([0, counted_to, 64, 0], np.int32))


def test_an_overflow_says_how_much_room_is_needed(drawing: Draw) -> None:
    small = drawing(SCENES["colours"], tile_entries=64)
    assert small.rasterizer.tile_entries == 64
    with pytest.raises(BackendError, match="there is room for 64; give tile_entries=") as caught:
        small.draw()
    for array in (small.rasterizer.colors, small.rasterizer.alphas):
        assert np.isnan(array.numpy()).all()
    needed = int(str(caught.value).split("tile_entries=")[1].split()[0])
    colors, _ = drawing(SCENES["colours"], tile_entries=needed).draw()
    expected, _ = drawing(SCENES["colours"]).draw()
    assert colors.tobytes() == expected.tobytes()
    with pytest.raises(BackendError, match="tile_entries"):
        drawing(SCENES["colours"], tile_entries=needed - 1).draw()


def test_inputs_of_other_shapes_are_refused(drawing: Draw, device: Device) -> None:
    draws = drawing(over_an_image(scene()))
    for name, message in {
        "means": r"means: expected float32 \[1500, 3\], found float32 \[2, 3\]",
        "opacities": r"opacities: expected float32 \[1500\]",
        "viewmats": r"viewmats: expected float32 \[1, 4, 4\]",
        "backgrounds": r"backgrounds: expected float32 \[1, 3, 56, 72\]",
    }.items():
        wrong = {**draws.inputs, name: DeviceArray.empty(device, (2, 3), np.float32)}
        with pytest.raises(InputError, match=message):
            draws.rasterizer.enqueue(**wrong)
    halves = DeviceArray.empty(device, (1500, 3), np.float16)
    with pytest.raises(InputError, match=r"colors: expected float32 .* found float16"):
        draws.rasterizer.enqueue(**{**draws.inputs, "colors": halves})


def test_opacities_may_have_an_axis_of_one(drawing: Draw) -> None:
    draws = drawing(SCENES["colours"])
    expected = draws.draw()[0].tobytes()
    draws.inputs["opacities"] = draws.inputs["opacities"].reshape(1500, 1)
    assert draws.draw()[0].tobytes() == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 0}, "width"),
        ({"height": 40_000}, "height"),
        ({"channels": 0}, "channel"),
        ({"gaussians": -1}, "[Gg]aussians"),
        ({"cameras": 0}, "camera"),
        ({"sh_degree": 4}, "sh_degree"),
        ({"sh_degree": 2, "sh_bases": 4}, "sh_bases: expected 9"),
        ({"dialect": "other"}, "dialect"),
        ({"render_mode": "RGBA"}, "render_mode"),
        ({"gaussians": "many"}, "expected numbers and names"),
    ],
)
def test_sizes_no_kernel_can_take_are_refused(
    kernels: KernelModule, stream: Stream, sizes: dict[str, Any], message: str
) -> None:
    good = {"gaussians": 10, "width": 32, "height": 32}
    with pytest.raises(InputError, match=message):
        CudaRasterizer(kernels, stream, **{**good, **sizes})


def test_no_memory_for_the_workspace_leaves_nothing_behind(
    fake_driver: FakeDriver, kernels: KernelModule, stream: Stream
) -> None:
    before = fake_driver.alive()
    with pytest.raises(BackendError, match=r"out of memory: [\d,]+ bytes"):
        CudaRasterizer(kernels, stream, gaussians=1000, width=512, height=512, tile_entries=1 << 28)
    assert fake_driver.alive() == before


def test_a_device_lost_in_a_frame(fake_driver: FakeDriver, drawing: Draw) -> None:
    draws = drawing(SCENES["colours"])
    draws.draw()
    fake_driver.lose_device("CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        draws.draw()
    with pytest.raises(DeviceLostError, match="lost earlier"):
        draws.draw()
