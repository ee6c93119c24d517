"""`ringfence destination`: where calls may go."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Destinations: where calls may go, by prefix, country and class.")
