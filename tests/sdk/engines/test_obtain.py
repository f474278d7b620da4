"""From a bundle to its engines: built once, found again, built anew when something changed."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from synthetic_bundle import write_synthetic_bundle
from tests.sdk.engines.conftest import FakeDevice

from talksplat import families
from talksplat.bundle import Bundle
from talksplat.engines import obtain as module
from talksplat.engines.build import Built
from talksplat.engines.cache import EngineCache
from talksplat.engines.flavours import Flavour, TensorRT, TensorRTRTX, open_flavour
from talksplat.engines.obtain import (
    FRAME,
    Source,
    Workshop,
    frame_source,
    graph_source,
    obtain_all,
    open_workshop,
    sources_of,
)
from talksplat.errors import BackendError, OutputError

pytest.importorskip("tensorrt_rtx")
pytestmark = pytest.mark.filterwarnings("ignore:.*[Tt]iming cache.*:DeprecationWarning")

FAMILIES = ("d3talker", "talkinggaussian", "instag", "sdtalk")
FRAME_GRAPHS = {
    "d3talker": ["motion", "refiner"],
    "talkinggaussian": ["motion_mouth", "motion_face"],
    "instag": ["motion_face", "motion_mouth"],
    "sdtalk": ["motion", "refiner"],
}


@pytest.fixture(scope="module")
def flavour() -> Flavour:
    return open_flavour("tensorrt-rtx")


@pytest.fixture
def source(every_family: dict[str, Bundle]) -> Source:
    """One small graph."""
    return source_of(every_family["d3talker"], "motion")


def source_of(bundle: Bundle, graph: str, precision: Any = "fp32") -> Source:
    manifest = bundle.manifest
    file, constants = bundle.graph_file(graph), bundle.constants(graph)
    return graph_source(file, manifest.graphs[graph], constants, precision, manifest.family)


def reason_of(workshop: Workshop, source: Source) -> str | None:
    return workshop.obtain(source).reason


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_graph_of_every_family_becomes_an_engine(
    every_family: dict[str, Bundle], flavour: Flavour, family: str, precision: Any
) -> None:
    bundle = every_family[family]
    program = families.frame_program(bundle)
    told: list[tuple[str, int, int]] = []
    sources = list(sources_of(bundle, program, flavour, precision))
    workshop = open_workshop(flavour, None)
    engines = list(obtain_all(workshop, sources, lambda *progress: told.append(progress)))
    assert [engine.graph for engine in engines] == list(bundle.manifest.graphs)
    assert all(len(engine.data) > 1000 for engine in engines)
    numbers = [number for _, number, _ in told]
    assert numbers == sorted(numbers) and numbers[-1] == told[-1][2]
    assert "none was built yet" in told[0][0]
    again = obtain_all(open_workshop(flavour, FakeDevice()), sources, print)
    assert [engine.data for engine in again] == [engine.data for engine in engines]


def test_precisions_are_kept_apart(source: Source, every_family: dict[str, Bundle]) -> None:
    half = source_of(every_family["d3talker"], "motion", "fp16")
    assert half.sha256 != source.sha256
    assert (source.label, half.label) == ("synthetic: motion, fp32", "synthetic: motion, fp16")


def test_an_engine_is_built_once(flavour: Flavour, source: Source) -> None:
    workshop = open_workshop(flavour, None)
    first, second = workshop.obtain(source), workshop.obtain(source)
    assert first.reason == "none was built yet" and second.reason is None
    assert first.data == second.data
    assert first.entry.facts["onnx_bytes"] == len(source.model)
    assert first.entry.facts["layers"] > 0


def test_two_people_on_one_general_model_share_an_engine(flavour: Flavour, tmp_path: Path) -> None:
    """Their tensors differ, their graphs and about how many Gaussians they have do not."""
    workshop = open_workshop(flavour, None)
    one, other = (write_synthetic_bundle(tmp_path / f"{name}.avatar") for name in ("a", "b"))
    assert reason_of(workshop, source_of(one, "motion")) is not None
    assert reason_of(workshop, source_of(other, "motion")) is None


def other_version(workshop: Workshop) -> Workshop:
    return replace(workshop, flavour=type(workshop.flavour)(workshop.flavour.module, (1, 8, 0)))


def other_target(**changes: Any) -> Callable[[Workshop], Workshop]:
    return lambda workshop: replace(workshop, target=replace(workshop.target, **changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_version, "TensorRT changed from 1.7"),
        (other_target(devices="8.6 NVIDIA A10"), "device changed from 8.0 and later to 8.6"),
        (other_target(driver="CUDA 13.0"), "driver changed from any to CUDA 13.0"),
        (
            other_target(compatible=False),
            "flags changed from no TF32, no runtime allocation, compatible to no TF32, no run",
        ),
    ],
)
def test_a_stale_engine_is_built_again_and_says_why(
    flavour: Flavour, source: Source, change: Callable[[Workshop], Workshop], words: str
) -> None:
    workshop = open_workshop(flavour, None)
    workshop.obtain(source)
    told: list[str] = []
    engine = change(workshop).obtain(source, lambda what, fraction: told.append(what))
    assert engine.reason is not None and engine.reason.startswith(words)
    assert told[0].startswith(f"Building synthetic: motion, fp32 for tensorrt-rtx: {words}")
    assert reason_of(workshop, source) is None  # the old one is still there for whom it fits


def test_another_graph_or_size_is_another_engine(flavour: Flavour, source: Source) -> None:
    workshop = open_workshop(flavour, None)
    workshop.obtain(source)
    model = onnx.load_from_string(source.model)
    model.graph.node[0].doc_string = "changed"
    changed = replace(source, model=model.SerializeToString())
    assert (reason_of(workshop, changed) or "").startswith("graph changed from")


def test_a_corrupted_engine_is_built_again(flavour: Flavour, source: Source) -> None:
    workshop = open_workshop(flavour, None)
    data = workshop.obtain(source).data
    (path,) = workshop.cache.folder.glob("*.engine")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    again = workshop.obtain(source)
    assert again.reason is not None and "damaged" in again.reason
    assert again.data == data and reason_of(workshop, source) is None


def test_a_corrupted_sidecar_is_built_again(flavour: Flavour, source: Source) -> None:
    workshop = open_workshop(flavour, None)
    workshop.obtain(source)
    (path,) = workshop.cache.folder.glob("*.json")
    path.write_text("{")
    assert "damaged" in (reason_of(workshop, source) or "")
    assert reason_of(workshop, source) is None


def test_an_unwritable_cache_is_found_out_before_building(
    flavour: Flavour, source: Source, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = EngineCache(tmp_path / "file" / "engines")
    workshop = replace(open_workshop(flavour, None), cache=cache)
    told: list[str] = []
    with pytest.raises(OutputError, match="TALKSPLAT_CACHE"):
        workshop.obtain(source, lambda what, fraction: told.append(what))
    assert not told


def test_an_interrupted_build_leaves_nothing(
    flavour: Flavour, source: Source, cache_of_the_test: Path
) -> None:
    def interrupt(what: str, fraction: float) -> None:
        if fraction > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_workshop(flavour, None).obtain(source, interrupt)
    assert not list((cache_of_the_test / "engines").iterdir())


def test_two_processes_may_build_at_once(
    every_family: dict[str, Bundle], cache_of_the_test: Path
) -> None:
    bundle = str(every_family["sdtalk"].path)
    command = [sys.executable, "-m", "talksplat", "build", bundle, "--backend", "tensorrt-rtx"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    cache = EngineCache(cache_of_the_test / "engines")
    graphs = every_family["sdtalk"].manifest.graphs
    assert len(cache.entries()) == len(graphs)
    workshop = open_workshop(open_flavour("tensorrt-rtx"), None)
    for graph in graphs:
        assert reason_of(workshop, source_of(every_family["sdtalk"], graph)) is None
    assert not [path for path in cache.folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that were built, in no time."""
    built: list[str] = []

    def build(flavour: Flavour, name: str, *arguments: Any) -> Built:
        built.append(name)
        return Built(f"engine {len(built)}".encode(), 1, 0.0)

    monkeypatch.setattr(module, "build_engine", build)
    return built


