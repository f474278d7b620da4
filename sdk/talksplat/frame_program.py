"""What makes one frame, as a list of steps: the same for every backend.

A family says once how its frames come about; NumPy on a CPU, a composed ONNX graph and CUDA kernels
on a stream are three ways to carry the same steps out. Values are named; each is made once. Images
are float32 [1,D,H,W], alphas [1,1,H,W], pictures uint8 [H,W,3].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from talksplat.manifest import RasterizerContract, TensorSpec

Array = NDArray[Any]

GRAPH_CONSTANT = "{graph}/{tensor}"
"""How the value of a baked tensor is called: ``motion/face_rest``."""


@dataclass(frozen=True)
class RunGraph:
    """Run a graph of the bundle.

    Attributes:
        graph: its name in the manifest.
        inputs: input of the graph → value, every one of them, baked tensors too.
        outputs: output of the graph → value.
    """

    stage: str
    graph: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Unpack:
    """``image`` [1,3,H,W] = ``picture`` [H,W,3] uint8 / 255."""

    stage: str
    picture: str
    image: str


@dataclass(frozen=True)
class Rasterize:
    """Gaussians to ``image`` [1,D,H,W] and ``alpha`` [1,1,H,W], by the program's rules.

    Attributes:
        means: [N,3].
        quats: [N,4] wxyz.
        scales: [N,3].
        opacities: [N,1].
        colors: [N,D], or [N,K,3] spherical harmonics if ``sh_degree`` is given.
        viewmats: [1,4,4].
        Ks: [1,3,3].
        background: [1,D,H,W], or None for zeros.
    """

    stage: str
    means: str
    quats: str
    scales: str
    opacities: str
    colors: str
    viewmats: str
    Ks: str
    background: str | None
    channels: int
    sh_degree: int | None
    image: str
    alpha: str


@dataclass(frozen=True)
class Dilate:
    """``dilated`` is the largest ``alpha`` in a square of ``size`` × ``size`` pixels, ``size`` odd;
    pixels beyond the image count as 0."""

    stage: str
    alpha: str
    size: int
    dilated: str


@dataclass(frozen=True)
class Over:
    """``result`` = ``image`` + ``behind`` · (1 − ``alpha``): premultiplied over the rest."""

    stage: str
    image: str
    alpha: str
    behind: str
    result: str


@dataclass(frozen=True)
class Coverage:
    """``coverage`` [1,1,H,W] = 1 − Π (1 − alpha): what of the background is covered."""

    stage: str
    alphas: tuple[str, ...]
    coverage: str


@dataclass(frozen=True)
class Pack:
    """``picture`` [H,W,3] = uint8(clip(``image``, 0, 1) · 255), truncated."""

    stage: str
    image: str
    picture: str


Step = RunGraph | Unpack | Rasterize | Dilate | Over | Coverage | Pack


@dataclass(frozen=True)
class FrameProgram:
    """How one frame of a family is made.

    Attributes:
        width: pixels.
        height: pixels.
        rules: of the rasterizer.
        inputs: what is new in every frame, by value name. A picture that is the same object as in
            the frame before may be taken as unchanged.
        constants: what never changes for the avatar, by value name; baked tensors are called
            :data:`GRAPH_CONSTANT`.
        steps: in order; each ``stage`` is where its time is counted.
        picture: the value that is the frame's image, uint8 [H,W,3].
        coverage: the value that is the frame's alpha, [1,1,H,W].
    """

    width: int
    height: int
    rules: RasterizerContract
    inputs: Mapping[str, TensorSpec]
    constants: Mapping[str, Array]
    steps: tuple[Step, ...]
    picture: str
    coverage: str
