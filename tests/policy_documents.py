"""Customers as hypothesis makes them, in the canonical form of policy files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from ringfence.policy import canonical, tree

FIRST = 12122000000
FREE_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
LINE = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Cn", "Co"]), max_size=12)
TODAY = datetime.now(UTC).date()
DATES = st.dates(min_value=TODAY - timedelta(days=9000)).map(str)
PAST = st.dates(min_value=TODAY - timedelta(days=80), max_value=TODAY).map(str)
AHEAD = st.dates(min_value=TODAY + timedelta(days=2), max_value=TODAY + timedelta(days=3500)).map(str)
PLAIN = st.text("abcdefgh .-7", min_size=1, max_size=12).map(lambda text: " ".join(text.split()) or "x")
CAP = st.integers(0, 2_000_000_000)
CAPS = ("calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month")


@st.composite
def customers(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Up to three customers that do not get in each other's way, with profile and state that are there for all."""
    names = draw(st.sets(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,5}", fullmatch=True), max_size=3))
    return {name: draw(_customer(place)) for place, name in enumerate(sorted(names))}


@st.composite
def _customer(draw: st.DrawFn, place: int) -> dict[str, Any]:
    held = tree.customer(
        {
            "name": draw(LINE.filter(bool)),
            "kind": draw(st.sampled_from(["end_user", "provider"])),
            "state": "prospect",
            "time_zone": draw(st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"])),
            "profile": "small",
            "restricted_profile": "restricted",
        }
    )
    held["contact_email"] = None
    values = draw(st.sets(LINE.filter(bool), max_size=3))
    traffic = st.sampled_from(["conversational", "telemarketing"])
    held["endpoints"] = tree.endpoints(
        [
            {
                "kind": draw(st.sampled_from(["account", "sip_user", "trunk"])),
                "value": f"{place}{value}",
                "host": draw(st.sampled_from(["*", "pbx1", "on host"])),
                "traffic": draw(traffic),
                "enabled": draw(st.booleans()),
            }
            for value in values
        ]
    )
    campaigns = draw(st.sets(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,5}", fullmatch=True), max_size=3))
    held["campaigns"] = tree.campaigns(
        {
            name: {"traffic": draw(traffic), "description": draw(FREE_TEXT), "enabled": draw(st.booleans())}
            for name in campaigns
        }
    )
    targets = draw(st.sets(st.sampled_from(["NO", "GB", "premium", "international", "+44", "+882"]), max_size=3))
    held["destinations"] = tree.destinations([draw(_rule(target)) for target in sorted(targets)])
    held["grants"] = draw(_grants(FIRST + place * 100_000))
    if draw(st.booleans()):
        held["vetting"] = draw(_vetting())
    return held


@st.composite
def _rule(draw: st.DrawFn, target: str) -> dict[str, Any]:
    caps = {cap: draw(st.none() | CAP) for cap in CAPS}
    if not any(cap is not None for cap in caps.values()):
        action = draw(st.sampled_from(["allow", "deny"]))
    else:
        action = "cap"
    prefix = target if target.startswith("+") else ""
    return {"prefix": prefix, "area": "" if prefix else target, "action": action, **caps}


@st.composite
def _grants(draw: st.DrawFn, first: int) -> list[tree.Grant]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        first += draw(st.integers(1, 500))
        last = first + draw(st.sampled_from([0, 0, 9]))
        valid_from, valid_until = sorted((draw(DATES), draw(DATES)))
        if valid_from == valid_until:
            valid_until = ""
        found.append(
            tree.Grant(
                first,
                last,
                draw(st.sampled_from(["assigned", "letter", "callback", "bill"])),
                draw(LINE),
                draw(st.sampled_from("ABC")),
                draw(st.sampled_from(["", valid_from])),
                draw(st.sampled_from(["", valid_until])),
                draw(st.booleans()),
            )
        )
        first = last
    return found


@st.composite
def _vetting(draw: st.DrawFn) -> dict[str, Any]:
    blank: dict[str, Any] = {name: field.default for name, field in tree.model.Vetting.model_fields.items()}
    plain = ("legal_name", "physical_address", "contact_name", "use_case", "questionnaire_version", "aup_version",
             "aup_accepted_by", "trading_name")  # fmt: skip
    return tree.vetting(
        blank
        | {name: draw(PLAIN) for name in plain}
        | {
            "vetted_at": draw(PAST),
            "vetted_by": draw(PLAIN),
            "method": draw(st.sampled_from(["call", "visit", "documents"])),
            "valid_until": draw(AHEAD),
            "contact_email": draw(st.from_regex(r"[a-z]{1,5}@[a-z]{1,5}\.example", fullmatch=True)),
            "expected_calls_per_second": draw(st.none() | st.integers(0, 999_999_999).map(lambda n: n / 1000)),
            "aup_accepted_at": draw(PAST),
            "red_flags": draw(st.lists(PLAIN, max_size=2)),
            "filer_id_499": draw(st.from_regex(r"[0-9]{6}", fullmatch=True)),
            "rmd_number": draw(st.from_regex(r"RMD[0-9]{7,10}", fullmatch=True)),
            "rmd_status": draw(st.sampled_from(["listed", "not_listed"])),
            "rmd_checked_at": draw(PAST),
            "note": draw(PLAIN),
        }
    )


def text_of(held: dict[str, Any]) -> str:
    """A policy file of these customers."""
    lines = [canonical.HEADER + canonical.SOME + canonical.heading("customers")]
    lines.append("customers:\n" if held else "customers: {}\n")
    for name, customer in held.items():
        said = {key: value for key, value in customer.items() if value is not None}
        lines.append("\n".join(canonical.customer(name, said)) + "\n")
    return "".join(lines)
