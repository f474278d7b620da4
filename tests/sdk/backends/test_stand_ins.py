"""The stand-ins for TensorRT and ONNX Runtime offer nothing that the real ones do not."""

from __future__ import annotations

import enum
import importlib.util
import inspect
import re
from pathlib import Path
from threading import Thread
from typing import Any

import onnxruntime
import pytest
from tests.sdk.backends.conftest import GpuMachine
from tests.sdk.backends.fake_onnxruntime import FakeBinding, FakeOnnxRuntime, FakeSession
from tests.sdk.backends.fake_tensorrt import PARTS, RTX_PARTS

import talksplat
from talksplat.cuda import open_device


def public_names(part: type) -> set[str]:
    """What a part offers, attributes that its constructor sets included."""
    names = {name for kind in part.__mro__[:-1] for name in vars(kind)}
    for kind in part.__mro__[:-1]:
        if "__init__" in vars(kind) and kind.__module__ == part.__module__:
            names |= set(re.findall(r"self\.(\w+)(?:: [^=]+)? =", inspect.getsource(kind.__init__)))
    return {name for name in names if not name.startswith("_")} - {"machine"}


@pytest.fixture(scope="module")
def tensorrt_rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="needs the real tensorrt_rtx: dev extra")


@pytest.mark.parametrize("name", RTX_PARTS)
def test_every_name_exists_in_tensorrt_rtx(tensorrt_rtx: Any, name: str) -> None:
    real, fake = getattr(tensorrt_rtx, name), RTX_PARTS[name]
    if issubclass(fake, enum.Enum):
        # Numbers differ between flavours and versions, and nothing depends on them.
        assert {member.name for member in fake} <= set(real.__members__)
    elif not issubclass(fake, bytes):
        assert public_names(fake) <= set(dir(real))


@pytest.mark.parametrize("name", RTX_PARTS)
def test_every_method_takes_what_that_of_tensorrt_rtx_takes(tensorrt_rtx: Any, name: str) -> None:
    fake = RTX_PARTS[name]
    if issubclass(fake, enum.Enum | bytes):
        return
    for method in public_names(fake):
        call = getattr(fake, method, None)
        documented = getattr(getattr(tensorrt_rtx, name), method).__doc__ or ""
        overloads = re.findall(rf"{method}\(self: [^,)]+,? ?(.*)\) ->", documented)
        if not inspect.isfunction(call) or not overloads:
            continue
        given = set(inspect.signature(call).parameters) - {"self"}
        taken = {found for text in overloads for found in re.findall(r"(\w+): ", text)}
        assert given <= taken, f"{name}.{method}"


@pytest.mark.parametrize("name", PARTS)
def test_every_name_occurs_in_the_bindings_of_tensorrt(name: str) -> None:
    found = importlib.util.find_spec("tensorrt_bindings")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs tensorrt_cu13_bindings, to read (it cannot be loaded without TensorRT)")
    library = Path(found.submodule_search_locations[0]) / "tensorrt.so"
    content = library.read_bytes()
    part = PARTS[name]
    if issubclass(part, enum.Enum):
        names = {member.name for member in part}
    else:
        names = set() if issubclass(part, bytes) else public_names(part)
    missing = {text for text in names | {name} if text.encode() + b"\0" not in content}
    assert not missing


def test_the_plain_flavour_has_nothing_that_only_rtx_has() -> None:
    only_rtx = set(RTX_PARTS) - set(PARTS)
    assert {"CudaGraphStrategy", "IRuntimeCache"} <= only_rtx
    assert not hasattr(PARTS["IExecutionContext"], "is_stream_capturable")
    assert not hasattr(PARTS["Runtime"], "get_engine_validity")


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakeOnnxRuntime, onnxruntime),
        (FakeSession, onnxruntime.InferenceSession),
        (FakeBinding, onnxruntime.IOBinding),
    ],
)
def test_every_function_exists_in_onnxruntime_and_takes_the_same(fake: type, real: Any) -> None:
    for name, call in vars(fake).items():
        if name.startswith("_") or not inspect.isfunction(call):
            continue
        theirs = getattr(real, name)
        given = list(inspect.signature(call).parameters)[1:]
        if inspect.isbuiltin(theirs):  # which has no signature
            assert not given
            continue
        taken = list(
            inspect.signature(theirs.__init__ if inspect.isclass(theirs) else theirs).parameters
        )
        expected = [parameter for parameter in taken if parameter != "self"][: len(given)]
        assert [{"path": "path_or_bytes"}.get(name, name) for name in given] == expected


def test_the_stand_in_notes_what_the_real_library_forbids(gpu: GpuMachine) -> None:
    from tests.sdk.backends.fake_tensorrt import ILogger, fake_tensorrt

    found = gpu.rtx.misuses
    with open_device() as device:
        runtime = fake_tensorrt(gpu.rtx).Runtime(ILogger())
        assert found == ["Runtime is made, and no context is current"]
        with device.current():
            del runtime
        assert len(found) == 1
        found.clear()


def test_the_stand_in_notes_a_context_in_two_threads(gpu: GpuMachine, bundle_path: Path) -> None:
    with talksplat.load(bundle_path, "tensorrt-rtx", 1) as avatar, avatar.session() as session:
        work = session._stream._frame._graphs[0]

        def run() -> None:
            with work._stream.device.current():
                for _ in range(20):
                    work._context.made.execute_async_v3(work._stream.handle)

        threads = [Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(gpu.rtx.misuses) == {"a context is run by two threads at once"}
        gpu.rtx.misuses.clear()
