"""Mouth curves, upper face, head motion, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from synthetic_capture.head_motion import rigid_transforms
from synthetic_capture.mouth import frame_count, frame_times, mouth_weights
from synthetic_capture.performance import Performance, perform, write_tracks
from synthetic_capture.speech import Speech, Voice, synthesize
from synthetic_capture.upper_face import ACTION_UNITS, INTENSITY_FULL
from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES

TEXT = "Maybe Bob moved five vans. My mum puts a map above the piano, I believe."


@pytest.fixture(scope="module")
def speech() -> Speech:
    return synthesize(TEXT, Voice("en-us+f2"))


@pytest.fixture(scope="module")
def performance(speech: Speech) -> Performance:
    return perform(speech, seed=3)


def column(weights: np.ndarray, name: str) -> np.ndarray:
    return weights[:, ARKIT_INDEX[name]]


def test_one_row_for_every_started_frame(speech: Speech, performance: Performance) -> None:
    assert len(performance) == frame_count(len(speech.pcm)) == -(-len(speech.pcm) // 640)
    assert performance.expression.shape == (len(performance), 52)
    assert performance.expression.min() >= 0.0 and performance.expression.max() <= 1.0


def test_lips_meet_in_a_frame_of_every_p_b_and_m(speech: Speech) -> None:
    weights = mouth_weights(speech)
    times = frame_times(len(weights))
    sounds = [p for p in speech.phonemes if p.symbol in ("p", "b", "m")]
    assert len(sounds) >= 9
    for p in sounds:
        near = (times > p.start_s - 0.03) & (times < p.end_s + 0.03)
        closed = (column(weights, "jawOpen") < 0.02) & (column(weights, "mouthPressLeft") > 0.5)
        assert np.any(closed & near), p


def test_lower_lip_meets_the_teeth_in_a_frame_of_every_f_and_v(speech: Speech) -> None:
    weights = mouth_weights(speech)
    times = frame_times(len(weights))
    sounds = [p for p in speech.phonemes if p.symbol in ("f", "v")]
    assert len(sounds) >= 4
    for p in sounds:
        near = (times > p.start_s - 0.03) & (times < p.end_s + 0.03)
        assert column(weights, "mouthRollLower")[near].max() > 0.7, p


def test_the_jaw_opens_for_open_vowels_and_rests_in_pauses(speech: Speech) -> None:
    jaw = column(mouth_weights(speech), "jawOpen")
    times = frame_times(len(jaw))
    for p in speech.phonemes:
        inside = (times >= p.start_s) & (times < p.end_s)
        if p.symbol in ("ɑː", "aɪ", "æ") and p.stress:
            assert jaw[inside].max() > 0.35, p
        if not p.symbol and p.end_s - p.start_s > 0.2:
            assert jaw[inside].min() < 0.05, p


def test_the_mouth_prepares_before_it_is_heard(speech: Speech) -> None:
    """The first sound is an m after a pause: the lips press ahead of it."""
    press = column(mouth_weights(speech), "mouthPressLeft")
    first_heard = next(p for p in speech.phonemes if p.symbol)
    moving = frame_times(len(press))[np.flatnonzero(press > 0.02)[0]]
    assert 0.01 < first_heard.start_s - moving < 0.12


def test_louder_speech_opens_the_jaw_wider(speech: Speech) -> None:
    quiet = replace(speech, pcm=speech.pcm * np.float32(0.25))
    loud_jaw, quiet_jaw = (column(mouth_weights(s), "jawOpen").max() for s in (speech, quiet))
    assert loud_jaw > 1.1 * quiet_jaw


def test_the_mouth_follows_from_speech_alone(speech: Speech) -> None:
    mouth = [ARKIT_INDEX[n] for n in ARKIT_NAMES if n.startswith(("jaw", "mouth", "tongue"))]
    one, other = perform(speech, seed=1), perform(speech, seed=2)
    np.testing.assert_array_equal(one.expression[:, mouth], other.expression[:, mouth])
    assert not np.array_equal(one.expression, other.expression)
    assert not np.array_equal(one.neck_rotations, other.neck_rotations)


def test_the_same_seed_performs_the_same(speech: Speech, performance: Performance) -> None:
    again = perform(speech, seed=3)
    np.testing.assert_array_equal(again.expression, performance.expression)
    np.testing.assert_array_equal(again.neck_rotations, performance.neck_rotations)


def test_the_upper_face_follows_from_the_action_units(performance: Performance) -> None:
    upper = [i for i, n in enumerate(ARKIT_NAMES) if n.startswith(("brow", "eye", "cheekSq"))]
    expected = np.clip(performance.upper_face.weights, 0, 1)[:, upper]
    np.testing.assert_array_equal(performance.expression[:, upper], expected)


def test_eyes_blink_fully_and_briefly(performance: Performance) -> None:
    blink = performance.upper_face.activation[:, ACTION_UNITS.index(45)]
    assert blink.max() == 1.0
    assert 0.01 < np.mean(blink > 0.5) < 0.2


def test_head_motion_is_rigid_small_and_smooth(performance: Performance) -> None:
    rotations = performance.neck_rotations
    assert 0.5 < np.degrees(np.linalg.norm(rotations, axis=1)).max() < 12
    assert np.degrees(np.abs(np.diff(rotations, axis=0)).max()) < 1.0
    pivot = np.array([0.0, -0.09, -0.03])
    transforms = rigid_transforms(rotations, pivot)
    turn = transforms[:, :3, :3]
    np.testing.assert_allclose(
        turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-9
    )
    np.testing.assert_allclose(turn @ pivot + transforms[:, :3, 3], [pivot] * len(turn), atol=1e-9)


def test_tracks_read_back_as_they_were(performance: Performance, tmp_path: Path) -> None:
    write_tracks(performance, tmp_path)
    pcm, rate = soundfile.read(tmp_path / "aud.wav", dtype="float32")
    assert rate == 16000
    np.testing.assert_allclose(pcm, performance.speech.pcm, atol=1 / 32768)
    with np.load(tmp_path / "expression.npz", allow_pickle=False) as tracks:
        assert tuple(tracks["names"]) == ARKIT_NAMES
        np.testing.assert_array_equal(tracks["weights"], performance.expression)
        np.testing.assert_array_equal(tracks["upper_face"], performance.upper_face.activation)
    spoken = json.loads((tmp_path / "phonemes.json").read_text(encoding="utf-8"))
    assert spoken["text"] == TEXT
    assert len(spoken["phonemes"]) == len(performance.speech.phonemes)
    header, *rows = (tmp_path / "au.csv").read_text().splitlines()
    names = header.split(",")
    columns = [names.index(f" AU{unit:02d}_r") for unit in ACTION_UNITS]
    assert len(rows) == len(performance)
    table = np.array([[float(v) for v in row.split(",")] for row in rows])
    np.testing.assert_allclose(
        table[:, columns] / INTENSITY_FULL, performance.upper_face.activation, atol=1e-4
    )
