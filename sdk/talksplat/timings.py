"""Where the time of a frame goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings(dict[str, float]):
    """Milliseconds per stage of one frame, in the order in which the stages first ran."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + (time.perf_counter() - start) * 1e3

    @property
    def total(self) -> float:
        """Milliseconds of all stages."""
        return sum(self.values())
