"""`ringfence notice`: what people must be told."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Notices: warnings, suspensions, expiries and breaches, and whether they arrived.")
