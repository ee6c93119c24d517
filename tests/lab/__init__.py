"""Real switches, real databases and a real SIP load generator for the tests and the demo.

Nothing here imitates anything: Asterisk, PostgreSQL and SIPp run as child processes on the loopback
interface, from packages that `scripts/lab-fetch` unpacked (PostgreSQL 16 and 18 from a PyPI package).
Every process started here ends with the process that started it.
"""

from __future__ import annotations
