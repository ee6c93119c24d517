"""`ringfence infraction`: customers caught showing numbers that are not theirs."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Infractions: customers caught showing numbers that are not theirs.")
