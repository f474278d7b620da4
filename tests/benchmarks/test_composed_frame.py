"""The figure of the frame as one graph: it is taken of frames that are equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sdk.composed_frames import library
from tests.sdk.synthetic_bundle import write_synthetic_bundle

from benchmarks import composed_frame
from talksplat.backends.split_frame import SplitFrameRunner
from talksplat.families import frame_program


def test_every_frame_is_timed_both_ways(tmp_path: Path) -> None:
    library()
    bundle = write_synthetic_bundle(tmp_path / "synthetic.avatar")
    seconds = composed_frame.measure(bundle, frame_program(bundle), frames=3, threads=1)
    assert seconds.shape == (3 + composed_frame.WARM_UP, 2)
    assert (seconds > 0).all()


def test_no_figure_of_frames_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    bundle = write_synthetic_bundle(tmp_path / "synthetic.avatar")
    run = SplitFrameRunner.run

    def brighter(*arguments: object) -> object:
        picture = run(*arguments)  # type: ignore[arg-type]
        picture.image[0, 0] ^= 1  # type: ignore[index, union-attr]
        return picture

    monkeypatch.setattr(SplitFrameRunner, "run", brighter)
    with pytest.raises(SystemExit, match="The pictures differ"):
        composed_frame.measure(bundle, frame_program(bundle), frames=3, threads=1)
