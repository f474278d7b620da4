"""``talksplat inspect ada.avatar``."""

from __future__ import annotations

import argparse

from talksplat import schema
from talksplat.bundle import Bundle, describe_tensor
from talksplat.cli import arguments
from talksplat.cli.console import file_size, print_facts, print_table
from talksplat.manifest import AudioContract, Manifest, Parity, Tolerances, WindowContract


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    arguments.add_avatar(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON instead")


def execute(args: argparse.Namespace) -> None:
    """Open the bundle, which checks every file of it, and print it."""
    bundle = Bundle.open(args.avatar)
    manifest = bundle.manifest
    if args.json:
        print(schema.encode(manifest), end="")
        return
    print_facts(f"{bundle.path}", _facts(manifest))
    print_table(
        "Graphs",
        ("graph", "inputs", "outputs"),
        [
            (
                name,
                "\n".join(map(describe_tensor, graph.inputs)),
                "\n".join(map(describe_tensor, graph.outputs)),
            )
            for name, graph in manifest.graphs.items()
        ],
        text_columns=3,
    )
    print_table(
        "Files, all present with the stated sha256",
        ("file", "size", "sha256"),
        [(name, file_size(spec.bytes), spec.sha256[:16]) for name, spec in manifest.files.items()],
    )
    if manifest.parity is not None:
        print_parity(manifest.parity, manifest.tolerances)


def _facts(manifest: Manifest) -> dict[str, str]:
    video, rules = manifest.video, manifest.rasterizer
    before, after = manifest.baked.flops_before, manifest.baked.flops_after
    return {
        "name": manifest.name,
        "family": manifest.family,
        "schema": str(manifest.schema_version),
        "checkpoint": f"{manifest.provenance.checkpoint}, sha256 "
        f"{manifest.provenance.checkpoint_sha256[:16]}",
        "licence": f"{manifest.licence.name}. {manifest.licence.attribution}",
        "made with": ", ".join(
            f"{tool} {version}" for tool, version in manifest.created_with.items()
        ),
        "precision": manifest.precision,
        "video": f"{video.width}x{video.height}, {video.fps} fps",
        "audio": _audio(manifest.audio),
        "audio window": _window(manifest.window),
        "rasterizer": f"{rules.dialect}, {rules.rasterize_mode}, SH degree {rules.sh_degree}",
        "baked": f"{file_size(manifest.baked.bytes)}; per frame {before / 1e6:.1f} to "
        f"{after / 1e6:.1f} million operations",
    }


def _audio(audio: AudioContract) -> str:
    features = f"{audio.features}, {audio.feature_size} numbers {audio.feature_rate} times a second"
    blocks = audio.blocks
    if blocks is None:
        return f"{features}; no audio encoder inside: sessions need features"
    encoder = (
        f"{features}; {audio.sample_rate} Hz in blocks of {blocks.block_frames} frames with "
        f"{blocks.left_samples} samples before and {blocks.right_samples} after"
    )
    if blocks.difference is None:
        return encoder
    return f"{encoder}, {blocks.difference:.1e} deviations from the whole clip at most"


def _window(window: WindowContract) -> str:
    return (
        f"{window.frames_before} frames before and {window.frames_after} after, of "
        f"{window.tokens} tokens, {window.tokens_before} of them before the frame's own"
    )


def print_parity(parity: Parity, tolerances: Tolerances) -> None:
    """How far ONNX Runtime is from torch, and whether that is accepted."""
    rows = []
    for graph, outputs in parity.graphs.items():
        limit = tolerances.graphs.get(graph, 0.0)
        for output, found in outputs.items():
            differences = (f"{found.max_abs:.2e}", f"{found.p99_99:.2e}")
            accepted = _accepted(found.max_abs <= limit, f"{limit:.0e}")
            rows.append((f"{graph}: {output}", *differences, accepted))
    psnr, least = parity.frames_psnr_db, tolerances.frames_psnr_db
    level = "identical" if psnr is None else f"{psnr:.1f} dB"
    accepted = _accepted(psnr is None or psnr >= least, f"{least:.0f} dB")
    rows.append((f"final frames ({parity.frames}), lowest PSNR", level, "", accepted))
    print_table(
        "Parity of torch and ONNX Runtime",
        ("graph: output", "max abs", "p99.99 abs", "accepted"),
        rows,
    )


def _accepted(fits: bool, limit: str) -> str:
    return f"{limit} {'✓' if fits else '✗'}"
