"""SDTalk from file to frames: every graph against the published networks in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from benchmarks.precision import measure_float16
from numpy.typing import NDArray
from tests.export.checkpoints.sdtalk_files import (
    FEATURE_SIZE,
    SMALL_CONFIG,
    make_content,
    make_person,
    save_checkpoint,
    transform,
)
from tests.export.engine_builds import build_every_graph
from tests.sdk.composed_frames import unequal_frames
from torch import Tensor

import talksplat
from talksplat.backends.options import Precision
from talksplat.bundle import Bundle
from talksplat.errors import CheckpointError, InputError
from talksplat.manifest import AudioBlocks, AudioContract, Provenance, WindowContract
from talksplat_export import oracle
from talksplat_export.audio_encoders.base import AudioEncoder
from talksplat_export.checkpoints import sdtalk
from talksplat_export.checkpoints.sdtalk import SdtalkCheckpoint
from talksplat_export.export import export_checkpoint
from talksplat_export.families.flop_counter import FlopCounter
from talksplat_export.families.sdtalk import FeatureGaussians, MotionNetwork, SdtalkConfig
from talksplat_export.families.sdtalk_export import SdtalkExport, SdtalkOptions, resting_gaussians
from talksplat_export.families.sdtalk_graphs import BakedMotion, MotionGraph, without_noise
from talksplat_export.families.sdtalk_identity import viewmats
from talksplat_export.families.sdtalk_reference import SdtalkReference, audio_windows
from talksplat_export.options import ExportOptions
from talksplat_export.parity import psnr_db
from talksplat_export.rasterization import rasterize
from talksplat_export.training.rendering import truncate_to_uint8

FRAMES = 4
HEAD = 1.4
"""Size of the head in its enlarged space."""

Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def checkpoint() -> SdtalkCheckpoint:
    return sdtalk.read(make_content(), Path("SDGTalk.pt"))


@pytest.fixture(scope="module")
def family(checkpoint: SdtalkCheckpoint) -> SdtalkExport:
    return SdtalkExport(checkpoint, make_person())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and a person on disk."""
    folder = tmp_path_factory.mktemp("sdtalk")
    save_checkpoint(folder / "SDGTalk.pt")
    make_person().save(folder / "person.npz")
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    """Exported through the front door, its parity measured there."""
    options = ExportOptions(identity=folder / "person.npz")
    return export_checkpoint(folder / "SDGTalk.pt", folder / "stored.avatar", options=options)


