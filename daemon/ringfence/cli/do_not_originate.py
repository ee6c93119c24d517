"""`ringfence do-not-originate`: numbers no call may show."""

from __future__ import annotations

from ringfence.cli.session import new_app

app = new_app("The do-not-originate list: numbers no call may show.")
