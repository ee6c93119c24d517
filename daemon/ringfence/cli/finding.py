"""`ringfence finding`: what was found about a customer's traffic."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("Findings: what was found about a customer's traffic; illegal traffic suspends.")
