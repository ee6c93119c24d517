"""What a policy file would change: the canonical policy in the database against that of the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from ringfence.errors import ConflictError
from ringfence.policy import canonical, checks, database, tree, vettings
from ringfence.policy.document import Document, refuse
from ringfence.store import policy_files

CONTEXT = 3
_MUCH = 20_000_000  # lines times changed lines: more than this and only the changed lines are shown
_WITHOUT_MOMENTS = ("vetted_at", "valid_until", "rmd_checked_at")


@dataclass(frozen=True, slots=True)
class Part:
    """A section, a profile or a customer that is different; None where it is not there."""

    section: str
    name: str
    before: Any
    after: Any

    @property
    def path(self) -> str:
        """Where it is in the file."""
        return f"{self.section}.{self.name}" if self.name else self.section

    def lines(self, value: Any) -> list[str]:
        """It in canonical form, before or after."""
        if value is None:
            return []
        if self.section == "customers":
            return list(canonical.customer(self.name, value))
        if self.section == "profiles":
            return list(canonical.profile(self.name, value))
        return list(canonical.section(self.section, value))


@dataclass(slots=True)
class Difference:
    """The parts that are different, and the customers that a whole policy lacks.

    `policy_version` is that of the database they were found in.
    """

    policy_version: int
    parts: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.parts)


async def difference(connection: asyncpg.Connection, document: Document, origin: str) -> Difference:
    """Compare; needs a transaction, which should see one moment (repeatable read).

    Customers of the database that a whole policy lacks are parts without `after`, and in `missing`. Raises
    BadInputError for what only the database can tell to be wrong with the file: profiles, time zones, and vettings
    that would be added but could not be recorded.
    """
    found = Difference(await policy_files.version(connection))
    profiles = await database.profiles(connection, hidden=True)
    if document.scope == "policy":
        for section, before in (
            ("provider", await database.provider(connection)),
            ("destinations", await database.destinations(connection)),
            ("calling_hours", await database.calling_hours(connection)),
            ("reasons", await database.reasons(connection)),
        ):
            _compare(found, section, "", before, getattr(document, section))
    kept, customers = await _customers(connection, document, found)
    if document.scope == "policy":
        for name in sorted(profiles.keys() | document.profiles):
            if name in document.profiles or name not in kept:
                _compare(found, "profiles", name, profiles.get(name), document.profiles.get(name))
    found.parts += customers
    found.parts.sort(key=lambda part: (_ORDER.index(part.section), part.name))
    await _check(connection, document, origin, profiles, customers)
    return found


_ORDER = ("provider", "profiles", "destinations", "calling_hours", "reasons", "customers")


async def _customers(
    connection: asyncpg.Connection, document: Document, found: Difference
) -> tuple[set[str], list[Part]]:
    """The profiles of customers that the file does not name, and the customers that are different."""
    kept: set[str] = set()
    parts: list[Part] = []
    there: set[str] = set()
    only = list(document.customers) if document.scope == "customers" else None
    async for name, before, hidden in database.customers(connection, only):
        said = document.customers.get(name)
        there.add(name)
        if said is not None:
            after = laid_over(before, said)
            if after != before:
                parts.append(Part("customers", name, before, after))
            continue
        kept |= {before["profile"], before["restricted_profile"]}
        if document.scope == "policy" and not hidden:
            found.missing.append(name)
            parts.append(Part("customers", name, before, None))
    for name, said in document.customers.items():
        if name not in there:
            parts.append(Part("customers", name, None, laid_over(None, said)))
    return kept, parts


def laid_over(before: tree.Tree | None, said: tree.Tree) -> tree.Tree:
    """A customer as it is after what the file says: what it does not say is as before."""
    was = before or {"state": "prospect", "endpoints": {}, "campaigns": {}, "destinations": {}, "grants": []}
    vetting = _vetting(was.get("vetting"), said.get("vetting"))
    vetted_email = tree.contact_email({"vetting": vetting or {}})
    email = tree.contact_email(was) if vetting is was.get("vetting") else vetted_email
    if said["contact_email"] is not None:
        email = said["contact_email"]
    after = {**said, "state": said["state"] or was["state"]}
    del after["contact_email"]
    if email != vetted_email:
        after["contact_email"] = email
    for key in ("endpoints", "campaigns", "destinations", "grants"):
        after[key] = said.get(key, was[key])
    after.pop("vetting", None)
    if vetting is not None:
        after["vetting"] = vetting
    order = ("name", "kind", "state", "time_zone", "profile", "restricted_profile", "contact_email", "endpoints",
             "campaigns", "destinations", "grants", "vetting")  # fmt: skip
    return {key: after[key] for key in order if key in after}


def _vetting(was: tree.Tree | None, said: tree.Tree | None) -> tree.Tree | None:
    """The newest vetting after what the file says. Moments that it does not name are no difference."""
    if said is None or was is None:
        return was if said is None else said
    unsaid = {name: was[name] for name in _WITHOUT_MOMENTS if name in was and name not in said}
    return was if {**said, **unsaid} == was else said


def _compare(found: Difference, section: str, name: str, before: Any, after: Any) -> None:
    if before != after:
        found.parts.append(Part(section, name, before, after))


async def _check(
    connection: asyncpg.Connection,
    document: Document,
    origin: str,
    profiles: Mapping[str, tree.Tree],
    customers: list[Part],
) -> None:
    faults = checks.Faults()
    named = {part.name: part.after for part in customers if part.after is not None}
    if document.scope == "customers":
        checks.check_profiles(named, profiles, faults)
    zones = {after["time_zone"] for name, after in named.items()}
    if zones - {"UTC"}:
        known = await policy_files.time_zones(connection)
        for name, after in named.items():
            if after["time_zone"] not in known:
                faults.add(
                    ("customers", name, "time_zone"),
                    f"Postgres knows no time zone {after['time_zone']!r}: write one such as America/New_York",
                )
    if any(part.after is not None and part.before != part.after for part in customers):
        provider = document.provider if document.scope == "policy" else await database.provider(connection)
        vettings.check(customers, provider, await policy_files.now(connection), faults)
    refuse(origin, faults)


def require_none_missing(found: Difference) -> None:
    """Raises ConflictError if the file of a whole policy lacks customers."""
    if found.missing:
        raise ConflictError(
            f"the file says nothing about customer {some(found.missing)}: nothing was applied; add them to the "
            "file, or terminate them with --terminate-missing"
        )


def some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return f"{', '.join(map(repr, names[:5]))}{more}"


# --- for people ----------------------------------------------------------------------------------------------


def unified(found: Difference, origin: str) -> Iterator[str]:
    """A unified diff of the two canonical documents, part by part."""
    if found:
        yield f"--- database, policy version {found.policy_version}"
        yield f"+++ {origin}"
    for part in found.parts:
        before, after = part.lines(part.before), part.lines(part.after)
        changed = len(set(before) ^ set(after))
        if changed * (len(before) + len(after)) > _MUCH:
            yield f"@@ {part.path}: {changed:,} lines @@"
            yield from _without_context(before, after)
            continue
        for line in list(difflib.unified_diff(before, after, n=CONTEXT, lineterm=""))[2:]:
            yield f"{line} {part.path}" if line.startswith("@@") else line


def _without_context(before: list[str], after: list[str]) -> Iterator[str]:
    was, will = set(before), set(after)
    yield from (f"-{line}" for line in before if line not in will)
    yield from (f"+{line}" for line in after if line not in was)


# --- for programs --------------------------------------------------------------------------------------------


def changes(found: Difference) -> Iterator[tree.Tree]:
    """Every field or entry that is different, as {path, before, after}; None where it is not there."""
    for part in found.parts:
        yield from changes_of(part)


def changes_of(part: Part) -> Iterator[tree.Tree]:
    """The same for one part."""
    return _changes(part.path, part.before, part.after)


def _changes(path: str, before: Any, after: Any) -> Iterator[tree.Tree]:
    if before == after:
        return
    if path.endswith(".grants") and isinstance(before, list) and isinstance(after, list):
        before, after = _by_block(before), _by_block(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _changes(_below(path, key), before.get(key), after.get(key))
    else:
        whole = path.count(".") == 1  # of the parts that may be missing, customers hold lists
        yield {"path": path, "before": plain(before, whole=whole), "after": plain(after, whole=whole)}


def _by_block(grants: list[tree.Grant]) -> dict[tuple[str, ...], tree.Tree]:
    return {(block(grant),): grant.tree() for grant in grants}


def _below(path: str, key: Any) -> str:
    if isinstance(key, tuple):
        return f"{path}[{key[0] if len(key) == 1 else checks.endpoint_written(key)}]"
    return f"{path}[{key}]" if path.endswith("destinations") else f"{path}.{key}"


def block(grant: tree.Grant) -> str:
    """The numbers of a grant."""
    return f"+{grant.first}" if grant.first == grant.last else f"+{grant.first}..+{grant.last}"


def plain(value: Any, *, whole: bool = False) -> Any:
    """A value as JSON has it; with `whole` it is a customer, whose endpoints and rules are lists in the file."""
    if isinstance(value, tree.Grant):
        return value.tree()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict) and whole:
        lists = ("endpoints", "destinations")
        return {key: plain(list(each.values()) if key in lists else each) for key, each in value.items()}
    return value
