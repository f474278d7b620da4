"""What the lab's graphs become with TensorRT-RTX, without a GPU."""

from __future__ import annotations

from pathlib import Path

from talksplat import families
from talksplat.backends.options import Precision
from talksplat.bundle import Bundle
from talksplat.engines.cache import EngineCache
from talksplat.engines.flavours import open_flavour
from talksplat.engines.obtain import Engine, Workshop, graph_source, obtain_all, sources_of


def open_rtx(folder: Path) -> Workshop:
    """Builds for every GPU from Ampere on, and keeps engines in ``folder``."""
    flavour = open_flavour("tensorrt-rtx")
    return Workshop(flavour, flavour.targets([]), EngineCache(folder))


def build_every_graph(bundle: Bundle, precision: Precision, folder: Path) -> list[Engine]:
    """An engine of every graph of a bundle, built now."""
    workshop = open_rtx(folder)
    program = families.frame_program(bundle)
    sources = list(sources_of(bundle, program, workshop.flavour, precision))
    return list(obtain_all(workshop, sources))


def build_graph(bundle: Bundle, graph: str, precision: Precision, folder: Path) -> Engine:
    """An engine of one graph of a bundle, which may lack the others."""
    manifest, constants = bundle.manifest, bundle.constants(graph)
    file, spec = bundle.graph_file(graph), manifest.graphs[graph]
    source = graph_source(file, spec, constants, precision, manifest.family)
    return open_rtx(folder).obtain(source)
