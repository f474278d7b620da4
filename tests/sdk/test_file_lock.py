"""One at a time, among threads and processes."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from talksplat import file_lock
from talksplat.errors import OutputError
from talksplat.file_lock import locked


def test_only_one_holds_it_and_the_file_goes_with_the_last(tmp_path: Path) -> None:
    holders, most = 0, 0
    count = threading.Lock()

    def work(_: int) -> None:
        nonlocal holders, most
        with locked(tmp_path / "lock"):
            with count:
                holders += 1
                most = max(most, holders)
            time.sleep(1e-4)
            with count:
                holders -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(100)))
    assert most == 1 and not list(tmp_path.iterdir())


def test_who_has_to_wait_is_told(tmp_path: Path) -> None:
    waiting, told = threading.Event(), []

    def second() -> None:
        with locked(tmp_path / "lock", waiting.set):
            told.append(waiting.is_set())

    with ThreadPoolExecutor(1) as threads:
        with locked(tmp_path / "lock", lambda: told.append(False)):
            done = threads.submit(second)
            assert waiting.wait(30) and not told
        done.result(30)
    assert told == [True]


def test_an_error_lets_go_of_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock"):
        raise KeyboardInterrupt
    with locked(tmp_path / "lock", lambda: pytest.fail("still held")):
        pass


def test_without_its_folder_there_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"), locked(tmp_path / "none" / "lock"):
        pytest.fail("held")


def test_where_files_cannot_be_locked_work_goes_on_and_that_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "flock", refuse)
    done = []
    with caplog.at_level(logging.WARNING), locked(tmp_path / "lock"):
        done.append(True)
    assert done and "cannot be locked ([Errno 37] No locks available)" in caplog.text
    assert not list(tmp_path.iterdir())
