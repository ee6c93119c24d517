"""SIPp scenario files: XML in `tests/lab/scenarios/` with a few values put in when they are run.

A scenario holds `@@NAME@@` where a value goes. Three names stand for text that the scenarios share:
`@@REJECTIONS@@` (every known final answer from 300 up, logged, leading to the label `rejected`),
`@@SDP@@` (an offer or answer of G.711; no media is ever sent) and `@@HEADERS@@` (extra header lines).

Customers log `sent|INDEX|CALL-ID|TICK`, `final|INDEX|STATUS|TICK`, `refer|INDEX|STATUS|TICK` and
`ended|INDEX|caller or callee|TICK`; ticks are milliseconds. They log in the actions of what they
receive: while SIPp is at a `nop` step, whatever arrives is unexpected and aborts the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "scenarios"

# SIPp matches responses by exact code only.
_FINAL = (
    *(300, 301, 302, 305, 380, 400, 401, 402, 403, 404, 405, 406, 407, 408, 410, 413, 414, 415),
    *(416, 420, 421, 422, 423, 428, 429, 433, 436, 437, 438, 480, 481, 482, 483, 484, 485, 486, 487, 488),
    *(489, 491, 493, 494, 500, 501, 502, 503, 504, 505, 513, 580, 600, 603, 604, 606, 607, 608),
)

_REJECTIONS = "\n".join(
    f'  <recv response="{code}" optional="true" next="rejected">'
    f'<action><log message="final|[field0]|{code}|[clock_tick]"/></action></recv>'
    for code in _FINAL
)

_SDP = """v=0
o=lab 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000"""


def render(name: str, values: Mapping[str, str], into: Path) -> Path:
    """Write the scenario `name` with its values put in below `into`, and return the file."""
    text = (_DIRECTORY / f"{name}.xml").read_text(encoding="utf-8")
    known = {"REJECTIONS": _REJECTIONS, "SDP": _SDP, "HEADERS": "", **values}

    def value(match: re.Match[str]) -> str:
        return known[match[1]]

    # A line that is nothing but an empty value goes away whole: an empty line would end the SIP headers.
    for key, replacement in known.items():
        if not replacement:
            text = text.replace(f"\n@@{key}@@\n", "\n")
    into.mkdir(parents=True, exist_ok=True)
    rendered = into / f"{name}.xml"
    rendered.write_text(re.sub(r"@@(\w+)@@", value, text), encoding="utf-8")
    return rendered
