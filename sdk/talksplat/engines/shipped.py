"""Engines that were built ahead of time and go out with an app.

A folder of them is laid out as the cache is, with an ``index.json`` that says which file is which
graph's. An engine is code for a GPU: only a folder that the app names itself is looked at, through
the environment variable ``TALKSPLAT_ENGINES``, never one that happens to lie beside a bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

from talksplat import schema
from talksplat.atomic import replace_folder, staging_path, write_bytes
from talksplat.backends.options import Precision
from talksplat.engines.cache import SUFFIX, EngineCache, EngineKey, Entry, Found, Missing
from talksplat.engines.flavours import DeviceFacts, Flavour, Target
from talksplat.environment import named_path
from talksplat.errors import InputError, OutputError
from talksplat.private_files import read_file
from talksplat.schema import MaxLength, Range, SchemaError

VARIABLE = "TALKSPLAT_ENGINES"
INDEX = "index.json"
_MAX_INDEX_BYTES = 2**20

Text = Annotated[str, MaxLength(100_000)]
Capability = tuple[Annotated[int, Range(0, 99)], Annotated[int, Range(0, 99)]]


@dataclass(frozen=True)
class IndexEntry:
    """One engine of the folder."""

    graph: Text
    file: Text
    bytes: Annotated[int, Range(0, 2**40)]
    sha256: Annotated[str, MaxLength(64)]
    layers: Annotated[int, Range(0, 2**31)]
    onnx_bytes: Annotated[int, Range(0, 2**40)]
    seconds: float


@dataclass(frozen=True)
class Index:
    """``index.json``.

    Attributes:
        flavour: what built the engines, and its ``version``.
        precision: of the numbers inside.
        devices: what they run on; see :class:`talksplat.engines.flavours.Target`, also for
            ``driver``, ``compute_capabilities`` and ``compatible``.
        engines: by graph.
    """

    format: Literal[1]
    flavour: Text
    version: Text
    precision: Literal["fp32", "fp16"]
    devices: Text
    driver: Text
    compute_capabilities: tuple[Capability, ...]
    compatible: bool
    engines: tuple[IndexEntry, ...]

    @property
    def target(self) -> Target:
        """What the engines run on."""
        return Target(self.devices, self.driver, self.compute_capabilities, self.compatible)


@dataclass(frozen=True)
class ShippedEngines:
    """A folder of engines with its index."""

    folder: Path
    index: Index

    @property
    def target(self) -> Target:
        """What the engines run on."""
        return self.index.target

    def find(
        self, key: EngineKey, label: str, flavour: Flavour, device: DeviceFacts | None
    ) -> Found | Missing:
        """The engine made from ``key``, checked, or why there is none for ``device``."""
        if device is not None and (reason := flavour.misfit(self.target, device)):
            return Missing(f"not from {self.folder}: {reason}")
        lookup = EngineCache(self.folder, private=False).find(key, label)
        if isinstance(lookup, Missing):
            return Missing(f"not from {self.folder}: {lookup.reason}")
        return lookup


def shipped_engines(flavour: str) -> ShippedEngines | None:
    """The folder that ``TALKSPLAT_ENGINES`` names, if its engines are of this flavour.

    Raises:
        InputError: the variable's path is relative, or there is no readable index in it.
    """
    asked = named_path(VARIABLE)
    if asked is None:
        return None
    shipped = open_shipped(asked)
    return shipped if shipped.index.flavour == flavour else None


def open_shipped(folder: Path) -> ShippedEngines:
    """The engines in a folder.

    Raises:
        InputError: there is no readable index in it.
    """
    try:
        return ShippedEngines(folder, _read_index(folder))
    except (OSError, UnicodeDecodeError, SchemaError) as error:
        raise InputError(
            f"Expected a folder of engines with an {INDEX} at {folder}, as talksplat build -o "
            f"writes it: {error}. Correct {VARIABLE}, or unset it to build engines here."
        ) from error


def _read_index(folder: Path) -> Index:
    """Raises OSError, UnicodeDecodeError or SchemaError."""
    text = read_file(folder / INDEX, range(_MAX_INDEX_BYTES + 1)).decode("utf-8")
    return schema.decode(Index, schema.parse(text))


def check_output(folder: Path) -> None:
    """Whether engines may be written there: a new folder, an empty one, or one that holds such
    engines already and nothing else, as all of it will be removed.

    Raises:
        OutputError: there is something else.
    """
    try:
        strangers = _strangers(folder.resolve())
    except (OSError, UnicodeDecodeError, SchemaError) as error:
        raise _not_ours(folder, f"{INDEX}: {error}") from error
    if strangers:
        raise _not_ours(folder, ", ".join(strangers[:3]) + (", …" if strangers[3:] else ""))


def _strangers(folder: Path) -> list[str]:
    """What is in a folder besides the engines that its index names.

    Raises OSError, UnicodeDecodeError or SchemaError.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return []
    known = {INDEX}
    for entry in _read_index(folder).engines:
        data = PurePath(entry.file)
        if data.suffix == SUFFIX:
            known |= {data.name, f"{PurePath(data.stem).stem}.json"}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in known or path.is_symlink() or not path.is_file()
    )


def _not_ours(folder: Path, found: str) -> OutputError:
    return OutputError(
        f"Expected a new folder for engines, or one with nothing but engines and their {INDEX}, "
        f"found something else at {folder}: {found}. Choose another path."
    )


def ship(folder: Path, target: Target, precision: Precision, engines: Mapping[str, Found]) -> None:
    """Write engines and their index as one folder, in place of the one that may be there.

    Args:
        folder: see :func:`check_output`.
        target: what the engines run on.
        precision: of the numbers inside.
        engines: by graph.

    Raises:
        OutputError: the folder cannot be written, or is something else; what was there still is.
    """
    folder = folder.resolve()  # "." has no name, and a link is not what is to be replaced
    check_output(folder)
    staging = staging_path(folder)
    try:
        cache = EngineCache(staging, private=False)
        entries = []
        for graph, found in engines.items():
            kept = found.entry
            entry = cache.store(kept.key, kept.label, found.data, kept.facts)
            entries.append(_index_entry(cache, graph, entry))
        index = Index(
            format=1,
            flavour=kept.key["flavour"],
            version=kept.key["version"],
            precision=precision,
            devices=target.devices,
            driver=target.driver,
            compute_capabilities=target.compute_capabilities,
            compatible=target.compatible,
            engines=tuple(entries),
        )
        write_bytes(staging / INDEX, schema.encode(index).encode())
        replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _index_entry(cache: EngineCache, graph: str, entry: Entry) -> IndexEntry:
    facts = entry.facts
    return IndexEntry(
        graph=graph,
        file=cache.file_of(entry),
        bytes=entry.bytes,
        sha256=entry.sha256,
        layers=int(facts["layers"]),
        onnx_bytes=int(facts["onnx_bytes"]),
        seconds=facts["seconds"],
    )
