"""talksplat: run audio-driven 3D Gaussian talking heads. Never imports torch."""

from __future__ import annotations

__version__ = "0.1.0"
