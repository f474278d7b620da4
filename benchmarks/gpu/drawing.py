"""A scene in the memory of the device, ready to be drawn as often as asked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.rasterizer.scenes import Array, Scene
from talksplat.closing import Closing
from talksplat.cuda import DeviceArray, Stream
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.rasterizer import CudaRasterizer
from talksplat.rasterization import Dialect, RasterizeMode


class Drawing(Closing):
    """Our rasterizer with everything it reads.

    Args:
        kernels: of the rasterizer.
        stream: on which it draws.
        scene: what it draws.
        dialect: by whose rules.
        rasterize_mode: classic or antialiased.
        sh_degree: the scene's colours are spherical harmonics [N,K,3]; None for features [N,D].
        half_colors: keep the colours as float16.
        background: [D,H,W] behind the scene.
        tile_entries: see :class:`talksplat.cuda.rasterizer.CudaRasterizer`.

    Attributes:
        tensors: what the rasterizer reads.
        problem: arguments of the plan of its launches.
    """

    def __init__(
        self,
        kernels: KernelModule,
        stream: Stream,
        scene: Scene,
        *,
        dialect: Dialect = "gsplat",
        rasterize_mode: RasterizeMode = "classic",
        sh_degree: int | None = None,
        half_colors: bool = False,
        background: Array | None = None,
        tile_entries: int = 0,
    ) -> None:
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
        arrays: dict[str, np.ndarray[Any, Any]] = dict(zip(names, scene.arrays, strict=True))
        if half_colors:
            arrays["colors"] = arrays["colors"].astype(np.float16)
        if background is not None:
            arrays["backgrounds"] = background[None]
        self.kernels, self.stream = kernels, stream
        self.tensors: dict[str, DeviceArray] = {
            name: stream.to_device(array) for name, array in arrays.items()
        }
        options: dict[str, Any] = {
            "gaussians": len(scene.means),
            "width": scene.width,
            "height": scene.height,
            "channels": scene.colors.shape[-1],
            "dialect": dialect,
            "rasterize_mode": rasterize_mode,
            "half_colors": half_colors,
            "tile_entries": tile_entries,
        }
        self.rasterizer = CudaRasterizer(kernels, stream, sh_degree=sh_degree, **options)
        bases = 0 if sh_degree is None else scene.colors.shape[1]
        harmonics = {"sh_degree": -1 if sh_degree is None else sh_degree, "sh_bases": bases}
        self.problem: dict[str, Any] = {**options, **harmonics}

    def enqueue(self) -> None:
        """Put one frame on the stream."""
        self.rasterizer.enqueue(**self.tensors)

    def images(self) -> tuple[Array, Array]:
        """Wait, and the colours [1,D,H,W] and alphas [1,1,H,W] of the last frame, unchecked."""
        self.stream.synchronize()
        return self.rasterizer.colors.numpy(), self.rasterizer.alphas.numpy()

    def picture(self) -> tuple[Array, Array]:
        """As :meth:`images`, but [H,W,D] and [H,W]."""
        colors, alphas = self.images()
        return colors[0].transpose(1, 2, 0), alphas[0, 0]

    def close(self) -> None:
        """Free the rasterizer; the scene goes with its last user."""
        self.rasterizer.close()


class Replay(Closing):
    """A drawing captured once."""

    def __init__(self, drawing: Drawing) -> None:
        self._stream = drawing.stream
        with ExitStack() as stack:
            self._graph = stack.enter_context(drawing.stream.capture())
            drawing.enqueue()

    def launch(self) -> None:
        """Draw again."""
        self._graph.launch(self._stream)

    def close(self) -> None:
        """Free the graph."""
        self._graph.close()
