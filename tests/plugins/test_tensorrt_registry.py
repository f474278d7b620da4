"""TensorRT's plugin and a registry of NVIDIA's making: that of TensorRT for RTX, which loads plugin
libraries without a GPU. (It builds no engines with them.)"""

from __future__ import annotations

import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import tensorrt_library as trt

if not trt.ROOTS:
    pytest.skip(trt.NO_ROOTS, allow_module_level=True)
if trt.cuda_headers() is None or util.find_spec("tensorrt_rtx") is None:
    pytest.skip("no CUDA headers, or no tensorrt_rtx", allow_module_level=True)


def converse(script: str, library: Path) -> list[str]:
    """What ``script`` prints about ``library``; in a process of its own, for registries stay."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, str(library)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("root", trt.ROOTS, ids=lambda root: root.name)
def test_another_tensorrt_is_refused(root: Path, tmp_path: Path) -> None:
    library = trt.compile_plugin(tmp_path, trt.headers_of(root))
    *errors, loaded, raised = converse(REFUSED, library)
    assert loaded == "None None"
    assert any("No creator returned" in error for error in errors)
    assert raised.startswith("PluginMismatchError")
    assert "found TensorRT 1." in raised


@pytest.mark.parametrize("root", trt.ROOTS, ids=lambda root: root.name)
def test_the_registry_takes_the_plugin_and_makes_layers(root: Path, tmp_path: Path) -> None:
    headers = trt.headers_of(root)
    if "_MAJOR_ENTERPRISE 11" not in (headers / "NvInferVersion.h").read_text():
        pytest.skip("TensorRT for RTX has the interfaces of TensorRT 11")
    library = trt.compile_plugin(tmp_path, headers, any_version=True)
    assert converse(TAKEN, library) == [
        "GaussianRasterize 1 talksplat",
        "dialect CHAR",
        "True",
        "talksplat::GaussianRasterize: dialect: expected one of 'gsplat', 'gsplat-1.5', 'inria'; "
        "found '3dgs'",
        "False",
    ]


PREAMBLE = """
import sys
import numpy as np
import tensorrt_rtx

class Log(tensorrt_rtx.ILogger):
    def __init__(self):
        tensorrt_rtx.ILogger.__init__(self)
    def log(self, severity, message):
        if severity == tensorrt_rtx.ILogger.Severity.ERROR:
            print(message, flush=True)

log = Log()
builder = tensorrt_rtx.Builder(log)  # gives the registry its logger
registry = tensorrt_rtx.get_plugin_registry()
NAME = ("GaussianRasterize", "1", "talksplat")
"""

REFUSED = """
from pathlib import Path
from talksplat.plugin_library import tensorrt_plugin

before = {creator.name for creator in registry.all_creators}
loaded = registry.load_library(sys.argv[1])
new = {creator.name for creator in registry.all_creators} - before
print(loaded, new.pop() if new else None)
try:
    tensorrt_plugin(Path(sys.argv[1])).register(tensorrt_rtx)
except Exception as error:
    print(type(error).__name__, error)
"""

TAKEN = """
assert registry.load_library(sys.argv[1]) is not None
creator = registry.get_creator(*NAME)
print(creator.name, creator.plugin_version, creator.plugin_namespace)
(dialect,) = [field for field in creator.field_names if field.name == "dialect"]
print(dialect.name, dialect.type.name)
for name in (b"inria", b"3dgs"):
    characters = np.frombuffer(name, np.int8)
    kind = tensorrt_rtx.PluginFieldType.CHAR
    fields = [tensorrt_rtx.PluginField("dialect", characters, kind)]
    collection = tensorrt_rtx.PluginFieldCollection(fields)
    print(creator.create_plugin("layer", collection, tensorrt_rtx.TensorRTPhase.BUILD) is not None)
"""
