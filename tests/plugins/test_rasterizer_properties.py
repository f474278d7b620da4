"""What must hold for any scene: drawn by many threads, in any order, into any memory."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

import numpy as np
import torch
from benchmarks.rasterizer.scenes import Array, Scene, head, intrinsics, looking_at_origin
from comparison import assert_same_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import RULE_SETS, cloud, spherical_harmonics, truth, unit_quats

import talksplat
from talksplat.errors import InputError
from talksplat.rasterization import Workspace
from talksplat_export.rasterization import rasterize as rasterize_torch

few = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Anything from an empty picture to a crowd of needles in front of several cameras."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([0, 1, 2, 7, 16, 33, 100, 257]))
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    channels = draw(st.sampled_from([1, 2, 3, 4, 7, 16, 31, 32, 33]))
    cameras = draw(st.integers(1, 3))
    size = draw(st.sampled_from([1e-4, 0.01, 0.05, 0.3]))
    spread = draw(st.sampled_from([0.0, 0.6, 1.5]))  # of the logarithms of the scales
    return Scene(
        means=(rng.normal(size=(count, 3)) * 0.5).astype(np.float32),
        quats=unit_quats(rng, count) * draw(st.sampled_from([np.float32(1), np.float32(0.7)])),
        scales=(size * np.exp(rng.normal(size=(count, 3)) * spread)).astype(np.float32),
        opacities=rng.uniform(-0.1, draw(st.sampled_from([0.05, 1.0, 1.5])), count).astype("f4"),
        colors=rng.uniform(size=(count, channels)).astype(np.float32),
        viewmats=np.stack(
            [looking_at_origin(draw(st.sampled_from([0.1, 2.0, 4.0])), i) for i in range(cameras)]
        ),
        Ks=np.stack([intrinsics(width, height, 40.0 + 9 * i) for i in range(cameras)]),
        width=width,
        height=height,
    )


def draw_scene(scene: Scene, rules: tuple[str, str], **more: object) -> tuple[Array, Array]:
    return talksplat.rasterize(
        *scene.arrays,
        scene.width,
        scene.height,
        **scene.options,
        dialect=rules[0],
        rasterize_mode=rules[1],
        **more,
    )


def assert_equal(measured: tuple[Array, Array], expected: tuple[Array, Array]) -> None:
    for image, other in zip(measured, expected, strict=True):
        np.testing.assert_array_equal(image, other)


any_rules = st.sampled_from(RULE_SETS)


@few
@given(scenes(), any_rules)
def test_any_scene_is_drawn_as_the_oracle_draws_it(scene: Scene, rules: tuple[str, str]) -> None:
    picture = truth(scene, *rules)
    if picture.undecided.mean() < 0.01:
        assert_same_picture(draw_scene(scene, rules), picture, " ".join(rules))


@few
@given(scenes(), any_rules)
def test_the_number_of_threads_changes_no_bit(scene: Scene, rules: tuple[str, str]) -> None:
    alone = draw_scene(scene, rules, threads=1)
    for threads in (2, 3, 7):
        assert_equal(draw_scene(scene, rules, threads=threads), alone)


@few
@given(scenes(), any_rules, st.randoms(use_true_random=False))
def test_order_in_memory_changes_no_bit(scene: Scene, rules: tuple[str, str], random) -> None:
    """As long as depths differ."""
    order = list(range(len(scene.means)))
    random.shuffle(order)
    shuffled = replace(
        scene,
        means=scene.means[order],
        quats=scene.quats[order],
        scales=scene.scales[order],
        opacities=scene.opacities[order],
        colors=scene.colors[order],
    )
    assert_equal(draw_scene(shuffled, rules), draw_scene(scene, rules))


@few
@given(st.lists(st.tuples(scenes(), any_rules), min_size=2, max_size=4))
def test_a_workspace_remembers_nothing(calls: list[tuple[Scene, tuple[str, str]]]) -> None:
    workspace = Workspace()
    for scene, rules in calls:
        assert_equal(draw_scene(scene, rules, workspace=workspace), draw_scene(scene, rules))


@few
@given(
    scenes(),
    any_rules,
    st.permutations(range(4)),
    st.tuples(*[st.sampled_from([1, 2, -1, -2])] * 4),
    st.sampled_from([0, 1, 3]),
)
def test_out_may_have_any_strides(
    scene: Scene, rules: tuple[str, str], axes: list[int], steps: tuple[int, ...], margin: int
) -> None:
    """Transposed, every second element, backwards, inside a larger image, and nowhere else."""
    expected = draw_scene(scene, rules)
    whole, views = [], []
    for image in expected:
        pairs = list(zip(image.shape, steps, strict=True))
        shape = [size * abs(step) + 2 * margin for size, step in pairs]
        buffer = np.full([shape[axis] for axis in axes], np.nan, dtype=np.float32)
        view = buffer.transpose(np.argsort(axes))
        for axis, (size, step) in enumerate(pairs):
            index = margin + abs(step) * np.arange(size)[:: 1 if step > 0 else -1]
            start, stop = index[0], index[-1] + (1 if step > 0 else -1)
            cut = slice(start, None if stop < 0 else stop, step)
            view = view[(slice(None),) * axis + (cut,)]
        assert view.shape == image.shape
        whole.append(buffer)
        views.append(view)
    returned = draw_scene(scene, rules, out=tuple(views))
    assert_equal(returned, expected)
    for buffer, image in zip(whole, expected, strict=True):
        assert np.count_nonzero(~np.isnan(buffer)) == image.size


@few
@given(scenes(), any_rules)
def test_cameras_do_not_see_each_other(scene: Scene, rules: tuple[str, str]) -> None:
    together = draw_scene(scene, rules)
    for camera in range(len(scene.viewmats)):
        one = replace(
            scene, viewmats=scene.viewmats[camera : camera + 1], Ks=scene.Ks[camera : camera + 1]
        )
        alone = draw_scene(one, rules)
        assert_equal(alone, tuple(image[camera : camera + 1] for image in together))


@few
@given(scenes(), any_rules)
def test_channels_do_not_see_each_other(scene: Scene, rules: tuple[str, str]) -> None:
    """Paths for 3, 32 and any number of channels sum in the same order, but may round once less."""
    together, alphas = draw_scene(scene, rules)
    for channel in {0, scene.colors.shape[1] - 1}:
        one = replace(scene, colors=scene.colors[:, channel : channel + 1])
        colors, same_alphas = draw_scene(one, rules)
        np.testing.assert_allclose(colors[..., 0], together[..., channel], rtol=0, atol=2e-6)
        np.testing.assert_allclose(same_alphas, alphas, rtol=0, atol=2e-6)


@few
@given(scenes(), any_rules)
def test_nothing_hides_a_background_but_alpha(scene: Scene, rules: tuple[str, str]) -> None:
    colors, alphas = draw_scene(scene, rules)
    image = np.random.default_rng(0).uniform(size=colors.shape).astype(np.float32)
    over_image, same_alphas = draw_scene(replace(scene, options={"backgrounds": image}), rules)
    np.testing.assert_array_equal(same_alphas, alphas)
    np.testing.assert_allclose(over_image, colors + (1 - alphas) * image, rtol=0, atol=1e-6)
    flat = np.ascontiguousarray(image[:, 0, 0])
    over_flat, _ = draw_scene(replace(scene, options={"backgrounds": flat}), rules)
    expected = colors + (1 - alphas) * flat[:, None, None]
    np.testing.assert_allclose(over_flat, expected, rtol=0, atol=1e-6)


def test_spherical_harmonics_are_seen_from_the_camera_of_a_scaled_viewmat() -> None:
    """Its position is by the inverse of the viewmat; the transpose is that only of a rotation."""
    scene = spherical_harmonics(3)
    viewmats = scene.viewmats.copy()
    viewmats[:, :3] *= 1.7
    scene = replace(scene, viewmats=viewmats)
    for rules in RULE_SETS:
        assert_same_picture(draw_scene(scene, rules), truth(scene, *rules), " ".join(rules))


def test_threads_change_no_bit_of_a_head() -> None:
    """Long lists, many tiles: where work is really shared out."""
    scene = head(60_000, width=512, height=512)
    for rules in RULE_SETS:
        alone = draw_scene(scene, rules, threads=1)
        for _ in range(3):
            assert_equal(draw_scene(scene, rules, threads=2), alone)


def test_gradients_do_not_depend_on_what_was_drawn_between() -> None:
    """Several pictures forward, then backward in any order, as a loss over many frames does."""
    frames = [cloud(count=60 * (i + 1), width=30 + 7 * i, seed=50 + i) for i in range(3)]

    def means_and_loss(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
        tensors = [torch.from_numpy(array) for array in scene.arrays]
        means = tensors[0].clone().requires_grad_()
        colors, alphas = rasterize_torch(means, *tensors[1:], scene.width, scene.height)
        return means, (colors**2).sum() + alphas.sum()

    alone = []
    for scene in frames:
        means, loss = means_and_loss(scene)
        loss.backward()
        alone.append(means.grad)
    for order in ((0, 1, 2), (2, 0, 1)):
        pending = [means_and_loss(scene) for scene in frames]
        for i in order:
            pending[i][1].backward()
        for (means, _), expected in zip(pending, alone, strict=True):
            torch.testing.assert_close(means.grad, expected, rtol=1e-5, atol=1e-6)


def test_threads_that_share_a_workspace_get_an_error_and_never_a_wrong_picture() -> None:
    workspace = Workspace()
    drawn, wrong = [], []

    def draw_often(seed: int) -> None:
        scene = cloud(count=300, width=90 + seed, height=60, seed=seed)
        expected = draw_scene(scene, RULE_SETS[0])
        for _ in range(40):
            try:
                colors, _ = draw_scene(scene, RULE_SETS[0], workspace=workspace, threads=2)
            except InputError:
                continue
            (drawn if np.array_equal(colors, expected[0]) else wrong).append(seed)

    callers = [Thread(target=draw_often, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert drawn and not wrong
