"""``talksplat::GaussianRasterize`` in ONNX Runtime: the bits of ``talksplat.rasterize``, or a
sentence that says why not."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from benchmarks.rasterizer.scenes import Scene, head
from onnx import TensorProto, helper
from scenes import RULE_SETS, SCENES, cloud, spherical_harmonics

from talksplat import custom_op
from talksplat.custom_op import THREADS_ENTRY, custom_op_library
from talksplat.errors import BackendError
from talksplat.rasterization import rasterize

Array = np.ndarray
Feed = dict[str, Array]

ROOT = Path(__file__).parents[2]
INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
ATTRIBUTES = ("near_plane", "far_plane", "radius_clip", "eps2d", "sh_degree", "render_mode")


@pytest.fixture(scope="module")
def library() -> Path:
    try:
        return custom_op_library()
    except BackendError as error:
        pytest.skip(str(error))


def test_every_scene_has_the_bits_of_rasterize(library: Path) -> None:
    """All scenes by all rules; where a scene has no background, it is black."""
    different = []
    for name, make_scene in SCENES.items():
        scene = make_scene()
        if scene.colors.ndim == (4 if "sh_degree" in scene.options else 3):
            continue  # one set of colours per camera is not part of the operator
        for dialect, rasterize_mode in RULE_SETS:
            if differs(library, scene, dialect=dialect, rasterize_mode=rasterize_mode):
                different.append((name, dialect, rasterize_mode))
    assert not different


def test_the_size_is_that_of_the_background_unless_attributes_say_it(library: Path) -> None:
    scene = SCENES["background image"]()
    feed = feed_of(scene)
    with_size = {"width": scene.width, "height": scene.height}
    for attributes in ({}, with_size):
        colors, alphas, _ = open_session(library, attributes).run(None, feed)
        assert colors.shape == (1, 3, scene.height, scene.width)
        assert alphas.shape == (1, 1, scene.height, scene.width)


def test_opacities_may_be_a_column(library: Path) -> None:
    scene = cloud(count=100)
    feed = feed_of(scene)
    column = {**feed, "opacities": feed["opacities"][:, None]}
    attributes = {"width": scene.width, "height": scene.height}
    flat = open_session(library, attributes).run(None, feed)
    found = open_session(library, attributes, {"opacities": 2}).run(None, column)
    for one, other in zip(flat, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_status_is_zero_after_a_frame(library: Path) -> None:
    scene = cloud(count=100)
    session = open_session(library, {"width": scene.width, "height": scene.height})
    _, _, status = session.run(None, feed_of(scene))
    assert status.dtype == np.int32
    assert status.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(library: Path, threads: int) -> None:
    scene = head(3000, width=96, height=80)
    attributes = {"width": scene.width, "height": scene.height}
    expected = open_session(library, attributes).run(None, feed_of(scene))
    found = open_session(library, attributes, threads=str(threads)).run(None, feed_of(scene))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", ["-1", "257", "two", "1.5"])
def test_a_wrong_number_of_threads_is_refused(library: Path, threads: str) -> None:
    with pytest.raises(Exception, match=f"{THREADS_ENTRY} expects 0 .* to 256, found '{threads}'"):
        open_session(library, {}, threads=threads)


def test_one_session_draws_several_frames_at_once(library: Path) -> None:
    """Scenes of different sizes from four threads, many times over: no call sees another's."""
    scenes = [cloud(count=50 + 400 * seed, width=40, height=56, seed=seed) for seed in range(4)]
    session = open_session(library, {"width": 40, "height": 56})
    feeds = [feed_of(scene) for scene in scenes]
    alone = [session.run(None, feed) for feed in feeds]

    def changed(number: int) -> bool:
        found = session.run(None, feeds[number % 4])
        return not all(map(np.array_equal, found, alone[number % 4]))

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(changed, range(80)))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (
            {"dialect": "nerf"},
            "dialect: expected one of 'gsplat', 'gsplat-1.5', 'inria'; found 'nerf'",
        ),
        ({"rasterize_mode": "sharp"}, "rasterize_mode: .*'classic', 'antialiased'; found 'sharp'"),
        ({"render_mode": "A"}, "render_mode: .*'RGB', 'D', 'ED', 'RGB\\+D', 'RGB\\+ED'; found 'A'"),
        ({"dialect": 1}, "dialect: expected a string, found an integer"),
        ({"width": 1.5}, "width: expected an integer, found a float"),
        ({"eps2d": "0.3"}, "eps2d: expected a float, found a string"),
        ({"width": -1, "height": 8}, "width: expected 0 to 32768, found -1"),
        ({"width": 8, "height": 100_000}, "height: expected 0 to 32768, found 100000"),
        ({"width": 8}, "width and height: expected both, .*found 8 and 0"),
        ({"sh_degree": 4}, "sh_degree: expected -1 to 3, found 4"),
        ({"near_plane": 0.0}, "near_plane: expected at least 1e-09, found 0"),
        ({"near_plane": float("nan")}, "near_plane: expected at least 1e-09, found -?nan"),
        ({"radius_clip": -2.0}, "radius_clip: expected at least 0, found -2"),
        ({"eps2d": -1.0}, "eps2d: expected at least 0, found -1"),
        ({"far_plane": -1.0}, "far_plane: expected at least 0, found -1"),
        ({"tile_entries": 2**31 - 1}, "tile_entries: expected 0 to 2147483646, found 2147483647"),
        ({"near_plane": [5.0]}, "near_plane: expected a float, found a list"),
        ({"width": [8, 8]}, "width: expected an integer, found a list"),
        ({"dialect": ["gsplat"]}, "dialect: expected a string, found a list"),
        (
            {"eps2d": helper.make_tensor("eps2d", TensorProto.FLOAT, [1], [0.3])},
            "a tensor or a graph",
        ),
        ({"width": 2**40, "height": 8}, "width: expected 32 bits, found 1099511627776"),
        ({"tile_entries": -1}, "tile_entries: expected 0 to 2147483646, found -1"),
    ],
)
def test_attributes_are_checked_when_the_session_is_made(
    library: Path, attributes: Mapping[str, Any], sentence: str
) -> None:
    with pytest.raises(Exception, match=sentence):
        open_session(library, attributes)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"means": ones(10, 2)}, r"means: expected shape \[N, 3\], found \[10, 2\]"),
        ({"quats": ones(9, 4)}, r"quats: expected shape \[10, 4\], found \[9, 4\]"),
        ({"scales": ones(10, 4)}, r"scales: expected shape \[10, 3\], found \[10, 4\]"),
        ({"opacities": ones(11)}, r"opacities: expected shape \[10\], found \[11\]"),
        ({"colors": ones(9, 3)}, r"colors: expected shape \[10, D\].*, found \[9, 3\]"),
        ({"colors": ones(10, 0)}, "D of colors: expected 1 to 1048576, found 0"),
        ({"viewmats": ones(1, 3, 4)}, r"viewmats: expected shape \[C, 4, 4\], found \[1, 3, 4\]"),
        ({"Ks": ones(2, 3, 3)}, r"Ks: expected shape \[1, 3, 3\], found \[2, 3, 3\]"),
        (
            {"backgrounds": ones(1, 3, 8, 9)},
            r"backgrounds: expected shape \[1, 3, 8, 8\] or \[1, 3, 1, 1\], found \[1, 3, 8, 9\]",
        ),
        ({"Ks": -ones(1, 3, 3)}, r"Ks: expected positive focal lengths at \[0, 0\] and \[1, 1\]"),
        ({"viewmats": np.inf * ones(1, 4, 4)}, "viewmats: expected finite values"),
        (
            {"means": np.where(np.arange(30).reshape(10, 3) < 2, np.nan, ones(10, 3))},
            r"NaN or infinity in means \(2 of 30 values\)",
        ),
        ({"opacities": np.inf * ones(10)}, r"infinity in opacities \(10 of 10 values\)"),
    ],
)
def test_inputs_are_checked_before_anything_is_drawn(
    library: Path, changed: Feed, sentence: str
) -> None:
    scene = cloud(count=10, width=8, height=8)
    session = open_session(library, {"width": 8, "height": 8})
    with pytest.raises(Exception, match=sentence):
        session.run(None, {**feed_of(scene), **changed})
    session.run(None, feed_of(scene))  # and the next frame is drawn


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"colors": ones(10, 3, 3)}, "K of colors for sh_degree 1: expected 4 to .*, found 3"),
        ({"viewmats": np.zeros((1, 4, 4), np.float32)}, "expected invertible matrices"),
    ],
)
def test_spherical_harmonics_need_coefficients_and_a_camera(
    library: Path, changed: Feed, sentence: str
) -> None:
    scene = replace(spherical_harmonics(1), width=8, height=8)
    scene = replace(scene, **{name: getattr(scene, name)[:10] for name in INPUTS[:5]})
    attributes = {"width": 8, "height": 8, "sh_degree": 1}
    session = open_session(library, attributes, {"colors": 3})
    with pytest.raises(Exception, match=sentence):
        session.run(None, {**feed_of(scene), **changed})


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 32769)])
def test_the_size_of_a_background_is_checked(library: Path, height: int, width: int) -> None:
    feed = {**feed_of(cloud(count=10)), "backgrounds": ones(1, 3, height, width)}
    with pytest.raises(
        Exception, match=r"(H|W) of backgrounds: expected 1 to 32768, found (0|32769)"
    ):
        open_session(library, {}).run(None, feed)


