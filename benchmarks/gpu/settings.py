"""What a run measures, and how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        output: folder of the results.
        ada: bundle of the shipped avatar; made from ``checkpoint`` if it is not there.
        checkpoint: of the shipped avatar.
        speech: what it says.
        sdtalk: folder with SDTalk at its published size; made of random weights if it is not there.
        sizes: Gaussians of the scenes.
        channels: of the pictures.
        sides: of the pictures, pixels.
        rounds: over all cases, which take turns.
        calls: of a case in its turn.
        frames: of a whole avatar that are timed, per round.
        seconds: of speech for one number of sessions.
        sessions: at most.
    """

    output: Path = Path("out/gpu")
    ada: Path = Path("out/ada.avatar")
    checkpoint: Path = ROOT / "samples/avatars/ada.pt"
    speech: Path = ROOT / "samples/speech/hello.wav"
    sdtalk: Path = Path("out/sdtalk_full_size")
    sizes: Sequence[int] = (20_000, 50_000, 176_000)
    channels: Sequence[int] = (3, 32)
    sides: Sequence[int] = (512, 1024)
    rounds: int = 20
    calls: int = 10
    frames: int = 100
    seconds: float = 4.0
    sessions: int = 256

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """The inverse of :meth:`as_dict`."""
        paths = {field.name for field in fields(cls) if isinstance(field.default, Path)}
        return cls(
            **{name: Path(value) if name in paths else value for name, value in stored.items()}
        )
