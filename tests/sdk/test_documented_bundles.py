"""docs/graphs.md and docs/bundle.md name what bundles of every family really have."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from synthetic_families import VARIANTS

from talksplat import manifest
from talksplat.bundle import Bundle

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = {
    "talkinggaussian": "TalkingGaussian and InsTaG",
    "instag": "TalkingGaussian and InsTaG",
    "sdtalk": "SDTalk",
}


@pytest.mark.parametrize("family", VARIANTS)
def test_the_graphs_of_a_family_are_those_described(
    family_bundles: dict[str, Path], family: str
) -> None:
    text = (DOCS / "graphs.md").read_text()
    common, *sections = re.split(r"^## ", text, flags=re.M)
    (section,) = [part for part in sections if part.startswith(SECTIONS[family])]
    bundle = Bundle.open(family_bundles[family])
    for name, graph in bundle.manifest.graphs.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*", common + section, flags=re.M)
        _, _, inputs, outputs, *_ = row.split("|")
        constants = bundle.constants(name)
        assert not constants or f"`baked_{name}.safetensors`" in inputs
        fed = {tensor.name for tensor in graph.inputs} - set(constants)
        assert fed <= set(re.findall(r"`(\w+)`", inputs))
        assert {tensor.name for tensor in graph.outputs} <= set(re.findall(r"`(\w+)`", outputs))


@pytest.mark.parametrize("family", VARIANTS)
def test_the_files_of_a_family_are_those_described(
    family_bundles: dict[str, Path], family: str
) -> None:
    text = (DOCS / "bundle.md").read_text()
    for file in Bundle.open(family_bundles[family]).manifest.files:
        assert f"`{Path(file).stem}`" in text or f"`{file}`" in text, file


@pytest.mark.parametrize(
    "record",
    [
        manifest.Manifest,
        manifest.AudioContract,
        manifest.AudioBlocks,
        manifest.WindowContract,
        manifest.D3TalkerContract,
        manifest.GaussianTalkerContract,
        manifest.SdtalkContract,
    ],
)
def test_every_key_of_the_manifest_is_described(record: type) -> None:
    text = (DOCS / "bundle.md").read_text()
    for field in fields(record):
        assert f"`{field.name}`" in text, field.name
