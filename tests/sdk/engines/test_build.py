"""Building one engine with the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from talksplat.cli.interruption import interruptible
from talksplat.engines.build import Settings, _Monitor, build_engine
from talksplat.engines.flavours import Flavour, TensorRT, open_flavour
from talksplat.engines.profiles import Sizes
from talksplat.errors import BackendError

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def flavour() -> Flavour:
    return open_flavour("tensorrt-rtx")


def convolutions(count: int = 3, name: str = "Conv") -> bytes:
    """A graph of some convolutions, or of one operator of another name."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 8, 3, 3)).astype(np.float32)
    pads = {"pads": [1, 1, 1, 1]} if name == "Conv" else {}
    nodes = [
        helper.make_node(name, [f"v{i}", "w"] if pads else [f"v{i}"], [f"v{i + 1}"], **pads)
        for i in range(count)
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1, 8, 16, 16])],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def build(
    flavour: Flavour,
    model: bytes,
    settings: Settings | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    target = flavour.target(None, compatible=False)
    return build_engine(flavour, "test", model, target, settings or Settings(), progress).data


def test_an_engine_and_what_it_took(flavour: Flavour) -> None:
    target = flavour.target(None, compatible=False)
    built = build_engine(flavour, "test", convolutions(), target, Settings(threads=2))
    assert len(built.data) > 1000 and built.layers >= 3
    assert built.seconds > 0 and built.timings == b""
    # The header is TensorRT's own: what was built is what was asked for, the same every time.
    assert built.data[:2] == build(flavour, convolutions())[:2]


def test_the_same_graph_gives_the_same_engine(flavour: Flavour) -> None:
    assert build(flavour, convolutions()) == build(flavour, convolutions())


def test_progress_rises_to_the_end(flavour: Flavour) -> None:
    told: list[float] = []
    build(flavour, convolutions(30), progress=told.append)
    assert len(told) > 5
    assert told == sorted(told) and told[0] >= 0 and told[-1] == 1


def test_a_graph_that_cannot_be_parsed_is_named_with_the_reason(flavour: Flavour) -> None:
    """Unique has no counterpart in TensorRT: the size of its output is known too late."""
    with pytest.raises(BackendError, match=r"cannot parse the graph 'test': .*Unique"):
        build(flavour, convolutions(1, "Unique"))


def test_bytes_that_are_no_graph_are_refused(flavour: Flavour) -> None:
    with pytest.raises(BackendError, match="cannot parse"):
        build(flavour, b"no ONNX at all")


def test_a_graph_that_cannot_be_built_is_named_with_the_reason(flavour: Flavour) -> None:
    """A free axis without a profile."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    with pytest.raises(BackendError, match=r"cannot build the graph 'test': .*profile"):
        build(flavour, model)
    sizes = Sizes((1, 3), (8, 3), (8, 3))
    assert build(flavour, model, Settings(profile={"x": sizes}))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_builder_and_is_raised(flavour: Flavour, number: int) -> None:
    """As Ctrl-C would: the signal comes while the builder's thread is deep inside TensorRT."""
    fractions: list[float] = []

    def interrupt(fraction: float) -> None:
        fractions.append(fraction)
        if len(fractions) == 2:
            os.kill(os.getpid(), number)
            assert threading.current_thread() is not threading.main_thread()

    with interruptible(), pytest.raises(KeyboardInterrupt):
        build(flavour, convolutions(200), progress=interrupt)
    assert fractions[-1] < 1
    assert not [t for t in threading.enumerate() if t.name == "build test" and t.is_alive()]


def test_what_progress_raises_stops_the_builder_and_is_raised(flavour: Flavour) -> None:
    def fail(fraction: float) -> None:
        raise OSError("the terminal went away")

    with pytest.raises(OSError, match="the terminal went away"):
        build(flavour, convolutions(30), progress=fail)


def test_the_device_is_current_in_the_thread_that_builds(flavour: Flavour) -> None:
    entered: list[str] = []

    @contextmanager
    def current() -> Iterator[None]:
        entered.append(threading.current_thread().name)
        yield

    build(flavour, convolutions(), Settings(use_device=current))
    assert entered == ["build test"]


@pytest.mark.filterwarnings("ignore:.*[Tt]iming cache.*:DeprecationWarning")
@pytest.mark.parametrize("timings", [b"", b"no timing cache of any version"])
def test_tensorrt_hands_back_what_it_learnt(timings: bytes) -> None:
    """With the API that both share; timings it does not understand it begins anew."""
    import tensorrt_rtx

    flavour = TensorRT(tensorrt_rtx, (11, 4))
    target = open_flavour("tensorrt-rtx").target(None, compatible=False)
    built = build_engine(flavour, "test", convolutions(), target, Settings(timings=timings))
    assert built.timings and built.timings != timings


class TestMonitor:
    """One number out of nested phases, as ``IProgressMonitor`` tells of them."""

    @pytest.fixture
    def told(self) -> list[float]:
        return []

    @pytest.fixture
    def monitor(self, told: list[float]) -> _Monitor:
        return _Monitor(told.append)

    def test_a_phase_within_a_phase_is_one_step_of_it(
        self, monitor: _Monitor, told: list[float]
    ) -> None:
        monitor.start("whole", None, 2)
        monitor.start("part", "whole", 4)
        for step in range(4):
            monitor.finish_step("part", step)
        monitor.finish("part")
        monitor.finish_step("whole", 0)
        monitor.finish_step("whole", 1)
        assert told == [0.125, 0.25, 0.375, 0.5, 1.0]

    def test_threads_that_tell_at_once_are_heard_in_order(self) -> None:
        """One is still telling of a half when another is done with all of it."""
        told: list[float] = []
        telling, told_all = threading.Event(), threading.Event()

        def slow(fraction: float) -> None:
            if fraction == 0.5:
                telling.set()
                told_all.wait(0.2)  # in vain: nobody else is heard meanwhile
            told.append(fraction)
            told_all.set()

        monitor = _Monitor(slow)
        first = threading.Thread(target=monitor.tell, args=(0.5,))
        first.start()
        assert telling.wait(30)
        monitor.tell(1.0)
        first.join()
        assert told == [0.5, 1.0]

    def test_it_never_falls(self, monitor: _Monitor, told: list[float]) -> None:
        monitor.start("whole", None, 2)
        monitor.finish_step("whole", 0)
        monitor.start("again", "whole", 10)
        monitor.start("again", None, 10)
        monitor.finish_step("again", 0)
        assert told == [0.5]

    def test_phases_it_was_not_told_of_are_passed_over(
        self, monitor: _Monitor, told: list[float]
    ) -> None:
        monitor.finish_step("unknown", 3)
        monitor.start("orphan", "unknown", 0)
        monitor.finish_step("orphan", 0)
        assert told == [1.0]


def test_types_that_do_not_fit_are_refused(flavour: Flavour) -> None:
    """A float16 graph is built as it stands: mixing types without a Cast is refused."""
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["h", "x"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    with pytest.raises(BackendError):
        build(flavour, model.SerializeToString())
