"""Stopwatches of a stream of ours and of torch's."""

from __future__ import annotations

from talksplat.closing import Closing
from talksplat.cuda import Device, Event, Stream


class StreamStopwatch(Closing):
    """Events on a stream of :mod:`talksplat.cuda`."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._stream = stream
        self._begin, self._end = Event(device), Event(device)

    def start(self) -> None:
        """See :class:`benchmarks.gpu.timing.Stopwatch`."""
        self._stream.record(self._begin)

    def stop(self) -> float:
        """See :class:`benchmarks.gpu.timing.Stopwatch`."""
        self._stream.record(self._end)
        self._end.synchronize()
        return self._end.elapsed_since(self._begin)

    def close(self) -> None:
        """Destroy the events."""
        self._begin.close()
        self._end.close()


class TorchStopwatch:
    """Events on torch's current stream."""

    def __init__(self) -> None:
        import torch

        self._begin = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        """See :class:`benchmarks.gpu.timing.Stopwatch`."""
        self._begin.record()

    def stop(self) -> float:
        """See :class:`benchmarks.gpu.timing.Stopwatch`."""
        self._end.record()
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end))
