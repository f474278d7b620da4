"""Parts of frame programs that several families have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from talksplat.bundle import Bundle
from talksplat.frame_program import GRAPH_CONSTANT, Array, Rasterize, RunGraph
from talksplat.manifest import Manifest, TensorSpec
from talksplat.tensor_reader import TensorReader

GAUSSIANS = ("means", "scales", "quats")
"""What a graph says of moving Gaussians."""


def frame_inputs(
    manifest: Manifest, conditions: Mapping[str, tuple[int, ...]]
) -> dict[str, TensorSpec]:
    """What is new in every frame: float32 ``conditions`` of the family, camera, background."""
    shapes = {**conditions, "viewmats": (1, 4, 4)}
    inputs = {name: TensorSpec(name, "float32", shape) for name, shape in shapes.items()}
    picture = (manifest.video.height, manifest.video.width, 3)
    return {**inputs, "background": TensorSpec("background", "uint8", picture)}


def camera_constants(manifest: Manifest) -> dict[str, Array]:
    """``Ks`` [1,3,3]."""
    return {"Ks": np.array(manifest.camera.K, np.float32)[None]}


def baked_constants(bundle: Bundle, graphs: Iterable[str]) -> dict[str, Array]:
    """The baked tensors of ``graphs``."""
    return {
        GRAPH_CONSTANT.format(graph=graph, tensor=name): tensor
        for graph in graphs
        for name, tensor in bundle.constants(graph).items()
    }


def region_constants(tensors: TensorReader, region: str) -> dict[str, Array]:
    """What of a region's Gaussians does not move: opacities [N,1], SH coefficients [N,K,3]."""
    file = f"{region}.safetensors"
    opacities = tensors.get(file, "opacities", (-1, 1))
    shs = tensors.get(file, "shs", (len(opacities), -1, 3))
    return {f"{region}_opacities": opacities, f"{region}_shs": shs}


def same_names(names: Iterable[str]) -> dict[str, str]:
    """Tensors of a graph whose values are called as they are."""
    return {name: name for name in names}


def run_graph(
    stage: str,
    graph: str,
    constants: Iterable[str],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> RunGraph:
    """Run ``graph`` on ``inputs`` and on those of ``constants`` that are its baked tensors."""
    prefix = GRAPH_CONSTANT.format(graph=graph, tensor="")
    baked = {name.removeprefix(prefix): name for name in constants if name.startswith(prefix)}
    return RunGraph(stage, graph, {**inputs, **baked}, outputs)


def draw_region(region: str, sh_degree: int, background: str | None) -> Rasterize:
    """A region's Gaussians over ``background``: ``{region}_image`` and ``{region}_alpha``."""
    return Rasterize(
        stage="rasterize",
        means=f"{region}_means",
        quats=f"{region}_quats",
        scales=f"{region}_scales",
        opacities=f"{region}_opacities",
        colors=f"{region}_shs",
        viewmats="viewmats",
        Ks="Ks",
        background=background,
        channels=3,
        sh_degree=sh_degree,
        image=f"{region}_image",
        alpha=f"{region}_alpha",
    )
