"""A checkpoint comes back as it was saved, and whatever is not one is refused with the reason."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.avatar_factory import make_checkpoint

from talksplat.errors import CheckpointError, OutputError
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint


@pytest.fixture
def rewrite(
    checkpoint_path: Path, tmp_path: Path
) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Saves the checkpoint again with one change to its content."""

    def change(edit: Callable[[dict[str, Any]], object]) -> Path:
        content = torch.load(checkpoint_path, weights_only=True)
        edit(content)
        path = tmp_path / "changed.pt"
        torch.save(content, path)
        return path

    return change


def test_comes_back_as_it_was_saved(checkpoint_path: Path) -> None:
    before, after = make_checkpoint(), AvatarCheckpoint.load(checkpoint_path)
    assert after.config == before.config
    for part in ("name", "expression_names", "camera", "rasterizer", "licence", "training"):
        assert getattr(after, part) == getattr(before, part)
    assert after.pncc.camera == before.pncc.camera
    for module in ("model", "identity", "front_end"):
        expected = getattr(before, module).state_dict()
        found = getattr(after, module).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert asdict(after.front_end.encoder.config) == asdict(before.front_end.encoder.config)
    for tensor in ("template", "basis", "faces", "colors"):
        assert torch.equal(getattr(after.pncc, tensor), getattr(before.pncc, tensor))
    assert torch.equal(after.background, before.background)
    assert torch.equal(after.tracks.viewmats, before.tracks.viewmats)
    assert torch.equal(after.tracks.upper_face, before.tracks.upper_face)


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(face=10, mouth=10)
    large = torch.zeros(10_000_000, 3)
    checkpoint.identity.face.means.data = large[:10]
    checkpoint.save(tmp_path / "small.pt")
    assert (tmp_path / "small.pt").stat().st_size < large.nbytes / 10


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found nothing"):
        AvatarCheckpoint.load(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="found a folder"):
        AvatarCheckpoint.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1000, -1])
