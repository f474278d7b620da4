"""``.ply`` files of Gaussians: round trips, dialects, and files that are not what they say."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talksplat.errors import CheckpointError, InputError
from talksplat_export.checkpoints.gaussian_ply import (
    GaussianPly,
    exp_to_softplus,
    read_gaussian_ply,
    softplus_to_exp,
    write_gaussian_ply,
)

STOCK = (
    "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
)


def gaussians(count: int = 5, degree: int = 2, seed: int = 0, bound: bool = False) -> GaussianPly:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return GaussianPly(
        means=draw(count, 3),
        shs=draw(count, (degree + 1) ** 2, 3),
        opacities=draw(count, 1),
        scales=draw(count, 3) - 5,
        quats=draw(count, 4),
        extras={"binding_0": np.arange(count, dtype=np.float32)} if bound else {},
    )


def same(a: GaussianPly, b: GaussianPly) -> bool:
    names = ("means", "shs", "opacities", "scales", "quats")
    return a.extras.keys() == b.extras.keys() and all(
        np.array_equal(left, right)
        for left, right in [
            *((getattr(a, name), getattr(b, name)) for name in names),
            *((a.extras[name], b.extras[name]) for name in a.extras),
        ]
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 40), st.integers(0, 3), st.integers(0, 99), st.booleans(), st.booleans())
def test_what_was_written_is_read_back_bit_for_bit(
    tmp_path: Path, count: int, degree: int, seed: int, ascii: bool, bound: bool
) -> None:
    written = gaussians(count, degree, seed, bound)
    write_gaussian_ply(tmp_path / "a.ply", written, ascii=ascii)
    assert same(read_gaussian_ply(tmp_path / "a.ply"), written)


def test_properties_are_the_stock_ones_in_their_order(tmp_path: Path) -> None:
    write_gaussian_ply(tmp_path / "a.ply", gaussians(degree=0))
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode()
    assert header.startswith("ply\nformat binary_little_endian 1.0\nelement vertex 5\n")
    properties = [line.split()[2] for line in header.splitlines() if line.startswith("property")]
    assert " ".join(properties) == STOCK


def test_rest_colours_are_channel_major(tmp_path: Path) -> None:
    write_gaussian_ply(tmp_path / "a.ply", gaussians(count=1, degree=1), ascii=True)
    text = (tmp_path / "a.ply").read_text()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("property")]
    values = dict(zip(names, map(float, text.split("end_header\n")[1].split()), strict=True))
    stored = np.array([values[f"f_rest_{i}"] for i in range(9)], np.float32)
    assert np.array_equal(stored, gaussians(count=1, degree=1).shs[0, 1:].T.ravel())


def test_the_binding_of_gaussian_avatars_is_kept(tmp_path: Path) -> None:
    write_gaussian_ply(tmp_path / "a.ply", gaussians(bound=True))
    read = read_gaussian_ply(tmp_path / "a.ply")
    assert read.binding is not None
    assert read.binding.tolist() == [0, 1, 2, 3, 4]
    assert gaussians().binding is None


def test_other_number_types_byte_orders_and_elements_are_read(tmp_path: Path) -> None:
    expected = gaussians(degree=0)
    names = STOCK.split()
    columns = [
        *expected.means.T, *np.zeros((3, 5)), *expected.shs[:, 0].T, expected.opacities[:, 0],
        *expected.scales.T, *expected.quats.T,
    ]  # fmt: skip
    table = np.stack(columns, 1).astype(">f8").tobytes()
    properties = "\n".join(f"property double {name}" for name in names)
    header = (
        f"ply\nformat binary_big_endian 1.0\ncomment made by hand\nelement vertex 5\n{properties}\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    (tmp_path / "a.ply").write_bytes(header.encode() + table + b"\3" + bytes(12))
    assert same(read_gaussian_ply(tmp_path / "a.ply"), expected)


def test_scales_mean_the_same_on_either_side_of_the_conversion() -> None:
    raw = np.linspace(-60, 20, 4001, dtype=np.float32)
    softplus = torch.nn.functional.softplus(torch.from_numpy(raw.astype(np.float64))).numpy()
    # float32 tells values near 60 apart by 4e-6, which exp makes a relative difference.
    np.testing.assert_allclose(np.exp(softplus_to_exp(raw).astype(np.float64)), softplus, rtol=4e-6)
    np.testing.assert_allclose(exp_to_softplus(softplus_to_exp(raw)), raw, atol=1e-5, rtol=1e-6)


def test_reading_softplus_scales_as_exp_is_off_by_more_the_larger_the_splat() -> None:
    sizes = np.array([0.002, 0.02, 0.2])
    raw = np.log(np.expm1(sizes))
    assert np.exp(raw) / sizes - 1 == pytest.approx([0.001, 0.0101, 0.107], rel=0.01)


def test_scales_that_no_float_holds_are_refused() -> None:
    with pytest.raises(InputError, match="at most 88"):
        exp_to_softplus(np.array([100], np.float32))


def header(count: str = "5", names: str = STOCK, kind: str = "binary_little_endian") -> str:
    properties = "".join(f"property float {name}\n" for name in names.split())
    return f"ply\nformat {kind} 1.0\nelement vertex {count}\n{properties}end_header\n"


BAD = {
    "other file": (b"PK\3\4", "a header without an end"),
    "other first line": (b"plywood\n", "says ply"),
    "empty": (b"", "without an end"),
    "no end": (b"ply\nformat ascii 1.0\n", "without an end"),
    "endless header": (b"ply\n" + b"comment x\n" * 10_000, "without an end"),
    "cut off": (header().encode() + bytes(5 * 17 * 4 - 1), "cut off"),
    "too long": (header().encode() + bytes(5 * 17 * 4 + 1), "expected 340 bytes"),
    "promises terabytes": (header("99999999999").encode() + bytes(100), "cut off"),
    "ascii promises": (header("99999999999", kind="ascii").encode() + b"1 2 3", "cut off"),
    "negative count": (header("-5").encode(), "element and property lines"),
    "mesh": (header(names="x y z").encode(), "f_dc_0 among them"),
    "repeated": (header(names=STOCK + " x").encode(), "'x' twice"),
    "odd colours": (header(names=STOCK + " f_rest_0").encode(), "0, 9, 24 or 45"),
    "list": (header().replace("float x", "list uchar int x").encode(), "property lines"),
    "no format": (header().replace("format", "comment").encode(), "without them"),
    "words": (header("1", kind="ascii").encode() + b"a " * 17, "numbers"),
    "NaN": (header("1").encode() + b"\xff" * 68, "finite"),
    "zero rotation": (header("1").encode() + bytes(68), "zero quaternion"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence_and_no_memory(name: str, tmp_path: Path) -> None:
    data, words = BAD[name]
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as refusal:
            read_gaussian_ply(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert words in str(refusal.value) and str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert peak < 4 * 2**20


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_gaussian_ply(tmp_path / "none.ply")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_never_anything_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "fuzz.ply"
    write_gaussian_ply(path, gaussians(count=3, degree=1), ascii=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 40))]
            case _:
                content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        if not content:
            break
    path.write_bytes(bytes(content))
    try:
        read = read_gaussian_ply(path)
    except CheckpointError:
        return
    assert np.isfinite(read.shs).all()


def test_arrays_of_other_shapes_are_refused() -> None:
    good = gaussians(degree=0)
    with pytest.raises(InputError, match="1, 4, 9 or 16"):
        GaussianPly(
            good.means, np.zeros((5, 2, 3), np.float32), good.opacities, good.scales, good.quats
        )
    with pytest.raises(InputError, match="means expects float32"):
        GaussianPly(
            good.means.astype(np.float64), good.shs, good.opacities, good.scales, good.quats
        )
