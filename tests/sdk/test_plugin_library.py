"""Finding TensorRT's plugin and asking it what it is, with a stand-in library in plain C."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import talksplat
from talksplat.errors import BackendError, PluginMismatchError, PluginMissingError
from talksplat.plugin_library import (
    CREATOR,
    LIBRARY_VARIABLE,
    tensorrt_plugin,
    tensorrt_plugin_library,
)

HEADERS = Path(__file__).parents[2] / "plugins" / "gaussian_rasterizer" / "tensorrt"

STAND_IN = """
#include "talksplat_tensorrt_plugin.h"
#include <stdio.h>
static char text[100];
int32_t talksplat_tensorrt_plugin_info(talksplat_tensorrt_plugin_facts* facts, size_t size) {
  if (size + ABI - 1 != sizeof(*facts)) {
    sprintf(text, "expected room for other facts");
    return TALKSPLAT_TENSORRT_PLUGIN_OTHER_ABI;
  }
  const talksplat_tensorrt_plugin_facts own = {SAID_ABI, 101302, 13000, "0.1.0", "75-real 120"};
  *facts = own;
  return TALKSPLAT_TENSORRT_PLUGIN_OK;
}
int32_t talksplat_tensorrt_plugin_check(int32_t version) {
  sprintf(text, "asked for %d", version);
  return version / 10000 == 10 ? TALKSPLAT_TENSORRT_PLUGIN_OK
                               : TALKSPLAT_TENSORRT_PLUGIN_OTHER_MAJOR;
}
const char* talksplat_tensorrt_plugin_last_error(void) { return text; }
"""

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def compile_stand_in(folder: Path, abi: int = 1, said_abi: int = 1) -> Path:
    source, library = folder / "stand_in.c", folder / f"stand_in_{abi}_{said_abi}.so"
    source.write_text(STAND_IN)
    macros = [f"-DABI={abi}", f"-DSAID_ABI={said_abi}", f"-I{HEADERS}"]
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", *macros, "-shared", "-fPIC", source, "-o", library],
        check=True,
    )
    return library


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return compile_stand_in(tmp_path)


class Registry:
    """TensorRT's registry, as far as it matters; ``takes`` is whether libraries hold anything."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.loaded: list[str] = []

    def load_library(self, plugin_path: str) -> None:
        self.loaded.append(plugin_path)

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
        assert (type, version, plugin_namespace) == CREATOR
        return object() if self.takes and self.loaded else None


def tensorrt_module(version: str, registry: Registry) -> Any:
    return SimpleNamespace(__version__=version, get_plugin_registry=lambda: registry)


def test_the_variable_goes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "own.so"
    library.touch()
    monkeypatch.setenv(LIBRARY_VARIABLE, str(library))
    assert tensorrt_plugin_library() == library
    assert talksplat.tensorrt_plugin_library() == library


def test_a_variable_that_names_no_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "/no/such/plugin.so")
    with pytest.raises(PluginMissingError, match=r"found '/no/such/plugin\.so', which is no file"):
        tensorrt_plugin_library()


def test_without_a_plugin_it_is_said_how_to_build_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr("talksplat.plugin_library.__file__", str(tmp_path / "plugin_library.py"))
    with pytest.raises(PluginMissingError, match="TENSORRT_ROOT") as caught:
        tensorrt_plugin_library()
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, BackendError)
    (tmp_path / "libtalksplat_tensorrt_plugin.so").touch()
    assert tensorrt_plugin_library().parent == tmp_path


@needs_compiler
def test_a_plugin_says_what_it_is(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(stand_in))
    plugin = tensorrt_plugin()
    assert plugin.path == stand_in
    assert plugin.tensorrt == (10, 13, 2)
    assert plugin.cuda == (13, 0)
    assert plugin.talksplat == "0.1.0"
    assert plugin.architectures == ("75-real", "120")
    assert plugin.sha256 == hashlib.sha256(stand_in.read_bytes()).hexdigest()


@needs_compiler
def test_a_plugin_with_other_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginMismatchError, match="expected room for other facts"):
        tensorrt_plugin(compile_stand_in(tmp_path, abi=2))
    with pytest.raises(PluginMismatchError, match="expected a plugin with ABI 1, found 7"):
        tensorrt_plugin(compile_stand_in(tmp_path, said_abi=7))


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(PluginMissingError, match=r"text\.so cannot be used as TensorRT's plugin"):
        tensorrt_plugin(text)


@needs_compiler
def test_a_library_that_is_no_plugin_is_refused(tmp_path: Path) -> None:
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text("int other;")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    with pytest.raises(PluginMissingError, match="talksplat_tensorrt_plugin_info"):
        tensorrt_plugin(library)


@needs_compiler
@pytest.mark.parametrize(
    ("version", "asked"),
    [("11.1.0.106", 110100), ("11.3", 110300), ("8.6.1", 8601), ("12.0.0rc1", 120000)],
)
def test_another_major_version_is_refused(stand_in: Path, version: str, asked: int) -> None:
    registry = Registry(takes=True)
    with pytest.raises(PluginMismatchError, match=f"asked for {asked}$"):
        tensorrt_plugin(stand_in).register(tensorrt_module(version, registry))
    assert not registry.loaded


@needs_compiler
def test_a_plugin_is_registered_once(stand_in: Path) -> None:
    registry = Registry(takes=True)
    plugin = tensorrt_plugin(stand_in)
    for _ in range(2):
        plugin.register(tensorrt_module("10.13.2.6", registry))
    assert registry.loaded == [str(stand_in)]


@needs_compiler
def test_a_plugin_that_tensorrt_does_not_take_is_an_error(stand_in: Path) -> None:
    with pytest.raises(PluginMismatchError, match="talksplat::GaussianRasterize"):
        tensorrt_plugin(stand_in).register(tensorrt_module("10.13.2.6", Registry(takes=False)))
