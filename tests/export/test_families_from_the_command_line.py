"""``talksplat export theirs.pth``: every family by its own file, and one sentence for the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.checkpoints import sdtalk_files, talkinggaussian_files

from talksplat.bundle import Bundle
from talksplat.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints and persons, written as other people's code writes them."""
    folder = tmp_path_factory.mktemp("theirs")
    written = {}
    for family in ("talkinggaussian", "instag"):
        content = talkinggaussian_files.fused(family, face=40, mouth=20)
        parts = {
            family: content,
            f"{family}_face": talkinggaussian_files.one_region(content, "face"),
            f"{family}_mouth": talkinggaussian_files.one_region(content, "mouth"),
            f"{family}_optimiser": talkinggaussian_files.one_region(content, "face")[2],
            f"{family}_fourteen": ((*content[0][:13], 1), content[1], *content[2:]),
            f"{family}_pretrained": talkinggaussian_files.pretrained(content, "face"),
        }
        for name, part in parts.items():
            written[name] = talkinggaussian_files.save(part, folder / f"{name}.pth")
    content = talkinggaussian_files.fused("talkinggaussian", face=40, mouth=20)
    strange = ((*content[0], 1), content[1], (*content[2], 1), content[3])
    written["fourteen"] = talkinggaussian_files.save(strange, folder / "fourteen.pth")
    whole = written["talkinggaussian"].read_bytes()
    written["truncated"] = folder / "truncated.pth"
    written["truncated"].write_bytes(whole[: len(whole) // 2])
    written["malicious"] = folder / "malicious.pth"
    torch.save((_Payload(folder / "executed"), {}, 1), written["malicious"])
    written["ply"] = folder / "point_cloud.ply"
    written["ply"].write_bytes(b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n")
    written["sdtalk"] = folder / "SDGTalk.pt"
    model = sdtalk_files.make_content()
    torch.save(model, written["sdtalk"])
    stage_1 = {k: v for k, v in model["model"].items() if not k.startswith("motion_net_")}
    written["stage_1"] = folder / "stage_1.pt"
    torch.save({"meta_cfg": {}, "model": stage_1}, written["stage_1"])
    written["person"] = folder / "person.npz"
    sdtalk_files.make_person().save(written["person"])
    with np.load(written["person"]) as arrays:
        written["no_mask"] = folder / "no_mask.npz"
        np.savez(written["no_mask"], **{name: arrays[name] for name in arrays if name != "mask"})
    return written


class _Payload:
    """Pickles to a call of ``os.mkdir``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


OPTIONS: dict[str, tuple[str, ...]] = {
    "talkinggaussian": (),
    "instag": ("--family", "instag", "--personalized"),
    "sdtalk": ("--identity", "{person}", "--noise", "zero"),
}


@pytest.mark.parametrize("family", OPTIONS)
def test_a_file_of_every_family_becomes_a_bundle_that_verifies(
    family: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option.format(**files) for option in OPTIONS[family]]
    avatar = tmp_path / "theirs.avatar"
    assert main(["export", str(files[family]), "-o", str(avatar), *options]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert f"{files[family].name} is a" in printed
    assert "it is fed" in printed
    manifest = Bundle.open(avatar).manifest
    assert (manifest.family, manifest.name) == (family, "theirs")
    assert main(["verify", str(avatar), str(files[family]), *options]) == 0


def test_face_and_mouth_files_make_the_same_avatar_as_the_fused_one(
    files: dict[str, Path], tmp_path: Path
) -> None:
    fused, apart = tmp_path / "fused.avatar", tmp_path / "apart.avatar"
    assert main(["export", str(files["instag"]), "-o", str(fused)]) == 0
    face, mouth = (str(files[f"instag_{region}"]) for region in ("face", "mouth"))
    assert main(["export", face, "--mouth", mouth, "-o", str(apart)]) == 0
    for name in ("face.safetensors", "baked_motion_mouth.safetensors"):
        left, right = (Bundle.open(path).tensors(name) for path in (fused, apart))
        assert all(np.array_equal(left[key], right[key]) for key in left)


def test_a_bundle_verified_with_other_options_fails(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    avatar = tmp_path / "theirs.avatar"
    assert main(["export", str(files["instag"]), "-o", str(avatar)]) == 0
    assert main(["verify", str(avatar), str(files["instag"]), "--personalized"]) == 1
    assert "motion_face" in capsys.readouterr().err
    assert main(["verify", str(avatar), str(files["instag"]), "--audio-encoder", "hubert"]) == 1
    assert "holds no audio encoder" in capsys.readouterr().err
    assert main(["verify", str(avatar), str(tmp_path / "nowhere.pth")]) == 1
    assert "verify: error: Expected a checkpoint file" in capsys.readouterr().err


# name -> (checkpoint, options, words of the message)
REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "truncated": ("truncated", (), "not a whole torch file"),
    "missing": ("/nowhere.pth", (), "found nothing"),
    "malicious": ("malicious", (), "Nothing was run"),
    "optimiser": ("talkinggaussian_optimiser", (), "the state of an optimiser"),
    "face alone": ("talkinggaussian_face", (), "the face alone of a TalkingGaussian"),
    "mouth alone": ("instag_mouth", (), "the mouth alone of an InsTaG"),
    "pre-training": ("instag_pretrained", (), "InsTaG's pre-training"),
    "unknown length": ("fourteen", (), "a tuple of 14 items"),
    "stage 1": ("stage_1", (), "stage 1"),
    "ply": ("ply", (), "a .ply of Gaussians"),
    "wrong family": ("talkinggaussian", ("--family", "sdtalk"), "is a checkpoint of talkingg"),
    "foreign option": ("talkinggaussian", ("--noise", "zero"), "--noise means nothing"),
    "foreign flag": ("talkinggaussian", ("--personalized",), "--personalized means nothing"),
    "foreign scene": (
        "sdtalk",
        ("--identity", "{person}", "--capture", "."),
        "--capture means nothing",
    ),
    "even dilation": ("talkinggaussian", ("--mouth-dilation", "4"), "an odd number"),
    "no person": ("sdtalk", (), "found neither"),
    "two persons": ("sdtalk", ("--identity", "{person}", "--image", "a.png"), "found both"),
    "no mask": ("sdtalk", ("--identity", "{no_mask}"), "lacks mask"),
    "no such person": ("sdtalk", ("--identity", "/nowhere.npz"), "/nowhere.npz"),
    "no such picture": ("sdtalk", ("--image", "/nowhere.png"), "/nowhere.png"),
    "no such tracker": ("sdtalk", ("--image", "a.png", "--tracker", "no.such:one"), "no.such:one"),
    "tracker alone": ("sdtalk", ("--identity", "{person}", "--tracker", "a:b"), "expects a pict"),
    "mouth twice": ("instag", ("--mouth", "{instag_mouth}"), "has its own mouth"),
    "two faces": ("instag_face", ("--mouth", "{instag_face}"), "is not the mouth"),
    "no capture": ("instag", ("--capture", "/nowhere"), "expected the folder"),
    "empty capture": ("instag", ("--capture", "{empty}"), "transforms_val.json"),
    "action units alone": ("instag", ("--upper-face", "au.csv"), "--capture or --transforms"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_one_sentence_and_nothing_written(
    name: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, options, words = REFUSED[name]
    places: dict[str, Any] = {**files, "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    command = [option.format(**places) for option in options]
    path = str(files.get(checkpoint, checkpoint))
    assert main(["export", path, "-o", str(tmp_path / "bad.avatar"), *command]) == 1
    *progress, message = capsys.readouterr().err.splitlines()
    assert message.startswith("talksplat export: error: ") and words.lower() in message.lower()
    assert all(line.startswith("Reading ") for line in progress)
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]
    assert not (files["malicious"].parent / "executed").exists()
