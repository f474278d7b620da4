"""TensorRT's plugin without TensorRT and without a GPU: every word of the conversation, and frames
from the kernels run on the host. TENSORRT_ROOT names folders with TensorRT's headers."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_library as trt
from benchmarks.rasterizer.scenes import Array, Scene
from comparison import psnr
from scenes import SCENES
from tensorrt_library import DataType, Field, FieldType, Layer, Library
from tests.plugins.cuda.frames import aligned
from tests.plugins.cuda.frames import draw as draw_on_host
from tests.plugins.cuda.host.library import HostLibrary, compile_kernels

import talksplat
from talksplat import _native
from talksplat.plugin_library import tensorrt_plugin

if not trt.ROOTS:
    pytest.skip(trt.NO_ROOTS, allow_module_level=True)
if trt.cuda_headers() is None:
    pytest.skip(
        "no CUDA headers, which TensorRT's headers include: TensorRT's plugin is not tested (set "
        "CUDA_HOME)",
        allow_module_level=True,
    )


@pytest.fixture(scope="module", params=trt.ROOTS, ids=lambda root: root.name)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("plugin"), trt.headers_of(request.param))


@pytest.fixture(autouse=True)
def nothing_left_unread(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test sees the errors of another, and none ends with errors that it did not expect."""
    yield
    if "library" in request.fixturenames:
        library: Library = request.getfixturevalue("library")
        assert (library.logged(), library.recorded()) == ("", "")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    return HostLibrary(compile_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))


EVERY_ATTRIBUTE: dict[str, int | float | str] = {
    "width": 640,
    "height": 480,
    "sh_degree": 2,
    "near_plane": 0.02,
    "far_plane": 50.0,
    "radius_clip": 1.5,
    "eps2d": 0.1,
    "rasterize_mode": "antialiased",
    "dialect": "inria",
    "render_mode": "RGB+ED",
    "tile_entries": 1000,
}
DEFAULTS: dict[str, int | float | str] = {
    "width": 0,
    "height": 0,
    "sh_degree": -1,
    "near_plane": 0.01,
    "far_plane": 1e10,
    "radius_clip": 0.0,
    "eps2d": 0.3,
    "rasterize_mode": "classic",
    "dialect": "gsplat",
    "render_mode": "RGB",
    "tile_entries": 0,
}


def fields(attributes: dict[str, int | float | str]) -> list[Field]:
    return [Field.of(name, value) for name, value in attributes.items()]


def shapes(
    gaussians: int = 10,
    channels: int = 3,
    width: int = 64,
    height: int = 48,
    cameras: int = 1,
    **other: tuple[int, ...],
) -> list[tuple[int, ...]]:
    """Of the inputs, in order; ``other`` replaces some."""
    usual = {
        "means": (gaussians, 3),
        "quats": (gaussians, 4),
        "scales": (gaussians, 3),
        "opacities": (gaussians, 1),
        "colors": (gaussians, channels),
        "viewmats": (cameras, 4, 4),
        "Ks": (cameras, 3, 3),
        "backgrounds": (cameras, channels, height, width),
    }
    return list((usual | other).values())


