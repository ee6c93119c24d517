"""Making true what a policy file says, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import asyncpg

from ringfence.errors import ConflictError
from ringfence.policy import checks, entries, tree, values, vettings
from ringfence.policy.difference import Difference, Part, difference, require_none_missing, some
from ringfence.policy.document import Document
from ringfence.store import policy, policy_files

_MANY_GRANTS = 10_000
_LOCK = "select pg_advisory_lock(hashtextextended('ringfence.grants', 0))"
_UNLOCK = "select pg_advisory_unlock(hashtextextended('ringfence.grants', 0))"
_LOCK_WAIT_S = 5
_NEEDS_A_REASON = frozenset({"restricted", "suspended", "terminated"})
_ENDS_CALLS = frozenset({"suspended", "terminated"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What an apply was told besides the file: why, who approved that customers are reinstated, and whether
    customers that the file lacks are to be terminated."""

    reason: str = ""
    approved_by: str = ""
    terminate_missing: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What an apply did: the policy version it made, None if there was nothing to do, and how many of what."""

    policy_version: int | None
    counts: Mapping[str, int]


async def apply_document(
    connection: asyncpg.Connection,
    document: Document,
    *,
    origin: str = "the file",
    terms: Terms | None = None,
    found: Difference | None = None,
) -> Changes:
    """Make what `document` says true, in the caller's transaction. `found` is what `difference` found in it, if it
    was asked already.

    Other changes of grants wait until the transaction is over; calls do not. Raises BadInputError for what is
    wrong with the file, and ConflictError if it cannot become true: customers that it lacks, moves between states
    that may not be or have no reason, endpoints and numbers of others. What the database refuses are asyncpg's
    errors; then the transaction is lost.
    """
    terms = terms or Terms()
    await connection.execute("select ringfence.lock_grants()")
    if found is None:
        found = await difference(connection, document, origin)
    if not terms.terminate_missing:
        require_none_missing(found)
    if not found:
        return Changes(None, {})
    return await _Work(connection, found, terms, document).run()


async def apply_file(
    connection: asyncpg.Connection,
    document: Document,
    *,
    origin: str,
    terms: Terms,
    expect_version: int | None = None,
    dry_run: bool = False,
    show: Callable[[Difference], None] = lambda _: None,
) -> Changes:
    """Apply a document in a transaction of its own, one at a time; a dry run takes it all back.

    `show` is given the difference before it is applied. Raises as `apply_document` does, and ConflictError if the
    policy version is not `expect_version`, if somebody changed the same things at the same moment, or if somebody
    else is changing the policy for more than five seconds.
    """
    # The lock comes before the transaction, whose view of the database begins with its first query.
    await _lock(connection)
    try:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            found = await difference(connection, document, origin)
            if expect_version is not None and found.policy_version != expect_version:
                raise ConflictError(
                    f"the policy is at version {found.policy_version}, not {expect_version}: somebody changed it; "
                    "look at 'ringfence policy diff' again"
                )
            show(found)
            done = await apply_document(connection, document, origin=origin, terms=terms, found=found)
        except BaseException:
            if not connection.is_closed():
                await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise ConflictError(
            f"somebody changed the same things at the same moment, and nothing was applied: try again ({error})"
        ) from error
    finally:
        if not connection.is_closed():
            await connection.execute(_UNLOCK)
    return done


async def _lock(connection: asyncpg.Connection) -> None:
    await connection.execute(f"set lock_timeout = '{_LOCK_WAIT_S}s'")
    try:
        await connection.execute(_LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise ConflictError(
            "somebody else is changing the policy, and nothing was applied: try again when they are done"
        ) from error
    finally:
        if not connection.is_closed():
            await connection.execute("reset lock_timeout")


class _Work:
    """The parts of a difference, written table by table for all customers: what one gives up another may take."""

    def __init__(
        self, connection: asyncpg.Connection, found: Difference, terms: Terms, document: Document
    ) -> None:
        self._connection = connection
        self._terms = terms
        self._document = document
        self._reason = terms.reason or "policy apply"
        self._counts: Counter[str] = Counter()
        self._parts = found.parts
        self._sections = {part.section: part for part in found.parts if not part.name}
        self._profiles = [part for part in found.parts if part.section == "profiles"]
        self._missing = set(found.missing)
        self._customers = [values.whole(part) for part in found.parts if part.section == "customers"]

    async def run(self) -> Changes:
        self._check_reason()
        await self._write_provider()
        await self._write_profiles()
        await self._write_hours_and_reasons()
        await self._write_customers()
        await self._write_endpoints()
        await self._write_campaigns()
        await self._write_destinations()
        await self._write_grants()
        await self._write_vettings()
        await self._move()
        gone = [part.name for part in self._profiles if part.after is None]
        if gone:
            await policy_files.remove_profiles(self._connection, gone)
        counts = {what: count for what, count in self._counts.items() if count}
        sha256, reason = self._document.sha256, self._terms.reason
        await policy_files.note_changes(self._connection, entries.entries(self._parts, sha256, reason))
        detail = {"sha256": sha256, "reason": reason, **counts}
        return Changes(await policy.note_change(self._connection, "policy.apply", "", detail), counts)

    async def _write_provider(self) -> None:
        if "provider" in self._sections:
            await policy_files.write_provider(self._connection, self._sections["provider"].after)
            self._counts["provider"] = 1

    async def _write_profiles(self) -> None:
        written = [part for part in self._profiles if part.after is not None]
        await policy_files.write_profiles(
            self._connection, [(part.name, *values.profile_values(part.after)) for part in written]
        )
        self._count("profiles", self._profiles)

    async def _write_hours_and_reasons(self) -> None:
        if (part := self._sections.get("calling_hours")) is not None:
            places = [place for place, _ in values.changed(part.before, part.after)]
            hours = [row for place in places for row in values.hours_rows(place, part.after.get(place, {}))]
            split = [(place[:2], place[3:]) for place in places]
            await policy_files.write_calling_hours(self._connection, split, hours)
            self._counts["calling_hours"] = len(places)
        if (part := self._sections.get("reasons")) is not None:
            codes = [code for code, _ in values.changed(part.before, part.after)]
            rows = [values.reason_row(code, part.after.get(code, {})) for code in codes]
            await policy_files.write_reasons(self._connection, rows)
            self._counts["reasons"] = len(codes)

    async def _write_customers(self) -> None:
        added, changed = [], []
        for part in self._customers:
            if part.before is None:
                # Who may call, may call when the vetting is there; whoever may not is that from the first.
                state = "prospect" if part.after["state"] in ("active", "restricted") else part.after["state"]
                added.append((part.name, *values.customer_values(part.after), state, self._reason))
            elif values.customer_values(part.before) != values.customer_values(part.after):
                changed.append((part.name, *values.customer_values(part.after)))
        await policy_files.add_customers(self._connection, added)
        await policy_files.change_customers(self._connection, changed)
        self._count("customers", [part for part in self._customers if part.name not in self._missing])
        self._counts["customers_terminated"] = len(self._missing)

    async def _write_endpoints(self) -> None:
        removed, written = [], []
        for part in self._customers:
            for identity, after in values.changed(values.held(part.before, "endpoints"), part.after["endpoints"]):
                if after is None:
                    removed.append(identity)
                else:
                    terms = (after.get("traffic", "conversational"), after.get("enabled", True))
                    written.append((part.name, *identity, *terms))
        await policy_files.remove_endpoints(self._connection, removed)
        owners = await policy_files.endpoint_owners(self._connection, [row[1:4] for row in written])
        for row in written:
            if (owner := owners.get(row[1:4], row[0])) != row[0]:
                raise ConflictError(
                    f"customers.{row[0]}.endpoints: {checks.endpoint_written(row[1:4])} belongs to customer "
                    f"{owner!r}, of whom the file says nothing"
                )
        await policy_files.write_endpoints(self._connection, written)
        self._counts["endpoints_removed"] += len(removed)
        self._counts["endpoints_written"] += len(written)

    async def _write_campaigns(self) -> None:
        removed, written = [], []
        for part in self._customers:
            for name, after in values.changed(values.held(part.before, "campaigns"), part.after["campaigns"]):
                if after is None:
                    removed.append((part.name, name))
                else:
                    terms = (after["traffic"], after.get("description", ""), after.get("enabled", True))
                    written.append((part.name, name, *terms))
        await policy_files.write_campaigns(self._connection, removed, written)
        self._counts["campaigns"] += len(removed) + len(written)

    async def _write_destinations(self) -> None:
        removed: list[tuple[str, int, str]] = []
        written: list[tuple[Any, ...]] = []
        tables = [(part.name, values.held(part.before, "destinations"), part.after["destinations"])
                  for part in self._customers]  # fmt: skip
        if (part := self._sections.get("destinations")) is not None:
            tables.append(("*", part.before, part.after))
        for customer, before, after in tables:
            for target, rule in values.changed(before, after):
                key = (customer, int(target[1:]) if target.startswith("+") else 0, target.lstrip("+0123456789"))
                if rule is None:
                    removed.append(key)
                else:
                    caps = ("calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month")
                    written.append((*key, rule["action"], *(rule.get(cap) for cap in caps)))
        await policy_files.write_destinations(self._connection, removed, written)
        self._counts["destinations"] += len(removed) + len(written)

    async def _write_grants(self) -> None:
        runs: list[tuple[str, int, int, str]] = []
        added: list[tuple[Any, ...]] = []
        for part in self._customers:
            before: list[tree.Grant] = values.held(part.before, "grants") or []
            stay = set(before) & set(part.after["grants"])
            # What goes side by side goes in one: each run is an entry in policy_changes.
            for gone, run in groupby(before, key=lambda grant: grant not in stay):
                if gone:
                    blocks = list(run)
                    runs.append((part.name, blocks[0].first, blocks[-1].last, self._reason))
                    self._counts["grants_revoked"] += len(blocks)
            added += [
                (part.name, *grant[:5], *map(values.moment, grant[5:7]), grant.shared)
                for grant in part.after["grants"]
                if grant not in stay
            ]
        await policy_files.revoke_grants(self._connection, runs)
        if added:
            await policy_files.add_grants(self._connection, added)
        if len(added) + self._counts["grants_revoked"] > _MANY_GRANTS:
            await policy_files.analyze_grants(self._connection)
        self._counts["grants_added"] += len(added)

    async def _write_vettings(self) -> None:
        added, emails = [], []
        for part in self._customers:
            vetting, email = vettings.added(part), tree.contact_email(part.before)
            if vetting is not None:
                added.append((part.name, values.vetting_values(vetting)))
                email = tree.contact_email({"vetting": vetting})
            if tree.contact_email(part.after) != email:
                emails.append((part.name, tree.contact_email(part.after)))
        await policy_files.add_vettings(self._connection, added)
        await policy_files.set_contact_emails(self._connection, emails)
        self._counts["vettings"] += len(added)

    async def _move(self) -> None:
        moves = []
        for part in self._customers:
            target: str = part.after["state"]
            state = part.before["state"] if part.before else "prospect"
            if part.before is None and target not in ("active", "restricted"):
                continue
            if state == target:
                continue
            if state == "suspended" and target in ("active", "restricted"):
                self._check_reinstating(part.name)
            steps = ("active", "restricted") if (state, target) == ("prospect", "restricted") else (target,)
            for step in steps:
                moves.append((part.name, step, self._reason, step in _ENDS_CALLS, self._terms.approved_by))
            self._counts["moved"] += 1
        await policy_files.move_customers(self._connection, moves)

    def _check_reason(self) -> None:
        moves = ((part.name, (part.before or {}).get("state"), part.after["state"]) for part in self._customers)
        moved = [name for name, before, after in moves if before != after and after in _NEEDS_A_REASON]
        if moved and not self._terms.reason:
            raise ConflictError(
                f"customer {some(moved)} would become restricted, suspended or terminated: nothing was applied; "
                "say why with --reason, which the customer's notice and the record state"
            )

    def _check_reinstating(self, customer: str) -> None:
        if not self._terms.reason or not self._terms.approved_by:
            raise ConflictError(
                f"customers.{customer}.state: {customer!r} is suspended: reinstating needs --reason, and "
                "--approved-by with the name of who approved it"
            )

    def _count(self, what: str, parts: Iterable[Part]) -> None:
        for part in parts:
            kind = "added" if part.before is None else "removed" if part.after is None else "changed"
            self._counts[f"{what}_{kind}"] += 1
