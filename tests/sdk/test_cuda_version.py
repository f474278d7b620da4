"""Versions of CUDA as people write them."""

from __future__ import annotations

import pytest

from talksplat.cuda_version import cuda_version_text


@pytest.mark.parametrize(("number", "text"), [(12060, "12.6"), (13000, "13.0"), (11040, "11.4")])
def test_a_number_as_drivers_count(number: int, text: str) -> None:
    assert cuda_version_text(number) == text
