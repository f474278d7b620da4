"""Families: how the avatars of each published system are run."""

from __future__ import annotations

from collections.abc import Callable

from talksplat.backends import Backend
from talksplat.bundle import Bundle
from talksplat.families.base import Family


def load(bundle: Bundle, backend: Backend, threads: int) -> Family:
    """The avatar in ``bundle``, of the family that its manifest names.

    Args:
        bundle: an opened bundle.
        backend: what runs its graphs.
        threads: CPU threads that the rasterizer may use.

    Raises:
        BundleError: the bundle does not hold what its family needs.
        BackendError: the backend refuses a graph.
    """
    from talksplat.families.d3talker import D3Talker
    from talksplat.families.gaussian_talker import GaussianTalker
    from talksplat.families.sdtalk import SDTalk

    families: dict[str, Callable[[Bundle, Backend, int], Family]] = {
        "d3talker": D3Talker,
        "talkinggaussian": GaussianTalker,
        "instag": GaussianTalker,
        "sdtalk": SDTalk,
    }
    return families[bundle.manifest.family](bundle, backend, threads)
