"""``talksplat ply``: Gaussians of other people's checkpoints for viewers of ``.ply`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.avatar_factory import make_checkpoint
from tests.export.checkpoints import sdtalk_files, talkinggaussian_files

from talksplat.cli import main
from talksplat_export.checkpoints.gaussian_ply import read_gaussian_ply

FUSED = talkinggaussian_files.fused("talkinggaussian", face=30, mouth=20)


@pytest.mark.parametrize(("region", "item"), [("face", 0), ("mouth", 2)])
def test_viewers_see_the_sizes_that_training_saw(region: str, item: int, tmp_path: Path) -> None:
    checkpoint = talkinggaussian_files.save(FUSED, tmp_path / "fused.pth")
    target = tmp_path / "out.ply"
    assert main(["ply", str(checkpoint), "-o", str(target), "--region", region]) == 0
    written, capture = read_gaussian_ply(target), FUSED[item]
    activated = torch.nn.functional.softplus(capture[5]).detach().numpy()
    np.testing.assert_allclose(np.exp(written.scales), activated, rtol=1e-5)
    assert np.array_equal(written.means, capture[1].detach().numpy())
    assert np.array_equal(written.quats, capture[6].detach().numpy())
    assert np.array_equal(written.shs[:, 1:], capture[3].detach().numpy())


def test_scales_of_3d_gaussian_splatting_stay(tmp_path: Path) -> None:
    stock = (*FUSED[0][:4], *FUSED[0][5:13])  # no identity per Gaussian
    checkpoint = talkinggaussian_files.save((stock, 30_000), tmp_path / "chkpnt30000.pth")
    assert main(["ply", str(checkpoint), "-o", str(tmp_path / "out.ply"), "--ascii"]) == 0
    written = read_gaussian_ply(tmp_path / "out.ply")
    assert np.array_equal(written.scales, FUSED[0][5].detach().numpy())


def test_a_ply_is_written_again_and_an_avatar_has_one(tmp_path: Path) -> None:
    make_checkpoint().save(tmp_path / "ada.pt")
    first, second = tmp_path / "a.ply", tmp_path / "b.ply"
    assert main(["ply", str(tmp_path / "ada.pt"), "-o", str(first)]) == 0
    assert main(["ply", str(first), "-o", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_file_without_gaussians_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sdtalk_files.save_checkpoint(tmp_path / "SDGTalk.pt")
    target = tmp_path / "out.ply"
    assert main(["ply", str(tmp_path / "SDGTalk.pt"), "-o", str(target)]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert "no Gaussians to write" in message and "found an SDTalk checkpoint" in message
    assert not target.exists()