def test_one_builds_while_the_other_waits_and_finds_it(
    flavour: Flavour, source: Source, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, waited = threading.Event(), threading.Event()
    quick = module.build_engine

    def build(*arguments: Any) -> Built:
        begun.set()
        assert waited.wait(30)
        return quick(*arguments)

    monkeypatch.setattr(module, "build_engine", build)
    workshop = open_workshop(flavour, None)
    told: list[str] = []

    def report(what: str, fraction: float) -> None:
        told.append(what)
        waited.set()

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(workshop.obtain, source)
        assert begun.wait(30)
        second = open_workshop(flavour, None).obtain(source, report)
    assert told == ["Waiting for synthetic: motion, fp32, which another process builds"]
    assert builds == ["motion"] and second.reason is None
    assert first.result().data == second.data
    assert len(list(workshop.cache.folder.iterdir())) == 2


def test_after_a_builder_that_was_killed_another_builds(
    flavour: Flavour, source: Source, builds: list[str]
) -> None:
    workshop = open_workshop(flavour, None)
    workshop.cache.check_writable()
    with workshop.cache.building(workshop.key(source), lambda: None):
        (lock,) = workshop.cache.folder.iterdir()
    script = (
        "import os, pathlib, sys\nfrom talksplat.file_lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(lock)], check=False, timeout=60)
    assert killed.returncode == -9 and lock.exists()
    told: list[str] = []
    workshop.obtain(source, lambda what, fraction: told.append(what))
    assert builds == ["motion"] and not any("Waiting" in what for what in told)
    assert not lock.exists()


def test_in_a_cache_of_others_engines_are_built_and_not_kept(
    flavour: Flavour, source: Source, builds: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    workshop = open_workshop(flavour, None)
    workshop.obtain(source)
    workshop.cache.folder.chmod(0o777)
    before = sorted(workshop.cache.folder.iterdir())
    with caplog.at_level(logging.WARNING):
        engine = workshop.obtain(source)
    assert engine.data == b"engine 2" and builds == ["motion"] * 2
    assert "can be written by others (mode 777)" in (engine.reason or "")
    assert "motion, fp32 is built and not kept. Nothing is kept in" in caplog.text
    assert sorted(workshop.cache.folder.iterdir()) == before


class TestComposed:
    """A flavour with plugins runs the frame as one engine; here TensorRT-RTX stands in for
    TensorRT, whose API it shares, and a plain graph for the composed one."""

    @pytest.fixture
    def tensorrt(self) -> TensorRT:
        return TensorRT(open_flavour("tensorrt-rtx").module, (11, 4, 0, 106))

    @pytest.fixture
    def plugin(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        registered: list[Any] = []
        plugin = SimpleNamespace(sha256="b" * 64, register=registered.append, into=registered)
        monkeypatch.setattr(module, "tensorrt_plugin", lambda: plugin)
        return plugin

    @pytest.fixture
    def workshop(self, tensorrt: TensorRT, device: FakeDevice) -> Workshop:
        # Without the name of a target, which only TensorRT-RTX would understand.
        return open_workshop(tensorrt, device)

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_frame_is_one_source_and_what_runs_ahead_others(
        self, every_family: dict[str, Bundle], tensorrt: TensorRT, family: str, precision: Any
    ) -> None:
        bundle = every_family[family]
        program = families.frame_program(bundle)
        sources = list(sources_of(bundle, program, tensorrt, precision))
        ahead = [name for name in bundle.manifest.graphs if name not in FRAME_GRAPHS[family]]
        assert [source.graph for source in sources] == [*ahead, FRAME]
        model = onnx.load_from_string(sources[-1].model)
        operators = {(node.domain, node.op_type) for node in model.graph.node}
        assert ("talksplat", "GaussianRasterize") in operators
        halves = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
        assert bool(halves) == (precision == "fp16")
        again = frame_source(bundle, program, precision)
        assert again.sha256 == sources[-1].sha256

    def test_the_plugin_is_registered_and_part_of_the_key(
        self, workshop: Workshop, source: Source, plugin: SimpleNamespace
    ) -> None:
        composed = replace(source, graph=FRAME, needs_plugins=True)
        engine = workshop.obtain(composed)
        assert plugin.into == [workshop.flavour.module]
        assert engine.entry.key["plugin"] == plugin.sha256
        assert reason_of(workshop, composed) is None
        plugin.sha256 = "c" * 64
        assert "plugin library changed from bbbb" in (reason_of(workshop, composed) or "")

    def test_without_plugins_no_frame_is_composed(self, flavour: Flavour, source: Source) -> None:
        with pytest.raises(BackendError, match="takes no plugins"):
            open_workshop(flavour, None).obtain(replace(source, needs_plugins=True))

    def test_an_engine_is_for_one_gpu_and_driver(
        self, tensorrt: TensorRT, workshop: Workshop, source: Source
    ) -> None:
        workshop.obtain(source)
        for device, words in (
            (FakeDevice("NVIDIA L4"), "device changed from 8.9 NVIDIA GeForce RTX 4090 to 8.9 NV"),
            (FakeDevice(driver_version=13000), "driver changed from CUDA 12.8 to CUDA 13.0"),
        ):
            assert (reason_of(open_workshop(tensorrt, device), source) or "").startswith(words)

    def test_timings_are_kept_for_the_next_build(self, workshop: Workshop, source: Source) -> None:
        workshop.obtain(source)
        assert [entry.label for entry in workshop.cache.entries()] == [
            "synthetic: motion, fp32",
            "timings",
        ]
        kept = workshop._timings()
        assert kept
        other = replace(workshop, flavour=TensorRT(workshop.flavour.module, (11, 5)))
        assert other._timings() == b""


def test_progress_counts_all_engines(every_family: dict[str, Bundle], flavour: Flavour) -> None:
    """The second half of two engines is the second engine's, even if the first was found."""
    bundle = every_family["sdtalk"]
    workshop = open_workshop(flavour, None)
    sources = [source_of(bundle, graph) for graph in ("motion", "refiner")]
    workshop.obtain(sources[0])
    told: list[tuple[str, int, int]] = []
    list(obtain_all(workshop, sources, lambda *progress: told.append(progress)))
    assert told[0][1:] == (100, 200) and told[-1][1:] == (200, 200)


def test_turing_gets_an_engine_of_its_own(flavour: TensorRTRTX) -> None:
    workshop = open_workshop(flavour, FakeDevice("Tesla T4", (7, 5)))
    assert workshop.target.devices == "7.5"
