"""Sessions that speak at once: how long their frames take, and how many there can be."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_bundle import BLOCK_FRAMES, speech_like

import talksplat
from talksplat import session_load
from talksplat.errors import BackendError, DeviceLostError, InputError
from talksplat.session import Frame, Session
from talksplat.session_load import SessionLoad, find_most_sessions, measure_sessions

SPEECH = speech_like(8000)


def load(sessions: int, p95_ms: float) -> SessionLoad:
    return SessionLoad(sessions, 10, 1.0, p95_ms, p95_ms, p95_ms)


@pytest.mark.parametrize("bears", [1, 2, 3, 5, 8, 11, 13, 16])
def test_the_search_finds_how_many_are_in_time(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch, bears: int
) -> None:
    def measure(
        avatar: object, pcm: object, features: object, count: int, seconds: float
    ) -> SessionLoad:
        return load(count, 39.9 if count <= bears else 40.1)

    monkeypatch.setattr(session_load, "measure_sessions", measure)
    found = list(find_most_sessions(avatar, SPEECH, most=16))
    assert max(one.sessions for one in found if one.in_time) == bears
    assert len({one.sessions for one in found}) == len(found) <= 9
    if bears < 16:
        assert min(one.sessions for one in found if not one.in_time) == bears + 1


@pytest.mark.parametrize("room", [1, 3, 6])
def test_more_sessions_than_memory_holds_are_too_many(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    def measure(
        avatar: object, pcm: object, features: object, count: int, seconds: float
    ) -> SessionLoad:
        if count > room:
            raise BackendError("out of memory")
        return load(count, 5.0)

    monkeypatch.setattr(session_load, "measure_sessions", measure)
    assert max(one.sessions for one in find_most_sessions(avatar, SPEECH)) == room


def test_a_device_that_is_lost_ends_the_search(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*arguments: object) -> SessionLoad:
        if arguments[3] == 2:
            raise DeviceLostError("lost")
        return load(1, 5.0)

    monkeypatch.setattr(session_load, "measure_sessions", measure)
    with pytest.raises(DeviceLostError):
        list(find_most_sessions(avatar, SPEECH))


def test_one_that_is_late_alone_ends_the_search(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = Session._next_frame

    def slow(self: Session) -> Frame | None:
        frame = render(self)
        if frame is not None:
            time.sleep(0.06)
        return frame

    monkeypatch.setattr(Session, "_next_frame", slow)
    (found,) = find_most_sessions(avatar, SPEECH, seconds=0.2)
    assert found.sessions == 1 and not found.in_time
    # Frames are due every 40 ms and take 60: each waits longer than the one before.
    assert found.max_ms > 60 + 4 * 20


def test_every_frame_of_every_session_is_counted(avatar: talksplat.Avatar) -> None:
    found = measure_sessions(avatar, SPEECH, None, count=3, seconds=0.4)
    blocks = -(-10 // BLOCK_FRAMES)  # frames come a block at a time
    assert found.sessions == 3 and found.frames == 3 * blocks * BLOCK_FRAMES
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms <= found.max_ms


def test_features_take_the_place_of_hearing(family_bundles: dict[str, Path]) -> None:
    deaf = talksplat.load(family_bundles["sdtalk"])
    features = deaf.silence(10)
    assert measure_sessions(deaf, SPEECH, features, count=1, seconds=0.2).frames == 5


def test_what_a_session_raises_reaches_the_caller(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Session) -> Frame | None:
        raise InputError("the test's own")

    closed = []
    close = Session.close
    monkeypatch.setattr(Session, "_next_frame", broken)
    monkeypatch.setattr(Session, "close", lambda self: (closed.append(self), close(self)))
    with pytest.raises(InputError, match="the test's own"):
        measure_sessions(avatar, SPEECH, None, count=2, seconds=0.1)
    assert len(closed) == 2


def test_sessions_are_closed_when_one_more_cannot_be_opened(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed = [], []
    open_session, close = talksplat.Avatar.session, Session.close

    def session(self: talksplat.Avatar, **options: Any) -> Session:
        if len(opened) == 2:
            raise BackendError("out of memory")
        opened.append(open_session(self, **options))
        return opened[-1]

    monkeypatch.setattr(talksplat.Avatar, "session", session)
    monkeypatch.setattr(Session, "close", lambda self: (closed.append(self), close(self)))
    with pytest.raises(BackendError, match="out of memory"):
        measure_sessions(avatar, SPEECH, None, count=3, seconds=0.1)
    assert closed == opened[::-1]


def test_in_time_is_within_the_frame() -> None:
    assert load(1, 40.0).in_time and not replace(load(1, 40.0), p95_ms=40.01).in_time
    assert not load(1, float(np.nan)).in_time
