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
from talksplat.engines.cache import Found, Missing
from talksplat.engines.flavours import Flavour, TensorRT, open_flavour
from talksplat.engines.obtain import Source, graph_source, open_workshop
from talksplat.engines.shipped import check_output, open_shipped, ship
from talksplat.errors import InputError, OutputError

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
    with pytest.raises(InputError, match="as talksplat build -o writes it"):
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


def test_a_website_with_an_index_of_its_own_is_left_alone(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    website = tmp_path / "website"
    (website / "photos").mkdir(parents=True)
    (website / "photos" / "wedding.jpg").write_text("precious")
    (website / "index.json").write_text('{"my": "site"}')
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "--all-targets"]
    assert main([*command, "-o", str(website)]) == 1
    assert "Expected a new folder for engines" in capsys.readouterr().err
    assert (website / "photos" / "wedding.jpg").read_text() == "precious"


@pytest.mark.parametrize("name", ["letter.txt", "photos", "notes.json", "other.engine"])
def test_a_letter_among_engines_is_not_removed_with_them(
    bundle_path: Path, shipped: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "photos":
        (shipped / name).mkdir()
    else:
        (shipped / name).write_text("dear")
    before = sorted(shipped.iterdir())
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "--all-targets"]
    assert main([*command, "-o", str(shipped)]) == 1
    assert f"found something else at {shipped}: {name}." in " ".join(
        capsys.readouterr().err.split()
    )
    assert sorted(shipped.iterdir()) == before


def test_an_index_that_names_other_files_gives_no_right_to_them(shipped: Path) -> None:
    (shipped / "letter.txt").write_text("dear")
    index = json.loads((shipped / "index.json").read_text())
    index["engines"][0]["file"] = "letter.txt"
    (shipped / "index.json").write_text(json.dumps(index))
    with pytest.raises(OutputError, match=r"letter\.txt"):
        check_output(shipped)


def test_the_folder_that_one_is_in(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command = ["build", str(bundle_path), "--backend", "tensorrt-rtx", "--all-targets"]
    assert main([*command, "-o", "."]) == 0
    assert open_shipped(folder).index.devices == "8.0 and later"


class TestTensorRT:
    """Engines of tensorrt are for one GPU and driver, those that were shipped too."""

    BUILT_ON = FakeDevice("NVIDIA GeForce RTX 4090", (8, 9), 12080)

    @pytest.fixture
    def tensorrt(self, flavour: Flavour) -> TensorRT:
        return TensorRT(flavour.module, (10, 13, 0))

    @pytest.fixture(params=[False, True], ids=["for one GPU", "compatible"])
    def compatible(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture
    def source(
        self,
        tensorrt: TensorRT,
        compatible: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        cache_of_the_test: Path,
    ) -> Source:
        """Of an engine that was built there and shipped."""
        source = Source("ada: motion, fp32", GRAPH, b"model", {})
        workshop = open_workshop(tensorrt, self.BUILT_ON, compatible=compatible)
        facts = {"layers": 1, "onnx_bytes": 5, "seconds": 1.0}
        workshop.cache.store(workshop.key(source), source.label, b"engine", facts)
        found = workshop.cache.find(workshop.key(source), source.label)
        assert isinstance(found, Found)
        ship(tmp_path / "shipped", workshop.target, "fp32", {GRAPH: found})
        shutil.rmtree(cache_of_the_test)
        monkeypatch.setenv("TALKSPLAT_ENGINES", str(tmp_path / "shipped"))
        return source

    def lookup(self, tensorrt: TensorRT, source: Source, device: FakeDevice) -> Found | Missing:
        workshop = open_workshop(tensorrt, device)
        return next(workshop._lookups(source, None))

    def test_on_the_same_gpu_it_is_taken(self, tensorrt: TensorRT, source: Source) -> None:
        assert isinstance(self.lookup(tensorrt, source, self.BUILT_ON), Found)

    def test_on_another_gpu_only_a_compatible_one_is(
        self, tensorrt: TensorRT, source: Source, compatible: bool
    ) -> None:
        laptop = replace(self.BUILT_ON, name="NVIDIA GeForce RTX 4060 Laptop GPU")
        found = self.lookup(tensorrt, source, laptop)
        if compatible:
            assert isinstance(found, Found)
            return
        assert isinstance(found, Missing)
        assert found.reason.endswith(
            "it is for 8.9 NVIDIA GeForce RTX 4090, this GPU takes 8.9 NVIDIA GeForce RTX 4060 "
            "Laptop GPU"
        )

    def test_under_another_driver_it_is_not(self, tensorrt: TensorRT, source: Source) -> None:
        found = self.lookup(tensorrt, source, replace(self.BUILT_ON, driver_version=13000))
        assert isinstance(found, Missing)
        assert found.reason.endswith("it was built under CUDA 12.8, this driver knows CUDA 13.0")

    def test_an_index_that_contradicts_itself_is_not_believed(
        self, tensorrt: TensorRT, source: Source, tmp_path: Path
    ) -> None:
        path = tmp_path / "shipped" / "index.json"
        changed = {**json.loads(path.read_text()), "compute_capabilities": [[9, 0]]}
        path.write_text(json.dumps(changed))
        found = self.lookup(tensorrt, source, self.BUILT_ON)
        assert isinstance(found, Missing) and "contradicts itself" in found.reason


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
