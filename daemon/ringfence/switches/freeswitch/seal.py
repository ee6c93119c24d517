"""What a leg carries so that any daemon of this switch knows its decision, sealed: no dial string can make one.

The key is the event socket's password. Who knows it may call what he likes anyway, and it survives a restart.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import timedelta
from uuid import UUID

from ringfence.switches.freeswitch.channel import Party
from ringfence.switches.freeswitch.legs import moment

VARIABLE = "ringfence_seal"
MAX_CHARACTERS = 8192
_AT_MOST_APART = timedelta(minutes=5)  # a leg and its decision: legs of one attempt come one after the other


@dataclass(frozen=True, slots=True)
class Terms:
    """What was decided about a leg: on whose behalf, whom it may call, and which channel asked for it."""

    decision_id: UUID
    customer: str
    party: Party
    called: str
    origin: str = ""
    asking: bool = False  # the leg is the caller's own: the dialplan asked
    allowed: bool = True


class Sealer:
    """Seals terms for one leg, and tells a seal from a forgery."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"ringfence leg", "sha256")

    def seal(self, leg: str, terms: Terms) -> str:
        """The value of `VARIABLE` on this leg: letters, digits, `-`, `_` and a dot. Empty if it were too long."""
        told = [str(terms.decision_id), terms.customer, astuple(terms.party), terms.called, terms.origin]
        text = json.dumps([*told, terms.asking, terms.allowed], separators=(",", ":"))
        value = urlsafe_b64encode(text.encode()).decode().rstrip("=")
        sealed = f"{value}.{self._mac(leg, value)}"
        return sealed if len(sealed) <= MAX_CHARACTERS else ""

    def open(self, leg: str, value: str) -> Terms | None:
        """The terms, or None if this is no seal of ours for this leg."""
        text, dot, mac = value.partition(".")
        if not dot or not value.isascii() or len(value) > MAX_CHARACTERS:
            return None
        if not hmac.compare_digest(mac, self._mac(leg, text)):
            return None
        told = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        decision_id, customer, party, called, origin, asking, allowed = told
        return Terms(UUID(decision_id), customer, Party(*party), called, origin, asking, allowed)

    def read(self, headers: Mapping[str, str]) -> Terms | None:
        """The terms that an event or a dump of a leg carries: not those of an earlier leg with the same uuid."""
        terms = self.open(headers.get("Unique-ID", ""), headers.get(f"variable_{VARIABLE}", ""))
        created_at = moment(headers, "Caller-Channel-Created-Time")
        if terms is None or created_at is None or terms.asking:
            return terms
        apart_s = abs((terms.decision_id.int >> 80) / 1000 - created_at.timestamp())
        return terms if apart_s <= _AT_MOST_APART.total_seconds() else None

    def _mac(self, leg: str, value: str) -> str:
        return hmac.digest(self._key, f"{leg} {value}".encode(), "sha256").hex()
