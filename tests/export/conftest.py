"""Fixtures of the lab side's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.export.avatar_factory import make_checkpoint

from talksplat.bundle import Bundle
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.export import export_checkpoint


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with random weights, on disk."""
    path = tmp_path_factory.mktemp("checkpoint") / "random.pt"
    make_checkpoint().save(path)
    return path


@pytest.fixture(scope="session")
def checkpoint(checkpoint_path: Path) -> AvatarCheckpoint:
    """The same checkpoint, read back."""
    return AvatarCheckpoint.load(checkpoint_path)


@pytest.fixture(scope="session")
def bundle(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The checkpoint's bundle."""
    return export_checkpoint(checkpoint_path, tmp_path_factory.mktemp("bundle") / "random.avatar")
