"""Where the cache lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from talksplat.cache import cache_folder
from talksplat.errors import InputError


def test_the_own_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == tmp_path


def test_then_the_desktop_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TALKSPLAT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "talksplat"


@pytest.mark.parametrize("ignored", [None, "", "relative/folder"])
def test_then_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ignored: str | None
) -> None:
    monkeypatch.delenv("TALKSPLAT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if ignored is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "talksplat"


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKSPLAT_CACHE", "cache")
    with pytest.raises(InputError, match="TALKSPLAT_CACHE: expected an absolute path"):
        cache_folder()
