"""What an apply changed, as entries of policy_changes: one for each section, profile and customer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from ringfence.policy import tree, values, vettings
from ringfence.policy.difference import Part, changes_of

ACTION = "policy.change"
MAX_CHANGES = 100  # named in one entry; the rest is counted
MAX_GRANTS = 20

_BLANK: tree.Tree = {"endpoints": {}, "campaigns": {}, "destinations": {}}
_OF_A_VETTING = ("vetted_at", "vetted_by", "method", "valid_until")


def entries(parts: Sequence[Part], sha256: str, reason: str) -> Iterator[tuple[str, str, str]]:
    """The entries, as action, customer (empty for what is nobody's) and detail in JSON.

    Each has its changes with what was before and after. Grants are named if they are few, else counted, with the
    lowest and the highest number. Of a vetting it has who, how and until when, and the names of the facts that
    changed: the facts themselves are in the vettings. Nothing is written of what did not change.
    """
    for part in parts:
        detail: tree.Tree = {"part": part.path, "reason": reason, "sha256": sha256}
        if part.section == "customers":
            detail |= _of_a_customer(values.whole(part))
        else:
            detail |= _bounded(changes_of(part))
        customer = part.name if part.section == "customers" else ""
        yield ACTION, customer, json.dumps(detail)


def _of_a_customer(part: Part) -> tree.Tree:
    before, after = part.before or _BLANK, part.after
    said = ({key: value for key, value in each.items() if key not in ("grants", "vetting")}
            for each in (before, after))  # fmt: skip
    found: tree.Tree = {"added": True} if part.before is None else {}
    found |= _bounded(changes_of(Part(part.section, part.name, *said)))
    was, will = set(before.get("grants", ())), set(after["grants"])
    for what, grants in (("grants_revoked", was - will), ("grants_added", will - was)):
        if grants:
            found[what] = _grants(sorted(grants))
    if (vetting := vettings.added(part)) is not None:
        old = before.get("vetting", {})
        told = [key for key in {**old, **vetting} if old.get(key) != vetting.get(key)]
        found["vetting"] = {
            "before": _outline(old),
            "after": _outline(vetting),
            "told": sorted(key for key in told if key not in _OF_A_VETTING),
        }
    return found


def _bounded(changes: Iterator[tree.Tree]) -> tree.Tree:
    named = list(islice(changes, MAX_CHANGES))
    more = sum(1 for _ in changes)
    return ({"changes": named} if named else {}) | ({"more_changes": more} if more else {})


def _grants(grants: Sequence[tree.Grant]) -> tree.Tree:
    found: dict[str, Any] = {"count": len(grants)}
    if len(grants) <= MAX_GRANTS:
        return found | {"grants": [grant.tree() for grant in grants]}
    return found | {"first": f"+{grants[0].first}", "last": f"+{max(grant.last for grant in grants)}"}


def _outline(vetting: tree.Tree) -> tree.Tree | None:
    return {key: vetting[key] for key in _OF_A_VETTING if key in vetting} or None
