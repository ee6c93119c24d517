"""Asterisk 16 and later: the gate over FastAGI, call events over AMI."""

from __future__ import annotations

from ringfence.switches.asterisk.adapter import Asterisk

__all__ = ["Asterisk"]