def test_more_tile_entries_than_memory_is_allowed_for_are_refused(library: Path) -> None:
    side, count = 4096, 17_000  # 65,536 tiles, each covered by every Gaussian
    scene = head(count, side, side)
    scene.scales[:] = 50
    attributes = {"width": side, "height": side, "render_mode": "D"}
    session = open_session(library, attributes, threads="1")
    with pytest.raises(Exception, match=f"need {count * 65_536} entries.*4 GiB"):
        session.run(None, feed_of(scene))


def test_no_camera_is_refused_as_by_every_carrier(library: Path) -> None:
    feed = feed_of(cloud(count=10))
    feed |= {name: feed[name][:0] for name in ("viewmats", "Ks", "backgrounds")}
    with pytest.raises(Exception, match="C of viewmats: expected 1 to 65535, found 0"):
        open_session(library, {"width": 8, "height": 4}).run(None, feed)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_the_library_outlives_its_sessions(library: Path) -> None:
    """ONNX Runtime unloads a library with its last session; our threads still wait in its code."""
    script = f"""
import gc
from pathlib import Path
import onnxruntime
options = onnxruntime.SessionOptions()
options.register_custom_ops_library({str(library)!r})
del options
gc.collect()
print({library.name!r} in Path("/proc/self/maps").read_text())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr


def test_the_operator_takes_the_instructions_that_rasterize_takes(library: Path) -> None:
    """Other instructions round differently; one variable chooses them for both."""
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from talksplat.rasterization import instruction_set
from test_onnxruntime_op import cloud, differs
print(instruction_set(), differs(Path({str(library)!r}), cloud()))
"""
    run = run_with_instructions("portable", script)
    assert run.stdout.strip() == "portable False", run.stderr


