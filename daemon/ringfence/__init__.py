"""Ringfence: only calls a voice provider can vouch for leave the switch."""

from __future__ import annotations

__version__ = "0.1.0"
