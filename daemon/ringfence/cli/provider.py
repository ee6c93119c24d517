"""`ringfence provider`: what holds for every customer."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("The provider: what holds for every customer.")
