"""Bundles of TalkingGaussian and InsTaG: every graph in ONNX Runtime, every frame to the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from benchmarks.precision import measure_float16
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from tests.export.checkpoints.talkinggaussian_files import fused, save
from tests.export.engine_builds import build_every_graph
from tests.export.families.test_talkinggaussian import (
    HEAD,
    Case,
    checkpoint_of,
    frame_inputs,
    in_numpy,
)
from tests.sdk.composed_frames import unequal_frames
from torch import nn

import talksplat
from talksplat.backends.options import Precision
from talksplat.bundle import Bundle, BundleWriter
from talksplat.errors import CheckpointError
from talksplat.manifest import AudioBlocks, Provenance
from talksplat.speech import speak
from talksplat_export import oracle
from talksplat_export.audio_encoders.base import AudioEncoder
from talksplat_export.checkpoints.talkinggaussian import read
from talksplat_export.checkpoints.torch_file import read_torch_file
from talksplat_export.families.base import Reference
from talksplat_export.families.instag_export import InsTaGExport
from talksplat_export.families.talkinggaussian import GaussianTalkerOptions
from talksplat_export.families.talkinggaussian_export import (
    GaussianTalkerExport,
    TalkingGaussianExport,
)
from talksplat_export.families.talkinggaussian_reference import (
    GaussianTalkerReference,
    encode_in_blocks,
)
from talksplat_export.onnx_export import export_graph
from talksplat_export.parity import check_parity, measure, psnr_db
from talksplat_export.scene import Scene, intrinsics

SIZE = 64
FRAMES = 12
MOTION_GRAPHS = ("motion_face", "motion_mouth")
Arrays = dict[str, NDArray[Any]]

CASES = [
    Case("talkinggaussian"),
    Case("talkinggaussian", "hubert", GaussianTalkerOptions(mouth_attention=True)),
    Case("instag"),
    Case("instag", "ave", GaussianTalkerOptions(mouth_attention=True, personalized=True)),
]


def make_scene(frames: int = 7) -> Scene:
    """A camera that moves, eyes that move, and a background without any two equal pixels."""
    rng = np.random.default_rng(0)
    viewmats = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (frames, 1, 1))
    viewmats[:, 0, 3] = 0.02 * np.sin(np.arange(frames))
    viewmats[:, 2, 3] = 0.7
    return Scene(
        viewmats=viewmats.astype(np.float32),
        K=intrinsics(2.3 * SIZE, SIZE, SIZE),
        width=SIZE,
        height=SIZE,
        background=rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
        upper_face=(rng.random((frames, 6)) * [5, 5, 5, 5, 5, 2]).astype(np.float32),
    )


def make_export(case: Case, folder: Path, encoder: AudioEncoder | None = None) -> Any:
    path = save(case.content(), folder / "chkpnt_fuse_latest.pth")
    checkpoint = read(read_torch_file(path), path)
    kind = TalkingGaussianExport if case.family == "talkinggaussian" else InsTaGExport
    return kind(checkpoint, make_scene(), case.options, encoder)


@dataclass(frozen=True)
class Made:
    """A bundle and where it comes from."""

    case: Case
    family: GaussianTalkerExport
    bundle: Bundle
    reference: Reference
    features: NDArray[np.float32]
    """What both heard: tokens [L,D]."""

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        session = onnxruntime.InferenceSession(self.bundle.graph_file(graph))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))


def make_bundle(case: Case, folder: Path, encoder: AudioEncoder | None = None) -> Made:
    family = make_export(case, folder, encoder)
    pcm = speech()
    with BundleWriter(folder / "random.avatar") as writer:
        for file, tensors in family.tensors().items():
            writer.add_tensors(file, tensors)
        for graph in family.graphs():
            writer.add_graph(graph.name, export_graph(graph, family.opset))
        manifest = family.manifest(Provenance("chkpnt_fuse_latest.pth", "0" * 64), {})
        reference = family.reference(pcm)
        parity = measure(writer.stage(manifest), reference, pcm)
        check_parity(parity, manifest.tolerances)
        bundle = writer.commit(replace(manifest, parity=parity))
    features = reference.features
    if features is None:
        assert encoder is not None
        features, _ = encode_in_blocks(encoder, pcm)
    return Made(case, family, bundle, reference, features)


def speech() -> NDArray[np.float32]:
    """A clip whose last frame is not full."""
    samples = 640 * FRAMES - 100
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


class _Ears(nn.Module):
    """Tokens of 20 ms, 50 per second, that also hear 5 ms before and after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv1d(1, width, 480, stride=320)

    def forward(self, pcm: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.tanh(8 * self.convolution(pcm[:, None])).transpose(1, 2)
        return out


def make_ears(width: int = 29, rate: int = 50) -> AudioEncoder:
    blocks = AudioBlocks(
        block_frames=1, left_samples=80, right_samples=80, left_tokens=0, right_tokens=0
    )
    module = _Ears(width).eval().requires_grad_(False)
    return AudioEncoder(module, "deepspeech", rate, width, blocks)


@pytest.fixture(scope="module", params=CASES, ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """TalkingGaussian with ears of its own; the others are fed features."""
    case: Case = request.param
    encoder = make_ears() if case == CASES[0] else None
    return make_bundle(case, tmp_path_factory.mktemp(str(case)), encoder)


def test_every_graph_is_the_published_formula(made: Made) -> None:
    for seed in range(3):
        window, units = frame_inputs(made.case.audio, seed)
        inputs: Arrays = {"audio_window": window.numpy(), "upper_face": units.numpy()}
        face = made.run("motion_face", {**inputs, **made.bundle.constants("motion_face")})
        if "move" in face:
            inputs["move"] = face["move"]
        else:
            del inputs["upper_face"]
        mouth = made.run("motion_mouth", {**inputs, **made.bundle.constants("motion_mouth")})
        for found, plain, region in zip(
            (face, mouth), in_numpy(made.case, window, units), ("face", "mouth"), strict=True
        ):
            order = _order(made, region)
            np.testing.assert_allclose(found["means"], plain.means[order], rtol=0, atol=1e-6 * HEAD)
            np.testing.assert_allclose(found["scales"], plain.scales[order], rtol=0, atol=1e-5)
            np.testing.assert_allclose(found["quats"], plain.quats[order], rtol=0, atol=1e-5)
            if plain.move is not None:
                np.testing.assert_allclose(found["move"], plain.move, rtol=0, atol=1e-5)


def _order(made: Made, region: str) -> NDArray[np.int64]:
    """Which Gaussian of the checkpoint is where in the bundle."""
    before = getattr(checkpoint_of(made.case.content()), region).gaussians.means.numpy()
    after = getattr(made.family.model, region).gaussians.means.numpy()
    order: NDArray[np.int64] = np.argmin(np.abs(after[:, None] - before[None]).sum(axis=2), axis=1)
    assert sorted(order) == list(range(len(before)))
    return order


@pytest.mark.parametrize("count", [16, 1000])
def test_graphs_take_any_number_of_gaussians(made: Made, count: int) -> None:
    for graph in MOTION_GRAPHS:
        rng = np.random.default_rng(0)
        inputs: Arrays = {}
        for tensor in made.bundle.manifest.graphs[graph].inputs:
            shape = [count if isinstance(size, str) else size for size in tensor.shape]
            inputs[tensor.name] = rng.uniform(-1, 1, shape).astype(np.float32)
        found = made.run(graph, inputs)
        assert found["means"].shape == (count, 3)
        assert all(np.isfinite(array).all() for array in found.values())


def test_the_composed_graph_has_the_bits_of_its_steps(made: Made) -> None:
    assert not unequal_frames(made.bundle)


def test_no_hash_grid_is_in_a_graph(made: Made) -> None:
    """Not its tables, which are the largest tensors of a checkpoint, nor look-ups in one."""
    for name in MOTION_GRAPHS:
        graph = onnx.load(made.bundle.graph_file(name)).graph
        largest = max(int(np.prod(tensor.dims)) for tensor in graph.initializer)
        width = made.family.checkpoint.audio.feature_width
        assert largest <= max(64 * 64 * 3, 128 * 3 * width, 512 * 256)
        assert not {tensor.dims[0] for tensor in graph.initializer if tensor.dims} & {9464, 46600}
        assert "Floor" not in {node.op_type for node in graph.node}


def test_operations_fall_as_the_algebra_says(made: Made) -> None:
    """What is left per Gaussian: conditions into the first layer, then two small layers."""
    model, baked = made.family.model, made.family.savings()
    face, mouth = len(model.face.gaussians), len(model.mouth.gaussians)
    options, hooked = made.case.options, made.case.family == "instag"
    per_face = 38 * 64 + 64 * 64 + 64 * 10
    per_mouth = 32 * 32 + 32 * 3
    if options.mouth_attention:
        per_mouth += 32 * (35 if hooked else 32)
    if hooked:
        per_mouth += 16 * 16 + 16
    if options.personalized:
        per_face += 38 * 32 + 32 * 32 + 32 * 10
        per_mouth += 32 * 16 + 16 * 16 + 16 * 3
    on_gaussians = 2 * (face * per_face + mouth * per_mouth)
    # What remains does not depend on the number of Gaussians: audio nets and conditions.
    fixed = baked.flops_after - on_gaussians
    window = made.family.face_inputs()["audio_window"]
    audio = 2 * 8 * (3 * 128 * window.shape[2] * 8 + 512 * 256 + 100_000)
    assert 0 < fixed < 4 * audio
    published = 74 * 64 + 64 * 64 + 64 * 11 + 36 * 32 + 32 * 32 + 36 * 16 + 16 * 6 + 12 * 3 * 4
    assert baked.flops_before - fixed > 2 * face * published
    assert baked.bytes == sum(
        array.nbytes for graph in MOTION_GRAPHS for array in made.bundle.constants(graph).values()
    )
    assert made.bundle.manifest.baked == baked


def test_frames_of_the_runtime_are_those_of_the_networks_and_the_oracle(made: Made) -> None:
    """Plain float64 networks, oracle, compositing in NumPy; against the runtime's frames."""
    scene = made.family.scene
    with talksplat.load(made.bundle.path, backend="onnxruntime-cpu").session(
        features=made.reference.features
    ) as session:
        frames = [frame.image for frame in speak(session, speech())]
    assert len(frames) == FRAMES
    for number in (0, 2, FRAMES - 2, FRAMES - 1):
        probe = _window(made, number)
        row = min(number % 12, 12 - number % 12)  # seven rows, forth and back
        units = torch.from_numpy(scene.upper_face[row])[None]
        face, mouth = in_numpy(made.case, torch.from_numpy(probe), units)
        content = made.case.content()
        expected = _composite(
            _layer(face, content[0], scene, row),
            _layer(mouth, content[2], scene, row),
            scene.background / 255.0,
            made.bundle.manifest.talkinggaussian.mouth_dilation,  # type: ignore[union-attr]
        )
        assert psnr_db(frames[number], expected) >= 60
        assert psnr_db(made.reference.frames[number], expected) >= 60


def test_a_session_takes_the_files_of_the_authors_preprocessing(made: Made, tmp_path: Path) -> None:
    """[T,16,29], [T,2,1024] or [T,512,1], longer than the speech and shorter than it."""
    family, audio = made.family, made.family.checkpoint.audio
    renderer = GaussianTalkerReference(
        family.model, audio, family.scene, family.rasterizer(), family.mouth_dilation
    )
    for length in (FRAMES - 5, FRAMES + 5):
        shape = (length, audio.tokens, audio.feature_width)
        stored = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        if audio.features == "ave":
            stored = stored.transpose(0, 2, 1)
        np.save(tmp_path / "aud.npy", stored)
        with talksplat.load(made.bundle.path, backend="onnxruntime-cpu").session(
            features=tmp_path / "aud.npy"
        ) as session:
            frames = [frame.image for frame in speak(session, speech())]
        expected = renderer.render(stored, FRAMES).frames
        assert min(psnr_db(a, b) for a, b in zip(frames, expected, strict=True)) >= 60


def _window(made: Made, frame: int) -> NDArray[np.float32]:
    """The audio window [1,8,D,W] of a frame, token by token."""
    audio = made.family.checkpoint.audio
    rate = audio.feature_rate // 25
    window = np.zeros((1, 8, audio.feature_width, audio.tokens), np.float32)
    for row in range(8):
        heard = frame - 4 + row
        for column in range(audio.tokens):
            token = rate * heard - audio.tokens_before + column
            if 0 <= heard < FRAMES and 0 <= token < len(made.features):
                window[0, row, :, column] = made.features[token]
    return window


Layer = tuple[NDArray[np.float64], NDArray[np.float64]]


def _layer(gaussians: Any, capture: tuple[Any, ...], scene: Scene, row: int) -> Layer:
    """Colour [H,W,3] over black and alpha [H,W,1] by the oracle."""
    shs = torch.cat([capture[2], capture[3]], dim=1).detach().double()
    colors, alphas = oracle.rasterize(
        torch.from_numpy(gaussians.means),
        torch.from_numpy(gaussians.quats),
        torch.from_numpy(gaussians.scales),
        torch.sigmoid(capture[7].detach().double())[:, 0],
        shs,
        torch.from_numpy(scene.viewmats[row]).double()[None],
        torch.from_numpy(scene.K)[None],
        SIZE,
        SIZE,
        sh_degree=capture[0],
        dialect="inria",
        near_plane=0.2,
    )
    return colors[0].numpy(), alphas[0].numpy()


def _composite(
    face: Layer, mouth: Layer, background: NDArray[np.float64], dilation: int
) -> NDArray[np.uint8]:
    alpha = mouth[1]
    if dilation:
        alpha = maximum_filter(alpha, size=(dilation, dilation, 1), mode="constant", cval=0)
    behind = mouth[0] + background * (1 - alpha)
    image = face[0] + behind * (1 - face[1])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def test_the_manifest_says_what_the_tensors_do_not(made: Made) -> None:
    manifest = made.bundle.manifest
    contract = manifest.talkinggaussian
    assert contract is not None
    hooked = made.case.family == "instag"
    assert contract.mouth_dilation == (13 if hooked else 0)
    assert contract.mouth_takes_move == contract.mouth_takes_upper_face == hooked
    window = contract.window
    assert (window.frames_before, window.frames_after) == (4, 3)
    expected = {"deepspeech": (16, 8, 50), "hubert": (2, 0, 50), "ave": (1, 0, 25)}
    rate = manifest.audio.feature_rate
    assert (window.tokens, window.tokens_before, rate) == expected[made.case.audio]
    hears = made.family.audio_encoder is not None
    assert (manifest.audio.blocks is not None) == hears
    assert (manifest.rasterizer.dialect, manifest.rasterizer.sh_degree) == ("inria", 2)
    assert manifest.parity is not None
    assert set(manifest.parity.graphs) == {*MOTION_GRAPHS} | ({"audio_encoder"} if hears else set())
    assert manifest.parity.frames == FRAMES


def test_every_graph_becomes_an_engine(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for precision in get_args(Precision):
        engines = build_every_graph(made.bundle, precision, tmp_path)
        assert {engine.graph for engine in engines} >= {*MOTION_GRAPHS}
        assert all(engine.entry.bytes > 10_000 for engine in engines)


def test_float16_changes_a_frame_by_less_than_is_seen(made: Made) -> None:
    report = measure_float16(made.bundle.path, np.zeros(640 * FRAMES, np.float32))
    assert min(report.psnr_db) > 50  # 0.8 of 255 levels; measured 70 and more
    for region in ("face", "mouth"):
        # A thousandth of the head's size: random weights move it far, and float16 keeps eleven
        # bits of how far. Where it rests is not rounded at all.
        assert report.outputs[f"motion_{region}: means"].largest < 2e-4


def test_dilation_changes_the_background_term_alone(tmp_path: Path) -> None:
    """Over black nothing changes; over a background the mouth's rim lets less of it through."""
    case = Case("talkinggaussian")
    plain = make_export(case, tmp_path)
    options = GaussianTalkerOptions(mouth_dilation=13)
    dilated = make_export(replace(case, options=options), tmp_path)
    pcm = np.zeros(640, np.float32)
    assert (plain.reference(pcm).frames != dilated.reference(pcm).frames).any()
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    for family in (plain, dilated):
        family.scene = replace(family.scene, background=black)
    np.testing.assert_array_equal(plain.reference(pcm).frames, dilated.reference(pcm).frames)


@pytest.mark.parametrize(("width", "rate"), [(44, 50), (29, 25)])
def test_ears_for_other_features_are_refused(width: int, rate: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="trained with deepspeech: expected an audio encoder"):
        make_export(Case("talkinggaussian"), tmp_path, make_ears(width, rate))


def test_a_checkpoint_of_the_other_system_is_refused() -> None:
    checkpoint = checkpoint_of(fused("instag"))
    with pytest.raises(CheckpointError, match="Expected a checkpoint of talkinggaussian"):
        TalkingGaussianExport(checkpoint, make_scene())
