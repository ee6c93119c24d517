"""`ringfence hours`: when telemarketing may call."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Calling hours: when telemarketing may call, by country and state.")
