"""Every family's frames, against numpy written from the formulas, however audio is cut."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from synthetic_bundle import BLOCK_FRAMES, FEATURES, HEIGHT, RIGHT_SAMPLES, WIDTH, speech_like
from synthetic_families import NOISE_SIDES, VARIANTS, Variant, write_family_bundle

import talksplat
from talksplat.bundle import Bundle, describe_graph
from talksplat.errors import BundleError, InputError, TalksplatError
from talksplat.families.sdtalk_noise import draw_noise
from talksplat.manifest import MANIFEST_NAME, format_manifest, parse_manifest
from talksplat.session import Frame, Session
from talksplat.speech import speak

Arrays = dict[str, NDArray[Any]]

FRAME = 640
FRAMES = 12
CLIP = speech_like(FRAMES * FRAME - 40)
RNG = np.random.default_rng(3)
FEATURE_WINDOWS = RNG.uniform(-1, 1, (FRAMES, 16, FEATURES)).astype(np.float32)


def images(frames: list[Frame]) -> NDArray[np.uint8]:
    return np.stack([frame.image for frame in frames])


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    np.testing.assert_array_equal(images(found), images(expected))
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.pts) == (other.index, other.pts)
        np.testing.assert_array_equal(one.alpha, other.alpha)
        np.testing.assert_array_equal(one.audio, other.audio)


@pytest.fixture(scope="module")
def avatars(family_bundles: dict[str, Path]) -> dict[str, talksplat.Avatar]:
    return {name: talksplat.load(path) for name, path in family_bundles.items()}


@pytest.fixture(scope="module")
def offline(avatars: dict[str, talksplat.Avatar]) -> dict[str, list[Frame]]:
    clips = {}
    for name, avatar in avatars.items():
        with avatar.session() as session:
            clips[name] = list(speak(session, CLIP))
    return clips


def stream(session: Session, chunks: list[int]) -> list[Frame]:
    frames, position = [], 0
    for chunk in chunks:
        session.push(CLIP[position : position + chunk])
        position += chunk
        frames += session.frames()
    session.push(CLIP[position:])
    session.end()
    return [*frames, *session.frames()]


@pytest.mark.parametrize("family", VARIANTS)
def test_frames_have_the_shape_of_the_video_and_move(
    offline: dict[str, list[Frame]], family: str
) -> None:
    frames = offline[family]
    assert len({frame.image.tobytes() for frame in frames}) == FRAMES == len(frames)
    for frame in frames:
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8
        assert frame.alpha.shape == (HEIGHT, WIDTH)
        assert 0 <= frame.alpha.min() < frame.alpha.max() <= 1


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chunks=st.lists(st.integers(0, 3000), max_size=12), family=st.sampled_from([*VARIANTS]))
def test_any_cutting_gives_the_same_frames_bit_for_bit(
    avatars: dict[str, talksplat.Avatar],
    offline: dict[str, list[Frame]],
    chunks: list[int],
    family: str,
) -> None:
    with avatars[family].session() as session:
        assert_same(stream(session, chunks), offline[family])


@pytest.mark.parametrize("family", VARIANTS)
@pytest.mark.parametrize("samples", [1, 641, 5000])
def test_short_clips_stream_as_they_run_offline(
    avatars: dict[str, talksplat.Avatar], family: str, samples: int
) -> None:
    pcm = CLIP[:samples]
    with avatars[family].session() as one, avatars[family].session() as other:
        expected = list(speak(one, pcm))
        frames = []
        for start in range(0, samples, 300):
            other.push(pcm[start : start + 300])
            frames += other.frames()
        other.end()
        assert_same([*frames, *other.frames()], expected)


@pytest.mark.parametrize("family", VARIANTS)
def test_an_utterance_after_an_interrupt_shows_nothing_of_the_old_one(
    avatars: dict[str, talksplat.Avatar], family: str
) -> None:
    scene = avatars[family]._family.scene
    still = {"pose": scene.viewmats.rows[:1], "upper_face": scene.upper_face.rows[:1]}
    with avatars[family].session(**still) as fresh:
        expected = list(speak(fresh, CLIP))
    with avatars[family].session(**still) as session:
        session.push(speech_like(9000, seed=2))
        next(session.frames())
        session.interrupt()
        np.testing.assert_array_equal(images(list(speak(session, CLIP))), images(expected))


@pytest.mark.parametrize("family", VARIANTS)
def test_look_ahead_follows_from_the_windows(
    avatars: dict[str, talksplat.Avatar], family: str
) -> None:
    # Of frame 0 the last token heard is 7 in its own window, or 13 in that of frame 3.
    last_token = 7 if family == "sdtalk" else 13
    blocks = last_token // 2 // BLOCK_FRAMES + 1
    with avatars[family].session() as session:
        assert session.first_frame_samples == blocks * BLOCK_FRAMES * FRAME + RIGHT_SAMPLES
    with avatars[family].session(features=FEATURE_WINDOWS) as session:
        assert (session.first_frame_samples, session.look_ahead_samples) == (FRAME, 0)


# Features from outside.


def whole_clip_tokens(bundle: Bundle, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tokens of all frames of the clip, block by block as docs/bundle.md says."""
    blocks = bundle.manifest.audio.blocks
    assert blocks is not None
    engine = onnxruntime.InferenceSession(bundle.graph_file("audio_encoder"))
    frames = -(-len(pcm) // FRAME)
    padded = np.pad(pcm, (blocks.left_samples, (frames + BLOCK_FRAMES) * FRAME + 800 - len(pcm)))
    tokens = []
    for first in range(0, frames, BLOCK_FRAMES):
        size = blocks.left_samples + BLOCK_FRAMES * FRAME + blocks.right_samples
        window = padded[None, first * FRAME : first * FRAME + size]
        (features,) = engine.run(["features"], {"pcm": window})
        tokens.append(features[0, blocks.left_tokens :][: 2 * BLOCK_FRAMES])
    return np.concatenate(tokens)[: 2 * frames]


@pytest.mark.parametrize("family", VARIANTS)
def test_features_of_the_own_encoder_give_the_own_frames(
    avatars: dict[str, talksplat.Avatar],
    offline: dict[str, list[Frame]],
    family: str,
    tmp_path: Path,
) -> None:
    avatar = avatars[family]
    tokens = whole_clip_tokens(avatar.bundle, CLIP)
    padded = np.pad(tokens, ((8, 8), (0, 0)))
    windows = np.stack([padded[2 * frame : 2 * frame + 16] for frame in range(FRAMES)])
    np.save(tmp_path / "aud.npy", windows)
    for features in (tokens, windows, tmp_path / "aud.npy"):
        with avatar.session(features=features) as session:
            np.testing.assert_array_equal(
                images(stream(session, [500, 2000])), images(offline[family])
            )


@pytest.mark.parametrize("family", VARIANTS)
def test_a_bundle_without_encoder_asks_for_features(family: str, tmp_path: Path) -> None:
    variant = replace(VARIANTS[family], encoder=False)
    bundle = write_family_bundle(tmp_path / "deaf.avatar", variant)
    assert "audio_encoder" not in bundle.manifest.graphs
    avatar = talksplat.load(bundle.path)
    assert not avatar.has_audio_encoder
    with pytest.raises(InputError, match=r"no audio encoder.*\[T,16,4\].*--features"):
        avatar.session()
    with avatar.session(features=FEATURE_WINDOWS) as session:
        assert len(list(speak(session, CLIP))) == FRAMES


def test_features_of_another_shape_are_refused(avatars: dict[str, talksplat.Avatar]) -> None:
    for bad in (
        FEATURE_WINDOWS[:, :, :3],
        FEATURE_WINDOWS[:, :8],
        FEATURE_WINDOWS[0, 0],
        FEATURE_WINDOWS.astype(np.int64),
        FEATURE_WINDOWS * np.nan,
    ):
        with pytest.raises(InputError, match="eatures"):
            avatars["instag"].session(features=bad)


def test_one_token_per_frame_may_be_stored_either_way(tmp_path: Path) -> None:
    """AVE: [T,D,1] on disk."""
    variant = Variant(
        "instag", encoder=False, tokens=1, tokens_before=0, feature_rate=25, dilation=13
    )
    avatar = talksplat.load(write_family_bundle(tmp_path / "ave.avatar", variant).path)
    tokens = FEATURE_WINDOWS[:, 0]
    clips = []
    for features in (tokens, tokens[:, None], tokens[:, :, None]):
        with avatar.session(features=features) as session:
            clips.append(images(list(speak(session, CLIP))))
    np.testing.assert_array_equal(clips[0], clips[1])
    np.testing.assert_array_equal(clips[0], clips[2])


def test_d3talker_hears_by_itself(avatar: talksplat.Avatar) -> None:
    with pytest.raises(InputError, match="takes no features"):
        avatar.session(features=FEATURE_WINDOWS)
    with pytest.raises(InputError, match="takes no noise"):
        avatar.session(noise=1)


# Frames, from the formulas.


def run_graph(bundle: Bundle, graph: str, inputs: Arrays) -> Arrays:
    session = onnxruntime.InferenceSession(bundle.graph_file(graph))
    names = [output.name for output in session.get_outputs()]
    feed = {**inputs, **bundle.constants(graph)}
    return dict(zip(names, session.run(names, feed), strict=True))


def splat(
    bundle: Bundle, gaussians: Arrays, colors: Any, opacities: Any, frame: int, **options: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rules = bundle.manifest.rasterizer
    viewmat = bundle.tensors("tracks.safetensors")["viewmats"][frame]
    pictures, alphas = talksplat.rasterize(
        gaussians["means"],
        gaussians["quats"],
        gaussians["scales"],
        opacities[:, 0],
        colors,
        viewmat[None],
        np.array(bundle.manifest.camera.K)[None],
        WIDTH,
        HEIGHT,
        near_plane=rules.near_plane,
        eps2d=rules.eps2d,
        dialect=rules.dialect,
        **options,
    )
    return pictures[0].astype(np.float64), alphas[0].astype(np.float64)


def truncated(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def eight_frames(frame: int) -> NDArray[np.float32]:
    """[1,8,D,16]: frames i-4 … i+3 of the features, zero beyond the ends."""
    padded = np.pad(FEATURE_WINDOWS, ((4, 3), (0, 0), (0, 0)))
    return padded[frame : frame + 8].transpose(0, 2, 1)[None]


def assert_almost_equal_bytes(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Truncation may fall on the other side of a whole number where sums are rounded otherwise."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1 and np.count_nonzero(difference) < 0.002 * difference.size


@pytest.mark.parametrize("family", ["talkinggaussian", "instag"])
@pytest.mark.parametrize("frame", [0, 2, 5])
def test_mouth_and_face_lie_over_the_background(
    avatars: dict[str, talksplat.Avatar], family: str, frame: int
) -> None:
    bundle = avatars[family].bundle
    upper_face = bundle.tensors("tracks.safetensors")["upper_face"][frame][None]
    window = eight_frames(frame)
    face = run_graph(bundle, "motion_face", {"audio_window": window, "upper_face": upper_face})
    inputs = {"audio_window": window}
    if family == "instag":
        inputs |= {"upper_face": upper_face, "move": face["move"]}
    mouth = run_graph(bundle, "motion_mouth", inputs)
    looks = {region: bundle.tensors(f"{region}.safetensors") for region in ("face", "mouth")}
    plate = bundle.tensors("background.safetensors")["image"] / 255
    mouth_image, mouth_alpha = splat(
        bundle, mouth, looks["mouth"]["shs"], looks["mouth"]["opacities"], frame, sh_degree=1
    )
    face_image, face_alpha = splat(
        bundle, face, looks["face"]["shs"], looks["face"]["opacities"], frame, sh_degree=1
    )
    if family == "instag":
        padded = np.pad(mouth_alpha[:, :, 0], 6)
        squares = np.lib.stride_tricks.sliding_window_view(padded, (13, 13))
        widened = squares.max(axis=(2, 3))[:, :, None]
        assert np.abs(widened - mouth_alpha).max() > 0.1, "dilation does something here"
        mouth_alpha = widened
    behind = mouth_image + plate * (1 - mouth_alpha)
    expected = truncated(face_image + behind * (1 - face_alpha))
    with avatars[family].session(features=FEATURE_WINDOWS) as session:
        found = list(speak(session, CLIP))[frame]
    assert_almost_equal_bytes(found.image, expected)
    covered = 1 - (1 - mouth_alpha) * (1 - face_alpha)
    np.testing.assert_allclose(found.alpha, covered[:, :, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", [0, 6])
def test_sdtalk_refines_32_features_over_black(
    avatars: dict[str, talksplat.Avatar], frame: int
) -> None:
    bundle = avatars["sdtalk"].bundle
    eyes = bundle.tensors("tracks.safetensors")["eyes"][frame][None]
    window = FEATURE_WINDOWS[frame][None]
    gaussians = run_graph(bundle, "motion", {"audio_window": window, "eyes": eyes})
    assert gaussians["opacities"].min() < 0 and gaussians["opacities"].max() > 1
    features, alpha = splat(
        bundle,
        gaussians,
        bundle.tensors("gaussians.safetensors")["features"],
        gaussians["opacities"],
        frame,
    )
    picture = features.transpose(2, 0, 1)[None].astype(np.float32)
    image = run_graph(bundle, "refiner", {"features": picture})["image"][0].transpose(1, 2, 0)
    with avatars["sdtalk"].session(features=FEATURE_WINDOWS) as session:
        found = list(speak(session, CLIP))[frame]
    assert_almost_equal_bytes(found.image, truncated(image.astype(np.float64)))
    np.testing.assert_allclose(found.alpha, alpha[:, :, 0], rtol=0, atol=1e-6)
    plate = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with avatars["sdtalk"].session(features=FEATURE_WINDOWS, background=plate) as session:
        found = list(speak(session, CLIP))[frame]
    assert_almost_equal_bytes(found.image, truncated(image + plate / 255 * (1 - alpha)))


@pytest.mark.parametrize(("family", "moves"), [("talkinggaussian", False), ("instag", True)])
def test_the_upper_face_reaches_the_mouth_of_instag_only(
    avatars: dict[str, talksplat.Avatar], family: str, moves: bool
) -> None:
    means = []
    for value in (0.0, 3.0):
        upper_face = np.full((1, 6), value, np.float32)
        with avatars[family].session(features=FEATURE_WINDOWS, upper_face=upper_face) as session:
            runner = session._stream._frame._runners["motion_mouth"]  # type: ignore[attr-defined]
            run = runner.run
            runner.run = lambda inputs, run=run: means.append(run(inputs)) or means[-1]
            list(speak(session, CLIP[:FRAME]))
    difference = np.abs(means[0]["means"] - means[1]["means"]).max()
    assert (difference > 1e-3) == moves


# Noise of the refiner.


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> talksplat.Avatar:
    path = tmp_path_factory.mktemp("noise") / "noisy.avatar"
    write_family_bundle(path, Variant("sdtalk", noise="input"))
    return talksplat.load(path)


def clip(avatar: talksplat.Avatar, chunks: list[int], **options: Any) -> NDArray[np.uint8]:
    with avatar.session(**options) as session:
        return images(stream(session, chunks))


def test_noise_depends_on_seed_and_frame_alone(noisy: talksplat.Avatar) -> None:
    default = clip(noisy, [])
    np.testing.assert_array_equal(clip(noisy, [], noise=np.int64(0)), default)
    np.testing.assert_array_equal(clip(noisy, [100, 3000, 5], noise=0), default)
    assert (clip(noisy, [], noise=1) != default).any()
    maps = draw_noise({f"noise{k}": (1, 1, side, side) for k, side in enumerate(NOISE_SIDES)}, 0, 3)
    still = clip(noisy, [], noise=maps)
    np.testing.assert_array_equal(still[3], default[3])
    assert (still[4] != default[4]).any()


def test_noise_that_does_not_fit_is_refused(
    noisy: talksplat.Avatar, avatars: dict[str, talksplat.Avatar]
) -> None:
    good = draw_noise({f"noise{k}": (1, 1, side, side) for k, side in enumerate(NOISE_SIDES)}, 0, 0)
    for bad in (
        -1,
        2**63,
        {},
        {**good, "noise1": good["noise0"]},
        {**good, "noise1": good["noise1"] * np.nan},
        {**good, "extra": good["noise0"]},
        {**good, "noise1": [[1], [2, 3]]},
        "seven",
        0.5,
    ):
        with pytest.raises(InputError, match=r"[Nn]oise"):
            noisy.session(noise=bad)
    for avatar in avatars.values():
        with pytest.raises(InputError, match="no noise"):
            avatar.session(noise=0)


# Bundles that are not what their family needs.


def edit_manifest(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.fixture(params=list(VARIANTS))
def own_family_bundle(
    request: pytest.FixtureRequest, family_bundles: dict[str, Path], tmp_path: Path
) -> Path:
    return Path(shutil.copytree(family_bundles[request.param], tmp_path / "own.avatar"))


def test_a_graph_that_is_missing_is_named(own_family_bundle: Path) -> None:
    for graph in Bundle.open(own_family_bundle).manifest.graphs:
        before = (own_family_bundle / MANIFEST_NAME).read_text()
        edit_manifest(own_family_bundle, lambda d, graph=graph: d["graphs"].pop(graph))  # type: ignore[misc]
        with pytest.raises(BundleError, match=f"needs a graph '{graph}'"):
            talksplat.load(own_family_bundle)
        (own_family_bundle / MANIFEST_NAME).write_text(before)


def test_an_input_that_nothing_feeds_is_named(own_family_bundle: Path) -> None:
    name = next(name for name in Bundle.open(own_family_bundle).manifest.graphs if "motion" in name)
    path = own_family_bundle / f"{name}.onnx"
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("mood", TensorProto.FLOAT, [1, 4]))
    data = model.SerializeToString()
    path.write_bytes(data)

    def agree(document: dict[str, Any]) -> None:
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        document["files"][path.name] = entry
        document["graphs"][name] = asdict(describe_graph(path))

    edit_manifest(own_family_bundle, agree)
    with pytest.raises(BundleError, match=f"'{name}'.*'mood'"):
        talksplat.load(own_family_bundle)


def test_a_contract_that_the_graphs_do_not_keep(family_bundles: dict[str, Path]) -> None:
    for family, change, word in [
        ("talkinggaussian", {"mouth_takes_move": True}, "move"),
        ("talkinggaussian", {"mouth_takes_upper_face": True}, "upper_face"),
        ("instag", {"mouth_takes_move": False}, "move"),
        ("sdtalk", {"noise": "input"}, "noise0"),
    ]:
        bundle = Bundle.open(family_bundles[family])
        key = "sdtalk" if family == "sdtalk" else "talkinggaussian"
        contract = replace(getattr(bundle.manifest, key), **change)
        changed = replace(bundle, manifest=replace(bundle.manifest, **{key: contract}))
        with pytest.raises(BundleError, match=word):
            talksplat.Avatar(changed, talksplat.backends.choose("auto", 1), 1)


json_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, 0, 1, 2, 13, "../x", "", "sdtalk", "input", [], {}])
)


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = []
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    inner = [path for key, item in items for path in paths_of(item, (*prefix, key))]
    return [prefix, *inner] if prefix else inner


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), value=json_values, family=st.sampled_from([*VARIANTS]))
def test_any_change_of_a_manifest_value(
    family_bundles: dict[str, Path], data: st.DataObject, value: Any, family: str
) -> None:
    """Parsed or refused; and what is parsed loads or is refused, never anything else."""
    path = family_bundles[family]
    document = json.loads((path / MANIFEST_NAME).read_text())
    *parents, key = data.draw(st.sampled_from(paths_of(document)))
    place = document
    for parent in parents:
        place = place[parent]
    place[key] = value
    try:
        manifest = parse_manifest(json.dumps(document))
        assert parse_manifest(format_manifest(manifest)) == manifest
        bundle = replace(Bundle.open(path), manifest=manifest)
        avatar = talksplat.Avatar(bundle, talksplat.backends.choose("auto", 1), 1)
        if 64 <= manifest.video.width * manifest.video.height <= 100_000:
            avatar.session(features=avatar.silence(1)).close()
    except TalksplatError as error:
        assert str(error)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.data(),
    family=st.sampled_from([*VARIANTS]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.sampled_from([0, 0, 1, 7, 1000]),
)
def test_any_change_of_a_file_whose_hash_agrees(
    family_bundles: dict[str, Path],
    tmp_path: Path,
    data: st.DataObject,
    family: str,
    changes: list[tuple[float, int]],
    cut: int,
) -> None:
    own = tmp_path / "own.avatar"
    shutil.copytree(family_bundles[family], own, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(sorted(Bundle.open(family_bundles[family]).manifest.files)))
    original = bytearray((own / name).read_bytes())
    for position, value in changes:
        original[int(position**4 * len(original))] = value  # headers lie at the front
    changed = bytes(original[: len(original) - cut])
    (own / name).write_bytes(changed)
    entry = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
    edit_manifest(own, lambda document: document["files"].update({name: entry}))
    try:
        talksplat.load(own).session().close()  # opening a session makes a frame of silence
    except TalksplatError as error:
        assert str(error)
