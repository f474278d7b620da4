"""Fixtures of the runtime's tests: a tiny bundle made once, copies of it to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from synthetic_bundle import write_synthetic_bundle
from synthetic_families import VARIANTS, write_family_bundle
from tests.sdk.cuda.fixtures import (  # noqa: F401 (fixtures)
    fake_driver,
    fake_nvrtc,
    host_kernels,
    install_driver,
)

import talksplat


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic bundle; not to be changed."""
    path = tmp_path_factory.mktemp("bundle") / "synthetic.avatar"
    write_synthetic_bundle(path)
    return path


@pytest.fixture
def own_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic bundle that the test may damage."""
    copy = tmp_path / "copy.avatar"
    shutil.copytree(bundle_path, copy)
    return copy


@pytest.fixture(scope="session")
def avatar(bundle_path: Path) -> talksplat.Avatar:
    """The synthetic bundle, loaded."""
    return talksplat.load(bundle_path)


@pytest.fixture(scope="session")
def family_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One synthetic bundle per family, with an audio encoder; not to be changed."""
    folder = tmp_path_factory.mktemp("families")
    for name, variant in VARIANTS.items():
        write_family_bundle(folder / f"{name}.avatar", variant)
    return {name: folder / f"{name}.avatar" for name in VARIANTS}
