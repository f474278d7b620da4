"""A buffer over absolute positions: appended at the end, forgotten at the front."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from talksplat.errors import InputError


class Ring:
    """Rows at positions 0, 1, 2, … of which the latest are kept.

    Positions never change: row i is row i however the rows arrived and whatever was forgotten
    since, so that windows do not depend on how the input was cut.

    Args:
        shape: shape of one row; () for plain numbers.
        dtype: of the rows.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        self._rows: NDArray[Any] = np.zeros((0, *shape), dtype)
        self._offset = 0  # where in _rows the oldest kept row is
        self.start = 0
        """Position of the oldest kept row."""
        self.end = 0
        """Position after the latest row."""

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows [n, *shape] at the end."""
        kept = self.end - self.start
        if self._offset + kept + len(rows) > len(self._rows):
            # Move to a buffer twice as large as needed: amortised, and bounded by what is kept.
            room = np.empty((2 * (kept + len(rows)), *self._rows.shape[1:]), self._rows.dtype)
            room[:kept] = self._rows[self._offset : self._offset + kept]
            self._rows, self._offset = room, 0
        self._rows[self._offset + kept : self._offset + kept + len(rows)] = rows
        self.end += len(rows)

    def forget(self, before: int) -> None:
        """Drop rows at positions below ``before``; positions not yet reached are kept."""
        before = min(before, self.end)
        if before > self.start:
            self._offset += before - self.start
            self.start = before

    def zero_padded(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start … stop-1``; zeros before position 0 and from ``end`` on.

        Raises:
            InputError: some of the rows were forgotten.
        """
        window = np.zeros((stop - start, *self._rows.shape[1:]), self._rows.dtype)
        first, last = max(start, 0), min(stop, self.end)
        if first < last:
            window[first - start : last - start] = self._kept(first, last)
        return window

    def clamped(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start … stop-1``; the first row before position 0, the last from ``end`` on.

        Raises:
            InputError: some of the rows were forgotten, or there are none.
        """
        positions = np.clip(np.arange(start, stop), 0, self.end - 1)
        first = int(positions[0])
        window: NDArray[Any] = self._kept(first, int(positions[-1]) + 1)[positions - first]
        return window

    def _kept(self, first: int, last: int) -> NDArray[Any]:
        if first < self.start or last > self.end:
            raise InputError(
                f"Rows {first} to {last} were asked for, {self.start} to {self.end} are kept."
            )
        return self._rows[self._offset + first - self.start : self._offset + last - self.start]
