"""Frames made step by step on the CPU: what is kept, what is new, what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_bundle import HEIGHT, WIDTH

import talksplat
from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.backends.split_frame import SplitFrameRunner
from talksplat.bundle import Bundle
from talksplat.errors import BackendError, InputError
from talksplat.families import frame_program
from talksplat.frame_program import Coverage, FrameProgram, Over, Pack, Unpack
from talksplat.manifest import RasterizerContract, TensorSpec
from talksplat.timings import Timings

RULES = RasterizerContract("gsplat", "classic", sh_degree=0, near_plane=0.01, eps2d=0.3)


def layers(width: int = 3, height: int = 2) -> FrameProgram:
    """A picture with given transparency over another picture: no graph, no Gaussians."""
    mask, picture = (1, 1, height, width), (height, width, 3)
    return FrameProgram(
        width=width,
        height=height,
        rules=RULES,
        inputs={
            "alpha": TensorSpec("alpha", "float32", mask),
            "before": TensorSpec("before", "uint8", picture),
            "behind": TensorSpec("behind", "uint8", picture),
        },
        constants={},
        steps=(
            Unpack("unpack", "before", "front"),
            Unpack("unpack", "behind", "back"),
            Over("over", "front", "alpha", "back", "image"),
            Pack("output", "image", "picture"),
            Coverage("output", ("alpha",), "coverage"),
        ),
        picture="picture",
        coverage="coverage",
    )


def picture(seed: int, width: int = 3, height: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected(
    before: NDArray[np.uint8], alpha: float, behind: NDArray[np.uint8]
) -> NDArray[np.float64]:
    mixed = before / 255 + behind / 255 * (1 - alpha)
    return np.asarray(np.clip(mixed, 0, 1) * 255)


def test_steps_make_the_picture() -> None:
    runner = SplitFrameRunner(layers(), {}, threads=1)
    alpha = np.full((1, 1, 2, 3), 0.75, np.float32)
    inputs = {"alpha": alpha, "before": picture(0), "behind": picture(1)}
    timings = Timings()
    made = runner.run(inputs, timings)
    difference = expected(picture(0), 0.75, picture(1)) - made.image
    assert difference.min() >= -0.01 and difference.max() < 1.01  # truncated
    assert made.image.dtype == np.uint8 and made.image.shape == (2, 3, 3)
    assert made.alpha.dtype == np.float32 and made.alpha.shape == (2, 3)
    np.testing.assert_array_equal(made.alpha, alpha[0, 0])
    assert list(timings) == ["unpack", "over", "output"]


def test_a_picture_is_taken_up_only_when_it_is_another_object() -> None:
    runner = SplitFrameRunner(layers(), {}, threads=1)
    nothing = np.zeros((1, 1, 2, 3), np.float32)
    black, one, other = np.zeros((2, 3, 3), np.uint8), picture(0), picture(1)
    kept = one.copy()

    def show(behind: NDArray[np.uint8]) -> NDArray[np.uint8]:
        inputs = {"alpha": nothing, "before": black, "behind": behind}
        image: NDArray[np.uint8] = runner.run(inputs, Timings()).image
        return image

    np.testing.assert_array_equal(show(one), kept)
    one[:] = 0  # the same object: still the old picture
    np.testing.assert_array_equal(show(one), kept)
    np.testing.assert_array_equal(show(other), other)
    np.testing.assert_array_equal(show(one), black)


def test_pictures_are_not_written_to_again() -> None:
    runner = SplitFrameRunner(layers(), {}, threads=1)
    alphas = np.random.default_rng(2).random((8, 1, 1, 2, 3), np.float32)
    made, copies = [], []
    for number, alpha in enumerate(alphas):
        inputs = {"alpha": alpha, "before": picture(number), "behind": picture(9)}
        made.append(runner.run(inputs, Timings()))
        copies.append((made[-1].image.copy(), made[-1].alpha.copy()))
    for one, (image, alpha) in zip(made, copies, strict=True):
        np.testing.assert_array_equal(one.image, image)
        np.testing.assert_array_equal(one.alpha, alpha)


def test_there_is_no_device_to_leave_frames_on(avatar: talksplat.Avatar, bundle_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected frames='host', found 'device'.*doctor"):
        avatar.session(frames="device")
    bundle = Bundle.open(bundle_path)
    engine = OnnxRuntimeCpu(threads=1).load_frame(bundle, frame_program(bundle))
    with pytest.raises(InputError, match="frames='host'"):
        engine.runner("device")


def test_an_input_that_does_not_fit_is_named(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    program = frame_program(bundle)
    inputs = {
        name: np.zeros([int(size) for size in tensor.shape], tensor.dtype)
        for name, tensor in program.inputs.items()
    }
    inputs["viewmats"] = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)[None]
    with OnnxRuntimeCpu(threads=1).load_frame(bundle, program).runner() as runner:
        assert runner.run(inputs, Timings()).image.shape == (HEIGHT, WIDTH, 3)
        bad = {**inputs, "facial_motion": inputs["facial_motion"][:, :1]}
        with pytest.raises(BackendError, match="'facial_motion'"):
            runner.run(bad, Timings())
        bad = {**inputs, "viewmats": inputs["viewmats"] * np.nan}
        with pytest.raises(InputError, match="viewmats"):
            runner.run(bad, Timings())
        assert runner.run(inputs, Timings()).image.shape == (HEIGHT, WIDTH, 3), "and goes on"


def test_runners_do_not_share_their_images(bundle_path: Path) -> None:
    """Two runners in turns make what each would make alone."""
    bundle = Bundle.open(bundle_path)
    program = frame_program(bundle)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(4):
        inputs = {
            name: rng.uniform(0, 1, [int(size) for size in tensor.shape]).astype(tensor.dtype)
            for name, tensor in program.inputs.items()
        }
        inputs["background"] = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        inputs["viewmats"] = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)[None]
        inputs["viewmats"][0, 2, 3] = 0.7
        frames.append(inputs)
    engine = OnnxRuntimeCpu(threads=1).load_frame(bundle, program)
    with engine.runner() as alone:
        images = [alone.run(inputs, Timings()).image for inputs in frames]
    with engine.runner() as one, engine.runner() as other:
        for k in range(4):
            np.testing.assert_array_equal(one.run(frames[k], Timings()).image, images[k])
            np.testing.assert_array_equal(other.run(frames[3 - k], Timings()).image, images[3 - k])
    assert len({image.tobytes() for image in images}) == 4
