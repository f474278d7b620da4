"""Checkpoints of TalkingGaussian and InsTaG: read whole, recognised in parts, refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.checkpoints.talkinggaussian_files import (
    FEATURE_WIDTHS,
    Audio,
    Family,
    Weights,
    fused,
    one_region,
    pretrained,
    save,
    write_cfg_args,
)
from torch import Tensor

from talksplat.errors import CheckpointError
from talksplat_export.checkpoints.talkinggaussian import (
    GaussianTalkerCheckpoint,
    parse_cfg_args,
    read,
    read_parts,
)
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.talkinggaussian import GaussianTalkerOptions

FAMILIES: tuple[Family, ...] = ("talkinggaussian", "instag")


@pytest.fixture(scope="module", params=FAMILIES)
def content(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    """A fused checkpoint of either system."""
    family: Family = request.param
    return fused(family)


def _read(content: Any, tmp_path: Path) -> GaussianTalkerCheckpoint:
    path = save(content, tmp_path / "chkpnt_fuse_latest.pth")
    return read(read_torch_file(path), path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("audio", ["deepspeech", "esperanto", "hubert"])
def test_every_tensor_arrives(family: Family, audio: Audio, tmp_path: Path) -> None:
    written = fused(family, audio)
    checkpoint = _read(written, tmp_path)
    assert checkpoint.family == family
    assert checkpoint.audio.features == audio
    assert checkpoint.audio.feature_width == FEATURE_WIDTHS[audio]
    for region, capture, network in (
        (checkpoint.face, *written[:2]),
        (checkpoint.mouth, *written[2:]),
    ):
        _assert_same(region.motion.state_dict(), network)
        if family == "instag":
            _assert_same(region.personal.state_dict(), capture[14])
        else:
            assert region.personal is None
        gaussians = region.gaussians
        for name, index in (("means", 1), ("raw_scales", 5), ("raw_quats", 6)):
            assert torch.equal(getattr(gaussians, name), capture[index])
        assert torch.equal(gaussians.opacities, torch.sigmoid(capture[7]))
        assert torch.equal(gaussians.shs, torch.cat([capture[2], capture[3]], dim=1))


def _assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_audio_visual_features_are_recognised(tmp_path: Path) -> None:
    audio = _read(fused("instag", "ave"), tmp_path).audio
    assert (audio.features, audio.feature_rate, audio.tokens) == ("ave", 25, 1)


@pytest.mark.parametrize("rate", [np.float64(1.6e-4), np.float32(1.6e-4)])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_numpy_scalars_of_either_numpy_are_plain_floats(
    rate: Any, numpy_1: bool, tmp_path: Path
) -> None:
    path = save(fused("talkinggaussian", rate=rate), tmp_path / "a.pth", numpy_1=numpy_1)
    found = read_torch_file(path)
    assert type(found[0][12]) is float
    assert found[0][12] == float(rate)
    assert found[0][11]["param_groups"][0]["lr"] == float(rate)
    read(found, path)


@pytest.mark.parametrize("scalar", [np.int64(3), np.complex128(1j), np.str_("text")])
def test_other_numpy_scalars_are_refused(scalar: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"value": scalar}, path)
    with pytest.raises(CheckpointError, match=r"NumPy value of type '\w+': expected .* Save it as"):
        read_torch_file(path)


def test_a_numpy_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"value": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="Nothing was run"):
        read_torch_file(path)


def test_storages_of_a_gpu_are_read_on_the_cpu(tmp_path: Path) -> None:
    path = save(fused("talkinggaussian"), tmp_path / "a.pth")
    assert b"cuda:0" in path.read_bytes()
    assert read_torch_file(path)[0][1].device.type == "cpu"


@pytest.mark.parametrize(("stored", "active"), [(2, 2), (2, 1), (3, 0), (1, 1)])
def test_only_the_active_degree_is_drawn(stored: int, active: int, tmp_path: Path) -> None:
    """``active_sh_degree`` decides, not the width of the tensor."""
    written = fused("talkinggaussian", degree=stored)
    capture = (active, *written[0][1:])
    checkpoint = _read((capture, written[1], (active, *written[2][1:]), written[3]), tmp_path)
    assert checkpoint.sh_degree == active
    kept = (active + 1) ** 2
    assert checkpoint.face.gaussians.shs.shape[1] == kept
    expected = torch.cat([capture[2], capture[3]], dim=1)[:, :kept]
    assert torch.equal(checkpoint.face.gaussians.shs, expected)


def test_regions_of_different_degrees_are_drawn_each_with_its_own(tmp_path: Path) -> None:
    face, face_net, mouth, mouth_net = fused("talkinggaussian", degree=2)
    checkpoint = _read((face, face_net, (1, *mouth[1:]), mouth_net), tmp_path)
    assert checkpoint.sh_degree == 2
    assert torch.equal(checkpoint.face.gaussians.shs[:, 1:], face[3])
    assert torch.equal(checkpoint.mouth.gaussians.shs[:, 1:4], mouth[3][:, :3])
    assert not checkpoint.mouth.gaussians.shs[:, 4:].any()


def test_face_and_mouth_files_make_an_avatar_together(
    content: tuple[Any, ...], tmp_path: Path
) -> None:
    paths = [
        save(one_region(content, region), tmp_path / f"chkpnt_{region}_latest.pth")
        for region in ("face", "mouth")
    ]
    checkpoint = read_parts(*paths)
    assert torch.equal(checkpoint.mouth.gaussians.means, content[2][1])
    with pytest.raises(CheckpointError, match=r"is not the face of an avatar.*mouth alone"):
        read_parts(*reversed(paths))


@pytest.mark.parametrize("region", ["face", "mouth"])
def test_one_region_is_no_avatar(content: tuple[Any, ...], region: str, tmp_path: Path) -> None:
    expected = rf"expected chkpnt_fuse_latest\.pth.*found the {region} alone"
    with pytest.raises(CheckpointError, match=expected):
        _read(one_region(content, region), tmp_path)


@pytest.mark.parametrize("region", ["face", "mouth"])
def test_a_pre_training_file_is_explained(region: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{region} net of InsTaG's pre-training"):
        _read(pretrained(fused("instag"), region), tmp_path)


def test_an_optimiser_alone_is_no_avatar(tmp_path: Path) -> None:
    optimiser = Weights(0).optimiser(np.float64(1e-3))
    for content in (optimiser, (optimiser, 3000)):
        with pytest.raises(CheckpointError, match=r"expected .* found the state of an optimiser"):
            _read(content, tmp_path)


@pytest.mark.parametrize("length", [9, 12, 14, 16])
def test_gaussians_of_an_unknown_length_are_refused(length: int, tmp_path: Path) -> None:
    content = fused("instag")
    capture = (*content[0], None)[:length]
    with pytest.raises(CheckpointError, match="expected"):
        _read((capture, content[1], capture, content[3]), tmp_path)


@pytest.mark.parametrize("length", [0, 1, 3, 5])
def test_a_tuple_of_an_unknown_length_is_refused(length: int, tmp_path: Path) -> None:
    content = (*fused("talkinggaussian"), 1)
    with pytest.raises(CheckpointError, match=r"expected .* found"):
        _read(content[:length], tmp_path)


def test_parts_of_two_systems_are_refused(tmp_path: Path) -> None:
    one, other = fused("talkinggaussian"), fused("instag")
    with pytest.raises(CheckpointError, match="expected"):
        _read((*one[:2], *other[2:]), tmp_path)


def test_swapped_networks_are_refused(content: tuple[Any, ...], tmp_path: Path) -> None:
    face, face_net, mouth, mouth_net = content
    with pytest.raises(CheckpointError, match=r"expected the face's network.*found the mouth's"):
        _read((face, mouth_net, mouth, face_net), tmp_path)


def test_a_face_for_other_speech_features_than_the_mouth_is_refused(tmp_path: Path) -> None:
    one, other = fused("talkinggaussian"), fused("talkinggaussian", "hubert")
    with pytest.raises(CheckpointError, match=r"expects the speech features.*found hubert"):
        _read((*one[:2], *other[2:]), tmp_path)


Edit = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda net: net.pop("sigma_net.net.1.weight"), "found no such tensor"),
        (lambda net: net.update(more=torch.zeros(1)), "expects no such tensor"),
        (
            lambda net: net.update({"sigma_net.net.0.weight": torch.zeros(64, 106)}),
            r"expects float32 \[64, 74\] .*found float32 \[64, 106\]",
        ),
        (
            lambda net: net.update({"encoder_xy.embeddings": torch.zeros(9472, 1)}),
            r"encoder_xy\.embeddings expects float32 \[9464, 1\]",
        ),
        (
            lambda net: net.update(
                {"encoder_xy.offsets": torch.arange(13, dtype=torch.int32) * 728}
            ),
            r"encoder_xy\.offsets expects",
        ),
        (
            lambda net: net.update({"audio_net.encoder_conv.0.weight": torch.zeros(32, 80, 3)}),
            r"29 \(DeepSpeech\), 44 \(esperanto\) or 1024 \(HuBERT\), found 80",
        ),
    ],
)
def test_a_network_of_another_shape_is_refused(edit: Edit, message: str, tmp_path: Path) -> None:
    content = fused("talkinggaussian")
    edit(content[1])
    with pytest.raises(CheckpointError, match=message):
        _read(content, tmp_path)


def test_a_hook_needs_ten_gaussians(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at least 10 Gaussians, found 9"):
        _read(fused("instag", face=9), tmp_path)


def test_a_personalised_avatar_needs_personal_networks(tmp_path: Path) -> None:
    face, face_net, mouth, mouth_net = fused("instag")
    checkpoint = _read(((*face[:14], None), face_net, (*mouth[:14], None), mouth_net), tmp_path)
    with pytest.raises(CheckpointError, match="personalized expects a personal field"):
        checkpoint.model(GaussianTalkerOptions(personalized=True))


def test_cfg_args_are_parsed_and_never_run(content: tuple[Any, ...], tmp_path: Path) -> None:
    arguments = {"sh_degree": 2, "audio_extractor": "deepspeech", "white_background": False}
    path = write_cfg_args(tmp_path, arguments)
    assert parse_cfg_args(path.read_text()) == arguments
    _read(content, tmp_path)
    folder = tmp_path / "executed"
    for text in (
        f"Namespace(a=__import__('os').mkdir({str(folder)!r}))",
        f"__import__('os').mkdir({str(folder)!r})",
        "Namespace(*[1])",
        "Namespace(**{})",
        "Namespace(",
        "(" * 100_000,
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"not a cfg_args file.*Nothing was run"):
            _read(content, tmp_path)
        assert not folder.exists()


def test_cfg_args_of_another_training_are_refused(content: tuple[Any, ...], tmp_path: Path) -> None:
    write_cfg_args(tmp_path, {"audio_extractor": "hubert"})
    with pytest.raises(CheckpointError, match=r"'hubert'.*its tensors say 'deepspeech'"):
        _read(content, tmp_path)
    write_cfg_args(tmp_path, {"audio_extractor": "deepspeech", "white_background": True})
    with pytest.raises(CheckpointError, match="white_background"):
        _read(content, tmp_path)
