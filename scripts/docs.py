"""`make docs`: write the pages that are made from the code."""

from __future__ import annotations

from pathlib import Path

from ringfence.reasons import REASONS

ROOT = Path(__file__).parents[1]

_REASONS_HEAD = """\
# Every reason

A decision carries one of these words, in the log, in Postgres, in the CDR, on the channel and in the command
line. The SIP status and the Q.850 cause are defaults: change a row of the table `ringfence.reasons` and the next
refusal answers it. Rows that are there are never overwritten by an upgrade.

`retry` says whether the same call may pass later without anybody changing the policy. Asterisk derives the SIP
status from the cause it hangs up with; the causes here give the status beside them on Asterisk 16 and 22.

| reason | SIP | Q.850 | retry | meaning |
| --- | --- | --- | --- | --- |
"""


def reasons_page() -> str:
    """docs/reasons.md, from the one list of reasons."""
    rows = [
        f"| `{r.code}` | {r.sip_status or '-'} | {r.q850_cause or '-'} | {'yes' if r.retryable else '-'} | {r.sentence} |"
        for r in REASONS
    ]
    return _REASONS_HEAD + "\n".join(rows) + "\n"


PAGES = {"docs/reasons.md": reasons_page}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (ROOT / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
