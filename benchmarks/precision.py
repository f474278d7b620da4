"""What float16 changes, without a GPU: ``python -m benchmarks.precision ada.avatar``.

ONNX Runtime's CPU provider runs a float16 graph in float32 without rounding between its operators,
and so would find no difference where a GPU finds one. Here the graph that would become an engine is
taken, and every value that it says is float16 is rounded to float16 by a pair of Casts, in between
products and sums in float32. An engine differs from that both ways: it fuses operators and so
rounds less often, and some of its kernels may keep sums in float16, where it finds that faster.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from talksplat.audio import read_audio
from talksplat.avatar import Avatar
from talksplat.backends import Choice
from talksplat.backends.onnxruntime_cpu import (
    OnnxRuntimeCpu,
    OnnxRuntimeEngine,
    OnnxRuntimeRunner,
    open_session,
)
from talksplat.bundle import Bundle
from talksplat.engines.precision import islands_of, to_float16
from talksplat.manifest import GraphSpec
from talksplat.session import MODEL_FPS

Array = NDArray[Any]


@dataclass
class Difference:
    """How far one output of a graph is off, over all frames, given the very same inputs.

    Attributes:
        largest: absolute difference.
        squares: sum of the squares of the differences.
        numbers: how many there were.
        deviation: largest standard deviation that the output had in a frame.
    """

    largest: float = 0.0
    squares: float = 0.0
    numbers: int = 0
    deviation: float = 0.0

    def add(self, exact: Array, rounded: Array) -> None:
        """Count one frame."""
        difference = rounded.astype(np.float64) - exact
        self.largest = float(np.maximum(self.largest, np.abs(difference).max()))
        self.squares += float((difference**2).sum())
        self.numbers += difference.size
        self.deviation = max(self.deviation, float(exact.std()))

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return float(np.sqrt(self.squares / max(1, self.numbers)))


@dataclass
class Report:
    """What was measured on an avatar.

    Attributes:
        avatar: its name.
        family: its family.
        outputs: by ``"graph: output"``.
        psnr_db: of each frame against the one in float32; infinite where they are equal.
        most_levels: largest difference of a byte of a frame, 0..255.
    """

    avatar: str
    family: str
    outputs: dict[str, Difference] = field(default_factory=dict)
    psnr_db: list[float] = field(default_factory=list)
    most_levels: int = 0


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in float32, rounding to float16 wherever a value is float16 in ``model``."""
    half = _half_values(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:]
    for node in model.graph.node:
        graph.node.extend(_rounding(node, half))
    constants = [_widened(tensor) for tensor in model.graph.initializer]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    onnx.checker.check_model(result, full_check=True)
    return result


def _half_values(model: onnx.ModelProto) -> set[str]:
    values = shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    half = TensorProto.FLOAT16
    return {value.name for value in values if value.type.tensor_type.elem_type == half}


def _rounding(node: onnx.NodeProto, half: set[str]) -> Iterator[onnx.NodeProto]:
    """The node, with its float16 outputs rounded."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    targets = [output for output in node.output if output in half]
    if node.op_type == "Cast" and (targets or node.input[0] in half):
        copy = helper.make_node("Identity", node.input, node.output, node.name)
    for index, output in enumerate(node.output):
        if output in half:
            copy.output[index] = f"{output}.exact"
    yield copy
    for output in targets:
        yield helper.make_node(
            "Cast", [f"{output}.exact"], [f"{output}.half"], to=TensorProto.FLOAT16
        )
        yield helper.make_node("Cast", [f"{output}.half"], [output], to=TensorProto.FLOAT)


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


class RoundingBackend(OnnxRuntimeCpu):
    """Runs every graph as it is and rounded to float16 on the same inputs, and goes on with the
    rounded one's outputs.

    Args:
        family: of the avatar.
        report: where differences are written down.
        threads: see :class:`OnnxRuntimeCpu`.
    """

    def __init__(self, family: str, report: Report, threads: int) -> None:
        super().__init__(threads)
        self._family = family
        self._report = report

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> _BothEngines:
        """See :meth:`talksplat.backends.Backend.load`."""
        exact = super().load(file, spec, constants)
        model = rounded(to_float16(onnx.load(file), islands_of(self._family, file.stem)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / file.name
            onnx.save(model, path)
            session = open_session(path, self.threads)
        half = OnnxRuntimeEngine(session, spec, constants or {})
        return _BothEngines(file.stem, exact, half, self._report)


class _BothEngines(OnnxRuntimeEngine):
    def __init__(
        self, graph: str, exact: OnnxRuntimeEngine, half: OnnxRuntimeEngine, report: Report
    ) -> None:
        self.spec = exact.spec
        self._graph = graph
        self._engines = exact, half
        self._report = report

    def runner(self) -> _BothRunners:
        """See :meth:`talksplat.backends.Engine.runner`."""
        exact, half = (engine.runner() for engine in self._engines)
        return _BothRunners(self._graph, exact, half, self._report)


class _BothRunners(OnnxRuntimeRunner):
    def __init__(
        self, graph: str, exact: OnnxRuntimeRunner, half: OnnxRuntimeRunner, report: Report
    ) -> None:
        self._graph = graph
        self._runners = exact, half
        self._report = report

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See :meth:`talksplat.backends.Runner.run`."""
        exact, half = (runner.run(inputs) for runner in self._runners)
        for name, values in exact.items():
            difference = self._report.outputs.setdefault(f"{self._graph}: {name}", Difference())
            difference.add(values, half[name])
        return half


