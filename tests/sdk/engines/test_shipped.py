"""Engines built ahead of time, which an app brings along."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sdk.engines.conftest import FakeDevice

from talksplat.bundle import Bundle
from talksplat.cli import main
from talksplat.engines.flavours import Flavour, open_flavour
from talksplat.engines.obtain import Source, graph_source, open_workshop
from talksplat.engines.shipped import open_shipped
from talksplat.errors import BackendError

pytest.importorskip("tensorrt_rtx")

GRAPH = "motion"


@pytest.fixture
def flavour() -> Flavour:
    return open_flavour("tensorrt-rtx")


@pytest.fixture
def source(bundle_path: Path) -> Source:
    bundle = Bundle.open(bundle_path)
    spec, file = bundle.manifest.graphs[GRAPH], bundle.graph_file(GRAPH)
    return graph_source(file, spec, bundle.constants(GRAPH), "fp32", "d3talker")


@pytest.fixture
def shipped(
    bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache_of_the_test: Path,
) -> Path:
    """Engines for 8.6 and 8.9, as ``talksplat build`` writes them, and named by the app."""
    folder = tmp_path / "shipped"
    targets = ["--all-targets", "sm86,8.9", "-o", str(folder)]
    assert main(["build", str(bundle_path), "--backend", "tensorrt-rtx", *targets]) == 0
    monkeypatch.setenv("TALKSPLAT_ENGINES", str(folder))
    shutil.rmtree(cache_of_the_test)  # as on the machine of a user
    return folder


def test_the_index_names_every_file(shipped: Path, bundle_path: Path) -> None:
    index = open_shipped(shipped).index
    assert (index.flavour, index.precision, index.devices) == ("tensorrt-rtx", "fp32", "8.6 8.9")
    assert index.compute_capabilities == ((8, 6), (8, 9))
    graphs = Bundle.open(bundle_path).manifest.graphs
    assert [engine.graph for engine in index.engines] == list(graphs)
    for engine in index.engines:
        assert (shipped / engine.file).stat().st_size == engine.bytes
    assert len(list(shipped.iterdir())) == 2 * len(graphs) + 1


def test_they_are_taken_on_a_device_they_are_for(
    shipped: Path, flavour: Flavour, source: Source, cache_of_the_test: Path
) -> None:
    engine = open_workshop(flavour, FakeDevice()).obtain(source)
    assert engine.reason is None
    assert engine.entry.key["devices"] == "8.6 8.9"
    assert not cache_of_the_test.exists()


def test_an_engine_for_another_device_is_not_taken(
    shipped: Path, flavour: Flavour, source: Source
) -> None:
    device = FakeDevice("NVIDIA A100", (8, 0))
    engine = open_workshop(flavour, device).obtain(source)
    assert engine.reason is not None
    assert "it is for compute capability 8.6 8.9, this GPU has 8.0" in engine.reason
    assert "none was built yet" in engine.reason


def test_stale_ones_are_not_taken(shipped: Path, flavour: Flavour, source: Source) -> None:
    newer = type(flavour)(flavour.module, (1, 9))
    engine = open_workshop(newer, FakeDevice()).obtain(source)
    assert engine.reason is not None and "TensorRT changed from" in engine.reason


def test_corrupted_ones_are_not_taken(shipped: Path, flavour: Flavour, source: Source) -> None:
    for path in shipped.glob("*.engine"):
        path.write_bytes(b"!" * path.stat().st_size)
    engine = open_workshop(flavour, FakeDevice()).obtain(source)
    assert engine.reason is not None and "expected sha256" in engine.reason


def test_those_of_the_other_flavour_are_left_alone(
    shipped: Path, flavour: Flavour, source: Source
) -> None:
    path = shipped / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "flavour": "tensorrt"}))
    assert open_workshop(flavour, FakeDevice()).shipped is None


@pytest.mark.parametrize("text", [None, "{", '{"format": 1}', "[" * 100_000])
def test_a_folder_without_a_readable_index_is_told(
    text: str | None, flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    monkeypatch.setenv("TALKSPLAT_ENGINES", str(tmp_path))
    with pytest.raises(BackendError, match="as talksplat build -o writes it"):
        open_workshop(flavour, None)


def test_all_targets_without_a_list_are_all_from_ampere_on(
    bundle_path: Path, tmp_path: Path, flavour: Flavour, source: Source
) -> None:
    folder = tmp_path / "shipped"
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "--all-targets"]
    assert main([*command, "-o", str(folder)]) == 0
    shipped = open_shipped(folder)
    assert shipped.index.devices == "8.0 and later"
    workshop = replace(open_workshop(flavour, FakeDevice("H200", (9, 0))), shipped=shipped)
    assert workshop.obtain(source).reason is None


def test_engines_of_before_do_not_stay_among_them(
    bundle_path: Path, shipped: Path, flavour: Flavour
) -> None:
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "-o", str(shipped)]
    assert main([*command, "--all-targets"]) == 0
    index = open_shipped(shipped).index
    assert index.devices == "8.0 and later"
    assert {engine.file for engine in index.engines} == {
        path.name for path in shipped.glob("*.engine")
    }
    assert len(list(shipped.iterdir())) == 2 * len(index.engines) + 1


def test_a_folder_with_other_things_is_left_alone(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "--all-targets"]
    assert main([*command, "-o", str(folder)]) == 1
    assert "Expected a new folder for engines" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_build_that_fails_leaves_no_folder_and_keeps_the_old_one(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT for RTX multiplies no float32 matrices on Turing."""
    folder = tmp_path / "engines"
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "-o", str(folder)]
    assert main([*command, "--all-targets", "sm75"]) == 1
    message = capsys.readouterr().err
    assert "cannot build the graph" in message and "Turing" in message
    assert not folder.exists()
    assert main([*command, "--all-targets", "sm89"]) == 0
    assert main([*command, "--all-targets", "sm75"]) == 1
    assert open_shipped(folder).index.devices == "8.9"
    assert [path.name for path in tmp_path.iterdir() if "engines" in path.name] == ["engines"]
