"""What makes one frame, as a list of steps: the same for every backend.

A family says once how its frames come about; NumPy on a CPU, a composed ONNX graph and CUDA kernels
on a stream are three ways to carry the same steps out. Values are named; each is made once. Images
are float32 [1,D,H,W], alphas [1,1,H,W], pictures uint8 [H,W,3].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from numpy.typing import NDArray

from talksplat.errors import BundleError
from talksplat.manifest import Axis, Manifest, RasterizerContract, TensorSpec

Array = NDArray[Any]
Shape = tuple[Axis | None, ...]

GRAPH_CONSTANT = "{graph}/{tensor}"
"""How the value of a baked tensor is called: ``motion/face_rest``."""


@dataclass(frozen=True)
class RunGraph:
    """Run a graph of the bundle, which a program does once.

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
        inputs: what is new in every frame, by value name. A picture (uint8) that is the same object
            as in the frame before may be taken as unchanged.
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


def check_program(program: FrameProgram, manifest: Manifest) -> dict[str, TensorSpec]:
    """Every value is made once, before it is used, and fits what uses it; nothing is left over.

    Args:
        program: of the bundle that ``manifest`` describes.
        manifest: what the graphs of the bundle take and give.

    Returns:
        Every value with its dtype and sizes, the free axes of graphs worked out from the constants.

    Raises:
        BundleError: the bundle lacks a graph, or its graphs do not fit together.
    """
    values = _Values(manifest.family)
    for tensor in program.inputs.values():
        values.make(tensor.name, tensor.dtype, tensor.shape)
    for name, constant in program.constants.items():
        values.make(name, str(constant.dtype), constant.shape)
    graphs: set[str] = set()
    for step in program.steps:
        if isinstance(step, RunGraph):
            if step.graph in graphs:
                raise values.error(f"graph {step.graph!r} is run twice")
            graphs.add(step.graph)
        _check_step(step, program, manifest, values)
    size = (program.height, program.width)
    values.use(program.picture, "uint8", (*size, 3))
    values.use(program.coverage, "float32", (1, 1, *size))
    if unused := sorted((set(program.inputs) | set(program.constants)) - values.used):
        raise values.error(f"nothing uses {unused[0]!r}")
    return values.specs


class _Values:
    """What has been made so far, and what of it has been used."""

    def __init__(self, family: str) -> None:
        self.specs: dict[str, TensorSpec] = {}
        self.used: set[str] = set()
        self._family = family

    def error(self, what: str) -> BundleError:
        return BundleError(
            f"No frame can be made with this bundle of family {self._family}: {what}. Export the "
            "avatar again."
        )

    def make(self, name: str, dtype: str, shape: tuple[Axis, ...]) -> None:
        if name in self.specs:
            raise self.error(f"{name!r} is made twice")
        self.specs[name] = TensorSpec(name, dtype, shape)  # type: ignore[arg-type]

    def use(self, name: str, dtype: str, shape: Shape, place: str = "") -> tuple[Axis, ...]:
        """The shape of a value; None in ``shape`` stands for any size, and sizes that a graph
        left free become those of ``shape``."""
        if name not in self.specs:
            raise self.error(f"nothing makes {name!r}{place}")
        found = self.specs[name]
        fits = len(found.shape) == len(shape) and all(
            size == expected or expected is None or isinstance(size, str)
            for size, expected in zip(found.shape, shape, strict=True)
        )
        if not fits or found.dtype != dtype:
            sizes = ["any" if size is None else size for size in shape]
            raise self.error(
                f"{name!r} is {found.dtype} {list(found.shape)}, expected {dtype} {sizes}{place}"
            )
        self.used.add(name)
        known = tuple(
            expected if isinstance(size, str) and expected is not None else size
            for size, expected in zip(found.shape, shape, strict=True)
        )
        self.specs[name] = replace(found, shape=known)
        return known


def _check_step(step: Step, program: FrameProgram, manifest: Manifest, values: _Values) -> None:
    image = (1, 3, program.height, program.width)
    mask = (1, 1, program.height, program.width)
    picture = (program.height, program.width, 3)
    match step:
        case RunGraph():
            _check_graph(step, program, manifest, values)
        case Unpack():
            values.use(step.picture, "uint8", picture)
            values.make(step.image, "float32", image)
        case Rasterize():
            _check_rasterize(step, values)
            layer = (1, step.channels, program.height, program.width)
            if step.background is not None:
                values.use(step.background, "float32", layer)
            values.make(step.image, "float32", layer)
            values.make(step.alpha, "float32", mask)
        case Dilate():
            values.use(step.alpha, "float32", mask)
            values.make(step.dilated, "float32", mask)
        case Over():
            values.use(step.image, "float32", image)
            values.use(step.alpha, "float32", mask)
            values.use(step.behind, "float32", image)
            values.make(step.result, "float32", image)
        case Coverage():
            for alpha in step.alphas:
                values.use(alpha, "float32", mask)
            values.make(step.coverage, "float32", mask)
        case Pack():
            values.use(step.image, "float32", image)
            values.make(step.picture, "uint8", picture)
        case _:
            assert_never(step)


def _check_graph(
    step: RunGraph, program: FrameProgram, manifest: Manifest, values: _Values
) -> None:
    if step.graph not in manifest.graphs:
        raise BundleError(
            f"A bundle of family {manifest.family} needs a graph {step.graph!r}; this one has "
            "none. Export the avatar again."
        )
    graph = manifest.graphs[step.graph]
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    if unfed := [name for name in inputs if name not in step.inputs]:
        raise values.error(f"graph {step.graph!r} has an input {unfed[0]!r} that nothing feeds")
    axes: dict[str, Axis] = {}
    for name, value in step.inputs.items():
        place = f" as input {name!r} of graph {step.graph!r}"
        if name not in inputs:
            raise values.error(f"{value!r} is expected{place}, which it does not have")
        free = value in program.constants
        tensor = inputs[name]
        shape = tuple(None if free and isinstance(axis, str) else axis for axis in tensor.shape)
        sizes = values.use(value, tensor.dtype, shape, place)
        for axis, size in zip(tensor.shape, sizes, strict=True):
            if isinstance(axis, str) and axes.setdefault(axis, size) != size:
                raise values.error(f"{value!r} has {size} {axis}, expected {axes[axis]}{place}")
    for name, value in step.outputs.items():
        if name not in outputs:
            raise values.error(
                f"{value!r} is expected as output {name!r} of graph {step.graph!r}, which it does "
                "not have"
            )
        tensor = outputs[name]
        known = tuple(
            axes.get(axis, axis) if isinstance(axis, str) else axis for axis in tensor.shape
        )
        values.make(value, tensor.dtype, known)


def _check_rasterize(step: Rasterize, values: _Values) -> None:
    if step.sh_degree is None:
        count = values.use(step.colors, "float32", (None, step.channels))[0]
    else:
        count, bases, _ = values.use(step.colors, "float32", (None, None, step.channels))
        needed = (step.sh_degree + 1) ** 2
        if isinstance(bases, str) or bases < needed:
            raise values.error(
                f"{step.colors!r} has {bases} spherical harmonics, degree {step.sh_degree} needs "
                f"{needed}"
            )
    for name, width in (
        (step.means, 3),
        (step.quats, 4),
        (step.scales, 3),
        (step.opacities, 1),
    ):
        values.use(name, "float32", (count, width))
    values.use(step.viewmats, "float32", (1, 4, 4))
    values.use(step.Ks, "float32", (1, 3, 3))