def measure_float16(
    path: Path, pcm: NDArray[np.float32], features: Path | None = None, threads: int = 1
) -> Report:
    """Speak once in float32 and once rounded, and compare.

    Args:
        path: an avatar bundle.
        pcm: speech, 16 kHz.
        features: of the speech, for an avatar that does not hear.
        threads: CPU threads.
    """
    bundle = Bundle.open(path)
    family = bundle.manifest.family
    report = Report(bundle.manifest.name, family)
    exact = _frames(bundle, OnnxRuntimeCpu(threads), pcm, features, threads)
    half = _frames(bundle, RoundingBackend(family, report, threads), pcm, features, threads)
    for one, other in zip(exact, half, strict=True):
        difference = one.astype(np.int32) - other
        report.most_levels = max(report.most_levels, int(np.abs(difference).max()))
        error = float(np.mean(difference.astype(np.float64) ** 2))
        report.psnr_db.append(10 * np.log10(255**2 / error) if error else float("inf"))
    return report


def _frames(
    bundle: Bundle,
    backend: OnnxRuntimeCpu,
    pcm: NDArray[np.float32],
    features: Path | None,
    threads: int,
) -> list[NDArray[np.uint8]]:
    avatar = Avatar(bundle, Choice(backend, "measuring"), threads)
    given: Any = features
    if features is None and not avatar.has_audio_encoder:
        # Noise of the size that speech features have.
        silence = avatar.silence(-(-len(pcm) * MODEL_FPS // 16000))
        given = np.tanh(np.random.default_rng(0).normal(size=silence.shape)).astype(np.float32)
    with avatar, avatar.session(features=given) as session:
        session.push(pcm)
        session.end()
        return [np.asarray(frame.image) for frame in session.frames()]


def markdown(reports: Sequence[Report]) -> str:
    """Two tables: outputs of graphs, and frames."""
    lines = [
        "| avatar | graph: output | largest difference | rms | rms / deviation |",
        "|---|---|---|---|---|",
    ]
    for report in reports:
        for name, found in report.outputs.items():
            ratio = f"{found.rms / found.deviation:.1e}" if found.deviation else "–"
            lines.append(
                f"| {report.avatar} | `{name}` | {found.largest:.1e} | {found.rms:.1e} | {ratio} |"
            )
    lines += [
        "",
        "| avatar | family | frames | lowest PSNR | mean PSNR | largest difference, of 255 |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        lines.append(
            f"| {report.avatar} | {report.family} | {len(report.psnr_db)} | "
            f"{min(report.psnr_db):.1f} dB | {np.mean(report.psnr_db):.1f} dB | "
            f"{report.most_levels} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("avatars", type=Path, nargs="+", help="avatar bundles")
    speech = Path("samples/speech/hello.wav")
    parser.add_argument("--speech", type=Path, default=speech, help=f"default: {speech}")
    parser.add_argument("--frames", type=int, default=25, help="to compare (default: 25)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    pcm = read_audio(args.speech)[: args.frames * 16000 // MODEL_FPS]
    print(
        markdown([measure_float16(path, pcm, threads=args.threads) for path in args.avatars]),
        end="",
    )


if __name__ == "__main__":
    main()
