"""Building one engine, with progress, and without being able to get stuck or to half finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from talksplat.engines.flavours import Flavour, Target
from talksplat.engines.log import EngineLog
from talksplat.engines.profiles import Profile
from talksplat.errors import BackendError

Fraction = Callable[[float], None]
"""Told how much of an engine is done, 0..1."""


@dataclass(frozen=True)
class Built:
    """An engine that was just built.

    Attributes:
        data: the serialized engine.
        layers: of the network that the builder made of the graph, before it fused any.
        seconds: wall-clock time of parsing and building.
        timings: what the timing cache holds now; empty where there is none.
    """

    data: bytes
    layers: int
    seconds: float
    timings: bytes = b""


@dataclass(frozen=True)
class Settings:
    """How to build.

    Attributes:
        profile: sizes of the free axes.
        threads: the builder may use; None leaves that to it.
        timings: a timing cache of an earlier build for the same device, or nothing.
        use_device: makes the device current in the thread that builds.
    """

    profile: Profile = field(default_factory=dict)
    threads: int | None = None
    timings: bytes = b""
    use_device: Callable[[], AbstractContextManager[object]] = nullcontext


def build_engine(
    flavour: Flavour,
    name: str,
    model: bytes,
    target: Target,
    settings: Settings,
    progress: Fraction | None = None,
) -> Built:
    """Parse an ONNX model and build its engine.

    Args:
        flavour: what builds it.
        name: of the graph, for messages.
        model: its serialized ``ModelProto``. Operators of a plugin library have to be registered.
        target: what the engine is to run on.
        settings: how to build.
        progress: called from the builder's threads, one call at a time, with numbers that rise.

    Raises:
        BackendError: the graph cannot be parsed or built; says what the builder says.
        KeyboardInterrupt: somebody asked to stop. The builder is asked to stop too and waited for;
            a second request does not wait.
    """
    # TensorRT catches what a callback raises, KeyboardInterrupt too, prints it and goes on. In a
    # thread of its own it is never the one that Python interrupts.
    monitor = _Monitor(progress)
    results: list[Built | BaseException] = []

    def work() -> None:
        try:
            with settings.use_device():
                results.append(_build(flavour, name, model, target, settings, monitor))
        except BaseException as error:  # handed over to the thread that waits
            results.append(error)

    thread = threading.Thread(target=work, name=f"build {name}", daemon=True)
    try:
        thread.start()
        thread.join()
    except KeyboardInterrupt:
        monitor.cancelled.set()
        if thread.ident is not None:
            thread.join()
        raise
    result = results[0]
    if isinstance(result, BaseException):
        raise result
    return result


class _Monitor:
    """What ``IProgressMonitor`` reports, as one number that never falls. Thread-safe."""

    def __init__(self, progress: Fraction | None) -> None:
        self.cancelled = threading.Event()
        self.failure: BaseException | None = None
        self._progress = progress
        self._lock = threading.Lock()
        self._steps: dict[str, int] = {}  # phase -> steps it has
        self._done: dict[str, float] = {}  # phase -> steps that are done, parts of one too
        self._parents: dict[str, str | None] = {}
        self._most = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._steps[phase], self._done[phase] = max(1, steps), 0.0
            self._parents[phase] = parent

    def finish_step(self, phase: str, step: int) -> None:
        with self._lock:
            if phase not in self._steps:
                return
            self._done[phase] = float(step + 1)
            fraction = self._fraction(phase)
        self.tell(fraction)

    def tell(self, fraction: float) -> None:
        """Pass on how much is done, if that is more than before."""
        with self._lock:  # until it was told, or another thread could tell more before
            if fraction <= self._most:
                return
            self._most = fraction
            if self._progress is None:
                return
            try:
                self._progress(fraction)
            except BaseException as error:  # it would be lost in the builder
                self.failure = error
                self.cancelled.set()

    def finish(self, phase: str) -> None:
        with self._lock:
            self._steps.pop(phase, None)

    def _fraction(self, phase: str) -> float:
        """Of the whole, where this phase is one step of its parent."""
        inner = min(1.0, self._done[phase] / self._steps[phase])
        parent = self._parents[phase]
        while parent is not None and parent in self._steps:
            inner = min(1.0, (self._done[parent] + inner) / self._steps[parent])
            parent = self._parents[parent]
        return inner


def _build(
    flavour: Flavour,
    name: str,
    model: bytes,
    target: Target,
    settings: Settings,
    monitor: _Monitor,
) -> Built:
    trt = flavour.module
    start = time.perf_counter()
    log = EngineLog(flavour)
    builder = trt.Builder(log.logger)
    if settings.threads is not None:
        builder.max_threads = settings.threads
    network = flavour.create_network(builder)
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(model):
        reasons = [_said(parser.get_error(index)) for index in range(parser.num_errors)]
        raise _refusal(flavour, "parse", name, "; ".join(reasons) or log.take())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32; ten bits would be float16's
    flavour.configure(config, target)
    if settings.profile:
        profile = builder.create_optimization_profile()
        for tensor, sizes in settings.profile.items():
            profile.set_shape(tensor, sizes.minimum, sizes.usual, sizes.maximum)
        config.add_optimization_profile(profile)
    if not flavour.compiles_on_device:
        _use_timings(config, settings.timings)
    progress_monitor = _progress_monitor(trt, monitor)
    config.progress_monitor = progress_monitor
    engine = builder.build_serialized_network(network, config)
    if engine is not None:
        monitor.tell(1.0)
    if monitor.failure is not None:
        raise monitor.failure
    if engine is None:
        raise _refusal(flavour, "build", name, log.take())
    seconds = time.perf_counter() - start
    timings = b"" if flavour.compiles_on_device else bytes(config.get_timing_cache().serialize())
    return Built(bytes(engine), int(network.num_layers), seconds, timings)


def _use_timings(config: Any, timings: bytes) -> None:
    """Begin with earlier timings, or anew where the builder does not accept them."""
    if not config.set_timing_cache(config.create_timing_cache(timings), False) and timings:
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _refusal(flavour: Flavour, verb: str, name: str, said: str) -> BackendError:
    return BackendError(
        f"{flavour.name} {flavour.version_text} cannot {verb} the graph {name!r}: "
        f"{said or 'it does not say why'}."
    )


def _said(error: Any) -> str:
    """A ``ParserError`` in words; older versions know less of it."""
    facts = [
        getattr(error, name)() for name in ("node_operator", "node_name") if hasattr(error, name)
    ]
    code = getattr(error.code(), "name", "") if hasattr(error, "code") else ""
    return " ".join(filter(None, [*facts, code, error.desc()]))


def _progress_monitor(trt: Any, monitor: _Monitor) -> Any:
    """An ``IProgressMonitor``, which needs a class of the module at hand."""

    class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            monitor.start(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            monitor.finish_step(phase, step)
            return not monitor.cancelled.is_set()

        def phase_finish(self, phase: str) -> None:
            monitor.finish(phase)

    return ProgressMonitor()
