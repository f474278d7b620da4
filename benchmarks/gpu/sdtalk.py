"""SDTalk at its published size with random weights, whole frames."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.gpu.gsplat_peer import peer_draw
from benchmarks.gpu.result import Findings
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.torch_frames import SdtalkFrames
from benchmarks.gpu.whole_frames import Clip, measure_avatar
from benchmarks.sdtalk_full_size import SAMPLES_PER_FRAME, export, make_files
from talksplat_export.families.load import load_family
from talksplat_export.families.sdtalk_export import SdtalkExport
from talksplat_export.options import ExportOptions

PROBE_FRAMES = 1
"""Of the clip that export measures itself on: it renders every frame twice on the CPU."""


def measure(settings: Settings) -> Findings:
    """Make and export it if need be, then every backend and torch."""
    files = make_files(settings.sdtalk, PROBE_FRAMES)
    if not files.avatar.is_dir():
        export(files)
    family = load_family(files.checkpoint, ExportOptions(identity=files.person))
    assert isinstance(family, SdtalkExport)
    generator = np.random.default_rng(0)
    width = family.checkpoint.feature_size
    tokens = np.tanh(generator.normal(size=(2 * settings.frames, width))).astype(np.float32)
    samples = settings.frames * SAMPLES_PER_FRAME
    pcm = (0.1 * generator.standard_normal(samples)).astype(np.float32)

    def peer(with_gsplat: bool) -> SdtalkFrames:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        draw = peer_draw(with_gsplat, family.rasterizer().dialect)
        return SdtalkFrames(family, tokens, settings.frames, device, draw)

    return measure_avatar(files.avatar, Clip(pcm, tokens), settings, peer)
