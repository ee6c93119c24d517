"""`ringfence policy`: the whole policy as files."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Policy as files: export, diff, apply and replay.")
