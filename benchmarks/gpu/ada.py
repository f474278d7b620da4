"""The shipped avatar, whole frames."""

from __future__ import annotations

import torch

from benchmarks.gpu.gsplat_peer import peer_draw
from benchmarks.gpu.result import Findings
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.torch_frames import AdaFrames
from benchmarks.gpu.whole_frames import Clip, measure_avatar
from talksplat.audio import read_audio
from talksplat_export.checkpoints.avatar_checkpoint import AvatarCheckpoint
from talksplat_export.export import export_checkpoint


def measure(settings: Settings) -> Findings:
    """Export it if need be, then every backend and torch."""
    if not settings.ada.is_dir():
        export_checkpoint(settings.checkpoint, settings.ada)

    def peer(with_gsplat: bool) -> AdaFrames:
        checkpoint = AvatarCheckpoint.load(settings.checkpoint)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        draw = peer_draw(with_gsplat, checkpoint.rasterizer.dialect)
        return AdaFrames(checkpoint, settings.speech, device, draw)

    return measure_avatar(settings.ada, Clip(read_audio(settings.speech)), settings, peer)