def test_instructions_that_the_processor_lacks_are_refused(library: Path) -> None:
    script = f"""
import onnxruntime
onnxruntime.SessionOptions().register_custom_ops_library({str(library)!r})
"""
    run = run_with_instructions("abacus", script)
    assert run.returncode != 0
    assert "TALKSPLAT_INSTRUCTION_SET names 'abacus', which is unknown" in run.stderr


def run_with_instructions(name: str, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TALKSPLAT_INSTRUCTION_SET": name}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


class Api(ctypes.Structure):
    """The first member of ``OrtApi``, the only one that a runtime too old is asked for."""

    _fields_ = [("create_status", ctypes.c_void_p)]


class ApiBase(ctypes.Structure):
    """``OrtApiBase``."""

    _fields_ = [("get_api", ctypes.c_void_p), ("get_version", ctypes.c_void_p)]


def test_a_runtime_that_is_too_old_is_told_so(library: Path) -> None:
    said: list[bytes] = []
    api = Api()

    # A status is a pointer, which Python would have to keep alive; a number will do.
    @ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p)
    def create_status(code: int, message: bytes) -> int:
        said.append(message)
        return 1

    @ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint32)
    def get_api(version: int) -> int:
        return ctypes.addressof(api) if version == 1 else 0

    name = ctypes.create_string_buffer(b"1.9.0")

    @ctypes.CFUNCTYPE(ctypes.c_size_t)
    def get_version() -> int:
        return ctypes.addressof(name)

    api.create_status = ctypes.cast(create_status, ctypes.c_void_p)
    base = ApiBase(ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p))
    register = ctypes.CDLL(str(library)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, ctypes.byref(base)) == 1
    assert said == [b"GaussianRasterize needs ONNX Runtime 1.17 or later, found 1.9.0."]


