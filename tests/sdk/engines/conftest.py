"""Fixtures of the engines' tests: a cache of their own, a GPU that is not there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from talksplat.bundle import Bundle


@dataclass(frozen=True)
class FakeDevice:
    """What an engine depends on of a GPU."""

    name: str = "NVIDIA GeForce RTX 4090"
    compute_capability: tuple[int, int] = (8, 9)
    driver_version: int = 12080

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture(autouse=True)
def cache_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the user's own cache is read or written; this folder does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TALKSPLAT_CACHE", str(folder))
    monkeypatch.delenv("TALKSPLAT_ENGINES", raising=False)
    return folder


@pytest.fixture
def device() -> FakeDevice:
    """A GPU of compute capability 8.9."""
    return FakeDevice()


@pytest.fixture(scope="session")
def every_family(bundle_path: Path, family_bundles: dict[str, Path]) -> dict[str, Bundle]:
    """One synthetic bundle of each family."""
    paths = {"d3talker": bundle_path, **family_bundles}
    return {family: Bundle.open(path) for family, path in paths.items()}
