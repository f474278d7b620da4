"""TalkingGaussian and InsTaG: networks, what is baked of them, activations, windows."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tests.export.checkpoints.talkinggaussian_files import WINDOWS, Audio, Family, fused
from tests.export.families import talkinggaussian_plain as plain
from torch import Tensor

from talksplat.errors import InputError
from talksplat_export.checkpoints.talkinggaussian import GaussianTalkerCheckpoint, read
from talksplat_export.families import (
    instag_graphs,
    talkinggaussian_graphs,
)
from talksplat_export.families.instag import InsTaG, hook
from talksplat_export.families.talkinggaussian import (
    AUDIO_VISUAL,
    DEEPSPEECH,
    HUBERT,
    AudioInput,
    GaussianTalker,
    GaussianTalkerOptions,
    TalkingGaussian,
)
from talksplat_export.families.talkinggaussian_reference import audio_windows, dilate
from talksplat_export.gaussians import ActiveGaussians

HEAD = 0.2
"""Chin to crown, world units."""


@cache
def _fused(family: Family, audio: Audio) -> tuple[Any, ...]:
    return fused(family, audio)


@dataclass(frozen=True)
class Case:
    """A checkpoint and the options it is exported with."""

    family: Family
    audio: Audio = "deepspeech"
    options: GaussianTalkerOptions = GaussianTalkerOptions()  # noqa: RUF009 - it is frozen

    def content(self) -> tuple[Any, ...]:
        return _fused(self.family, self.audio)

    def __str__(self) -> str:
        flags = ("mouth_attention", "personalized")
        on = [flag for flag in flags if getattr(self.options, flag)]
        off = [] if self.options.aligned else ["unaligned"]
        return "-".join([self.family, self.audio, *on, *off])


CASES = [
    Case("talkinggaussian"),
    Case("talkinggaussian", "esperanto", GaussianTalkerOptions(mouth_attention=True)),
    Case("talkinggaussian", "hubert"),
    Case("instag"),
    Case("instag", "hubert", GaussianTalkerOptions(mouth_attention=True)),
    Case("instag", "ave", GaussianTalkerOptions(personalized=True)),
    Case("instag", "deepspeech", GaussianTalkerOptions(aligned=False, personalized=True)),
]


def checkpoint_of(content: tuple[Any, ...]) -> GaussianTalkerCheckpoint:
    return read(content, Path("chkpnt_fuse_latest.pth"))


def frame_inputs(audio: Audio, seed: int) -> tuple[Tensor, Tensor]:
    """Audio window [1,8,D,W] and action units [1,6]."""
    generator = torch.Generator().manual_seed(seed)
    window = torch.randn(1, 8, *WINDOWS[audio], generator=generator).tanh()
    units = torch.tensor([[5.0, 5, 5, 5, 5, 2]]) * torch.rand(1, 6, generator=generator)
    return window, units


def animate(
    model: GaussianTalker, window: Tensor, units: Tensor
) -> tuple[ActiveGaussians, Tensor | None, ActiveGaussians]:
    with torch.no_grad():
        face, move = model.animate_face(model.face_features(), window, units)
        return face, move, model.animate_mouth(model.mouth_features(), window, move)


def in_numpy(case: Case, window: Tensor, units: Tensor) -> tuple[Any, Any]:
    """Face and mouth by the plain float64 counterpart."""
    arguments = (case.content(), window.double().numpy(), units.double().numpy())
    attention = case.options.mouth_attention
    if case.family == "talkinggaussian":
        return plain.talkinggaussian(*arguments, mouth_attention=attention)
    return plain.instag(
        *arguments,
        mouth_attention=attention,
        aligned=case.options.aligned,
        personalized=case.options.personalized,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_networks_are_the_published_formulas(case: Case) -> None:
    model = copy.deepcopy(checkpoint_of(case.content()).model(case.options)).double()
    window, units = frame_inputs(case.audio, 0)
    face, move, mouth = animate(model, window.double(), units.double())
    expected_face, expected_mouth = in_numpy(case, window, units)
    for found, expected in ((face, expected_face), (mouth, expected_mouth)):
        for name in ("means", "scales", "quats"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), rtol=0, atol=1e-11
            )
    if case.family == "instag":
        assert move is not None
        np.testing.assert_allclose(move, expected_face.move, rtol=0, atol=1e-10)
    assert float((face.means - model.face.gaussians.means).abs().max()) > 0.01 * HEAD


def baked_graphs(
    model: GaussianTalker, window: Tensor, units: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the frame graphs answer: face (means, scales, quats[, move]) and mouth."""
    with torch.no_grad():
        if isinstance(model, TalkingGaussian):
            tg = talkinggaussian_graphs
            face, mouth = tg.bake_face(model), tg.bake_mouth(model)
            return (
                tg.FaceGraph(model, list(face))(window, units, *face.values()),
                tg.MouthGraph(model, list(mouth))(window, *mouth.values()),
            )
        assert isinstance(model, InsTaG)
        face, mouth = instag_graphs.bake_face(model), instag_graphs.bake_mouth(model)
        answer = instag_graphs.FaceGraph(model, list(face))(window, units, *face.values())
        mouth_graph = instag_graphs.MouthGraph(model, list(mouth))
        return answer, mouth_graph(window, units, answer[3], *mouth.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_baking_is_exact_algebra(case: Case) -> None:
    """In float64 baked and unbaked differ by rounding alone, in float32 by less than 1e-6."""
    single = checkpoint_of(case.content()).model(case.options)
    for model, positions, others in (
        (copy.deepcopy(single).double(), 1e-15, 1e-12),
        (single, 1e-7, 1e-6),
    ):
        precision = model.face.gaussians.means.dtype
        window, units = (x.to(precision) for x in frame_inputs(case.audio, 1))
        face, move, mouth = animate(model, window, units)
        baked_face, baked_mouth = baked_graphs(model, window, units)
        for found, expected in ((baked_face, face), (baked_mouth, mouth)):
            for tensor, name, tolerance in zip(
                found, ("means", "scales", "quats"), (positions, others, others), strict=False
            ):
                torch.testing.assert_close(tensor, getattr(expected, name), rtol=0, atol=tolerance)
        if move is not None:
            torch.testing.assert_close(baked_face[3], move, rtol=0, atol=1000 * positions)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_the_frame_graphs_are_the_published_formulas(case: Case, seed: int) -> None:
    """Baked, in float32, against the plain counterpart in float64."""
    window, units = frame_inputs(case.audio, seed)
    found = baked_graphs(checkpoint_of(case.content()).model(case.options), window, units)
    for answer, expected in zip(found, in_numpy(case, window, units), strict=True):
        np.testing.assert_allclose(answer[0], expected.means, rtol=0, atol=1e-6 * HEAD)
        np.testing.assert_allclose(answer[1], expected.scales, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer[2], expected.quats, rtol=0, atol=1e-5)
        if len(answer) == 4:
            np.testing.assert_allclose(answer[3], expected.move, rtol=0, atol=1e-5)


@pytest.fixture
def talkinggaussian() -> TalkingGaussian:
    model = checkpoint_of(fused("talkinggaussian")).model(GaussianTalkerOptions())
    assert isinstance(model, TalkingGaussian)
    return copy.deepcopy(model)


@pytest.fixture
def instag() -> InsTaG:
    model = checkpoint_of(fused("instag")).model(GaussianTalkerOptions())
    assert isinstance(model, InsTaG)
    return copy.deepcopy(model)


def test_a_point_outside_on_one_axis_keeps_one_plane_of_three(
    talkinggaussian: TalkingGaussian,
) -> None:
    with torch.no_grad():
        features = talkinggaussian.face.motion(
            torch.tensor([[0.1501, 0.0, 0.01], [0.0, -0.1501, 0.01], [0.0, 0.1, 0.1501]])
        )
    for row, kept in zip(features.view(3, 3, 12), (1, 2, 0), strict=True):
        assert [bool(plane.any()) for plane in row] == [plane == kept for plane in range(3)]


def test_gaussians_outside_the_grids_move_all_the_same(talkinggaussian: TalkingGaussian) -> None:
    """Out of the bound on one axis two planes are zero; the third still moves them."""
    outside = (talkinggaussian.face.gaussians.means.abs() > 0.15).sum(dim=1) == 1
    assert int(outside.sum()) > 20
    window, units = frame_inputs("deepspeech", 0)
    face, _, _ = animate(talkinggaussian, window, units)
    moved = (face.means - talkinggaussian.face.gaussians.means)[outside]
    assert bool(moved.abs().amax(dim=1).gt(1e-5).all())


def test_scales_are_activated_by_softplus_after_the_deformation(
    talkinggaussian: TalkingGaussian,
) -> None:
    window, units = frame_inputs("deepspeech", 0)
    region, features = talkinggaussian.face, talkinggaussian.face_features()
    moved = region.motion.deformation(features.motion, window, units)
    face, _, mouth = animate(talkinggaussian, window, units)
    raw = region.gaussians.raw_scales + moved[:, 7:]
    torch.testing.assert_close(face.scales, torch.log1p(torch.exp(raw)))
    assert not torch.allclose(face.scales, torch.exp(raw), rtol=1e-3)
    torch.testing.assert_close(mouth.scales, F.softplus(talkinggaussian.mouth.gaussians.raw_scales))


def test_quaternions_of_any_length_are_normalised_after_the_deformation(
    talkinggaussian: TalkingGaussian,
) -> None:
    gaussians = talkinggaussian.face.gaussians
    lengths = gaussians.raw_quats.norm(dim=1)
    assert float(lengths.max()) > 3 and float(lengths.min()) < 0.9
    window, units = frame_inputs("deepspeech", 0)
    found, _ = baked_graphs(talkinggaussian, window, units)
    torch.testing.assert_close(found[2].norm(dim=1), torch.ones(len(gaussians)))


def test_opacity_and_colour_are_never_deformed(talkinggaussian: TalkingGaussian) -> None:
    """The face network's column 7 is an opacity that nobody reads."""
    window, units = frame_inputs("deepspeech", 0)
    before, _, _ = animate(talkinggaussian, window, units)
    assert float(talkinggaussian.face.gaussians.raw_opacities.min()) < 0
    with torch.no_grad():
        talkinggaussian.face.motion.sigma_net.net[2].weight[7] += 3
    after, _, _ = animate(talkinggaussian, window, units)
    for name in ("means", "scales", "quats", "opacities", "shs"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert torch.equal(
        before.opacities, torch.sigmoid(talkinggaussian.face.gaussians.raw_opacities)[:, 0]
    )


def test_the_blink_bypasses_the_encoder_of_action_units(talkinggaussian: TalkingGaussian) -> None:
    motion = talkinggaussian.face.motion
    with torch.no_grad():
        for parameter in motion.exp_encode_net.parameters():
            parameter.zero_()
        encoded = motion.encoded_upper_face(torch.tensor([[5.0, 4, 3, 2, 1, 1.5]]))
    assert encoded.tolist() == [[0, 0, 0, 0, 0, 1.5]]


@pytest.mark.parametrize("family", ["talkinggaussian", "instag"])
def test_the_mouths_attention_is_bypassed_unless_asked_for(family: Family) -> None:
    window, units = frame_inputs("deepspeech", 0)

    def mouths(attention: bool) -> tuple[Tensor, Tensor]:
        """Before and after the attention's weights change."""
        options = GaussianTalkerOptions(mouth_attention=attention)
        model = copy.deepcopy(checkpoint_of(fused(family)).model(options))
        before = animate(model, window, units)[2].means
        with torch.no_grad():
            model.mouth.motion.aud_ch_att_net.net[1].weight.mul_(-1)
        return before, animate(model, window, units)[2].means

    assert torch.equal(*mouths(attention=False))
    assert not torch.equal(*mouths(attention=True))


def test_the_mouth_moves_down_five_times_as_far_as_aside(talkinggaussian: TalkingGaussian) -> None:
    window, units = frame_inputs("deepspeech", 0)
    with torch.no_grad():
        last = talkinggaussian.mouth.motion.sigma_net.net[2].weight
        last.copy_(last[:1].expand(3, -1))
    moved = animate(talkinggaussian, window, units)[2].means
    moved = moved - talkinggaussian.mouth.gaussians.means
    torch.testing.assert_close(5 * moved[:, 0], moved[:, 1], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(5 * moved[:, 2], moved[:, 1], rtol=1e-4, atol=1e-7)


def test_the_hook_reads_the_tenth_from_either_end() -> None:
    moved = torch.zeros(100, 3)
    moved[:, 1] = torch.randperm(100, generator=torch.Generator().manual_seed(0)) / 1000
    expected = torch.tensor([[9.0, 0.9, 8.1]])
    torch.testing.assert_close(hook(moved), expected)
    moved[moved[:, 1] > 0.0905] = 5.0  # nine outliers change nothing
    torch.testing.assert_close(hook(moved), expected)
    tied = torch.ones(10, 3)
    torch.testing.assert_close(hook(tied), torch.tensor([[100.0, 100, 0]]))


def test_the_aligner_scales_in_place_so_the_hook_reads_scaled_motion(instag: InsTaG) -> None:
    window, units = frame_inputs("deepspeech", 0)
    features = instag.face_features()
    assert features.move_scale is not None
    assert float((features.move_scale - 1).abs().max()) > 0.02
    face, move = instag.animate_face(features, window, units)
    torch.testing.assert_close(
        move, hook(face.means - instag.face.gaussians.means), atol=1e-5, rtol=0
    )
    unscaled = instag.face.motion.deformation(features.motion, window, units)[:, :3]
    assert not torch.allclose(move, hook(unscaled), atol=1e-3)


def test_the_aligner_moves_the_query_and_not_the_gaussian(instag: InsTaG) -> None:
    """Without motion the Gaussians stay where they are, wherever the aligner asks."""
    window, units = frame_inputs("deepspeech", 0)
    with torch.no_grad():
        for region in (instag.face, instag.mouth):
            region.motion.sigma_net.net[2].weight.zero_()
    face, _, mouth = animate(instag, window, units)
    assert torch.equal(face.means, instag.face.gaussians.means)
    assert torch.equal(mouth.means, instag.mouth.gaussians.means)
    aligned = instag.face_features().motion
    assert not torch.equal(aligned, instag.face.motion(instag.face.gaussians.means))


def test_the_aligners_factor_is_the_faces_alone(instag: InsTaG) -> None:
    window, units = frame_inputs("deepspeech", 0)
    before = animate(instag, window, units)
    for region in (instag.face, instag.mouth):
        assert region.personal is not None
        with torch.no_grad():
            region.personal.align_net.net[1].weight[3:] *= -1
    face, move, mouth = animate(instag, window, units)
    assert not torch.equal(face.means, before[0].means)
    assert before[1] is not None and move is not None
    unmoved = instag.animate_mouth(instag.mouth_features(), window, before[1])
    assert torch.equal(unmoved.means, before[2].means)
    assert not torch.equal(mouth.means, before[2].means)


def test_the_hook_moves_the_mouth(instag: InsTaG) -> None:
    window, _ = frame_inputs("deepspeech", 0)
    features = instag.mouth_features()
    closed = instag.animate_mouth(features, window, torch.zeros(1, 3))
    opened = instag.animate_mouth(features, window, torch.tensor([[1.0, -1.0, 2.0]]))
    assert float((opened.means - closed.means).abs().max()) > 1e-3


def test_the_mouths_rotation_outputs_are_ignored(instag: InsTaG) -> None:
    window, units = frame_inputs("deepspeech", 0)
    before = animate(instag, window, units)[2]
    with torch.no_grad():
        instag.mouth.motion.sigma_net.net[2].weight[3:] += 1
    after = animate(instag, window, units)[2]
    assert torch.equal(after.means, before.means)
    assert torch.equal(after.quats, F.normalize(instag.mouth.gaussians.raw_quats))


def test_an_untrained_personal_field_is_left_out_by_default(instag: InsTaG) -> None:
    window, units = frame_inputs("deepspeech", 0)
    before = animate(instag, window, units)
    for region in (instag.face, instag.mouth):
        assert region.personal is not None
        with torch.no_grad():
            region.personal.sigma_net.net[2].weight.zero_()
    after = animate(instag, window, units)
    assert torch.equal(after[0].means, before[0].means)
    assert torch.equal(after[2].means, before[2].means)


def numbered_features(audio: AudioInput, frames: int) -> NDArray[np.float32]:
    """Tokens [L,D] whose value is their number from 1."""
    tokens = np.arange(1, frames * audio.feature_rate // 25 + 1, dtype=np.float32)
    return np.repeat(tokens[:, None], audio.feature_width, axis=1)


@pytest.mark.parametrize("audio", [DEEPSPEECH, HUBERT, AUDIO_VISUAL], ids=lambda a: a.features)
@pytest.mark.parametrize("frame", [0, 2, 10, 18, 19])
def test_windows_are_padded_with_zeros_at_both_ends(audio: AudioInput, frame: int) -> None:
    frames, rate = 20, audio.feature_rate // 25
    windows = audio_windows(numbered_features(audio, frames), audio, frames)
    assert windows.shape == (frames, 1, 8, audio.feature_width, audio.tokens)
    for row, heard in enumerate(range(frame - 4, frame + 4)):
        first = rate * heard - audio.tokens_before
        expected = [
            token + 1 if 0 <= heard < frames and 0 <= token < frames * rate else 0
            for token in range(first, first + audio.tokens)
        ]
        assert windows[frame, 0, row, 0].tolist() == expected


@pytest.mark.parametrize("audio", [DEEPSPEECH, HUBERT, AUDIO_VISUAL], ids=lambda a: a.features)
def test_windows_of_a_file_are_laid_out_as_upstream_transposes_them(audio: AudioInput) -> None:
    shape = (9, audio.tokens, audio.feature_width)
    stored = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if audio is AUDIO_VISUAL:
        stored = stored.transpose(0, 2, 1)  # stored as [T,512,1]
    windows = audio_windows(stored, audio, 12).numpy()
    for frame in range(12):
        for row, heard in enumerate(range(frame - 4, frame + 4)):
            found = windows[frame, 0, row]
            if not 0 <= heard < 9:
                assert not found.any()
            elif audio is AUDIO_VISUAL:
                np.testing.assert_array_equal(found, stored[heard])
            else:
                np.testing.assert_array_equal(found, stored[heard].T)


def test_dilation_takes_the_largest_alpha_of_a_square() -> None:
    alpha = torch.rand(20, 30, 1, generator=torch.Generator().manual_seed(0))
    found = dilate(alpha, 13)
    assert found.shape == alpha.shape
    for y, x in ((0, 0), (7, 12), (19, 29)):
        square = alpha[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7]
        assert found[y, x] == square.max()


@pytest.mark.parametrize("side", [-1, 2, 12])
def test_dilation_needs_a_pixel_in_the_middle(side: int) -> None:
    with pytest.raises(InputError, match="odd number of pixels"):
        GaussianTalkerOptions(mouth_dilation=side)


def test_the_checkpoint_is_left_as_it_was() -> None:
    """Animating twice gives the same: nothing is changed in place."""
    model = checkpoint_of(fused("instag")).model(GaussianTalkerOptions(personalized=True))
    window, units = frame_inputs("deepspeech", 0)
    first, second = animate(model, window, units), animate(model, window, units)
    assert torch.equal(first[0].means, second[0].means)
    assert torch.equal(first[2].means, second[2].means)
