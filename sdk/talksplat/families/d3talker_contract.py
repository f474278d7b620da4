"""Which graphs a D3-Talker bundle has, with which tensors: ``docs/architecture.md``, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from talksplat.errors import BundleError
from talksplat.manifest import AudioBlocks, D3TalkerContract, Manifest, TensorSpec
from talksplat.tracks import UPPER_FACE_SIZE

Shape = tuple[int, ...]

GRAPHS = ("audio_encoder", "audio_to_motion", "motion_encoder", "motion", "refiner")
"""In the order in which a frame runs them."""

OPTIONAL_INPUTS = ("upper_face",)
"""Inputs that an avatar may have been trained without."""


def audio_blocks(manifest: Manifest) -> AudioBlocks:
    """How the audio graphs run.

    Raises:
        BundleError: the manifest does not say.
    """
    if manifest.audio.blocks is None:
        raise BundleError(
            "A D3-Talker bundle expects audio.blocks, found null: its audio graphs cannot be left "
            "out. Export the avatar again."
        )
    return manifest.audio.blocks


def check_graphs(manifest: Manifest, gaussians: Mapping[str, int], baked: Collection[str]) -> None:
    """Every graph is there, takes what the runtime feeds it and gives what the runtime reads.

    Args:
        manifest: what the bundle says.
        gaussians: how many Gaussians each region has.
        baked: names of the constant inputs of ``motion``.

    Raises:
        BundleError: naming the graph and the tensor, or the number that does not fit.
    """
    inputs, outputs = _inputs(manifest), _outputs(manifest, gaussians)
    for name in GRAPHS:
        if name not in manifest.graphs:
            raise BundleError(f"A D3-Talker bundle needs a graph {name!r}; this one has none.")
        graph = manifest.graphs[name]
        found = {tensor.name: tensor for tensor in graph.inputs}
        for tensor in sorted(set(found) - set(inputs[name]) - set(baked)):
            raise BundleError(
                f"Graph {name!r} has an input {tensor!r} that nothing feeds. Export the avatar "
                "again."
            )
        for tensor, shape in inputs[name].items():
            if tensor in found or tensor not in OPTIONAL_INPUTS:
                _check_tensor(f"input of graph {name!r}", tensor, shape, found)
        found = {tensor.name: tensor for tensor in graph.outputs}
        for tensor, shape in outputs[name].items():
            _check_tensor(f"output of graph {name!r}", tensor, shape, found)


def _inputs(manifest: Manifest) -> dict[str, dict[str, Shape]]:
    audio, video, blocks = manifest.audio, manifest.video, audio_blocks(manifest)
    contract = manifest.contract(D3TalkerContract)
    window = contract.window
    samples = blocks.block_frames * audio.frame_samples
    return {
        "audio_encoder": {"pcm": (1, blocks.left_samples + samples + blocks.right_samples)},
        "audio_to_motion": {"features": (1, _tokens(manifest), audio.feature_size)},
        "motion_encoder": {"pncc_difference": (1, 3, contract.pncc.height, contract.pncc.width)},
        "motion": {
            "facial_motion": (1, 2 * contract.motion_radius + 1, contract.motion_size),
            "audio_window": (1, window.frames, audio.feature_size, window.tokens),
            "upper_face": (1, UPPER_FACE_SIZE),
        },
        "refiner": {"coarse": (1, 3, video.height, video.width)},
    }


def _outputs(manifest: Manifest, gaussians: Mapping[str, int]) -> dict[str, dict[str, Shape]]:
    audio, video, blocks = manifest.audio, manifest.video, audio_blocks(manifest)
    contract = manifest.contract(D3TalkerContract)
    return {
        "audio_encoder": {"features": (1, _tokens(manifest), audio.feature_size)},
        "audio_to_motion": {"expression": (1, blocks.block_frames, contract.expression_size)},
        "motion_encoder": {"facial_motion": (1, contract.motion_size)},
        "motion": {
            f"{region}_{name}": (count, width)
            for region, count in gaussians.items()
            for name, width in (("means", 3), ("scales", 3), ("quats", 4))
        },
        "refiner": {"image": (1, 3, video.height, video.width)},
    }


def _tokens(manifest: Manifest) -> int:
    blocks = audio_blocks(manifest)
    own = blocks.block_frames * manifest.audio.frame_tokens
    return blocks.left_tokens + own + blocks.right_tokens


def _check_tensor(place: str, name: str, shape: Shape, found: Mapping[str, TensorSpec]) -> None:
    tensor = found.get(name)
    if tensor is None:
        raise BundleError(f"There is no {place} called {name!r}. Export the avatar again.")
    # The number of Gaussians may be left free, so that a graph can serve several identities.
    free = place.endswith("'motion'")
    fits = len(tensor.shape) == len(shape) and all(
        size == expected or (free and isinstance(size, str))
        for size, expected in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.dtype != "float32":
        raise BundleError(
            f"The {place} called {name!r} expects float32 {list(shape)}, found {tensor.dtype} "
            f"{list(tensor.shape)}. Export the avatar again."
        )
