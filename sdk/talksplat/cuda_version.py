"""Versions of CUDA as people write them."""

from __future__ import annotations


def cuda_version_text(version: int) -> str:
    """``"12.8"`` of 12080, as drivers and headers count."""
    return f"{version // 1000}.{version % 1000 // 10}"
