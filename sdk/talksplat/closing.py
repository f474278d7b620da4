"""What is closed when a ``with`` block is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Something that holds memory, threads or a device until it is closed."""

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; it must not be used afterwards. Twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
