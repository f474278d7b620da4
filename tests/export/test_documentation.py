"""What docs/graphs.md shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from talksplat.bundle import Bundle

DOCS = Path(__file__).parents[2] / "docs"


def test_the_example_with_plain_onnx_runtime(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "graphs.md").read_text(), re.S)
    assert '"out/ada.avatar"' in example
    exec(example.replace('"out/ada.avatar"', repr(str(bundle.path))), {})
    assert capsys.readouterr().out.split("\n")[0] == "(500, 3) (500, 1) (500, 4, 3)"


def test_every_baked_tensor_is_described(bundle: Bundle) -> None:
    text = (DOCS / "graphs.md").read_text()
    for name in bundle.tensors("baked.safetensors"):
        region, *rest = name.split("_")
        generic = f"<region>_<field>_{rest[-1]}"
        decoder = rest[0] == "individual" and f"_{rest[-1]}`" in text
        assert f"`{name}`" in text or f"`{generic}`" in text or decoder, (region, name)
