"""What TensorRT says while it builds or runs an engine."""

from __future__ import annotations

from collections import deque
from typing import Any

from talksplat.engines.flavours import Flavour

_KEPT_LINES = 8


class EngineLog:
    """An ``ILogger`` that keeps errors until something is refused for them, and prints nothing.

    TensorRT answers None or False where it refuses and logs why, from threads of its own too.

    Attributes:
        logger: the ``ILogger``.
    """

    def __init__(self, flavour: Flavour) -> None:
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        trt: Any = flavour.module
        kept = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in kept:
                    lines.append(msg.strip())

        self.logger: Any = Logger()
        self._lines = lines

    def clear(self) -> None:
        """Forget what was said."""
        self._lines.clear()

    def take(self) -> str:
        """What was said since it was last asked for or cleared; the newest lines, if it was much.
        What follows is of something else."""
        said = "; ".join(list(self._lines))
        self._lines.clear()
        return said