def test_truncated_file(checkpoint_path: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "short.pt"
    path.write_bytes(checkpoint_path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="not a whole torch file"):
        AvatarCheckpoint.load(path)


def test_bit_flips_are_refused_or_harmless(checkpoint_path: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = checkpoint_path.read_bytes()
    path = tmp_path / "flipped.pt"
    for position in rng.integers(0, len(data), 30):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            AvatarCheckpoint.load(path)
        except CheckpointError as error:
            assert str(path) in str(error)


def test_not_a_torch_file(tmp_path: Path) -> None:
    text = tmp_path / "notes.pt"
    text.write_text("These are notes.")
    with pytest.raises(CheckpointError, match="not a whole torch file"):
        AvatarCheckpoint.load(text)
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("a.txt", "a")
    with pytest.raises(CheckpointError, match="is damaged"):
        AvatarCheckpoint.load(archive)


class _Payload:
    """Pickles to a call of ``os.mkdir``: whoever unpickles it makes the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_runs_nothing(tmp_path: Path, container: str) -> None:
    path, folder = tmp_path / "malicious.pt", tmp_path / "executed"
    content = {"format": "talksplat.d3talker", "version": 1, "model": _Payload(folder)}
    if container == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    reason = r"asks to run '\w+\.mkdir'" if container == "torch" else "a bare pickle"
    with pytest.raises(CheckpointError, match=f"{reason}.*Nothing was run"):
        AvatarCheckpoint.load(path)
    assert not folder.exists()
    # The payload is a real one: an ordinary reader would have run it.
    torch.load(path, weights_only=False) if container == "torch" else pickle.loads(
        path.read_bytes()
    )
    assert folder.exists()


def test_an_archive_that_unpacks_to_much_more_is_not_unpacked(
    checkpoint_path: Path, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(checkpoint_path) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(CheckpointError, match="does not compress"):
        AvatarCheckpoint.load(bomb)


def test_a_tensor_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    """Four bytes that claim to be four terabytes."""
    content = {"format": "talksplat.d3talker", "huge": torch.zeros(1).expand(10**6, 10**6)}
    torch.save(content, tmp_path / "huge.pt")
    assert (tmp_path / "huge.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"'huge'.*not plain"):
        AvatarCheckpoint.load(tmp_path / "huge.pt")


def test_another_format(rewrite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found format 'other'"):
        AvatarCheckpoint.load(rewrite(lambda content: content.update(format="other")))
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    with pytest.raises(CheckpointError, match="a dict with the keys 'weight'"):
        AvatarCheckpoint.load(tmp_path / "plain.pt")
    torch.save((1, torch.ones(2)), tmp_path / "tuple.pt")
    with pytest.raises(CheckpointError, match="found a tuple"):
        AvatarCheckpoint.load(tmp_path / "tuple.pt")


def test_a_newer_version(rewrite: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"version 2.*reads up to 1.*update talksplat"):
        AvatarCheckpoint.load(rewrite(lambda content: content.update(version=2)))


def test_nan_is_named(rewrite: Callable[..., Path]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["identity"]["face.raw_scales"][7, 1] = float("nan")

    with pytest.raises(CheckpointError, match=r"'identity.face.raw_scales'.*NaN"):
        AvatarCheckpoint.load(rewrite(spoil))


OFFSETS = torch.arange(13, dtype=torch.int32)


def _set(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("tracks"), "lacks 'tracks'"),
        (lambda content: content["pncc"].pop("scale"), "lacks 'pncc.scale'"),
        (_set("name", value=""), "name expects a text"),
        (_set("config", "sh_degree", value=3), r"shs_rest expects float32 \[500, 15, 3\]"),
        (_set("config", "sh_degree", value="1"), "config.sh_degree: expected an integer"),
        (_set("config", "colour", value=1), "config.colour: unknown key"),
        (_set("config", "feature_width", value=10**9), "sizes from 0 to 16384, found 1000000000"),
        (_set("config", "motion_channels", value=[16384] * 30), "motion_encoder"),
        (_set("config", "refiner", "patch", value=0), "no network can be built for model"),
        (_set("model", "extra", value=torch.zeros(1)), "model.extra expects no such tensor"),
        (_set("model", "extra", value=3), "model.extra expects a tensor, found a int"),
        (
            _set("identity", "mouth.means", value=torch.zeros(3)),
            r"mouth.means expects float32 \[\*,3\]",
        ),
        (
            _set("identity", "mouth.means", value=torch.zeros(99, 3)),
            r"identity.mouth.raw_opacities expects float32 \[99, 1\]",
        ),
        (_set("background", value=torch.zeros(64, 64, 3)), r"background expects uint8 \[64,64,3\]"),
        (
            _set("config", "refiner", "image_size", value=32),
            "model.refiner.final_linear.weight expects",
        ),
        (_set("camera", "width", value=65), "camera.width expects 64, the refiner's, found 65"),
        (_set("camera", "K", value=[[1, 2], [3, 4]]), "camera.K"),
        (_set("pncc", "faces", value=torch.tensor([[0, 1, 81]]).int()), "indices of 81 vertices"),
        (_set("pncc", "basis", value=torch.zeros(3, 81, 3)), r"basis expects float32 \[4,81,3\]"),
        (_set("pncc", "scale", value=-1.0), "pncc.scale"),
        (_set("tracks", "viewmats", value=torch.zeros(0, 4, 4)), "at least one frame"),
        (
            _set("tracks", "upper_face", value=torch.zeros(6, 6)),
            r"upper_face expects float32 \[7,6\]",
        ),
        (_set("rasterizer", "dialect", value="own"), "rasterizer.dialect: expected one of"),
        (_set("front_end", "expression_names", value=["jawOpen"]), "expects 1, found 4"),
        (
            _set("front_end", "config", "encoder", "hidden_width", value=16384),
            "front_end.encoder.head.weight expects",
        ),
        (
            _set("front_end", "config", "encoder", "feature_width", value=31),
            "encoder.feature_width expects 32, found 31",
        ),
        (
            _set("identity", "individual.face.grid.encoder_xy.offsets", value=10**6 * OFFSETS),
            r"encoder_xy.offsets expects \[0, 296, ",
        ),
        (_set("licence", "name", value=3), "licence.name: expected a string"),
    ],
)
def test_parts_that_do_not_belong_together(
    rewrite: Callable[..., Path], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        AvatarCheckpoint.load(rewrite(edit))


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(OutputError, match="Cannot write"):
        make_checkpoint().save(blocker / "avatar.pt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
