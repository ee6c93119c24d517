"""`ringfence consent`: who agreed to be called."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Consents: who agreed to be called, whatever list they are on.")
