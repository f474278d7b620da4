"""A whole clip in one go: the same session, one big push."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.typing import ArrayLike

from talksplat.audio import SAMPLE_RATE
from talksplat.session import MODEL_FPS, Frame, Session


def speak(session: Session, pcm: ArrayLike) -> Iterator[Frame]:
    """Push a whole utterance, end it and yield its frames.

    Raises:
        InputError, BackendError: as :meth:`Session.push` and :meth:`Session.frames`.
    """
    session.push(pcm)
    session.end()
    yield from session.frames()


def frame_count(samples: int, fps: int) -> int:
    """Frames of an utterance of ``samples``: whole frames of the model, shown at ``fps``."""
    model_frames = -(-samples * MODEL_FPS // SAMPLE_RATE)
    return -(-model_frames * fps // MODEL_FPS)