class TestCreator:
    def test_tensorrt_finds_one(self, library: Library) -> None:
        (creator,) = library.creators()
        identity = library.tensorrt.harness_creator_identity(trt.ctypes.c_void_p(creator))
        assert identity == b"PLUGIN CREATOR_V3ONE GaussianRasterize 1 talksplat"

    def test_it_names_every_attribute_and_its_type(self, library: Library) -> None:
        # The ONNX parser hands over the attributes that are named here, and no others.
        (creator,) = library.creators()
        named = trt.fields_in(library.tensorrt.harness_creator_fields(trt.ctypes.c_void_p(creator)))
        assert [(field.name, field.type) for field in named] == [
            (field.name, field.type) for field in fields(DEFAULTS)
        ]

    def test_absent_attributes_have_their_defaults(self, library: Library) -> None:
        assert library.layer().serialized() == fields(DEFAULTS)

    @pytest.mark.parametrize("name", EVERY_ATTRIBUTE)
    def test_each_attribute_arrives(self, library: Library, name: str) -> None:
        layer = library.layer(**{name: EVERY_ATTRIBUTE[name]} | _partners(name))
        expected = DEFAULTS | {name: EVERY_ATTRIBUTE[name]} | _partners(name)
        assert layer.serialized() == fields(expected)

    def test_wide_numbers_and_strings_without_a_zero_are_taken(self, library: Library) -> None:
        layer = library.create(
            [
                Field.number("tile_entries", FieldType.INT64, 7),
                Field.number("eps2d", FieldType.FLOAT64, 0.5),
                Field("dialect", FieldType.CHAR, b"inria", 5),
            ]
        )
        assert layer is not None
        expected = DEFAULTS | {"tile_entries": 7, "eps2d": 0.5, "dialect": "inria"}
        assert layer.serialized() == fields(expected)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (Field.of("widht", 3), "there is no attribute 'widht'; known are width, height,"),
            (Field.of("width", "64"), "width: expected one int32, found 3 of type char"),
            (Field.of("width", 64.0), "width: expected one int32, found 1 of type float32"),
            (
                Field.number("width", FieldType.INT32, 1, 2),
                "width: expected one int32, found 2 of type int32",
            ),
            (
                Field.number("tile_entries", FieldType.INT64, 2**40),
                "tile_entries: expected an int32, found 1099511627776",
            ),
            (Field.of("eps2d", 1), "eps2d: expected one float32, found 1 of type int32"),
            (Field.of("dialect", 1), "dialect: expected characters, found 1 of type int32"),
            (Field("width", FieldType.INT32, None, 1), "width: has no value"),
            (
                Field.of("dialect", "3dgs"),
                "dialect: expected one of 'gsplat', 'gsplat-1.5', 'inria'; found '3dgs'",
            ),
            (Field.of("render_mode", "depth"), "render_mode: expected one of 'RGB', 'D', 'ED'"),
            (Field.of("rasterize_mode", "aa"), "rasterize_mode: expected one of 'classic'"),
            (Field.of("width", 32769), "width: expected 0 to 32768, found 32769"),
            (Field.of("width", -1), "width: expected 0 to 32768, found -1"),
            (
                Field.of("height", 5),
                "width and height: expected both, or both 0 for the size of the backgrounds, "
                "found 0 and 5",
            ),
            (Field.of("sh_degree", 4), "sh_degree: expected -1 to 3, found 4"),
            (Field.of("near_plane", 0.0), "near_plane: expected at least 1e-09, found 0"),
            (Field.of("eps2d", float("nan")), "eps2d: expected at least 0, found nan"),
            (Field.of("tile_entries", -1), "tile_entries: expected 0 to 2147483646, found -1"),
        ],
        ids=lambda value: value if isinstance(value, str) else value.name,
    )
    def test_what_it_cannot_take_it_refuses_with_a_message(
        self, library: Library, wrong: Field, message: str
    ) -> None:
        assert library.create([wrong]) is None
        logged = library.logged()
        assert logged.startswith("talksplat::GaussianRasterize: " + message)
        last: bytes = library.plugin.talksplat_tensorrt_plugin_last_error()
        assert last.decode() == logged.strip()

    def test_an_attribute_given_twice_is_refused(self, library: Library) -> None:
        assert library.create([Field.of("eps2d", 0.3), Field.of("eps2d", 0.3)]) is None
        assert "eps2d: given twice" in library.logged()

    def test_without_a_logger_errors_go_to_the_standard_error(
        self, library: Library, capfd: pytest.CaptureFixture[str]
    ) -> None:
        library.plugin.setLoggerFinder(None)
        try:
            assert library.create([Field.of("dialect", "3dgs")]) is None
        finally:
            finder = library.tensorrt.harness_logger_finder()
            library.plugin.setLoggerFinder(trt.ctypes.c_void_p(finder))
        assert "GaussianRasterize: dialect: expected one of" in capfd.readouterr().err


