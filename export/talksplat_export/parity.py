"""How far a bundle is from its checkpoint: graph by graph, and on final frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

import talksplat
from talksplat.backends import Array, Engine
from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.bundle import Bundle
from talksplat.errors import VerificationError
from talksplat.manifest import OutputParity, Parity, Tolerances
from talksplat.speech import speak
from talksplat_export.families.base import ByteImage, FloatArray, Probe, Reference


def measure(bundle: Bundle, reference: Reference, pcm: FloatArray) -> Parity:
    """Run the bundle's graphs on the reference's probes, and the runtime on the same clip.

    Args:
        bundle: what is measured.
        reference: what the checkpoint answers on the clip.
        pcm: the clip, 16 kHz mono in -1..1.
    """
    backend = OnnxRuntimeCpu(threads=2)
    graphs = {}
    for name, probes in reference.probes.items():
        spec = bundle.manifest.graphs[name]
        engine = backend.load(bundle.graph_file(name), spec, bundle.constants(name))
        graphs[name] = _outputs(engine, probes)
    frames = list(_frames(bundle, pcm, reference.features))
    psnr = min(psnr_db(a, b) for a, b in zip(frames, reference.frames, strict=True))
    return Parity(graphs, len(frames), None if math.isinf(psnr) else psnr)


def psnr_db(image: ByteImage, reference: ByteImage) -> float:
    """Peak signal-to-noise ratio of uint8 images; infinite where they are equal."""
    error = np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _outputs(engine: Engine, probes: list[Probe]) -> dict[str, OutputParity]:
    differences: dict[str, list[NDArray[np.float32]]] = {}
    with engine.runner() as runner:
        for probe in probes:
            found = runner.run(_used_inputs(engine, probe.inputs))
            for name, expected in probe.outputs.items():
                differences.setdefault(name, []).append(np.abs(found[name] - expected).ravel())
    return {
        name: OutputParity(
            max_abs=float(max(part.max(initial=0) for part in parts)),
            p99_99=float(np.quantile(np.concatenate(parts), 0.9999)),
        )
        for name, parts in differences.items()
    }


def _used_inputs(engine: Engine, inputs: Mapping[str, FloatArray]) -> dict[str, Array]:
    names = {tensor.name for tensor in engine.spec.inputs}
    return {name: array for name, array in inputs.items() if name in names}


def _frames(bundle: Bundle, pcm: FloatArray, features: FloatArray | None) -> Iterator[ByteImage]:
    avatar = talksplat.load(bundle.path, backend="onnxruntime-cpu", threads=2)
    with avatar.session(features=features) as session:
        for frame in speak(session, pcm):
            yield frame.image


def check_parity(parity: Parity, tolerances: Tolerances) -> None:
    """Refuse what is further from the checkpoint than the tolerances allow.

    Raises:
        VerificationError: naming every output and figure beyond its tolerance.
    """
    failures = []
    for graph, outputs in parity.graphs.items():
        limit = tolerances.graphs.get(graph, 0.0)
        for output, found in outputs.items():
            if not found.max_abs <= limit:  # NaN too
                failures.append(
                    f"{graph}.onnx: {output} differs by up to {found.max_abs:.2e}, at most "
                    f"{limit:.0e} is accepted"
                )
    psnr = parity.frames_psnr_db
    if psnr is not None and not psnr >= tolerances.frames_psnr_db:
        failures.append(
            f"final frames reach {psnr:.1f} dB PSNR, at least {tolerances.frames_psnr_db:.0f} dB "
            "is expected"
        )
    if failures:
        raise VerificationError(
            "The bundle computes something else than its checkpoint: " + "; ".join(failures) + "."
        )
