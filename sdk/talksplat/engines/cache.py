"""Engines on disk: found only if every part of their key is right and not a byte has changed.

An entry is two files: ``<name>.json``, which says what the data were made from, and
``<name>.<token>.engine``, the data. ``name`` is the hash of the key, and no two writers have the
same ``token``. The data are written first and each file appears whole or not at all, so a reader
finds an engine that is whole while another process puts one in its place. Locks let one process
after the other write, and build; they are files, too, which are gone when the work is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from talksplat import schema
from talksplat.atomic import write_bytes
from talksplat.cache import cache_folder
from talksplat.errors import OutputError
from talksplat.file_lock import locked
from talksplat.private_files import (
    UntrustedFolderError,
    check_private_folder,
    make_private_folder,
    read_file,
    read_private,
    write_private,
)
from talksplat.schema import MaxLength, Range, SchemaError

_MAX_SIDECAR_BYTES = 2**20
_MAX_ENGINE_BYTES = 2**32
SUFFIX = ".engine"
"""Of files with data."""

_BUILDING, _WRITING = ".building", ".writing"

Text = Annotated[str, MaxLength(100_000)]
Count = Annotated[int, Range(0, _MAX_ENGINE_BYTES)]


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on. Two engines with the same key are interchangeable.

    Attributes:
        graph: sha256 of the ONNX model as the builder was given it, its precision included.
        flavour: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        version: of that package, in full.
        devices: what it runs on; see :class:`talksplat.engines.flavours.Target`.
        driver: CUDA version of the driver it was built under, or ``"any"``.
        flags: what else the builder was told.
        profile: sizes of the free axes.
        plugin: sha256 of the plugin library, or ``"none"``.
    """

    graph: Text
    flavour: Text
    version: Text
    devices: Text
    driver: Text
    flags: Text
    profile: Text
    plugin: Text


_NAMES = {
    "version": "TensorRT",
    "devices": "device",
    "profile": "sizes",
    "plugin": "plugin library",
}
"""Parts of the key for people, where they are not called so themselves."""


@dataclass(frozen=True)
class Entry:
    """What the JSON file beside the data says.

    Attributes:
        label: what it is, for people: ``"ada: motion, fp32"``.
        key: what it was made from.
        token: of the file with the data.
        bytes: size of the data.
        sha256: of the data.
        facts: numbers that were learnt on the way, such as the seconds it took.
    """

    format: Literal[1]
    label: Text
    key: dict[str, Text]
    token: Annotated[str, MaxLength(64)]
    bytes: Count
    sha256: Annotated[str, MaxLength(64)]
    facts: dict[str, float]

    def __post_init__(self) -> None:
        if not self.token.isalnum():
            raise SchemaError(f"token: expected letters and digits, found {self.token!r}")


@dataclass(frozen=True)
class Found:
    """An engine that is right, and what is known of it."""

    data: bytes
    entry: Entry


@dataclass(frozen=True)
class Missing:
    """There is no right engine; ``reason`` says why: "driver changed from CUDA 12.8 to …"."""

    reason: str