def _partners(name: str) -> dict[str, int | float | str]:
    """What has to be given along with an attribute."""
    partners: dict[str, dict[str, int | float | str]] = {
        "width": {"height": 480},
        "height": {"width": 640},
    }
    return partners.get(name, {})


class TestEngine:
    """What is written into an engine, and read from it."""

    def test_everything_comes_back(self, library: Library) -> None:
        written = library.layer(**EVERY_ATTRIBUTE).serialized()
        assert written == fields(EVERY_ATTRIBUTE)
        read = library.create(written, trt.RUNTIME)
        assert read is not None
        assert read.serialized() == written

    @pytest.mark.parametrize("missing", EVERY_ATTRIBUTE)
    def test_an_engine_that_lacks_an_attribute_is_refused(
        self, library: Library, missing: str
    ) -> None:
        written = [field for field in fields(EVERY_ATTRIBUTE) if field.name != missing]
        assert library.create(written, trt.RUNTIME) is None
        assert f"{missing}: not in the engine" in library.logged()

    def test_a_clone_outlives_its_original(self, library: Library) -> None:
        original = library.layer(**EVERY_ATTRIBUTE)
        original.serialized()
        clones = [original.clone(), original.attached()]
        original.destroy()
        for clone in clones:
            assert clone.serialized() == fields(EVERY_ATTRIBUTE)
            assert clone.identity() == "GaussianRasterize 1 talksplat"
            clone.destroy()

    def test_a_clone_of_a_prepared_layer_is_prepared(self, library: Library) -> None:
        layer = library.layer()
        assert layer.shape_change(shapes())
        clone = layer.clone()
        layer.destroy()
        library.launch_with(lambda launch: True)
        workspace = aligned(clone.workspace_size(shapes()))
        assert clone.enqueue(shapes(), [256] * 8, [256] * 3, workspace.ctypes.data)


