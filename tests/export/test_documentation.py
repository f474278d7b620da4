"""What docs/graphs.md shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.sdk.composed_frames import library

from talksplat.bundle import Bundle
from talksplat.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_with_plain_onnx_runtime(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    example, _ = examples_of("graphs.md")
    assert '"out/ada.avatar"' in example
    exec(example.replace('"out/ada.avatar"', repr(str(bundle.path))), {})
    assert capsys.readouterr().out.split("\n")[0] == "(500, 3) (500, 1) (500, 4, 3)"


def test_the_example_with_the_frame_as_one_graph(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library()
    command = "talksplat build out/ada.avatar --backend onnxruntime -o out/frame.onnx"
    assert f"`{command}`" in (DOCS / "graphs.md").read_text()
    _, example = examples_of("graphs.md")
    for line in (command, example):
        assert "out/frame" in line and "out/ada.avatar" in line
    here = {"out/ada.avatar": str(bundle.path), "out/frame": str(tmp_path / "frame")}
    for path, place in here.items():
        command, example = command.replace(path, place), example.replace(path, place)
    assert main(command.split()[1:]) == 0
    capsys.readouterr()
    exec(example, {})
    side = bundle.manifest.video.width
    assert (
        capsys.readouterr().out.split("\n")[0]
        == f"({side}, {side}, 3) uint8 (1, 1, {side}, {side})"
    )


def examples_of(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), re.S)


def test_every_baked_tensor_is_described(bundle: Bundle) -> None:
    text = (DOCS / "graphs.md").read_text()
    for name in bundle.tensors("baked.safetensors"):
        region, *rest = name.split("_")
        generic = f"<region>_<field>_{rest[-1]}"
        decoder = rest[0] == "individual" and f"_{rest[-1]}`" in text
        assert f"`{name}`" in text or f"`{generic}`" in text or decoder, (region, name)
