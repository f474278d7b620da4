"""What every backend offers: graphs and whole frames, loaded once, run from several sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from numpy.typing import NDArray

from talksplat.bundle import Bundle
from talksplat.frame_program import FrameProgram
from talksplat.manifest import GraphSpec
from talksplat.timings import Timings

Array = NDArray[Any]

FrameMemory = Literal["host", "device"]
"""Where pictures are handed out: NumPy arrays, or arrays on the GPU that made them."""

FrameArray = Any
"""A NumPy array, or a :class:`talksplat.cuda.DeviceArray`: who asked for frames knows which, and a
union would have everyone ask again."""


@dataclass(frozen=True)
class Picture:
    """One finished frame.

    Its arrays belong to whoever holds them: no later run writes to them. They are complete; there
    is no stream to wait for. Arrays on a device keep their memory, and the device open, until the
    array and every view of it are dropped, even after the runner, session and avatar are closed.
    Then a later run may write there, once the work of the legacy default stream is done.

    Attributes:
        image: [H,W,3] uint8 RGB.
        alpha: [H,W] float32, what of the background is covered.
    """

    image: FrameArray
    alpha: FrameArray


class _Closed(Protocol):
    """Closed when a ``with`` block is left."""

    def close(self) -> None:
        """Free what it holds; it must not be used afterwards. Does no harm twice, nor on a device
        that was lost."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Runner(_Closed, Protocol):
    """Runs one graph for one session. Not thread-safe; make one per session."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph.

        Args:
            inputs: the tensors by name, with the dtypes and shapes of the graph's spec, without
                the constants given to :meth:`Backend.load`.

        Returns:
            The outputs by name; arrays stay valid until the next ``run`` of this runner.

        Raises:
            BackendError: the inputs do not fit the graph, or the backend failed.
            DeviceLostError: the device is gone; only :meth:`close` is of use now.
        """
        ...


class Engine(Protocol):
    """One graph loaded for a device, with its constants. Thread-safe; shared by sessions."""

    spec: GraphSpec

    def runner(self) -> Runner:
        """A new runner of this graph.

        Raises:
            DeviceLostError: the device is gone; load the avatar again.
        """
        ...


class FrameRunner(_Closed, Protocol):
    """Makes the frames of one session. Not thread-safe; make one per session."""

    def run(self, inputs: Mapping[str, Array], timings: Timings) -> Picture:
        """Make one frame.

        Args:
            inputs: every input of the program by its name, on the host, C-contiguous or not, with
                the dtype and shape that the program says. A picture that is the same object as in
                the run before may be taken as unchanged.
            timings: where to add the time of the steps, by the names of their stages; a backend
                that runs all steps as one calls that stage ``frame``.

        Raises:
            BackendError: a step failed.
            InputError: what a graph made of the inputs cannot be drawn, such as Gaussians that
                are not finite.
            DeviceLostError: the device is gone; only :meth:`close` is of use now.
        """
        ...


class FrameEngine(Protocol):
    """A frame program loaded for a device. Thread-safe; shared by sessions."""

    def runner(self, memory: FrameMemory = "host") -> FrameRunner:
        """A new runner of this program.

        Args:
            memory: where its pictures are.

        Raises:
            InputError: the backend has no device to leave pictures on.
            BackendError: it cannot be made, for want of memory for instance.
            DeviceLostError: the device is gone; load the avatar again.
        """
        ...


class Backend(Protocol):
    """Something that runs graphs and makes frames. An avatar has one of its own."""

    name: str

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> Engine:
        """Load a graph that takes and gives arrays of the host.

        Args:
            file: the ``.onnx`` file.
            spec: what the manifest says of its tensors; must agree with the file.
            constants: inputs that never change (baked tensors), bound once.

        Raises:
            BackendError: the backend refuses the file or it does not agree with ``spec``.
        """
        ...

    def load_frame(self, bundle: Bundle, program: FrameProgram) -> FrameEngine:
        """Load what makes a frame.

        Args:
            bundle: holds the graphs of the program.
            program: its steps; see :func:`talksplat.frame_program.check_program`.

        Raises:
            BackendError: the backend refuses a graph or cannot do a step.
        """
        ...

    def close(self) -> None:
        """Free everything it loaded, once no runner is in use any more. Does no harm twice, nor on
        a device that was lost."""
        ...
