"""An engine is found only if it is the right one, whole."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from talksplat.engines.cache import EngineCache, EngineKey, Entry, Found, Missing
from talksplat.errors import OutputError
from talksplat.private_files import UntrustedFolderError

KEY = EngineKey(
    graph="a" * 64,
    flavour="tensorrt",
    version="10.13.0",
    devices="8.9 NVIDIA GeForce RTX 4090",
    driver="CUDA 12.8",
    flags="no TF32",
    profile="rest 1x10 8192x10 8192x10",
    plugin="b" * 64,
)
LABEL = "ada: frame, fp16"
ENGINE = b"engine" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """A cache with the engine of KEY."""
    cache = EngineCache(tmp_path / "engines")
    cache.store(KEY, LABEL, ENGINE, {"seconds": 1.5})
    return cache


def reason(cache: EngineCache, key: EngineKey = KEY) -> str:
    lookup = cache.find(key, LABEL)
    assert isinstance(lookup, Missing), lookup
    return lookup.reason


def engine_file(cache: EngineCache) -> Path:
    (path,) = cache.folder.glob("*.engine")
    return path


def description(cache: EngineCache) -> Path:
    (path,) = cache.folder.glob("*.json")
    return path


def test_what_was_stored_is_found(cache: EngineCache) -> None:
    lookup = cache.find(KEY, "whatever it is called")
    assert isinstance(lookup, Found)
    assert lookup.data == ENGINE
    assert (lookup.entry.label, lookup.entry.facts) == (LABEL, {"seconds": 1.5})


def test_an_empty_cache_says_so(tmp_path: Path) -> None:
    assert reason(EngineCache(tmp_path / "none")) == "none was built yet"


@pytest.mark.parametrize(
    ("part", "found", "words"),
    [
        ("graph", "c" * 64, f"graph changed from {'a' * 16}… to {'c' * 16}…"),
        ("version", "10.14.0", "TensorRT changed from 10.13.0 to 10.14.0"),
        ("driver", "CUDA 13.0", "driver changed from CUDA 12.8 to CUDA 13.0"),
        ("flags", "no TF32, compatible", "flags changed from no TF32 to no TF32, compatible"),
        ("profile", "fixed", "sizes changed from rest 1x10 8192x10 8192x10 to fixed"),
        ("plugin", "d" * 64, f"plugin library changed from {'b' * 16}… to {'d' * 16}…"),
    ],
)
def test_a_stale_engine_is_not_found_and_says_why(
    cache: EngineCache, part: str, found: str, words: str
) -> None:
    assert reason(cache, replace(KEY, **{part: found})).startswith(words)
    assert isinstance(cache.find(KEY, LABEL), Found)


def test_an_engine_for_another_device_is_not_found(cache: EngineCache) -> None:
    words = reason(cache, replace(KEY, devices="9.0 NVIDIA H200"))
    assert words == "device changed from 8.9 NVIDIA GeForce RTX 4090 to 9.0 NVIDIA H200"


def test_an_engine_of_the_other_flavour_is_not_found(cache: EngineCache) -> None:
    assert reason(cache, replace(KEY, flavour="tensorrt-rtx")) == "none was built yet"


def test_of_several_stale_engines_the_nearest_is_named(cache: EngineCache) -> None:
    cache.store(replace(KEY, version="10.3.0", driver="CUDA 12.4"), LABEL, b"older")
    assert reason(cache, replace(KEY, driver="CUDA 13.0")) == (
        "driver changed from CUDA 12.8 to CUDA 13.0"
    )


@pytest.mark.parametrize("kept", [0, 10, len(ENGINE) - 1])
def test_a_truncated_engine_is_refused(cache: EngineCache, kept: int) -> None:
    engine_file(cache).write_bytes(ENGINE[:kept])
    assert reason(cache) == f"its file is damaged (expected {len(ENGINE)} bytes, found {kept})"


def test_a_corrupted_engine_is_refused(cache: EngineCache) -> None:
    data = bytearray(ENGINE)
    data[2000] ^= 1
    engine_file(cache).write_bytes(data)
    assert "expected sha256" in reason(cache)


def test_an_engine_that_grew_is_refused_unread(cache: EngineCache) -> None:
    with engine_file(cache).open("ab") as stream:
        stream.truncate(2**40)  # sparse: reading it would take all memory
    assert "expected 6000 bytes, found 1099511627776" in reason(cache)


def test_a_missing_engine_file_is_told(cache: EngineCache) -> None:
    engine_file(cache).unlink()
    assert "its file is damaged" in reason(cache)


def test_a_description_takes_no_memory_by_what_it_says(cache: EngineCache) -> None:
    path = description(cache)
    path.write_text(json.dumps({**json.loads(path.read_text()), "bytes": 2**32}))
    tracemalloc.start()
    try:
        assert reason(cache) == "its file is damaged (expected 4294967296 bytes, found 6000)"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**22


@pytest.mark.parametrize("which", [engine_file, description])
def test_a_pipe_is_not_waited_for(cache: EngineCache, which: Callable[[EngineCache], Path]) -> None:
    path = which(cache)
    path.unlink()
    os.mkfifo(path)
    assert "expected a regular file" in reason(cache)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 2}'])
def test_a_corrupted_sidecar_is_refused(cache: EngineCache, text: bytes) -> None:
    description(cache).write_bytes(text)
    assert "its description" in reason(cache)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"token": "../../../../etc/passwd"},
        {"token": ""},
        {"bytes": -1},
        {"bytes": 2**32 + 1},
        {"key": {"graph": "another"}},
        {"format": 2},
    ],
)
def test_a_forged_sidecar_is_refused(cache: EngineCache, change: dict[str, object]) -> None:
    path = description(cache)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert "damaged" in reason(cache) or "something else" in reason(cache)


def test_a_sidecar_too_large_is_refused(cache: EngineCache) -> None:
    description(cache).write_bytes(b" " * (2**20 + 1))
    assert "expected at most 1048576 bytes, found 1048577" in reason(cache)


def test_storing_again_repairs_and_leaves_nothing_behind(cache: EngineCache) -> None:
    engine_file(cache).write_bytes(b"damaged")
    cache.store(KEY, LABEL, b"another build")
    lookup = cache.find(KEY, LABEL)
    assert isinstance(lookup, Found) and lookup.data == b"another build"
    assert len(list(cache.folder.iterdir())) == 2


def test_an_unwritable_cache_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")  # holds for root too, as permissions do not
    cache = EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(OutputError, match="set TALKSPLAT_CACHE to a folder"):
        cache.check_writable()
    with pytest.raises(OutputError):
        cache.store(KEY, LABEL, ENGINE)
    assert isinstance(cache.find(KEY, LABEL), Missing)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    EngineCache(tmp_path / "engines").check_writable()
    assert not list((tmp_path / "engines").iterdir())


def test_a_store_that_fails_keeps_what_was_there(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        cache.store(KEY, LABEL, b"another build")
    lookup = cache.find(KEY, LABEL)
    assert isinstance(lookup, Found) and lookup.data == ENGINE
    assert len(list(cache.folder.iterdir())) == 2


def test_writers_at_once_leave_one_engine_that_is_right(tmp_path: Path) -> None:
    """Two that do not agree, as builds of TensorRT need not, twenty times each."""
    cache = EngineCache(tmp_path)
    builds = [bytes([number]) * 50_000 for number in (1, 2)]
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda data: cache.store(KEY, LABEL, data), builds * 20):
            pass
    lookup = cache.find(KEY, LABEL)
    assert isinstance(lookup, Found) and lookup.data in builds
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_reader_finds_what_a_writer_puts_in_place_meanwhile(cache: EngineCache) -> None:
    class Overtaken(EngineCache):
        """Another process stores after the description was read and before the data are."""

        overtaken = False

        def _read_data(self, entry: Entry) -> bytes:
            if not self.overtaken:
                self.overtaken = True
                cache.store(KEY, LABEL, b"newer")
            return super()._read_data(entry)

    found = Overtaken(cache.folder).find(KEY, LABEL)
    assert isinstance(found, Found) and found.data == b"newer"


def test_data_of_writers_that_died_are_removed(cache: EngineCache) -> None:
    cache.store(replace(KEY, version="11.0"), LABEL, b"another")
    orphan = engine_name(cache, KEY).with_suffix(".0123456789abcdef.engine")
    orphan.write_bytes(b"described by nobody")
    cache.store(KEY, LABEL, ENGINE)
    assert not orphan.exists()
    assert len(list(cache.folder.iterdir())) == 4


def engine_name(cache: EngineCache, key: EngineKey) -> Path:
    """The description of one entry among several."""
    (path,) = (
        path for path in cache.folder.glob("*.json") if key.version in path.read_text("utf-8")
    )
    return path


class TestTrust:
    """Who can write an engine decides what runs."""

    def test_nobody_else_can_write_or_read_it(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            cache = EngineCache(tmp_path / "talksplat" / "engines")
            cache.store(KEY, LABEL, ENGINE)
        finally:
            os.umask(before)
        for folder in (cache.folder, cache.folder.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
    def test_nothing_is_taken_from_or_put_into_a_folder_of_others(
        self, cache: EngineCache, mode: int
    ) -> None:
        cache.folder.chmod(mode)
        before = {path: path.read_bytes() for path in cache.folder.iterdir()}
        assert f"can be written by others (mode {mode:o})" in reason(cache)
        for write in (
            cache.check_trusted,
            cache.check_writable,
            lambda: cache.store(KEY, LABEL, b"x"),
        ):
            with pytest.raises(UntrustedFolderError, match=r"set TALKSPLAT_CACHE to a folder of"):
                write()
        assert {path: path.read_bytes() for path in cache.folder.iterdir()} == before
        cache.folder.chmod(0o700)
        assert isinstance(cache.find(KEY, LABEL), Found)

    @pytest.mark.parametrize("which", [engine_file, description])
    @pytest.mark.parametrize("mode", [0o620, 0o602])
    def test_a_file_that_others_may_write_is_not_used_and_replaced(
        self, cache: EngineCache, which: Callable[[EngineCache], Path], mode: int
    ) -> None:
        which(cache).chmod(mode)
        assert f"is not used: it can be written by others (mode {mode:o})" in reason(cache)
        cache.store(KEY, LABEL, ENGINE)
        assert isinstance(cache.find(KEY, LABEL), Found)

    @pytest.mark.parametrize("what", ["folder", "engine", "description"])
    def test_what_belongs_to_somebody_else_is_not_used(
        self, cache: EngineCache, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = {"folder": cache.folder, "engine": engine_file(cache)}.get(what, description(cache))
        if os.getuid() == 0:
            os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert "belongs to another user" in reason(cache)

    def test_a_folder_to_hand_on_is_read_by_everybody(self, tmp_path: Path) -> None:
        folder = EngineCache(tmp_path / "shipped", private=False)
        folder.store(KEY, LABEL, ENGINE)
        folder.folder.chmod(0o777)
        assert isinstance(folder.find(KEY, LABEL), Found)
        readable = 0o666 & ~current_umask()
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.folder.iterdir()} == {readable}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_entries_and_clear(cache: EngineCache) -> None:
    cache.store(replace(KEY, version="11.0"), "ada: audio_encoder, fp16", b"second")
    (cache.folder / "broken.json").write_text("{")
    assert [entry.label for entry in cache.entries()] == ["ada: audio_encoder, fp16", LABEL]
    assert cache.clear() == 5
    assert not list(cache.folder.iterdir()) and not cache.entries()