class TestBuild:
    """The questions of a builder."""

    def test_all_capabilities_are_there(self, library: Library) -> None:
        layer = library.layer()
        assert layer.capability(trt.CORE_CAPABILITY) == "PLUGIN_V3ONE_CORE 1.0"
        assert layer.capability(trt.BUILD_CAPABILITY) == "PLUGIN_V3ONE_BUILD 1.0"
        assert layer.capability(trt.RUNTIME_CAPABILITY) == "PLUGIN_V3ONE_RUNTIME 1.0"
        assert layer.identity() == "GaussianRasterize 1 talksplat"
        assert layer.output_count() == 3

    def test_a_capability_of_the_future_is_not(self, library: Library) -> None:
        assert library.layer().capability(7) == "none"
        assert "a capability that this plugin does not know" in library.logged()

    @pytest.mark.parametrize("colors", [DataType.FLOAT, DataType.HALF])
    def test_types_of_the_outputs(self, library: Library, colors: DataType) -> None:
        types = [DataType.FLOAT] * 8
        types[4] = colors
        expected = [DataType.FLOAT, DataType.FLOAT, DataType.INT32]
        assert library.layer().output_types(types) == expected

    @pytest.mark.parametrize("name", trt.INPUTS)
    @pytest.mark.parametrize("type", [DataType.HALF, DataType.BF16, DataType.INT32])
    def test_other_types_of_inputs_are_refused(
        self, library: Library, name: str, type: DataType
    ) -> None:
        types = [DataType.FLOAT] * 8
        types[trt.INPUTS.index(name)] = type
        taken = (name, type) == ("colors", DataType.HALF)
        assert (library.layer().output_types(types) is not None) == taken
        half = " or float16" if name == "colors" else ""
        refusal = f"{name}: expected float32{half}; put a Cast before it"
        assert (refusal in library.logged()) == (not taken)

    def test_other_numbers_of_tensors_are_refused(self, library: Library) -> None:
        assert library.layer().output_types([DataType.FLOAT] * 7) is None
        assert "expected 8 inputs and 3 outputs, found 7 and 3" in library.logged()

    @pytest.mark.parametrize(
        ("attributes", "channels"),
        [
            ({}, "colors.1"),
            ({"render_mode": "RGB+D"}, "(colors.1 + 1)"),
            ({"render_mode": "RGB+ED"}, "(colors.1 + 1)"),
            ({"render_mode": "D"}, "1"),
            ({"render_mode": "ED"}, "1"),
            ({"sh_degree": 3}, "colors.2"),
            ({"sh_degree": 0, "render_mode": "RGB+D"}, "(colors.2 + 1)"),
        ],
    )
    @pytest.mark.parametrize("sized", [False, True])
    def test_shapes_of_the_outputs_follow_the_inputs(
        self, library: Library, attributes: dict[str, Any], channels: str, sized: bool
    ) -> None:
        size = {"width": 640, "height": 480} if sized else {}
        layer = library.layer(**attributes, **size)
        ranks = [2, 2, 2, 1, 3 if "sh_degree" in attributes else 2, 3, 3, 4]
        image = "480 640" if sized else "backgrounds.2 backgrounds.3"
        assert layer.output_shapes(ranks) == [
            f"viewmats.0 {channels} {image}",
            f"viewmats.0 1 {image}",
            "4",
        ]

    def test_other_ranks_are_refused(self, library: Library) -> None:
        assert library.layer().output_shapes([2, 2, 2, 1, 3, 3, 3, 4]) == []
        assert "colors: expected 2 axes, found 3" in library.logged()

    def test_formats(self, library: Library) -> None:
        layer = library.layer()
        usual = [DataType.FLOAT] * 10 + [DataType.INT32]
        for position, type, format in product(range(11), DataType, range(3)):
            types = [*usual[:position], type, *usual[position + 1 :]]
            taken = {10: {DataType.INT32}, 4: {DataType.FLOAT, DataType.HALF}}.get(
                position, {DataType.FLOAT}
            )
            found = layer.supports(position, types, format)
            assert found == (format == 0 and type in taken), (position, type, format)

    def test_the_timings_of_layers_with_other_attributes_are_told_apart(
        self, library: Library
    ) -> None:
        ids = {
            library.layer(**{name: value} | _partners(name)).timing_cache_id()
            for name, value in EVERY_ATTRIBUTE.items()
            if name != "height"
        }
        assert len(ids) == len(EVERY_ATTRIBUTE) - 1
        assert all(text.startswith(f"talksplat::GaussianRasterize {trt.VERSION} ") for text in ids)

    def test_the_timing_cache_tells_apart_every_two_floats(self, library: Library) -> None:
        values = [np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1)), 1e-9, 2e-9]
        ids = {library.layer(near_plane=float(value)).timing_cache_id() for value in values}
        assert len(ids) == len(values)

    @pytest.mark.parametrize("tile_entries", [0, 5000])
    @pytest.mark.parametrize("colors", [DataType.FLOAT, DataType.HALF])
    @pytest.mark.parametrize("cameras", [1, 3])
    def test_the_workspace_is_that_of_the_largest_frame(
        self, library: Library, cameras: int, colors: DataType, tile_entries: int
    ) -> None:
        layer = library.layer(tile_entries=tile_entries)
        largest = shapes(20_000, 32, 512, 384, cameras)
        plan = _native.gaussian_cuda_plan(
            gaussians=20_000, cameras=cameras, channels=32, width=512, height=384,
            half_colors=colors is DataType.HALF, tile_entries=tile_entries,
        )  # fmt: skip
        assert layer.configure(largest, colors)
        assert layer.workspace_size(largest, colors) == plan.workspace_bytes + 255
        smaller = shapes(19_999, 32, 500, 384, cameras)
        assert 0 < layer.workspace_size(smaller, colors) <= plan.workspace_bytes + 255

    def test_the_workspace_takes_the_largest_of_bounds_that_differ(self, library: Library) -> None:
        # TensorRT bounds each tensor by itself, and knows of some less than of others.
        layer = library.layer()
        same = layer.workspace_size(shapes(500))
        assert layer.workspace_size(shapes(400, quats=(500, 4))) == same
        assert layer.workspace_size(shapes(400, colors=(500, 3))) == same
        three = layer.workspace_size(shapes(cameras=3))
        assert layer.workspace_size(shapes(cameras=2, Ks=(3, 3, 3))) == three

    def test_what_no_kernel_can_take_ends_the_build(self, library: Library) -> None:
        assert not library.layer().configure(shapes(width=40_000))
        assert "W of backgrounds: expected 1 to 32768, found 40000" in library.logged()
        assert not library.layer().configure(shapes(cameras=70_000))
        assert "C of viewmats: expected 1 to 65535, found 70000" in library.logged()
        assert not library.layer(sh_degree=1).configure(shapes(colors=(10, 3, 3)))
        assert "K of colors for sh_degree 1: expected 4 to" in library.logged()


