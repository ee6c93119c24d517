"""`ringfence campaign`: what calls are for."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Campaigns: what a customer's calls are for.")
