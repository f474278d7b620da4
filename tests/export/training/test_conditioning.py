import numpy as np
import pytest
import torch

from talksplat_export.training.conditioning import ConditionTrack


@pytest.fixture
def track():
    frames, width = 12, 3
    features = torch.arange(2 * frames, dtype=torch.float32)[:, None].repeat(1, width) + 1
    differences = torch.arange(frames, dtype=torch.float16)[:, None, None, None].expand(-1, 3, 2, 2)
    return ConditionTrack(features, torch.zeros(frames, 5), differences, torch.zeros(frames, 6))


def test_a_window_holds_the_tokens_around_eight_frames(track):
    window = track.audio_window(6)
    assert window.shape == (1, 8, 3, 16)
    # Frame 6 - 4 + 5 = 7 is the sixth row: tokens 14 - 8 ... 14 + 7, which carry their number + 1.
    np.testing.assert_array_equal(window[0, 5, 0], np.arange(6, 22) + 1)


@pytest.mark.parametrize("frame", [0, 1, 10, 11])
def test_windows_are_zero_beyond_the_ends(track, frame):
    window = track.audio_window(frame)[0, :, 0]
    for row, f in zip(window, range(frame - 4, frame + 4), strict=True):
        tokens = np.arange(2 * f - 8, 2 * f + 8)
        inside = (tokens >= 0) & (tokens < 24) & (0 <= f < 12)
        np.testing.assert_array_equal(row, np.where(inside, tokens + 1, 0))


def test_motion_windows_repeat_the_ends(track):
    assert track.pncc_window(0, 2)[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert track.pncc_window(11, 2)[:, 0, 0, 0].tolist() == [9, 10, 11, 11, 11]
