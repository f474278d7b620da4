"""What every backend offers: load a graph once, run it from several sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from talksplat.manifest import GraphSpec

Array = NDArray[Any]


class Runner(Protocol):
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
        """
        ...

    def close(self) -> None:
        """Free what the runner holds; it must not be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Engine(Protocol):
    """One graph loaded for a device, with its constants. Thread-safe; shared by sessions."""

    spec: GraphSpec

    def runner(self) -> Runner:
        """A new runner of this graph."""
        ...


class Backend(Protocol):
    """Something that runs graphs."""

    name: str

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> Engine:
        """Load a graph.

        Args:
            file: the ``.onnx`` file.
            spec: what the manifest says of its tensors; must agree with the file.
            constants: inputs that never change (baked tensors), bound once.

        Raises:
            BackendError: the backend refuses the file or it does not agree with ``spec``.
        """
        ...
