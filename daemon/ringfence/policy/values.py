"""Parts of the canonical form as values of columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ringfence import rules
from ringfence.policy import model, tree
from ringfence.policy.fields import read_moment
from ringfence.reasons import BY_CODE
from ringfence.store.profiles import CAPS

if TYPE_CHECKING:
    from ringfence.policy.difference import Part

_MOMENTS = frozenset({"vetted_at", "valid_until", "questionnaire_at", "aup_accepted_at", "rmd_checked_at"})


def whole(part: Part) -> Part:
    """A customer that the file lacks is terminated and gives up all it holds."""
    if part.after is not None:
        return part
    after = {
        **part.before,
        "state": "terminated",
        "endpoints": {},
        "campaigns": {},
        "destinations": {},
        "grants": [],
    }
    return replace(part, after=after)


def changed(before: Any, after: Any) -> Iterator[tuple[Any, Any]]:
    """Keys whose values are different, with the value after, or None."""
    before, after = before or {}, after or {}
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            yield key, after.get(key)


def held(before: tree.Tree | None, key: str) -> Any:
    """What a customer held, or None if it was not there."""
    return before[key] if before else None


def customer_values(said: tree.Tree) -> tuple[str, ...]:
    """The columns of a customer that the file says, without its state."""
    return tuple(said[key] for key in ("name", "kind", "time_zone", "profile", "restricted_profile"))


def profile_values(caps: tree.Tree) -> tuple[Any, ...]:
    """The columns of a limit profile: caps, report_rules, off_rules."""
    modes = caps.get("modes", {})
    lists = [[rule for rule in rules.WITH_MODE if modes.get(rule) == mode] for mode in (rules.REPORT, rules.OFF)]
    return (*(caps.get(cap, 0 if cap == "max_delay_ms" else None) for cap in CAPS), *lists)


def hours_rows(place: str, hours: tree.Tree) -> list[tuple[str, str, int, str, str]]:
    """The rows of the calling hours of a place."""
    rows = []
    for weekday, day in enumerate(model.DAYS):
        span = hours.get("every_day", hours.get(day))
        if span is not None:
            opens, closes = ("00:00", "00:00") if span == "closed" else span.split("-")
            rows.append((place[:2], place[3:], weekday, opens, closes))
    return rows


def reason_row(code: str, said: tree.Tree) -> tuple[str, int, int, str]:
    """What a reason answers, as shipped where the file says nothing."""
    shipped = BY_CODE[code]
    return (
        code,
        said.get("sip_status", shipped.sip_status),
        said.get("q850_cause", shipped.q850_cause),
        said.get("sentence", shipped.sentence),
    )


def vetting_values(vetting: tree.Tree) -> dict[str, Any]:
    """Every column of a vetting that the file may say."""
    known = {name: field.default for name, field in model.Vetting.model_fields.items() if not field.is_required()}
    values = {**known, **vetting}
    return {name: moment(value) if name in _MOMENTS and value else value for name, value in values.items()}


def moment(text: str) -> Any:
    """A moment as Postgres takes it; None if the text is empty."""
    return read_moment(text) if text else None
