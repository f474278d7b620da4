"""From a trained checkpoint to an avatar bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

import talksplat
from talksplat.audio import SAMPLE_RATE, read_audio
from talksplat.bundle import Bundle, BundleWriter
from talksplat.manifest import Provenance
from talksplat_export.families.base import FloatArray
from talksplat_export.families.load import Notice, load_family
from talksplat_export.onnx_export import export_graph
from talksplat_export.options import ExportOptions
from talksplat_export.parity import check_parity, measure
from talksplat_export.probe_speech import probe_speech

Progress = Callable[[str, int, int], None]
"""Called before each step with what it does, its number from 0, and how many there are."""


def export_checkpoint(
    checkpoint_path: Path,
    output_path: Path,
    *,
    options: ExportOptions | None = None,
    overwrite: bool = False,
    speech: Path | None = None,
    progress: Progress = lambda step, number, total: None,
    notice: Notice = lambda sentence: None,
) -> Bundle:
    """Bake, export, measure against the checkpoint, and write the bundle whole or not at all.

    Args:
        checkpoint_path: a checkpoint of any family, as its training saves it.
        output_path: the bundle to make, a folder such as ``ada.avatar``.
        options: what the checkpoint does not say.
        overwrite: replace a bundle that is already there.
        speech: sound file on which parity is measured; by default a second of made-up vowels.
        progress: told about every step.
        notice: told what was assumed because nothing said it, one sentence at a time.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, unsafe or not of a known format.
        InputError: an option does not belong to the checkpoint's family, or one of the files it
            names is missing or damaged.
        VerificationError: the bundle would compute something else than the checkpoint.
        OutputError: the bundle exists or cannot be written (disk full included).
        AudioError: the speech cannot be read.
    """
    pcm = read_probe(speech)
    with one_thread(), BundleWriter(output_path, overwrite=overwrite) as writer:
        progress(f"Reading {checkpoint_path.name}", 0, 1)
        family = load_family(
            checkpoint_path, options or ExportOptions(), name=output_path.stem, notice=notice
        )
        graphs = family.graphs()
        total = len(graphs) + 4
        progress("Baking", 1, total)
        for file, tensors in family.tensors().items():
            writer.add_tensors(file, tensors)
        for number, graph in enumerate(graphs, start=2):
            progress(f"Exporting {graph.name}.onnx", number, total)
            writer.add_graph(graph.name, export_graph(graph, family.opset))
        provenance = Provenance(checkpoint_path.name, sha256_of(checkpoint_path))
        manifest = family.manifest(provenance, tool_versions())
        progress("Rendering with the checkpoint", total - 2, total)
        reference = family.reference(pcm)
        progress("Comparing the bundle with it", total - 1, total)
        parity = measure(writer.stage(manifest), reference, pcm)
        check_parity(parity, manifest.tolerances)
        return writer.commit(replace(manifest, parity=parity))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: all here is many small operations, which threads only wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_probe(speech: Path | None) -> FloatArray:
    """The clip on which parity is measured: at most the first ten seconds of ``speech``.

    Raises:
        AudioError: the file cannot be read.
    """
    return probe_speech() if speech is None else read_audio(speech)[: 10 * SAMPLE_RATE]


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tool_versions() -> dict[str, str]:
    """What a bundle is made with."""
    tools = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    return {"talksplat": talksplat.__version__} | {tool: version(tool) for tool in tools}
