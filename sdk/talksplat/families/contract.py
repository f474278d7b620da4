"""Graphs that run before a frame's own: held to what ``docs/graphs.md`` promises, and loaded.

The graphs of a frame are checked by :func:`talksplat.frame_program.check_program`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from talksplat.backends import Backend, Engine
from talksplat.bundle import Bundle
from talksplat.errors import BundleError
from talksplat.manifest import Manifest, TensorSpec

Shape = tuple[int, ...]

_EXPORT_AGAIN = "Export the avatar again."


@dataclass(frozen=True)
class GraphTensors:
    """What the runtime feeds a graph and reads from it: name → shape. Baked tensors are fed too,
    of whatever shape the graph has them."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]


def load_graphs(
    bundle: Bundle, backend: Backend, graphs: Mapping[str, GraphTensors]
) -> dict[str, Engine]:
    """Graphs that take what the runtime feeds them and give what the runtime reads.

    Raises:
        BundleError: one is missing or does not fit; names it and the tensor.
        BackendError: the backend refuses one.
    """
    manifest = bundle.manifest
    engines = {}
    for name, tensors in graphs.items():
        constants = bundle.constants(name)
        if name not in manifest.graphs:
            raise BundleError(
                f"A bundle of family {manifest.family} needs a graph {name!r}; this one has none. "
                f"{_EXPORT_AGAIN}"
            )
        graph = manifest.graphs[name]
        found = {tensor.name: tensor for tensor in graph.inputs}
        for tensor in sorted(set(found) - set(tensors.inputs) - set(constants)):
            raise BundleError(
                f"Graph {name!r} has an input {tensor!r} that nothing feeds. {_EXPORT_AGAIN}"
            )
        for tensor, shape in tensors.inputs.items():
            _check_tensor(f"input of graph {name!r}", tensor, shape, found.get(tensor))
        found = {tensor.name: tensor for tensor in graph.outputs}
        for tensor, shape in tensors.outputs.items():
            _check_tensor(f"output of graph {name!r}", tensor, shape, found.get(tensor))
        engines[name] = backend.load(bundle.graph_file(name), graph, constants)
    return engines


def audio_encoder_tensors(manifest: Manifest) -> GraphTensors:
    """Tensors of ``audio_encoder``.

    Raises:
        BundleError: the manifest does not say how it runs.
    """
    audio, blocks = manifest.audio, manifest.audio.blocks
    if blocks is None:
        raise BundleError(
            f"A bundle of family {manifest.family} expects audio.blocks, found null: how its audio "
            f"encoder runs. {_EXPORT_AGAIN}"
        )
    samples = blocks.left_samples + blocks.block_frames * audio.frame_samples
    tokens = blocks.left_tokens + blocks.block_frames * audio.frame_tokens
    return GraphTensors(
        inputs={"pcm": (1, samples + blocks.right_samples)},
        outputs={"features": (1, tokens + blocks.right_tokens, audio.feature_size)},
    )


def _check_tensor(place: str, name: str, shape: Shape, tensor: TensorSpec | None) -> None:
    if tensor is None:
        raise BundleError(f"There is no {place} called {name!r}. {_EXPORT_AGAIN}")
    if tensor.shape != shape or tensor.dtype != "float32":
        raise BundleError(
            f"The {place} called {name!r} expects float32 {list(shape)}, found {tensor.dtype} "
            f"{list(tensor.shape)}. {_EXPORT_AGAIN}"
        )
