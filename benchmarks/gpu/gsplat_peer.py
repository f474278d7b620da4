"""gsplat's CUDA rasterizer, where it can be used: the same scene under the rules of its version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

from benchmarks.gpu.result import MissingError
from benchmarks.rasterizer.scenes import Scene
from talksplat.rasterization import Dialect


def gsplat_version() -> str:
    """Of what is installed.

    Raises:
        MissingError: nothing is, or it has no CUDA part that can be loaded here.
    """
    try:
        import gsplat
        import torch
    except ImportError as error:
        raise MissingError(
            f"gsplat and torch with CUDA are the peers, which are not installed ({error})."
        ) from error
    if not torch.cuda.is_available():
        raise MissingError(f"gsplat needs torch with CUDA; torch {torch.__version__} sees no GPU.")
    from gsplat.cuda import _backend

    if _backend._C is None:
        raise MissingError(
            f"gsplat {metadata.version('gsplat')} has no CUDA part: it could neither be imported "
            "nor built (it needs nvcc)."
        )
    return str(gsplat.__version__)


def dialect_of(version: str) -> Dialect:
    """The rules of a version of gsplat: alphas are clamped at 0.999 until 1.5, at 0.99 from 1.6."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return "gsplat" if (major, minor) >= (1, 6) else "gsplat-1.5"


class GsplatDrawing:
    """A scene in torch's memory on the GPU.

    Args:
        scene: what is drawn.
        packed: gsplat's own choice between two layouts; which is faster depends on the scene.
    """

    def __init__(self, scene: Scene, *, packed: bool) -> None:
        import torch
        from gsplat import rasterization

        self._torch, self._rasterization = torch, rasterization
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
        self._arguments: dict[str, Any] = {
            name: torch.from_numpy(array).cuda()
            for name, array in zip(names, scene.arrays, strict=True)
        }
        self._arguments |= {"width": scene.width, "height": scene.height, "packed": packed}

    def draw(self) -> tuple[Any, Any]:
        """Colours [1,H,W,D] and alphas [1,H,W,1], without gradients."""
        with self._torch.no_grad():
            colors, alphas, _ = self._rasterization(**self._arguments)
        return colors, alphas


def peer_draw(with_gsplat: bool, dialect: Dialect) -> Callable[..., tuple[Any, Any]]:
    """What draws torch's frames: gsplat, or our rasterizer on the CPU by the avatar's own rules.

    Both take the arguments of ``gsplat.rasterization`` by name and give colours [C,H,W,D] and
    alphas [C,H,W,1].
    """
    if not with_gsplat:
        from talksplat_export.rasterization import rasterize

        return partial(rasterize, dialect=dialect)
    from gsplat import rasterization

    def draw(**arguments: Any) -> tuple[Any, Any]:
        colors, alphas, _ = rasterization(**arguments, packed=False)
        return colors, alphas

    return draw
