"""The graphs of a D3-Talker bundle and their tensors: ``docs/graphs.md``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from talksplat.families.contract import GraphTensors, audio_encoder_tensors
from talksplat.manifest import D3TalkerContract, Manifest
from talksplat.tracks import UPPER_FACE_SIZE

GRAPHS = ("audio_encoder", "audio_to_motion", "motion_encoder", "motion", "refiner")
"""In the order in which a frame runs them."""


def graph_tensors(
    manifest: Manifest,
    gaussians: Mapping[str, int],
    constants: Mapping[str, Collection[str]],
) -> dict[str, GraphTensors]:
    """What the runtime feeds and reads, per graph.

    Args:
        manifest: what the bundle says.
        gaussians: how many Gaussians each region has.
        constants: graph → names of its baked inputs.

    Raises:
        BundleError: the manifest does not say how the audio encoder runs.
    """
    video, contract = manifest.video, manifest.contract(D3TalkerContract)
    encoder = audio_encoder_tensors(manifest, constants["audio_encoder"])
    frames = 0 if manifest.audio.blocks is None else manifest.audio.blocks.block_frames
    picture = (1, 3, video.height, video.width)
    pncc = (1, 3, contract.pncc.height, contract.pncc.width)
    window = contract.window
    return {
        "audio_encoder": encoder,
        "audio_to_motion": GraphTensors(
            inputs=encoder.outputs,
            outputs={"expression": (1, frames, contract.expression_size)},
        ),
        "motion_encoder": GraphTensors(
            inputs={"pncc_difference": pncc},
            outputs={"facial_motion": (1, contract.motion_size)},
        ),
        "motion": GraphTensors(
            inputs={
                "facial_motion": (1, 2 * contract.motion_radius + 1, contract.motion_size),
                "audio_window": (1, window.frames, manifest.audio.feature_size, window.tokens),
                "upper_face": (1, UPPER_FACE_SIZE),
            },
            outputs={
                f"{region}_{name}": (count, width)
                for region, count in gaussians.items()
                for name, width in (("means", 3), ("scales", 3), ("quats", 4))
            },
            optional=("upper_face",),
            constants=constants["motion"],
        ),
        "refiner": GraphTensors(inputs={"coarse": picture}, outputs={"image": picture}),
    }