def _run(bundle: Bundle, graph: str, inputs: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(bundle.graph_file(graph))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _conditions(seed: int) -> Arrays:
    generator = np.random.default_rng(seed)
    window = generator.normal(size=(1, 16, FEATURE_SIZE))
    eyes = generator.integers(0, 9, (1, 6))
    return {"audio_window": window.astype(np.float32), "eyes": eyes.astype(np.float32)}


def _moved(family: SdtalkExport, conditions: Arrays, dtype: torch.dtype) -> FeatureGaussians:
    """The published networks on the person's Gaussians, nothing baked."""
    window, eyes = (torch.from_numpy(array).to(dtype) for array in conditions.values())
    networks = (family.model.motion_net_flame, family.model.motion_net_dense)
    parts = []
    for network, rest in zip(networks, (family.flame, family.dense), strict=True):
        network = copy.deepcopy(network).to(dtype)
        parts.append(rest.moved(network(network.encode_positions(rest.means), window, eyes)))
    return FeatureGaussians.concatenated(parts)


@pytest.mark.parametrize("seed", range(3))
def test_motion_is_that_of_the_published_networks(
    bundle: Bundle, family: SdtalkExport, seed: int
) -> None:
    conditions = _conditions(seed)
    found = _run(bundle, "motion", {**conditions, **bundle.constants("motion")})
    expected = _moved(family, conditions, torch.float64)
    for name, tolerance in (
        ("means", 1e-6 * HEAD),
        ("scales", 1e-6),
        ("quats", 1e-6),
        ("opacities", 2e-6),  # values of about two, 64 float32 products each
    ):
        array = getattr(expected, name).numpy()
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_baked_motion_is_the_unbaked_one(family: SdtalkExport, seed: int) -> None:
    conditions = _conditions(seed)
    tensors = [torch.from_numpy(array).double() for array in conditions.values()]
    graph = copy.deepcopy(MotionGraph(family.model)).double()
    exact = [tensor.double() for tensor in family.baked.values()]
    expected = _moved(family, conditions, torch.float64)
    for name, found in zip(("means", "scales", "quats"), graph(*tensors, *exact), strict=False):
        # Baked tensors are float32: roundings of numbers of about ten.
        torch.testing.assert_close(found, getattr(expected, name), rtol=0, atol=1e-6)


def test_order_is_mesh_then_plane_behind_then_plane_in_front(
    bundle: Bundle, family: SdtalkExport
) -> None:
    baked = bundle.constants("motion")
    plane = SMALL_CONFIG.image_encoder.output_size**2
    assert len(baked["flame_rest"]) == 20 and len(baked["dense_rest"]) == 2 * plane
    direction = make_person().direction
    depths = baked["dense_rest"][:, :3] @ direction
    assert depths[:plane].min() > 0 > depths[plane:].max()
    features = bundle.tensors("gaussians.safetensors")["features"]
    assert features.shape == (20 + 2 * plane, 32)
    np.testing.assert_array_equal(features[:20], family.flame.features)
    np.testing.assert_array_equal(features[20:], family.dense.features)


def test_the_mask_chooses_vertices_and_may_choose_one_twice(family: SdtalkExport) -> None:
    person = make_person()
    points = torch.from_numpy(person.head_points[person.mask]).float()
    assert torch.equal(family.flame.means, points)
    assert person.mask[0] == person.mask[-1]
    assert torch.equal(family.flame.geometry[0], family.flame.geometry[-1])


def test_resting_gaussians_are_those_of_float64(checkpoint: SdtalkCheckpoint) -> None:
    found = resting_gaussians(checkpoint.model, make_person())
    expected = resting_gaussians(copy.deepcopy(checkpoint.model).double(), make_person())
    for part, exact in zip(found, expected, strict=True):
        for name in ("means", "quats", "scales", "opacities", "features"):
            tensor = getattr(part, name).double()
            # A transformer and a dense head in float32 before the generators.
            torch.testing.assert_close(tensor, getattr(exact, name), rtol=0, atol=2e-5)


@pytest.mark.parametrize("plane_size", [16, 48])
def test_plane_size_of_a_person(checkpoint: SdtalkCheckpoint, plane_size: int) -> None:
    _, dense = resting_gaussians(checkpoint.model, make_person(plane_size=plane_size))
    assert len(dense.means) == 2 * plane_size**2


@pytest.mark.parametrize(("flame", "dense"), [(1, 1), (3, 700)])
def test_motion_takes_any_number_of_gaussians(bundle: Bundle, flame: int, dense: int) -> None:
    counts = {"flame_gaussians": flame, "dense_gaussians": dense}
    inputs = _conditions(0)
    for tensor in bundle.manifest.graphs["motion"].inputs:
        if tensor.name not in inputs:
            shape = [counts[size] if isinstance(size, str) else size for size in tensor.shape]
            inputs[tensor.name] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert _run(bundle, "motion", inputs)["opacities"].shape == (flame + dense, 1)


def test_the_composed_graph_has_the_bits_of_its_steps(bundle: Bundle) -> None:
    assert not unequal_frames(bundle)


def test_no_hash_grid_is_in_a_frame_graph(bundle: Bundle) -> None:
    rows = 459360
    for name in bundle.manifest.graphs:
        model = onnx.load(bundle.graph_file(name))
        assert all(rows not in tensor.dims for tensor in model.graph.initializer)
        operators = {node.op_type for node in model.graph.node}
        assert not operators & {"Gather", "GatherND", "GridSample", "Mod", "BitwiseXor"}


def test_motion_costs_what_the_algebra_says() -> None:
    """Per Gaussian of the published size: 15,456 multiply-adds become 7,872."""
    network = MotionNetwork(SdtalkConfig()).requires_grad_(False)
    baked = BakedMotion(network)
    window, eyes = torch.randn(1, 16, 1024), torch.randn(1, 6)

    def flops(count: int) -> tuple[int, int]:
        with FlopCounter() as published:
            network(torch.randn(count, 36), window, eyes)
        with FlopCounter() as exported:
            baked(torch.randn(count, 64), torch.randn(count, 48), window, eyes)
        return published.get_total_flops(), exported.get_total_flops()

    (before_1, after_1), (before_2, after_2) = flops(100), flops(200)
    attention = 36 * 32 + 32 * 64 + 36 * 16 + 16 * 6
    decoder = 106 * 64 + 64 * 64 + 64 * 11
    assert before_2 - before_1 == 2 * 100 * (attention + decoder) == 2 * 100 * 15456
    assert after_2 - after_1 == 2 * 100 * 7872 == 2 * 100 * (48 * 64 + 64 * 64 + 64 * 11)


def test_bundle_says_what_was_baked(bundle: Bundle) -> None:
    baked, constants = bundle.manifest.baked, bundle.constants("motion")
    assert baked.bytes == sum(array.nbytes for array in constants.values())
    assert baked.flops_after < baked.flops_before


@pytest.mark.parametrize("seed", range(2))
def test_refiner_is_the_published_network(bundle: Bundle, family: SdtalkExport, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(1, 32, 64, 64)).astype(np.float32)
    found = _run(bundle, "refiner", {"features": features})["image"]
    expected = copy.deepcopy(family.model.upsampler).double()(torch.from_numpy(features).double())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_frames_are_those_of_the_checkpoint(bundle: Bundle) -> None:
    parity = bundle.manifest.parity
    assert parity is not None and parity.frames >= 25
    assert parity.frames_psnr_db is None or parity.frames_psnr_db >= 60
    assert set(parity.graphs) == {"motion", "refiner"}
    assert (
        max(found.max_abs for outputs in parity.graphs.values() for found in outputs.values())
        < 1e-5
    )


def _reference(family: SdtalkExport) -> SdtalkReference:
    return SdtalkReference(
        family.model, family.flame, family.dense, family.scene, family.rasterizer(), "stored"
    )


def test_frames_are_those_of_the_oracle(family: SdtalkExport) -> None:
    """Torch and the float64 rasterizer, to the same pixels."""
    renderer = _reference(family)
    conditions = {name: torch.from_numpy(array) for name, array in _conditions(0).items()}
    with torch.no_grad():
        gaussians = renderer.animate(**conditions)
        fast = renderer.refiner(renderer.draw(gaussians, 0))
        exact, _ = _oracle(gaussians, family)
        slow = renderer.refiner(exact.permute(0, 3, 1, 2).float())
    images = [truncate_to_uint8(image[0].permute(1, 2, 0)).numpy() for image in (fast, slow)]
    assert images[0].std() > 20
    assert psnr_db(*images) >= 60


def _oracle(gaussians: FeatureGaussians, family: SdtalkExport) -> tuple[Tensor, Tensor]:
    return _draw(oracle.rasterize, gaussians, family)


def _draw(rasterizer: object, g: FeatureGaussians, family: SdtalkExport) -> tuple[Tensor, Tensor]:
    scene = family.scene
    assert callable(rasterizer)
    images, alphas = rasterizer(
        g.means,
        g.quats,
        g.scales,
        g.opacities[:, 0],
        g.features,
        torch.from_numpy(scene.viewmats[:1]),
        torch.from_numpy(scene.K)[None].float(),
        scene.width,
        scene.height,
        near_plane=0.2,
        dialect="inria",
    )
    return images, alphas


@pytest.fixture(scope="module")
def restless(family: SdtalkExport) -> FeatureGaussians:
    """A frame's Gaussians with everything in them that a rasterizer might not expect."""
    with torch.no_grad():
        gaussians = _moved(family, _conditions(1), torch.float32)
    norms = gaussians.quats.norm(dim=1)
    assert float(norms.min()) < 0.3 and float(norms.max()) > 1.1
    assert float(gaussians.opacities.min()) < -0.1 and float(gaussians.opacities.max()) > 1.1
    assert float(gaussians.scales.min()) < 0
    return gaussians


def test_thirty_two_channels_are_drawn_as_the_oracle_draws_them(
    restless: FeatureGaussians, family: SdtalkExport
) -> None:
    found, alphas = _draw(rasterize, restless, family)
    expected, expected_alphas = _oracle(restless, family)
    assert found.shape == (1, 64, 64, 32)
    torch.testing.assert_close(alphas.double(), expected_alphas, rtol=0, atol=1e-4)
    # A Gaussian at the threshold of 1/255 may fall on either side of it.
    difference = (found.double() - expected).abs()
    assert float(difference.quantile(0.999)) < 1e-4 and float(difference.max()) < 5e-2


def test_quaternions_are_not_normalised(restless: FeatureGaussians, family: SdtalkExport) -> None:
    """A short quaternion gives nearly the identity, whatever direction it names."""
    quats = restless.quats / restless.quats.norm(dim=1, keepdim=True)
    found, _ = _draw(rasterize, restless, family)
    normalised, _ = _draw(rasterize, replace(restless, quats=quats), family)
    assert float((found - normalised).abs().max()) > 0.05
    short = replace(restless, quats=1e-6 * quats)
    identity = replace(restless, quats=torch.eye(4)[:1].expand(len(quats), -1))
    torch.testing.assert_close(
        _draw(rasterize, short, family)[0],
        _draw(rasterize, identity, family)[0],
        rtol=0,
        atol=1e-4,
    )


def test_negative_opacities_vanish(restless: FeatureGaussians, family: SdtalkExport) -> None:
    visible = restless.opacities[:, 0] > 0
    assert not bool(visible.all())
    found, _ = _draw(rasterize, restless, family)
    without, _ = _draw(rasterize, restless[visible], family)
    assert torch.equal(found, without)


def test_opacities_above_one_saturate_only_near_their_middle(family: SdtalkExport) -> None:
    """Alpha is the smaller of 0.99 and opacity times falloff: twice as opaque is not the same."""
    single = FeatureGaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.1),
        opacities=torch.tensor([[2.0]]),
        features=torch.ones(1, 32),
    )
    _, alphas = _draw(rasterize, single, family)
    assert float(alphas.max()) == pytest.approx(0.99, abs=1e-6)
    assert int((alphas > 0.989).sum()) > 20
    _, exact = _oracle(single, family)
    torch.testing.assert_close(alphas.double(), exact, rtol=0, atol=1e-5)


