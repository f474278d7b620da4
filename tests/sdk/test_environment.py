"""Environment variables that name what is loaded or kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from talksplat.cache import cache_folder
from talksplat.custom_op import custom_op_library
from talksplat.doctor import examine
from talksplat.engines.shipped import shipped_engines
from talksplat.environment import named_path
from talksplat.errors import InputError
from talksplat.plugin_library import tensorrt_plugin_library

READERS: dict[str, Callable[[], object]] = {
    "TALKSPLAT_CACHE": cache_folder,
    "TALKSPLAT_ENGINES": lambda: shipped_engines("tensorrt"),
    "TALKSPLAT_ONNXRUNTIME_OP": custom_op_library,
    "TALKSPLAT_TENSORRT_PLUGIN": tensorrt_plugin_library,
}


@pytest.mark.parametrize("variable", READERS)
def test_a_relative_path_is_refused_even_if_it_exists(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library.so").write_bytes(b"code from the folder that one happens to be in")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "library.so")
    with pytest.raises(InputError, match=f"{variable}: expected an absolute path, found 'libr"):
        READERS[variable]()


def test_a_relative_path_is_no_end_of_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKSPLAT_TENSORRT_PLUGIN", "plugin.so")
    fixes = [check.fix for check in examine()]
    assert any("TALKSPLAT_TENSORRT_PLUGIN: expected an absolute" in fix for fix in fixes)


def test_the_home_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOME_PATH", "~/engines")
    assert named_path("SOME_PATH") == tmp_path / "engines"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_value_there_is_no_path(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_PATH", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_PATH", value)
    assert named_path("SOME_PATH") is None
