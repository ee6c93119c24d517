"""Identifiers: UUIDv7 for decisions, random UUIDs for SHAKEN origination ids."""

from __future__ import annotations

import os
import time
from uuid import UUID, uuid4


def new_decision_id(unix_ns: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7) whose sub-millisecond fraction fills rand_a, so ids sort by time.

    The database partitions decisions and call ends by the day in this id.
    """
    ns = time.time_ns() if unix_ns is None else unix_ns
    ms, rest_ns = divmod(ns, 1_000_000)
    fraction = (rest_ns << 12) // 1_000_000  # RFC 9562 section 6.2, method 3
    random_b = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    return UUID(int=(ms << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | random_b)


def new_orig_id() -> UUID:
    """A random UUID for the PASSporT's `origid` claim: unique per call and meaningless to others
    (RFC 8588 section 10)."""
    return uuid4()
