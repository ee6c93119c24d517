"""What the sections of a policy must agree on, beyond what each says for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ringfence.policy import tree
from ringfence.policy.reader import Path
from ringfence.store.policy import did_you_mean

if TYPE_CHECKING:
    from ringfence.policy.document import Document

KEPT = 20
RESTRICTED = "restricted"


@dataclass(slots=True)
class Faults:
    """What is wrong with a file: the first faults with their paths, and how many there are."""

    count: int = 0
    kept: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, path: Path, said: str) -> None:
        """One more fault."""
        self.count += 1
        if len(self.kept) < KEPT:
            self.kept.append((path, said))


def check(document: Document, faults: Faults) -> None:
    """Find what two customers may not both have, and grants of one that meet."""
    owners: dict[tuple[str, str, str], str] = {}
    for name, customer in document.customers.items():
        for identity in customer.get("endpoints", ()):
            owner = owners.setdefault(identity, name)
            if owner != name:
                faults.add(
                    ("customers", name, "endpoints"),
                    f"{endpoint_written(identity)} is an endpoint of customer {owner!r} too",
                )
    if document.scope == "policy" and RESTRICTED not in document.profiles:
        faults.add(("profiles",), f"{RESTRICTED} is missing: it holds for restricted customers who name no other")
    _check_grants(document, faults)


def _check_grants(document: Document, faults: Faults) -> None:
    held = sorted(
        (grant.first, grant.last, name, grant.shared)
        for name, customer in document.customers.items()
        for grant in customer.get("grants", ())
    )
    # Walking up the numbers: whoever begins before the end of one before it meets that one. Shared grants of
    # several customers may.
    reach_of: dict[str, int] = {}
    reach, reach_shared = (0, ""), (0, "")
    for first, last, name, shared in held:
        path: Path = ("customers", name, "grants")
        if reach_of.get(name, 0) >= first:
            faults.add(path, f"+{first} is in two grants of the customer")
        else:
            others = [owner for top, owner in (reach, *(() if shared else (reach_shared,))) if top >= first]
            if others:
                faults.add(path, f"+{first} is granted to customer {others[0]!r} too: both grants must be shared")
        reach_of[name] = max(reach_of.get(name, 0), last)
        if shared:
            reach_shared = max(reach_shared, (last, name))
        else:
            reach = max(reach, (last, name))


def check_profiles(customers: Mapping[str, tree.Tree], profiles: Mapping[str, tree.Tree], faults: Faults) -> None:
    """Find profiles that are not there."""
    for name, customer in customers.items():
        for key in ("profile", "restricted_profile"):
            if customer[key] not in profiles:
                hint = did_you_mean(customer[key], list(profiles)).rstrip(";")
                faults.add(("customers", name, key), f"there is no profile {customer[key]!r}{hint}")


def endpoint_written(identity: tuple[str, str, str]) -> str:
    """An endpoint as people write it."""
    kind, value, host = identity
    return f"{kind} {value}" + (f" on {host}" if host != "*" else "")
