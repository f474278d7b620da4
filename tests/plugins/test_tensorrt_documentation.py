"""docs/tensorrt_plugin.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "tensorrt_plugin.md").read_text()


def test_it_names_every_attribute_of_the_operator() -> None:
    header = (REPOSITORY / "plugins" / "gaussian_rasterizer" / "operator.h").read_text()
    table = header[header.index("kAttributes[]") :]
    names = re.findall(r'\{"(\w+)", &Attributes::', table)
    documented = TEXT[TEXT.index("| attribute |") :].split("\n\n")[0]
    assert names
    assert re.findall(r"`(\w+)`(?=[^|]*\| (?:int|float|string))", documented) == names


def test_its_figures_are_those_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = (
        code for code in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "copied" in code
    )
    exec(example, {})
    for line in capsys.readouterr().out.splitlines():
        row = "| " + " | ".join(f"{int(number):,}" for number in line.split()) + " |"
        assert row in TEXT
