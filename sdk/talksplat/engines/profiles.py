"""The range of sizes an engine is built for, from the avatar's own tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from talksplat.errors import BundleError
from talksplat.manifest import Axis

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Least, usual and largest shape of an input."""

    minimum: Shape
    usual: Shape
    maximum: Shape


Profile = Mapping[str, Sizes]
"""Input → its sizes; inputs whose axes are all fixed are left out."""


def profile_of(
    inputs: Mapping[str, tuple[Axis, ...]], constants: Mapping[str, NDArray[Any]]
) -> Profile:
    """The optimisation profile of a graph.

    A free axis is a number of Gaussians. It may be anything from one to the avatar's own number
    rounded up to a power of two: avatars of about the same size on the same general model share an
    engine, whose memory is at most twice what its own avatar needs. The batch of cameras is 1.

    Args:
        inputs: of the graph, with their shapes; free axes have names.
        constants: what never changes for the avatar, by input.

    Raises:
        BundleError: an input has a free axis and is not among the constants, or does not fit.
    """
    profile = {}
    for name, shape in inputs.items():
        if all(isinstance(axis, int) for axis in shape):
            continue
        array = constants.get(name)
        if array is None or array.ndim != len(shape):
            raise BundleError(
                f"Input {name!r} has free axes, {list(shape)}, and the bundle was expected to hold "
                f"a tensor that says how large they are, found "
                f"{'none' if array is None else list(array.shape)}. Export the avatar again."
            )
        axes = list(zip(shape, array.shape, strict=True))
        least = tuple(axis if isinstance(axis, int) else 1 for axis in shape)
        most = tuple(axis if isinstance(axis, int) else _power_of_two(size) for axis, size in axes)
        profile[name] = Sizes(least, most, most)
    return profile


def describe(profile: Profile) -> str:
    """``face_rest 1x10 16384x10 16384x10; …``, or ``fixed``."""
    return (
        "; ".join(
            " ".join((name, *map(_text, (sizes.minimum, sizes.usual, sizes.maximum))))
            for name, sizes in sorted(profile.items())
        )
        or "fixed"
    )


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
