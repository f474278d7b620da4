"""The fast rasterizer against the float64 oracle: every scene under every set of rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import get_args

import numpy as np
import pytest
from benchmarks.rasterizer.scenes import Array, Scene, head
from comparison import assert_same_picture, difference
from scenes import RULE_SETS, SCENES, draw_oracle, truth

import talksplat
from talksplat.errors import InputError
from talksplat.rasterization import InstructionSet, choose_instruction_set, instruction_set

expected_picture = cache(lambda name, rules: truth(SCENES[name](), *rules))


def draw(scene: Scene, dialect: str, rasterize_mode: str, **more: object) -> tuple[Array, Array]:
    return talksplat.rasterize(
        *scene.arrays,
        scene.width,
        scene.height,
        **scene.options,
        dialect=dialect,
        rasterize_mode=rasterize_mode,
        **more,
    )


@pytest.mark.parametrize("instructions", get_args(InstructionSet), indirect=True)
@pytest.mark.parametrize("rules", RULE_SETS, ids=" ".join)
@pytest.mark.parametrize("name", SCENES)
def test_same_picture_as_the_oracle(
    name: str, rules: tuple[str, str], instructions: InstructionSet
) -> None:
    what = ", ".join((name, *rules, instructions))
    assert_same_picture(draw(SCENES[name](), *rules), expected_picture(name, rules), what)


@pytest.fixture
def instructions(request: pytest.FixtureRequest) -> Iterator[InstructionSet]:
    """Runs a test with other instructions than the best."""
    best = instruction_set()
    try:
        choose_instruction_set(request.param)
    except InputError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    choose_instruction_set(best)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "channels"), [*((rules, 3) for rules in RULE_SETS), (RULE_SETS[0], 32)]
)
def test_same_picture_of_a_whole_head(rules: tuple[str, str], channels: int) -> None:
    """The frame of a talking head; no pixel is left out of the comparison here."""
    scene = head(50_000, channels=channels)
    for measured, expected in zip(draw(scene, *rules), draw_oracle(scene, *rules), strict=True):
        wrong = difference(measured, expected)
        assert wrong is None, wrong


def test_the_comparison_notices_a_wrong_rule() -> None:
    """The dialects differ by less than the eye sees; the bounds must tell them apart."""
    pictures = {
        rules: expected_picture("opaque layers", rules).colors
        for rules in RULE_SETS
        if rules[1] == "classic"
    }
    for rules, picture in pictures.items():
        for others, other in pictures.items():
            assert (difference(picture, other) is None) == (rules == others)


def test_the_comparison_says_where() -> None:
    expected = np.zeros((1, 20, 20, 3), dtype=np.float32)
    measured = expected.copy()
    measured[0, 17, 3, 1] = 0.5
    text = difference(measured, expected)
    assert text is not None
    assert "row 17, column 3 (tile row 1, tile column 0), channel 1: 0.5" in text
