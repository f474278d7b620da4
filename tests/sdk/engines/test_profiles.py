"""The sizes an engine is built for."""

from __future__ import annotations

import numpy as np
import pytest

from talksplat.bundle import Bundle
from talksplat.engines.profiles import Sizes, describe, profile_of
from talksplat.errors import BundleError


def test_free_axes_reach_from_one_to_the_next_power_of_two() -> None:
    inputs = {"rest": ("face_gaussians", 10), "first": (2, 3), "one": ("face_gaussians",)}
    constants = {"rest": np.zeros((9000, 10)), "one": np.zeros(1)}
    profile = profile_of(inputs, constants)
    assert profile == {
        "rest": Sizes((1, 10), (16384, 10), (16384, 10)),
        "one": Sizes((1,), (1,), (1,)),
    }
    assert describe(profile) == "one 1 1 1; rest 1x10 16384x10 16384x10"


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 2), (3, 4), (8192, 8192), (8193, 16384)])
def test_an_avatar_of_a_power_of_two_fits_exactly(count: int, most: int) -> None:
    profile = profile_of({"rest": ("n", 3)}, {"rest": np.zeros((count, 3))})
    assert profile["rest"].maximum == (most, 3)


def test_avatars_of_about_one_size_share_a_profile() -> None:
    profiles = [
        describe(profile_of({"rest": ("n", 3)}, {"rest": np.zeros((count, 3))}))
        for count in (5000, 8000)
    ]
    assert profiles[0] == profiles[1]


def test_fixed_inputs_need_no_profile(every_family: dict[str, Bundle]) -> None:
    bundle = every_family["d3talker"]
    spec = bundle.manifest.graphs["refiner"]
    profile = profile_of({tensor.name: tensor.shape for tensor in spec.inputs}, {})
    assert describe(profile) == "fixed"


@pytest.mark.parametrize("constants", [{}, {"rest": np.zeros(5)}])
def test_a_free_axis_that_nothing_sizes_is_named(constants: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError, match="'rest' has free axes"):
        profile_of({"rest": ("n", 3)}, constants)
