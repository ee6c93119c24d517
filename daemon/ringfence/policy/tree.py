"""The canonical form of a policy: plain values in a fixed order, the same whether they come from the file or from
the database, so that two of them can be compared, shown and written out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from ringfence import rules
from ringfence.policy import model
from ringfence.policy.fields import written
from ringfence.reasons import Reason

Tree = dict[str, Any]


class Grant(NamedTuple):
    """A grant, kept small: there may be a million. Times are as `fields.written` has them, empty for no bound."""

    first: int
    last: int
    source: str
    evidence: str
    attestation: str
    valid_from: str
    valid_until: str
    shared: bool

    def tree(self) -> Tree:
        """The grant as the document has it, without what is as by default."""
        block = (
            {"number": f"+{self.first}"}
            if self.first == self.last
            else {"first": f"+{self.first}", "last": f"+{self.last}"}
        )
        return {**block, **self.terms()}

    def terms(self) -> Tree:
        """On what it rests and when it holds, without what is as by default."""
        return {name: getattr(self, name) for name in _TERMS if getattr(self, name) != _TERMS[name]}


_TERMS: Mapping[str, Any] = {
    "source": "assigned",
    "evidence": "",
    "attestation": "A",
    "valid_from": "",
    "valid_until": "",
    "shared": False,
}


def _record(section: type[model.Section], values: Mapping[str, Any], *, keep: Collection[str] = ()) -> Tree:
    """The fields of `section` among `values` in its order, without those that are as by default but for `keep`."""
    found: Tree = {}
    for name, field in section.model_fields.items():
        value = _plain(values[name])
        if field.is_required() or name in keep or (value not in (field.default, None) and value != []):
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal | float):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, datetime):
        return written(value)
    return list(value) if isinstance(value, tuple) else value


def provider(values: Mapping[str, Any]) -> Tree:
    """The provider, with every field."""
    return _record(model.Provider, values, keep=model.Provider.model_fields)


def profile(values: Mapping[str, Any], modes: Mapping[str, str]) -> Tree:
    """A limit profile; `modes` may name rules that are enforced."""
    chosen = {rule: modes[rule] for rule in rules.WITH_MODE if modes.get(rule, rules.ENFORCE) != rules.ENFORCE}
    found = _record(model.Profile, {**values, "modes": chosen})
    if not chosen:
        found.pop("modes", None)
    return found


def destinations(found: Sequence[Mapping[str, Any]]) -> Tree:
    """Destination rules by their target: countries and classes first, then prefixes."""
    records = [_record(model.DestinationRule, values) for values in found]
    by_target = {record.get("prefix") or record["area"]: record for record in records}
    return dict(sorted(by_target.items(), key=lambda item: (item[0].startswith("+"), item[0])))


def calling_hours(found: Mapping[str, Mapping[str, str]]) -> Tree:
    """Calling hours by country or country and state; each has the hours of days, or of `every_day`."""
    hours: Tree = {}
    for place, days in sorted(found.items()):
        week = {day: days[day] for day in model.DAYS if day in days}
        same = set(week.values())
        hours[place] = {"every_day": same.pop()} if len(week) == len(model.DAYS) and len(same) == 1 else week
    return hours


def reason(values: Mapping[str, Any], shipped: Reason) -> Tree:
    """What a reason answers otherwise than it was shipped; None is as shipped."""
    found = {name: values[name] for name in ("sip_status", "q850_cause", "sentence")}
    return {name: value for name, value in found.items() if value is not None and value != getattr(shipped, name)}


def campaigns(found: Mapping[str, Mapping[str, Any]]) -> Tree:
    """Campaigns by name."""
    return {name: _record(model.Campaign, found[name]) for name in sorted(found)}


def endpoints(found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Tree]:
    """Endpoints by kind, value and host."""
    records = {(e["kind"], e["value"], e["host"]): _record(model.Endpoint, e) for e in found}
    return dict(sorted(records.items()))


def vetting(values: Mapping[str, Any]) -> Tree:
    """A vetting, without what is not known."""
    return _record(model.Vetting, values)


def contact_email(held: Tree | None) -> str:
    """Where notices to a customer go: to the address of its vetting, unless it has one of its own."""
    held = held or {}
    vetted: str = held.get("vetting", {}).get("contact_email", "")
    return vetted if "contact_email" not in held else str(held["contact_email"])


def customer(values: Mapping[str, Any]) -> Tree:
    """A customer's own fields; what it holds is added under the keys of the file."""
    return {name: values[name] for name in ("name", "kind", "state", "time_zone", "profile", "restricted_profile")}
