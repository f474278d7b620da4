"""Training of the audio front end: what it reads, that it learns, that it goes on exactly."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from talksplat.errors import CheckpointError, InputError
from talksplat_export.audio_encoders.audio_to_motion import EXPRESSION_NAMES
from talksplat_export.audio_encoders.front_end import FrontEnd, load_front_end
from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES
from talksplat_export.training import audio_front_end
from talksplat_export.training.audio_front_end import (
    Batch,
    Clip,
    TrainingConfig,
    crop,
    lip_opening_weights,
    load_clip,
    main,
    phoneme_symbols,
    random_batch,
    train,
    utterances,
)

FRAMES = 24
JAW = EXPRESSION_NAMES.index("jawOpen")


def write_utterance(folder: Path, seed: int) -> None:
    """A tone that comes and goes; the jaw is open while it sounds."""
    folder.mkdir(parents=True)
    samples = np.arange(640 * FRAMES)
    on = np.sin(2 * np.pi * (samples / 6400 + seed / 7)) > 0
    pcm = 0.3 * np.sin(2 * np.pi * (180 + 20 * seed) * samples / 16000) * on
    soundfile.write(folder / "aud.wav", pcm, 16000, subtype="PCM_16")
    weights = np.zeros((FRAMES, len(ARKIT_NAMES)), np.float32)
    weights[:, ARKIT_INDEX["jawOpen"]] = 0.6 * on.reshape(FRAMES, 640).mean(1)
    np.savez(folder / "expression.npz", names=np.array(ARKIT_NAMES), weights=weights)
    edges = [0, *(np.flatnonzero(np.diff(on)) + 1), len(on)]
    phonemes = [
        {"symbol": "a" if on[a] else "", "start_s": a / 16000, "end_s": b / 16000, "stress": 0}
        for a, b in itertools.pairwise(edges)
    ]
    (folder / "phonemes.json").write_text(json.dumps({"phonemes": phonemes}))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("speech")
    for seed in range(4):
        write_utterance(root / "train" / str(seed), seed)
    write_utterance(root / "held_out" / "4", 4)
    return root


@pytest.fixture(scope="module")
def clips(speech: Path) -> list[Clip]:
    folders = utterances(speech / "train")
    return [load_clip(folder, phoneme_symbols(folders)) for folder in folders]


def test_clips_read_as_written(clips: list[Clip]) -> None:
    assert len(clips) == 4
    for clip in clips:
        assert clip.expression.shape == (FRAMES, len(EXPRESSION_NAMES))
        assert clip.phonemes.shape == (2 * FRAMES,) and set(clip.phonemes) == {0, 1}
        sounding = clip.expression[:, JAW] > 0.5
        assert np.all(clip.phonemes.reshape(-1, 2)[sounding] == 1)


def test_a_crop_keeps_sound_and_jaw_together(clips: list[Clip]) -> None:
    front_end = FrontEnd.untrained()
    left = front_end.padding.left_samples
    for seed in range(8):
        pcm, expression, phonemes = crop(clips[0], 12, front_end, np.random.default_rng(seed))
        own = pcm[left : left + 12 * 640].reshape(12, 640)
        loud = own.std(axis=1)
        jaw = expression[:, JAW]
        assert loud[jaw > 0.55].min(initial=1.0) > 3 * loud[jaw < 0.05].max(initial=0.0) - 0.05
        assert phonemes.shape == (24,) and pcm.dtype == expression.dtype == np.float32


def test_training_learns_that_the_jaw_opens_when_it_sounds(clips: list[Clip]) -> None:
    config = TrainingConfig(steps=120, batch=4, frames=16)
    front_end, _ = train(clips, 2, config, resume_from=None)
    found, expected = [], []
    for clip in clips:
        pcm = torch.from_numpy(clip.pcm.astype(np.float32) / 32768)
        found.append(front_end.whole_clip(pcm)[1].detach().numpy()[:, JAW])
        expected.append(clip.expression[:, JAW])
    correlation = np.corrcoef(np.concatenate(found), np.concatenate(expected))[0, 1]
    assert correlation > 0.8


def test_interrupted_training_ends_where_uninterrupted_does(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(steps=6, batch=2, frames=8)
    straight, _ = train(clips, 2, config, resume_from=None)
    state = tmp_path / "state.pt"

    def interrupted(clips: object, config: object, front_end: object, step: int) -> Batch:
        if step == 4:
            raise KeyboardInterrupt
        return random_batch(clips, config, front_end, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(audio_front_end, "_SAVE_EVERY", 3)
        patched.setattr(audio_front_end, "random_batch", interrupted)
        train(clips, 2, config, state)
    resumed, _ = train(clips, 2, config, state)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_state_of_another_training_is_refused(clips: list[Clip], tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    train(clips, 2, TrainingConfig(steps=2, batch=2, frames=8), state)
    with pytest.raises(CheckpointError, match="same training"):
        train(clips, 2, TrainingConfig(steps=3, batch=2, frames=8), state)


def test_command_line_writes_weights_and_scores(speech: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "front_end.pt"
    main([str(speech), "-o", str(output), "--steps", "2", "--batch", "2"])
    assert isinstance(load_front_end(output), FrontEnd)
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["parts"]["held_out"]["clips"] == 1


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make_speech"):
        main([str(tmp_path), "-o", str(tmp_path / "x.pt")])


def test_lip_opening_grows_with_the_jaw_and_shrinks_with_closing() -> None:
    weights = dict(zip(EXPRESSION_NAMES, lip_opening_weights().tolist(), strict=True))
    assert weights["jawOpen"] > weights["mouthLowerDownLeft"] > 0 > weights["mouthPressLeft"]
    assert weights["jawLeft"] == 0
