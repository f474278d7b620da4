"""A device of the fake driver, of which nothing may be left at the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from talksplat.cuda import Device, Stream, open_device

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver


@pytest.fixture
def device(fake_driver: FakeDriver) -> Iterator[Device]:
    """The only GPU."""
    with open_device() as opened:
        yield opened
    gc.collect()
    assert not fake_driver.leaks
    assert not fake_driver.alive()


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    """A stream on it."""
    with Stream(device) as opened:
        yield opened
