"""Backends run graphs. They are imported only when asked for."""

from __future__ import annotations