@dataclass(frozen=True)
class Frame:
    """What a layer left, [C,H,W,D] and [C,H,W,1], and how it was asked for."""

    colors: Array
    alphas: Array
    status: Any
    launches: list[trt.Launch]
    allocations: int


def draw(layer: Layer, scene: Scene, kernels: HostLibrary) -> Frame:
    """``scene`` by a layer that is told of its shapes; backgrounds are an input."""
    background = np.asarray(scene.options.get("backgrounds", np.zeros((1, scene.colors.shape[-1]))))
    image = background if background.ndim == 4 else background[:, None, None, :]
    backgrounds = np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32)
    cameras = len(scene.viewmats)
    backgrounds = np.ascontiguousarray(
        np.broadcast_to(backgrounds, (cameras, *backgrounds.shape[1:]))
    )
    colors = scene.colors
    inputs = [scene.means, scene.quats, scene.scales, scene.opacities, colors, scene.viewmats,
              scene.Ks, backgrounds]  # fmt: skip
    inputs = [np.ascontiguousarray(array) for array in inputs]
    given = [array.shape for array in inputs]
    type = DataType.HALF if colors.dtype == np.float16 else DataType.FLOAT
    mode = scene.options.get("render_mode", "RGB")
    channels = colors.shape[-1] * mode.startswith("RGB") + mode.endswith("D")
    size = (scene.height, scene.width)
    out_colors = np.full((cameras, channels, *size), -7, np.float32)
    out_alphas = np.full((cameras, 1, *size), -7, np.float32)
    status = np.full(4, -7, np.int32)
    workspace = aligned(layer.workspace_size(given, type))
    launches: list[trt.Launch] = []

    def launch(asked: trt.Launch) -> bool:
        launches.append(asked)
        kernels.launch(asked.kernel, asked.grid, asked.block, asked.shared_bytes, asked.arguments)
        return True

    layer.library.launch_with(launch)
    assert layer.shape_change(given, type), layer.library.logged()
    before = layer.library.plugin.allocations()
    assert layer.enqueue(
        given,
        [array.ctypes.data for array in inputs],
        [array.ctypes.data for array in (out_colors, out_alphas, status)],
        workspace.ctypes.data,
        0x5EA,
        type,
    ), layer.library.logged() + layer.library.recorded()
    return Frame(
        out_colors.transpose(0, 2, 3, 1),
        out_alphas.transpose(0, 2, 3, 1),
        status,
        launches,
        layer.library.plugin.allocations() - before,
    )


def layer_for(library: Library, scene: Scene, dialect: str, tile_entries: int = 0) -> Layer:
    options = {name: value for name, value in scene.options.items() if name != "backgrounds"}
    size = {"width": scene.width, "height": scene.height}
    return library.layer(dialect=dialect, tile_entries=tile_entries, **size, **options)


