"""`ringfence do-not-call`: numbers telemarketing may not call."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Do-not-call lists: numbers telemarketing may not call.")
