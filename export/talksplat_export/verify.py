"""Does a bundle compute what its checkpoint computes? Measured again from both files."""

from __future__ import annotations

from pathlib import Path

from talksplat.bundle import Bundle
from talksplat.errors import InputError, VerificationError
from talksplat.manifest import Parity
from talksplat_export.export import Progress, one_thread, read_probe, sha256_of
from talksplat_export.families.base import FloatArray
from talksplat_export.families.load import load_family
from talksplat_export.options import ExportOptions
from talksplat_export.parity import check_parity, measure
from talksplat_export.scene import Scene


def verify_bundle(
    bundle_path: Path,
    checkpoint_path: Path,
    *,
    options: ExportOptions | None = None,
    speech: Path | None = None,
    progress: Progress = lambda step, number, total: None,
) -> Parity:
    """Measure a bundle against its checkpoint and refuse it beyond the manifest's tolerances.

    Args, raises: as :func:`measure_bundle`.

    Raises:
        VerificationError: naming every output that differs by more than its tolerance.
    """
    parity = measure_bundle(
        bundle_path, checkpoint_path, options=options, speech=speech, progress=progress
    )
    check_parity(parity, Bundle.open(bundle_path).manifest.tolerances)
    return parity


def measure_bundle(
    bundle_path: Path,
    checkpoint_path: Path,
    *,
    options: ExportOptions | None = None,
    speech: Path | None = None,
    progress: Progress = lambda step, number, total: None,
) -> Parity:
    """How far a bundle is from its checkpoint, per graph and on final frames.

    Args:
        bundle_path: the bundle.
        checkpoint_path: the checkpoint it says it was made from.
        options: what the checkpoint does not say, as given to export. Cameras and background are
            taken from the bundle.
        speech: sound file to measure on; by default a second of made-up vowels.
        progress: told about every step.

    Raises:
        VerificationError: the bundle was made from another checkpoint.
        BundleError, CheckpointError, AudioError: a file is missing or damaged.
    """
    with one_thread():
        pcm = read_probe(speech)
        return _measure(bundle_path, checkpoint_path, options or ExportOptions(), pcm, progress)


def _measure(
    bundle_path: Path,
    checkpoint_path: Path,
    options: ExportOptions,
    pcm: FloatArray,
    progress: Progress,
) -> Parity:
    progress(f"Opening {bundle_path.name}", 0, 3)
    bundle = Bundle.open(bundle_path)
    _check_encoder(bundle, options)
    family = load_family(checkpoint_path, options, scene=_scene(bundle))
    expected, found = bundle.manifest.provenance.checkpoint_sha256, sha256_of(checkpoint_path)
    if expected != found:
        raise VerificationError(
            f"{bundle_path} was made from another checkpoint: expected sha256 {expected[:16]}…, "
            f"{checkpoint_path} has {found[:16]}…. Give the checkpoint it was made from, "
            f"{bundle.manifest.provenance.checkpoint!r}, or export the avatar again."
        )
    progress("Rendering with the checkpoint", 1, 3)
    reference = family.reference(pcm)
    progress("Comparing the bundle with it", 2, 3)
    return measure(bundle, reference, pcm)


def _scene(bundle: Bundle) -> Scene | None:
    """A checkpoint of D3-Talker holds its own."""
    return None if bundle.manifest.family == "d3talker" else Scene.from_bundle(bundle)


def _check_encoder(bundle: Bundle, options: ExportOptions) -> None:
    hears = bundle.manifest.family != "d3talker" and "audio_encoder" in bundle.manifest.graphs
    if hears != (options.audio_encoder is not None):
        expected = "with the --audio-encoder it was exported with" if hears else "without one"
        raise InputError(
            f"{bundle.path} {'holds an' if hears else 'holds no'} audio encoder: expected to be "
            f"verified {expected}, found {options.audio_encoder or 'none'}."
        )