def test_the_sign_of_a_scale_does_not_matter(
    restless: FeatureGaussians, family: SdtalkExport
) -> None:
    positive = replace(restless, scales=restless.scales.abs())
    found, _ = _draw(rasterize, restless, family)
    torch.testing.assert_close(found, _draw(rasterize, positive, family)[0], rtol=0, atol=1e-5)


def test_camera_of_the_person_is_that_of_the_bundle(bundle: Bundle) -> None:
    np.testing.assert_allclose(
        bundle.tensors("tracks.safetensors")["viewmats"][0], make_person().viewmat, atol=1e-6
    )
    assert bundle.manifest.camera.K == ((384.0, 0.0, 32.0), (0.0, 384.0, 32.0), (0.0, 0.0, 1.0))
    rasterizer = bundle.manifest.rasterizer
    assert (rasterizer.dialect, rasterizer.near_plane, rasterizer.eps2d) == ("inria", 0.2, 0.3)


def test_tracks_come_from_a_scene(checkpoint: SdtalkCheckpoint) -> None:
    person = make_person()
    turning = viewmats(np.stack([transform(yaw) for yaw in (0.0, 0.1, 0.2)]))
    eyes = np.arange(18, dtype=np.float32).reshape(3, 6)
    scene = replace(person.scene(), viewmats=turning.astype(np.float32), upper_face=eyes)
    tracks = SdtalkExport(checkpoint, person, scene).tensors()["tracks.safetensors"]
    np.testing.assert_array_equal(tracks["eyes"], eyes)
    np.testing.assert_allclose(tracks["viewmats"], turning, atol=1e-6)