class TestFrames:
    """A layer at work, its launches carried out on the host."""

    @pytest.mark.parametrize("dialect", ["gsplat", "inria"])
    @pytest.mark.parametrize(
        "name",
        ["cloud", "SH degree 3", "background image", "many cameras", "colour and expected depth",
         "depth", "32 channels", "no Gaussians"],
    )  # fmt: skip
    def test_the_frame_is_that_of_the_kernels_and_of_the_cpu(
        self, library: Library, kernels: HostLibrary, name: str, dialect: str
    ) -> None:
        scene = SCENES[name]()
        frame = draw(layer_for(library, scene, dialect), scene, kernels)
        direct = draw_on_host(kernels, scene, dialect)
        assert np.array_equal(frame.colors, direct.colors)
        assert np.array_equal(frame.alphas, direct.alphas)
        assert np.array_equal(frame.status, direct.status)
        colors, alphas = talksplat.rasterize(
            *scene.arrays, scene.width, scene.height, **scene.options, dialect=dialect
        )
        peak = max(1.0, float(np.abs(colors).max()))
        # Kernels and CPU differ by rounding and by the decisions that rounding flips.
        assert psnr((frame.colors.astype(np.float64) - colors) / peak) >= 80
        assert psnr(frame.alphas.astype(np.float64) - alphas) >= 80

    def test_half_precision_colours(self, library: Library, kernels: HostLibrary) -> None:
        scene = SCENES["five channels"]()
        half = replace(scene, colors=scene.colors.astype(np.float16))
        frame = draw(layer_for(library, half, "gsplat"), half, kernels)
        assert np.array_equal(frame.colors, draw_on_host(kernels, half).colors)
        assert not np.array_equal(frame.colors, draw_on_host(kernels, scene).colors)

    def test_enqueue_launches_and_does_nothing_else(
        self, library: Library, kernels: HostLibrary
    ) -> None:
        scene = SCENES["cloud"]()
        frame = draw(layer_for(library, scene, "gsplat"), scene, kernels)
        plan = _native.gaussian_cuda_plan(
            gaussians=len(scene.means), width=scene.width, height=scene.height, one_background=True
        )
        asked = [(x.kernel, x.grid, x.block, x.shared_bytes) for x in frame.launches]
        assert asked == [tuple(launch) for launch in plan.launches]
        assert {launch.stream for launch in frame.launches} == {0x5EA}
        assert frame.allocations == 0

    def test_memory_is_counted(self, library: Library) -> None:
        # Or the test above could not fail.
        before = library.plugin.allocations()
        library.layer().shape_change(shapes())
        assert library.plugin.allocations() > before

    def test_too_little_room_is_said_and_nothing_is_drawn(
        self, library: Library, kernels: HostLibrary
    ) -> None:
        scene = SCENES["cloud"]()
        layer = layer_for(library, scene, "gsplat", tile_entries=10)
        frame = draw(layer, scene, kernels)
        _, needed, room, _ = frame.status
        assert room == 10 < needed
        assert np.isnan(frame.colors).all()
        assert np.isnan(frame.alphas).all()

    def test_shapes_may_change_between_frames(self, library: Library, kernels: HostLibrary) -> None:
        layer = library.layer()
        for name in ("cloud", "five channels", "non-square", "cloud"):
            scene = SCENES[name]()
            channels = scene.colors.shape[-1]
            image = np.full((1, scene.height, scene.width, channels), 0.25, np.float32)
            scene.options["backgrounds"] = image
            frame = draw(layer, scene, kernels)
            direct = draw_on_host(kernels, scene)
            assert np.array_equal(frame.colors, direct.colors), name

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (shapes(means=(10, 4)), "means: expected shape [N, 3], found [10, 4]"),
            (shapes(quats=(9, 4)), "quats: expected shape [10, 4], found [9, 4]"),
            (shapes(opacities=(10, 2)), "opacities: expected shape [10], found [10, 2]"),
            (shapes(colors=(10, 4, 3)), "colors: expected shape [10, D], found [10, 4, 3]"),
            (shapes(viewmats=(1, 3, 4)), "viewmats: expected shape [C, 4, 4], found [1, 3, 4]"),
            (shapes(Ks=(2, 3, 3)), "Ks: expected shape [1, 3, 3], found [2, 3, 3]"),
            (
                shapes(backgrounds=(1, 4, 8, 8)),
                "backgrounds: expected shape [1, 3, H, W], found [1, 4, 8, 8]",
            ),
            (shapes(height=0), "H of backgrounds: expected 1 to 32768, found 0"),
            (shapes(cameras=0), "C of viewmats: expected 1 to 65535, found 0"),
        ],
        ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
    )
    def test_shapes_that_do_not_fit_are_refused(
        self, library: Library, given: list[tuple[int, ...]], message: str
    ) -> None:
        layer = library.layer().attached()
        assert not layer.shape_change(given)
        assert message in library.logged()
        assert message in library.recorded()

    def test_a_given_size_takes_a_colour_or_an_image_behind(self, library: Library) -> None:
        layer = library.layer(width=64, height=48)
        assert layer.shape_change(shapes())
        assert layer.shape_change(shapes(backgrounds=(1, 3, 1, 1)))
        assert not layer.shape_change(shapes(backgrounds=(1, 3, 1, 64)))
        expected = "backgrounds: expected shape [1, 3, 48, 64] or [1, 3, 1, 1], found [1, 3, 1, 64]"
        assert expected in library.logged()

    def test_work_before_shapes_are_known_is_an_error(self, library: Library) -> None:
        library.launch_with(lambda launch: True)
        layer = library.layer().attached()
        assert not layer.enqueue(shapes(), [256] * 8, [256] * 3, 256)
        assert "enqueue was called before onShapeChange" in library.recorded()
        assert layer.shape_change(shapes())
        assert not layer.enqueue(shapes(11), [256] * 8, [256] * 3, 256)
        assert "means: the shape changed without a call of onShapeChange" in library.recorded()
        assert not layer.shape_change(shapes(quats=(1, 4)))
        assert not layer.enqueue(shapes(), [256] * 8, [256] * 3, 256)
        assert library.logged()
        assert "enqueue was called before onShapeChange" in library.recorded()

    def test_a_workspace_may_begin_anywhere(self, library: Library) -> None:
        """TensorRT promises no alignment: what is asked for has room for it."""
        layer = library.layer()
        size = layer.workspace_size(shapes())
        (needed,) = {_native.gaussian_cuda_plan(gaussians=10, width=64, height=48).workspace_bytes}
        assert layer.shape_change(shapes())
        given: list[int] = []

        def launch(asked: trt.Launch) -> bool:
            given.append(struct.unpack_from("<Q", asked.arguments, 11 * 8)[0])
            return True

        library.launch_with(launch)
        for workspace in (4096, 4097, 4096 + 255):
            given.clear()
            assert layer.enqueue(shapes(), [256] * 8, [256] * 3, workspace), library.logged()
            (begin,) = set(given)
            assert begin % 256 == 0
            assert workspace <= begin <= begin + needed <= workspace + size

    def test_kernels_are_loaded_when_shapes_are_known_and_not_within_a_capture(
        self, library: Library
    ) -> None:
        library.launch_with(lambda launch: True)
        library.plugin.forget_kernels(False)
        layer = library.layer()
        assert layer.shape_change(shapes())
        assert layer.enqueue(shapes(), [256] * 8, [256] * 3, 4096), library.logged()

    def test_kernels_that_cannot_be_loaded_are_an_error_before_the_first_frame(
        self, library: Library
    ) -> None:
        layer = library.layer().attached()
        library.plugin.forget_kernels(True)
        try:
            assert not layer.shape_change(shapes())
        finally:
            library.plugin.forget_kernels(False)
        assert "the kernels could not be loaded" in library.recorded()
        assert "enqueue was called before onShapeChange" not in library.logged()

    def test_a_launch_that_fails_is_an_error(self, library: Library) -> None:
        layer = library.layer().attached()
        assert layer.shape_change(shapes())
        library.launch_with(lambda launch: launch.kernel != "talksplat_scan")
        workspace = aligned(layer.workspace_size(shapes()))
        assert not layer.enqueue(shapes(), [256] * 8, [256] * 3, workspace.ctypes.data)
        expected = (
            "a kernel could not be launched: unspecified launch failure (cudaErrorLaunchFailure)"
        )
        assert expected in library.recorded()
        assert expected in library.logged()


