"""How long each stage of a frame keeps the device busy: events between the stages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from talksplat.closing import Closing
from talksplat.cuda import Event, Stream


class StageTimes(Closing):
    """Events before, between and after the pieces of work of a frame.

    In a captured frame they are part of the graph and happen anew in every launch.

    Args:
        stream: whose work it is.
        stages: of the pieces, in order; one stage may have several.
    """

    def __init__(self, stream: Stream, stages: Sequence[str]) -> None:
        self._stream = stream
        self._stages = tuple(stages)
        with ExitStack() as opened:
            self._events = [
                opened.enter_context(Event(stream.device)) for _ in range(len(stages) + 1)
            ]
            self._opened = opened.pop_all()

    def mark(self, pieces: int, *, capturing: bool) -> None:
        """Note the moment when so many pieces of work are done."""
        event = self._events[pieces]
        if not capturing:
            self._stream.record(event)
            return
        device = self._stream.device
        flags = device.context.driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
        device.call("cuEventRecordWithFlags", event.handle, self._stream.handle, flags.value)

    def read(self) -> dict[str, float]:
        """Milliseconds of each stage of the last frame, which must be done."""
        found: dict[str, float] = {}
        for place, stage in enumerate(self._stages):
            elapsed = self._events[place + 1].elapsed_since(self._events[place])
            found[stage] = found.get(stage, 0.0) + elapsed
        return found

    def close(self) -> None:
        """Destroy the events."""
        self._opened.close()