def test_windows_begin_eight_tokens_before_and_are_zero_beyond_the_clip() -> None:
    tokens = np.arange(1, 11, dtype=np.float32)[:, None].repeat(3, axis=1)
    audio = AudioContract(16000, 25, "hubert", 50, 3, None)
    window = WindowContract(0, 0, 16, 8)
    windows = audio_windows(tokens, audio, window, 6)[:, :, 0]
    for frame, row in enumerate(windows):
        at = np.arange(2 * frame - 8, 2 * frame + 8)
        expected = np.where((at >= 0) & (at < 10), at + 1, 0)
        np.testing.assert_array_equal(row, expected)


def test_noise_zero_leaves_no_noise_in_the_graph(checkpoint: SdtalkCheckpoint) -> None:
    family = SdtalkExport(checkpoint, make_person(), options=SdtalkOptions(noise="zero"))
    (refiner,) = (graph for graph in family.graphs() if graph.name == "refiner")
    names = refiner.module.state_dict()
    assert not any("noise" in name for name in names)
    picture = torch.randn(1, 32, 64, 64)
    upsampler = checkpoint.model.upsampler
    zeros = [torch.zeros_like(noise) for noise in upsampler.stylegan_decoder.stored_noises]
    expected = upsampler(picture, *zeros)
    torch.testing.assert_close(refiner.module(picture), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(expected, upsampler(picture), atol=1e-3)
    assert without_noise(upsampler).config.noise is False


def test_noise_as_an_input(folder: Path) -> None:
    options = ExportOptions(identity=folder / "person.npz", noise="input")
    bundle = export_checkpoint(folder / "SDGTalk.pt", folder / "input.avatar", options=options)
    inputs = {tensor.name: tensor.shape for tensor in bundle.manifest.graphs["refiner"].inputs}
    count = SMALL_CONFIG.upsampler.style_convolutions
    assert list(inputs) == ["features", *(f"noise{index}" for index in range(count))]
    assert inputs[f"noise{count - 1}"] == (1, 1, 64, 64)
    parity = bundle.manifest.parity
    assert parity is not None
    assert parity.frames_psnr_db is None or parity.frames_psnr_db >= 60
    features = np.random.default_rng(0).normal(size=(FRAMES, 16, FEATURE_SIZE))
    pictures = [_pictures(bundle.path, features, seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).max() > 2


def test_what_is_said_is_seen(bundle: Bundle) -> None:
    """Else frames could agree with the checkpoint's whatever the graphs before them compute."""
    generator = np.random.default_rng(0)
    pictures = [
        _pictures(bundle.path, generator.normal(size=(FRAMES, 16, FEATURE_SIZE))) for _ in range(2)
    ]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 0.5
    assert np.abs(pictures[0][0].astype(int) - pictures[0][1]).mean() > 0.5


def test_an_audio_encoder_takes_the_place_of_features(checkpoint: SdtalkCheckpoint) -> None:
    encoder = AudioEncoder(
        module=_Hearing(),
        features="hubert",
        feature_rate=50,
        feature_size=FEATURE_SIZE,
        blocks=AudioBlocks(
            block_frames=2, left_samples=640, right_samples=640, left_tokens=2, right_tokens=2
        ),
    )
    family = SdtalkExport(checkpoint, make_person(), audio_encoder=encoder)
    assert [graph.name for graph in family.graphs()] == ["audio_encoder", "motion", "refiner"]
    pcm = np.random.default_rng(0).uniform(-1, 1, 640 * 5).astype(np.float32)
    reference = family.reference(pcm)
    assert reference.features is None and len(reference.frames) == 5
    assert set(reference.probes) == {"audio_encoder", "motion", "refiner"}
    tokens = _Hearing()(torch.from_numpy(pcm)[None])[0]
    last = reference.probes["motion"][-1].inputs["audio_window"][0]
    # Sums of 320 float32 numbers up to 6, which BLAS adds in another order for another shape.
    np.testing.assert_allclose(last[:10], tokens.numpy(), rtol=0, atol=1e-5)
    assert not last[10:].any(), "beyond the clip"
    assert family.manifest(Provenance("SDGTalk.pt", "0" * 64), {}).audio.blocks == encoder.blocks


class _Hearing(torch.nn.Module):
    """Every 320 samples through a fixed matrix."""

    def forward(self, pcm: Tensor) -> Tensor:
        matrix = torch.linspace(-1, 1, 320 * FEATURE_SIZE).sin().view(320, FEATURE_SIZE)
        return pcm.view(1, -1, 320) @ matrix


def _pictures(
    path: Path, features: NDArray[np.float64], seed: int | None = None
) -> NDArray[np.uint8]:
    avatar = talksplat.load(path, backend="onnxruntime-cpu")
    with avatar.session(features=features.astype(np.float32), noise=seed) as session:
        session.push(np.zeros(640 * FRAMES, np.float32))
        session.end()
        return np.stack([frame.image for frame in session.frames()])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_takes_every_graph(bundle: Bundle, precision: Precision, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engines = build_every_graph(bundle, precision, tmp_path)
    assert {engine.graph for engine in engines} >= {"motion", "refiner"}
    for engine in engines:
        assert engine.entry.bytes > 10_000 and engine.entry.facts["layers"] > 5


def test_float16_changes_a_frame_by_less_than_is_seen(bundle: Bundle) -> None:
    report = measure_float16(bundle.path, np.zeros(640 * FRAMES, np.float32))
    assert min(report.psnr_db) > 50  # 0.8 of 255 levels; measured 60 and more
    # A thousandth of the head's size; one level of 255.
    assert report.outputs["motion: means"].largest < 1e-3
    assert report.outputs["refiner: image"].largest < 4e-3


def test_a_person_of_another_mesh_or_size_is_refused(checkpoint: SdtalkCheckpoint) -> None:
    person = make_person()
    few = replace(person, head_points=person.head_points[:50], mask=np.arange(4))
    with pytest.raises(InputError, match="60 vertices: expected as many head_points, found 50"):
        SdtalkExport(checkpoint, few)
    large = replace(person, image=np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(InputError, match="64×64: expected such an image of the person, found 128"):
        SdtalkExport(checkpoint, large)


def test_a_scene_of_another_camera_is_refused(checkpoint: SdtalkCheckpoint) -> None:
    person = make_person()
    scene = replace(person.scene(), K=np.diag([1200.0, 1200.0, 1.0]))
    with pytest.raises(InputError, match="one camera: expected a focal length of 384 pixels"):
        SdtalkExport(checkpoint, person, scene)


def test_an_encoder_of_other_features_is_refused(checkpoint: SdtalkCheckpoint) -> None:
    encoder = AudioEncoder(
        module=torch.nn.Identity(),
        features="ave",
        feature_rate=25,
        feature_size=512,
        blocks=AudioBlocks(1, 0, 0, 0, 0),
    )
    with pytest.raises(CheckpointError, match="trained with hubert: expected an audio encoder"):
        SdtalkExport(checkpoint, make_person(), audio_encoder=encoder)