class EngineCache:
    """Engines, and timings learnt on the way, in one folder.

    Args:
        folder: need not exist; by default ``engines`` in :func:`talksplat.cache.cache_folder`.
        private: for this user alone: nothing is taken from others, and nothing shown to them. Not
            so a folder that is handed on.
    """

    def __init__(self, folder: Path | None = None, *, private: bool = True) -> None:
        self.folder = cache_folder() / "engines" if folder is None else folder
        self._private = private
        self._read = read_private if private else read_file
        self._write = write_private if private else write_bytes

    def find(self, key: EngineKey | Mapping[str, str], label: str) -> Found | Missing:
        """The data made from ``key``, checked, or the reason why there are none.

        Args:
            key: what they have to be made from.
            label: of the entry that has become stale, if there is one.
        """
        parts = _parts(key)
        try:
            return self._find(parts, label)
        except FileNotFoundError:  # another process has just put a newer one in its place
            pass
        try:
            return self._find(parts, label)
        except FileNotFoundError as error:
            return Missing(f"its file is damaged ({error})")

    def _find(self, parts: Mapping[str, str], label: str) -> Found | Missing:
        """Raises FileNotFoundError if the data are not there that the description names."""
        path = self._description_path(parts)
        try:
            entry = self._read_entry(path)
        except FileNotFoundError:
            return Missing(self._stale(parts, label))
        except PermissionError as error:
            return Missing(f"its description {path.name} is not used: {error}")
        except (OSError, SchemaError) as error:
            return Missing(f"its description {path.name} is damaged ({error})")
        if entry.key != parts:
            return Missing(f"its description {path.name} is that of something else")
        try:
            return Found(self._read_data(entry), entry)
        except FileNotFoundError:
            raise
        except PermissionError as error:
            return Missing(f"its file is not used: {error}")
        except (OSError, SchemaError) as error:
            return Missing(f"its file is damaged ({error})")

    def building(
        self, key: EngineKey | Mapping[str, str], waiting: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Held while the engine of ``key`` is built, so that one process builds it and the others
        wait, and then find it. The folder exists: :meth:`check_writable` was called.

        Args:
            key: what it is made from.
            waiting: told when another process builds it.
        """
        return locked(self.folder / f"{_name(_parts(key))}{_BUILDING}", waiting)

    @staticmethod
    def describe(
        key: EngineKey | Mapping[str, str],
        label: str,
        data: bytes,
        facts: Mapping[str, float] | None = None,
    ) -> Entry:
        """What :meth:`store` would say of ``data``."""
        digest, token = hashlib.sha256(data).hexdigest(), secrets.token_hex(8)
        return Entry(1, label, _parts(key), token, len(data), digest, dict(facts or {}))

    def store(
        self,
        key: EngineKey | Mapping[str, str],
        label: str,
        data: bytes,
        facts: Mapping[str, float] | None = None,
    ) -> Entry:
        """Keep data under their key, in place of what was there.

        Raises:
            UntrustedFolderError: others may write there.
            OutputError: they cannot be written; what was there before still is.
        """
        entry = self.describe(key, label, data, facts)
        self._make_folder()
        # One writer at a time: all other data of this key are then nobody's.
        with locked(self.folder / f"{_name(entry.key)}{_WRITING}"):
            self._store(entry, data)
        return entry

    def _store(self, entry: Entry, data: bytes) -> None:
        path = self._data_path(entry)
        self._write(path, data)
        try:
            self._write(self._description_path(entry.key), schema.encode(entry).encode())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for other in self.folder.glob(f"{_name(entry.key)}.*{SUFFIX}"):
            if other != path:
                with suppress(OSError):  # somebody reads it, where that keeps a file
                    other.unlink()

    def _make_folder(self) -> None:
        if self._private:
            make_private_folder(self.folder)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot make {self.folder}: {error}.") from error

    def check_trusted(self) -> None:
        """Whether nobody else may write there.

        Raises:
            UntrustedFolderError: others may; nothing is read or written there.
        """
        if self._private:
            check_private_folder(self.folder)

    def check_writable(self) -> None:
        """Find out before hours of building, not after; makes the folder.

        Raises:
            UntrustedFolderError: others may write there; an engine can be built and used, not kept.
            OutputError: nothing can be written there; says what to do.
        """
        probe = self.folder / f".{secrets.token_hex(8)}"
        try:
            self._write(probe, b"")
            probe.unlink(missing_ok=True)
        except UntrustedFolderError:
            raise
        except (OSError, OutputError) as error:
            raise OutputError(
                f"Engines cannot be kept in {self.folder} ({error}). Make it writable, or set "
                "TALKSPLAT_CACHE to a folder that is."
            ) from error

    def entries(self) -> list[Entry]:
        """Every readable entry, by label."""
        return sorted(self._entries(), key=lambda entry: (entry.label, _name(entry.key)))

    def file_of(self, entry: Entry) -> str:
        """The name of the file with its data, in :attr:`folder`."""
        return self._data_path(entry).name

    def clear(self) -> int:
        """Remove everything, what is damaged too; how many files that were.

        Raises:
            OutputError: a file cannot be removed.
        """
        suffixes = (".json", SUFFIX, _BUILDING, _WRITING)
        paths = [path for suffix in suffixes for path in self.folder.glob(f"*{suffix}")]
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"Cannot remove from {self.folder}: {error}.") from error
        return len(paths)

    def _entries(self) -> Iterator[Entry]:
        for path in self.folder.glob("*.json"):
            try:
                yield self._read_entry(path)
            except (OSError, SchemaError):
                continue  # another process's, being replaced, or damaged: of no use either way

    def _read_entry(self, path: Path) -> Entry:
        """Raises OSError or SchemaError."""
        data = self._read(path, range(_MAX_SIDECAR_BYTES + 1))
        try:
            return schema.decode(Entry, schema.parse(data.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise SchemaError(f"expected UTF-8, found {error}") from error

    def _read_data(self, entry: Entry) -> bytes:
        """Raises OSError or SchemaError."""
        data = self._read(self._data_path(entry), range(entry.bytes, entry.bytes + 1))
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise SchemaError(f"expected sha256 {entry.sha256[:16]}…, found {digest[:16]}…")
        return data

    def _stale(self, parts: Mapping[str, str], label: str) -> str:
        """How the entry that comes closest differs."""
        others = [
            _differences(entry.key, parts)
            for entry in self._entries()
            if entry.label == label and entry.key.get("flavour") == parts.get("flavour")
        ]
        if not others:
            return "none was built yet"
        fewest = min(map(len, others))
        return "; ".join(next(found for found in others if len(found) == fewest))

    def _description_path(self, parts: Mapping[str, str]) -> Path:
        return self.folder / f"{_name(parts)}.json"

    def _data_path(self, entry: Entry) -> Path:
        return self.folder / f"{_name(entry.key)}.{entry.token}{SUFFIX}"


def _parts(key: EngineKey | Mapping[str, str]) -> dict[str, str]:
    return dataclasses.asdict(key) if isinstance(key, EngineKey) else dict(key)


def _name(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    differing = [part for part in {**found, **wanted} if found.get(part) != wanted.get(part)]
    return [
        f"{_NAMES.get(part, part)} changed from {_short(found.get(part))} to "
        f"{_short(wanted.get(part))}"
        for part in differing
    ]


def _short(text: str | None) -> str:
    """Hashes by their first digits, profiles not at full length."""
    if text is None:
        return "nothing"
    return text if len(text) <= 60 else f"{text[:16]}…"
