"""Vettings that a policy file would add: each must be such as `ringfence customer vet` would record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ringfence import vetting_facts
from ringfence.config import MAIL_ADDRESS
from ringfence.policy import tree, values
from ringfence.store import vetting as vettings

if TYPE_CHECKING:
    from ringfence.policy.checks import Faults
    from ringfence.policy.difference import Part


def added(part: Part) -> tree.Tree | None:
    """The vetting that a customer gets; None if it has none or keeps the one that it has."""
    found: tree.Tree | None = part.after.get("vetting")
    return None if found == (part.before or {}).get("vetting") else found


def check(parts: Iterable[Part], provider: tree.Tree, now: datetime, faults: Faults) -> None:
    """Find vettings that may not be added to these customers, and contact addresses that no mail can go to.

    What a vetting does not say is as `add_vettings` makes it: it is of `now`, holds for the provider's
    vetting_valid_days, and a provider was looked up in the Robocall Mitigation Database just now.
    """
    for part in parts:
        if part.after is None:
            continue
        email = part.after.get("contact_email", "")
        if email and email != tree.contact_email(part.before) and not re.fullmatch(MAIL_ADDRESS, email):
            said = f"is not an e-mail address of plain ASCII, name@host (found {email[:60]!r})"
            faults.add(("customers", part.name, "contact_email"), said)
        vetting = added(part)
        if vetting is None:
            continue
        top = ("customers", part.name, "vetting")
        if part.before is not None and part.before["state"] == "terminated":
            faults.add(top, "the customer is terminated: that is for good, and it is vetted no more")
            continue
        forms = vetting_facts.faults({key: value for key, value in vetting.items() if key != "vetted_at"})
        for place, said in forms:
            faults.add((*top, *place), said)
        if forms:
            continue
        whole = _whole(vetting, part.after, provider, now)
        short = vettings.is_short(whole)
        for field, said in vettings.faults(whole, part.after["kind"], provider["aup_version"], now, short=short):
            faults.add((*top, field) if field else top, said)


def _whole(vetting: tree.Tree, customer: tree.Tree, provider: tree.Tree, now: datetime) -> dict[str, Any]:
    whole = values.vetting_values(vetting)
    whole["vetted_at"] = whole["vetted_at"] or now
    whole["valid_until"] = whole["valid_until"] or whole["vetted_at"] + timedelta(
        days=provider["vetting_valid_days"]
    )
    whole["rmd_checked_at"] = whole["rmd_checked_at"] or (now if customer["kind"] == "provider" else None)
    whole["contact_email"] = tree.contact_email(customer)
    return whole