@pytest.mark.parametrize("source", ["cuda_kernel.cpp", "register.cpp"])
def test_the_operator_for_cuda_compiles(source: str) -> None:
    """It cannot be run without a GPU, nor linked without nvcc."""
    compiler = shutil.which("c++")
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    onnxruntime_headers = Path(
        os.environ.get("ONNXRUNTIME_INCLUDE_DIR", ROOT / "build/onnxruntime")
    )
    for header in (cuda / "cuda_runtime_api.h", onnxruntime_headers / "onnxruntime_c_api.h"):
        if not header.is_file():
            pytest.skip(f"no {header}")
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DTALKSPLAT_WITH_CUDA"]
    includes = [f"-isystem{folder}" for folder in (cuda, onnxruntime_headers)]
    path = ROOT / "plugins/gaussian_rasterizer/onnxruntime" / source
    run = subprocess.run([compiler, *flags, *includes, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_variable_names_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.so"
    monkeypatch.setenv(custom_op.LIBRARY_VARIABLE, str(other))
    with pytest.raises(BackendError, match="TALKSPLAT_ONNXRUNTIME_OP expects the path of"):
        custom_op_library()
    other.touch()
    assert custom_op_library() == other


def test_a_build_without_the_operator_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(custom_op.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(custom_op, "__file__", str(tmp_path / "custom_op.py"))
    with pytest.raises(BackendError, match=r"built without it.*ONNXRUNTIME_ROOT"):
        custom_op_library()


def differs(library: Path, scene: Scene, **rules: str) -> bool:
    """Whether the operator and talksplat.rasterize draw different bits."""
    found = draw(library, scene, **rules)
    expected = rasterize(*scene.arrays, scene.width, scene.height, **scene.options, **rules)
    return not all(map(np.array_equal, found, map(channel_first, expected)))


def draw(library: Path, scene: Scene, **rules: str) -> tuple[Array, Array]:
    """(colors, alphas) [C,X,H,W] of the operator."""
    attributes = {name: scene.options[name] for name in ATTRIBUTES if name in scene.options}
    attributes |= {"width": scene.width, "height": scene.height, **rules}
    session = open_session(library, attributes, {"colors": scene.colors.ndim})
    colors, alphas, _ = session.run(None, feed_of(scene))
    return colors, alphas


def feed_of(scene: Scene) -> Feed:
    """The scene's arrays, and its background channel-first or black."""
    behind = scene.options.get("backgrounds")
    if behind is None:
        channels = scene.colors.shape[-1]
        behind = np.zeros((len(scene.viewmats), channels), np.float32)
    behind = behind[:, :, None, None] if behind.ndim == 2 else channel_first(behind)
    return dict(zip(INPUTS, (*scene.arrays, np.ascontiguousarray(behind)), strict=True))


def channel_first(images: Array) -> Array:
    return images.transpose(0, 3, 1, 2)


def open_session(
    library: Path,
    attributes: Mapping[str, Any],
    ranks: Mapping[str, int] | None = None,
    threads: str | None = None,
) -> onnxruntime.InferenceSession:
    """A graph of one node; all axes of its inputs are free."""
    axes = {"opacities": 1, "colors": 2, "viewmats": 3, "Ks": 3, "backgrounds": 4, **(ranks or {})}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes.get(name, 2))
        for name in INPUTS
    ]
    outputs = [
        helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * 4),
        helper.make_tensor_value_info("alphas", TensorProto.FLOAT, [None] * 4),
        helper.make_tensor_value_info("status", TensorProto.INT32, [4]),
    ]
    node = helper.make_node(
        "GaussianRasterize", INPUTS, ["out", "alphas", "status"], domain="talksplat", **attributes
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("talksplat", 1)]
    model = helper.make_model(
        helper.make_graph([node], "one", inputs, outputs), opset_imports=opsets, ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.add_session_config_entry(THREADS_ENTRY, threads)
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
