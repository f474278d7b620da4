"""Families: how the avatars of each published system are run."""

from __future__ import annotations

from collections.abc import Callable

from talksplat.backends import Backend
from talksplat.bundle import Bundle
from talksplat.families import d3talker, gaussian_talker, sdtalk
from talksplat.families.base import Family
from talksplat.frame_program import FrameProgram

_FAMILIES: dict[str, Callable[[Bundle, Backend], Family]] = {
    "d3talker": d3talker.D3Talker,
    "talkinggaussian": gaussian_talker.GaussianTalker,
    "instag": gaussian_talker.GaussianTalker,
    "sdtalk": sdtalk.SDTalk,
}
_PROGRAMS: dict[str, Callable[[Bundle], FrameProgram]] = {
    "d3talker": d3talker.frame_program,
    "talkinggaussian": gaussian_talker.frame_program,
    "instag": gaussian_talker.frame_program,
    "sdtalk": sdtalk.frame_program,
}


def load(bundle: Bundle, backend: Backend) -> Family:
    """The avatar in ``bundle``, of the family that its manifest names.

    Args:
        bundle: an opened bundle.
        backend: what runs its graphs and makes its frames.

    Raises:
        BundleError: the bundle does not hold what its family needs.
        BackendError: the backend refuses a graph.
    """
    return _FAMILIES[bundle.manifest.family](bundle, backend)


def frame_program(bundle: Bundle) -> FrameProgram:
    """How a frame of the avatar in ``bundle`` is made.

    Raises:
        BundleError: the bundle does not hold what its family needs.
    """
    return _PROGRAMS[bundle.manifest.family](bundle)
