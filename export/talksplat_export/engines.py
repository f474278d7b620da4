"""Builds TensorRT-RTX engines of a bundle's graphs, on a machine without a GPU.

``python -m talksplat_export.engines ada.avatar -o out/engines`` proves that every graph can become
an engine, and writes down how large each is: ``engines.json`` and ``engines.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from talksplat.atomic import write_bytes
from talksplat.bundle import Bundle
from talksplat.errors import BackendError

COMPUTE_CAPABILITIES = ("SM80", "SM86", "SM89", "SM120")
"""Ampere, Ada and Blackwell: one engine runs on all of them."""

MOST_GAUSSIANS = 250_000


@dataclass(frozen=True)
class EngineRecord:
    """One graph as an engine.

    Attributes:
        graph: name of the graph.
        onnx_bytes: size of the ONNX file.
        layers: layers of the network TensorRT-RTX made of it.
        engine_bytes: size of the engine; its kernels are compiled on the device that runs it.
        build_seconds: wall-clock time of parsing and building.
    """

    graph: str
    onnx_bytes: int
    layers: int
    engine_bytes: int
    build_seconds: float


def build_engines(bundle: Bundle) -> list[EngineRecord]:
    """Parse and build every graph of a bundle.

    Raises:
        BackendError: tensorrt_rtx is not installed, or refuses a graph; says which operator.
    """
    return [build_engine(bundle, name) for name in bundle.manifest.graphs]


def build_engine(bundle: Bundle, name: str) -> EngineRecord:
    """Parse and build one graph for :data:`COMPUTE_CAPABILITIES`.

    Raises:
        BackendError: as :func:`build_engines`.
    """
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise BackendError(
            "Building engines needs tensorrt_rtx: pip install 'talksplat[rtx]'."
        ) from error
    start = time.perf_counter()
    model = bundle.graph_file(name).read_bytes()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BackendError(f"TensorRT-RTX cannot parse {name}.onnx: {reasons}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(COMPUTE_CAPABILITIES)
    for index, capability in enumerate(COMPUTE_CAPABILITIES):
        config.set_compute_capability(trt.ComputeCapability.__members__[capability], index)
    if profile := _profile(bundle, name, network, builder):
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"TensorRT-RTX cannot build {name}.onnx; see its log above.")
    return EngineRecord(
        graph=name,
        onnx_bytes=len(model),
        layers=network.num_layers,
        engine_bytes=engine.nbytes,
        build_seconds=round(time.perf_counter() - start, 2),
    )


def _profile(bundle: Bundle, name: str, network: Any, builder: Any) -> Any | None:
    """Ranges of the free axes: from one Gaussian to many, best at this avatar's own number."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not free:
        return None
    constants = bundle.constants(name)
    profile = builder.create_optimization_profile()
    for tensor in free:
        rest = tuple(tensor.shape)[1:]
        count = len(constants[tensor.name])
        profile.set_shape(tensor.name, (1, *rest), (count, *rest), (MOST_GAUSSIANS, *rest))
    return profile


def markdown(records: Sequence[EngineRecord]) -> str:
    """The records as a table."""
    lines = [
        "| graph | ONNX bytes | layers | engine bytes | build, s |",
        "|---|---|---|---|---|",
        *(
            f"| `{r.graph}` | {r.onnx_bytes:,} | {r.layers} | {r.engine_bytes:,} | "
            f"{r.build_seconds:.2f} |"
            for r in records
        ),
    ]
    return "\n".join(lines) + "\n"


def write_records(records: Sequence[EngineRecord], path: Path) -> None:
    """Write ``path`` with the suffixes ``.json`` and ``.md``."""
    import tensorrt_rtx

    document = {
        "tensorrt_rtx": tensorrt_rtx.__version__,
        "compute_capabilities": COMPUTE_CAPABILITIES,
        "engines": [asdict(record) for record in records],
    }
    write_bytes(path.with_suffix(".json"), (json.dumps(document, indent=2) + "\n").encode())
    write_bytes(path.with_suffix(".md"), markdown(records).encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("avatar", type=Path, help="avatar bundle")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/engines"))
    args = parser.parse_args()
    records = build_engines(Bundle.open(args.avatar))
    write_records(records, args.output)
    print(markdown(records), end="")


if __name__ == "__main__":
    main()