class TestHandshake:
    """Which TensorRT a plugin lets in, and what it says of itself."""

    def test_a_plugin_says_what_it_is(self, library: Library) -> None:
        plugin = tensorrt_plugin(library.path)
        assert plugin.tensorrt[0] * 10000 + plugin.tensorrt[1] * 100 + plugin.tensorrt[2] == (
            library.version
        )
        assert plugin.talksplat == trt.VERSION
        assert plugin.architectures == tuple(trt.ARCHITECTURES.split())

    def test_versions(self, library: Library) -> None:
        own = library.version // 10000
        other = 21 - own  # 10 and 11
        check = library.plugin.talksplat_tensorrt_plugin_check
        assert check(own * 10000 + 9900) == 0
        assert check(other * 10000 + 500) == 2
        assert check(8601) == 2
        message = library.plugin.talksplat_tensorrt_plugin_last_error().decode()
        assert f"found TensorRT 8.6.1, but this plugin was compiled for TensorRT {own}" in message
        assert check(0) == 4
        message = library.plugin.talksplat_tensorrt_plugin_last_error().decode()
        assert "no TensorRT is loaded in this process" in message
        if own == 10:
            assert check(100200) == 3
            assert check(100300) == 0

    @pytest.mark.parametrize("version", [100200, 100300, 101302, 110100])
    def test_a_tensorrt_that_does_not_fit_gets_nothing(
        self, library: Library, tmp_path: Path, version: int
    ) -> None:
        own = library.version // 10000
        tensorrt = trt.compile_tensorrt(tmp_path, library.headers, version)
        done = subprocess.run(
            [sys.executable, "-c", CONVERSATION, str(tensorrt), str(library.path)],
            capture_output=True,
            text=True,
            check=True,
        )
        creators, first, second, taken, message = done.stdout.splitlines()
        if version // 10000 != own:
            assert (creators, first, second, taken) == ("0", "2", "2", "nothing")
            assert f"found TensorRT {version // 10000}." in message
            assert f"compiled for TensorRT {own}" in done.stderr
        elif version == 100200:
            assert (creators, first, second, taken) == ("0", "3", "3", "nothing")
            assert "found TensorRT 10.2.0; this plugin needs 10.3.0 or later" in done.stderr
        else:
            assert (creators, first, second) == ("1", "0", "5")
            assert taken == "talksplat::GaussianRasterize"
            assert "is it registered already?" in message
            assert done.stderr == ""

    def test_the_tensorrt_that_asks_is_the_one_that_counts(
        self, library: Library, tmp_path: Path
    ) -> None:
        # A version-compatible engine of another major version brings its own runtime with it.
        own = library.version // 10000
        process = trt.compile_tensorrt(tmp_path, library.headers, (21 - own) * 10000 + 500)
        engine = trt.compile_tensorrt(tmp_path, library.headers, own * 10000 + 500, "lean")
        done = subprocess.run(
            [sys.executable, "-c", TWO_RUNTIMES, str(process), str(engine), str(library.path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["0", "1"]


CONVERSATION = """
import ctypes, sys
tensorrt = ctypes.CDLL(sys.argv[1])  # not for everybody, as Python's tensorrt loads it
tensorrt.stand_in_taken.restype = ctypes.c_char_p
plugin = ctypes.CDLL(sys.argv[2])
plugin.getCreators.restype = ctypes.c_void_p
plugin.talksplat_tensorrt_plugin_last_error.restype = ctypes.c_char_p
count = ctypes.c_int32(-1)
assert bool(plugin.getCreators(ctypes.byref(count))) == (count.value > 0)
print(count.value)
for _ in range(2):
    print(plugin.talksplat_tensorrt_plugin_register(None))
print(tensorrt.stand_in_taken().decode() or "nothing")
print(plugin.talksplat_tensorrt_plugin_last_error().decode())
"""
TWO_RUNTIMES = """
import ctypes, sys
plugin = ctypes.CDLL(sys.argv[3])
for path in sys.argv[1:3]:
    runtime = ctypes.CDLL(path)
    print(runtime.stand_in_creators(plugin.getCreators))
"""
