"""From a bundle to the engines a backend runs: out of the cache, or built and kept there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from talksplat.backends.options import Precision, Progress
from talksplat.bundle import Bundle
from talksplat.engines.build import Settings, build_engine
from talksplat.engines.cache import EngineCache, EngineKey, Entry, Found, Missing
from talksplat.engines.flavours import DeviceFacts, Flavour, Target
from talksplat.engines.precision import FLOAT16, islands_of, to_float16
from talksplat.engines.profiles import Profile, describe, profile_of
from talksplat.engines.shipped import ShippedEngines, shipped_engines
from talksplat.errors import BackendError
from talksplat.frame_graph import compose
from talksplat.frame_program import Array, FrameProgram, RunGraph
from talksplat.manifest import GraphSpec
from talksplat.onnx_package import import_onnx
from talksplat.plugin_library import TensorRTPlugin, tensorrt_plugin
from talksplat.private_files import UntrustedFolderError

_log = logging.getLogger(__name__)

FRAME = "frame"
"""What the engine of the composed graph is called."""

_TIMINGS = "timings"

Report = Callable[[str, float], None]
"""Told what is being done, and how much of it, 0..1."""


class Device(DeviceFacts, Protocol):
    """A GPU to build on; a :class:`talksplat.cuda.Device` is one."""

    def current(self) -> AbstractContextManager[object]:
        """Makes it current in this thread while a ``with`` block lasts."""


@dataclass(frozen=True)
class Source:
    """A graph to make an engine of.

    Attributes:
        label: what it is, for people: ``"ada: motion, fp32"``.
        graph: its name in the bundle, or :data:`FRAME`.
        model: its serialized ``ModelProto``, in the precision wanted.
        profile: sizes of its free axes.
        needs_plugins: it holds operators of the plugin library.
    """

    label: str
    graph: str
    model: bytes
    profile: Profile
    needs_plugins: bool = False

    @cached_property
    def sha256(self) -> str:
        """Of the model."""
        return hashlib.sha256(self.model).hexdigest()


@dataclass(frozen=True)
class Engine:
    """An engine that is right for what it was asked for.

    Attributes:
        graph: as in :class:`Source`.
        data: the serialized engine.
        entry: what the cache says of it, or would if it could be kept.
        reason: why it was built just now; None if it was not.
    """

    graph: str
    data: bytes
    entry: Entry
    reason: str | None


def graph_source(
    file: Path,
    spec: GraphSpec,
    constants: Mapping[str, Array],
    precision: Precision,
    family: str = "",
) -> Source:
    """One graph of a bundle.

    Args:
        file: the ``.onnx`` file.
        spec: what the manifest says of it.
        constants: its inputs that never change, by name.
        precision: of the engine.
        family: of the bundle; may be left out for what runs ahead of the frame.

    Raises:
        BackendError: onnx is not installed, which float16 needs, or the graph has branches or
            loops, which it does not take.
        BundleError: the constants do not fit, or the graph is not one of the family's.
    """
    model = file.read_bytes()
    if precision == "fp16":
        whole = import_onnx(FLOAT16).load_from_string(model)
        model = to_float16(whole, islands_of(family, file.stem)).SerializeToString()
    profile = profile_of({tensor.name: tensor.shape for tensor in spec.inputs}, constants)
    label = f"{file.parent.stem}: {file.stem}, {precision}"
    return Source(label, file.stem, model, profile)


def frame_source(bundle: Bundle, program: FrameProgram, precision: Precision) -> Source:
    """The composed graph of a whole frame.

    Raises:
        BackendError: onnx is not installed, or a graph has branches or loops, which float16 does
            not take.
        BundleError: the graphs do not fit the program, or are not the family's.
    """
    graphs = {}
    if precision == "fp16":
        onnx, family = import_onnx(FLOAT16), bundle.manifest.family
        graphs = {
            name: to_float16(onnx.load(bundle.graph_file(name)), islands_of(family, name))
            for name in run_graphs(program)
        }
    model = compose(bundle, program, graphs)
    shapes = {
        value.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param
            for axis in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
    }
    profile = profile_of(shapes, program.constants)
    label = f"{bundle.path.stem}: {FRAME}, {precision}"
    return Source(label, FRAME, model.SerializeToString(), profile, needs_plugins=True)


def sources_of(
    bundle: Bundle, program: FrameProgram, flavour: Flavour, precision: Precision
) -> Iterator[Source]:
    """What ``flavour`` needs an engine of to run the avatar: every graph of the bundle, or, where
    it takes plugins, the composed frame and what runs ahead of it.

    Raises:
        BackendError, BundleError: as :func:`graph_source` and :func:`frame_source`.
    """
    composed = run_graphs(program) if flavour.takes_plugins else ()
    for name, spec in bundle.manifest.graphs.items():
        if name not in composed:
            constants, family = bundle.constants(name), bundle.manifest.family
            yield graph_source(bundle.graph_file(name), spec, constants, precision, family)
    if flavour.takes_plugins:
        yield frame_source(bundle, program, precision)


def run_graphs(program: FrameProgram) -> list[str]:
    """Names of the graphs that a program runs."""
    return list(dict.fromkeys(step.graph for step in program.steps if isinstance(step, RunGraph)))


@dataclass(frozen=True)
class Workshop:
    """What engines are made with, and where they are kept.

    Attributes:
        flavour: what builds them.
        target: what they are to run on.
        cache: where they are kept.
        device: the GPU, if there is one.
        shipped: engines that came with the app, if any; taken before those of the cache.
        threads: the builder may use; None leaves that to it.
    """

    flavour: Flavour
    target: Target
    cache: EngineCache
    device: Device | None = None
    shipped: ShippedEngines | None = None
    threads: int | None = None

    def obtain(self, source: Source, progress: Report | None = None) -> Engine:
        """The engine of a graph: one that was shipped, or from the cache, or else built now. In a
        cache that others may write to it is not kept, which is logged.

        Args:
            source: the graph.
            progress: told what is done and how much of it, 0..1, if something has to be built;
                from the builder's threads, one call at a time.

        Raises:
            BackendError: it cannot be built, or the plugin that it needs is missing, does not fit
                or is not taken by the flavour.
            OutputError: it cannot be stored; found out before building.
            KeyboardInterrupt: somebody asked to stop; nothing is stored.
        """
        plugin = self._plugin() if source.needs_plugins else None
        lookup = self._find(source, plugin)
        if isinstance(lookup, Found):
            return Engine(source.graph, lookup.data, lookup.entry, None)
        report = progress or _say_nothing
        try:
            self.cache.check_writable()
        except UntrustedFolderError as error:
            _log.warning("%s is built and not kept. %s", source.label, error)
            return self._build(source, plugin, lookup.reason, report, kept=False)
        elsewhere = f"Waiting for {source.label}, which another process builds"
        with self.cache.building(self.key(source, plugin), lambda: report(elsewhere, 0.0)):
            lookup = self._find(source, plugin)
            if isinstance(lookup, Found):
                return Engine(source.graph, lookup.data, lookup.entry, None)
            return self._build(source, plugin, lookup.reason, report)

    def key(self, source: Source, plugin: TensorRTPlugin | None = None) -> EngineKey:
        """What the engine of ``source`` depends on here."""
        return self._key(source, plugin, self.target)

    def _key(self, source: Source, plugin: TensorRTPlugin | None, target: Target) -> EngineKey:
        flags = ["no TF32"]
        if self.flavour.compiles_on_device:
            flags.append("no runtime allocation")
        if target.compatible:
            flags.append("compatible")
        return EngineKey(
            graph=source.sha256,
            flavour=self.flavour.name,
            version=self.flavour.version_text,
            devices=target.devices,
            driver=target.driver,
            flags=", ".join(flags),
            profile=describe(source.profile),
            plugin="none" if plugin is None else plugin.sha256,
        )

    def _find(self, source: Source, plugin: TensorRTPlugin | None) -> Found | Missing:
        reasons = []
        for lookup in self._lookups(source, plugin):
            if isinstance(lookup, Found):
                return lookup
            reasons.append(lookup.reason)
        return Missing("; ".join(reasons))

    def _lookups(self, source: Source, plugin: TensorRTPlugin | None) -> Iterator[Found | Missing]:
        if self.shipped is not None:
            key = self._key(source, plugin, self.shipped.target)
            yield self.shipped.find(key, source.label, self.flavour, self.device)
        yield self.cache.find(self.key(source, plugin), source.label)

    def _build(
        self,
        source: Source,
        plugin: TensorRTPlugin | None,
        reason: str,
        report: Report,
        *,
        kept: bool = True,
    ) -> Engine:
        what = f"Building {source.label} for {self.flavour.name}: {reason}"
        report(what, 0.0)
        if plugin is not None:
            plugin.register(self.flavour.module)
        settings = Settings(
            source.profile,
            self.threads,
            self._timings(),
            nullcontext if self.device is None else self.device.current,
        )
        built = build_engine(
            self.flavour,
            source.graph,
            source.model,
            self.target,
            settings,
            lambda fraction: report(what, fraction),
        )
        facts = {
            "layers": built.layers,
            "onnx_bytes": len(source.model),
            "seconds": round(built.seconds, 2),
        }
        store = self.cache.store if kept else self.cache.describe
        entry = store(self.key(source, plugin), source.label, built.data, facts)
        if built.timings and kept:
            self.cache.store(self._timings_key, _TIMINGS, built.timings)
        return Engine(source.graph, built.data, entry, reason)

    def _plugin(self) -> TensorRTPlugin:
        if not self.flavour.takes_plugins:
            raise BackendError(
                f"{self.flavour.name} takes no plugins; build the graphs of the bundle one by one."
            )
        return tensorrt_plugin()

    def _timings(self) -> bytes:
        """What was learnt when an engine was last built for this device."""
        if self.flavour.compiles_on_device:
            return b""
        lookup = self.cache.find(self._timings_key, _TIMINGS)
        return lookup.data if isinstance(lookup, Found) else b""

    @property
    def _timings_key(self) -> Mapping[str, str]:
        return {
            "kind": _TIMINGS,
            "flavour": self.flavour.name,
            "version": self.flavour.version_text,
            "devices": self.target.devices,
            "driver": self.target.driver,
        }


def open_workshop(
    flavour: Flavour,
    device: Device | None,
    *,
    compatible: bool = False,
    threads: int | None = None,
) -> Workshop:
    """A workshop for this machine, with its cache and the engines that the app was shipped with.

    Args:
        flavour: what builds engines.
        device: the GPU that will run them, or None if there is none.
        compatible: let them run on other GPUs too.
        threads: the builder may use; None leaves that to it.

    Raises:
        BackendError: engines cannot be built for that, or the shipped ones have no readable index.
        InputError: where the cache or the shipped engines are is no absolute path.
    """
    target = flavour.target(device, compatible)
    shipped = shipped_engines(flavour.name)
    return Workshop(flavour, target, EngineCache(), device, shipped, threads)


def obtain_all(
    workshop: Workshop, sources: Sequence[Source], progress: Progress | None = None
) -> Iterator[Engine]:
    """One engine after the other.

    Args:
        workshop: what they are made with.
        sources: their graphs.
        progress: counts hundredths of engines; called as that of :meth:`Workshop.obtain`.

    Raises:
        BackendError, OutputError, KeyboardInterrupt: as :meth:`Workshop.obtain`.
    """
    for number, source in enumerate(sources):

        def report(what: str, fraction: float, number: int = number) -> None:
            if progress is not None:
                progress(what, round(100 * (number + fraction)), 100 * len(sources))

        yield workshop.obtain(source, report)


def _say_nothing(what: str, fraction: float) -> None:
    pass
