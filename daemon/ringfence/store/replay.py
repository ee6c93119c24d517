"""Judging recorded calls again under another policy, or the same, away from the call's way.

The policy to try is applied in a transaction that is rolled back at once; what it changed is kept in temporary
tables of this session. The judge is the installed function `judged`, as it stands in the database, made to read
those. So nothing is locked while calls are judged, no snapshot is held for longer than a chunk of them, and no
daemon is told.
"""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import BinaryIO, cast
from uuid import UUID

import asyncpg

from ringfence.errors import ConflictError, DatabaseError
from ringfence.numbering import WITHHELD
from ringfence.store.policy import Row
from ringfence.store.replay_caps import Caps, Counters, Outcome, Profile

Apply = Callable[[asyncpg.Connection], Awaitable[object]]
"""Makes the policy to try the current one, in the transaction it finds itself in."""

CHUNK = 50_000
# Calls are judged in the order in which they were decided, but read in that in which they were asked about: an
# answer takes up to the deadline, and hosts' clocks differ.
_DISORDER = timedelta(seconds=60)
_NAMED = re.compile(r"\bringfence\.([a-z_]+)")
_OWN_SEARCH_PATH = re.compile(r"^ SET search_path TO .*\n", re.MULTILINE)

# A change of the policy waits until this transaction is over: let it not wait for long.
_APPLY_BOUNDS = "set local lock_timeout = '5s'; set local idle_in_transaction_session_timeout = '60s'"
_TOUCHED = """
select relname from pg_stat_xact_user_tables
where schemaname = 'ringfence' and n_tup_ins + n_tup_upd + n_tup_del > 0
"""
# As in authorize: nothing may talk the planner into reading a whole table for each call.
_PLANNING = """
set jit = off; set enable_seqscan = off; set enable_bitmapscan = off; set work_mem = '64MB';
set client_min_messages = warning; set check_function_bodies = off
"""
FLOORS = "select ringfence.uuid_floor($1), ringfence.uuid_floor($2)"
_TABLES = """
select relname from pg_class
where relnamespace = 'ringfence'::regnamespace and relkind = 'r' and relname = any ($1)
"""
_FUNCTIONS = """
select proname, pg_get_functiondef(oid) from pg_proc
where pronamespace = 'ringfence'::regnamespace and prokind = 'f' and proname = any ($1)
"""
_AS_IF_ACTIVE = "update pg_temp.customers set state = 'active' where state not in ('active', 'restricted')"
RECORDED = "select * from ringfence.recorded_attempts($1, $2, $3)"

# Micro- and not milliseconds, as the judge reckons. A float8 of seconds still tells them apart.
_JUDGED = """
select r.decision_id, j.customer, j.profile, (date_part('epoch', r.asked_at) * 1000000)::bigint,
  (r.asked_at at time zone j.time_zone)::date - date '2000-01-01', j.destination_rule, j.caller,
  (date_part('epoch', r.freed_at) * 1000000)::bigint, r.seconds,
  case when r.seconds > 0 then (r.ended_at at time zone j.time_zone)::date - date '2000-01-01' else 0 end,
  j.reason, r.was_customer, r.was_verdict, r.was_reason
from (
  select decision_id, customer, profile, time_zone, reason,
    case when destination_action = 'cap' then destination_rule end as destination_rule,
    case when caller_id_calls_per_day is not null then caller_e164 end as caller
  from pg_temp.judged(null, now())
  offset 0
) j
join pg_temp.attempts r using (decision_id)
where j.reason is null or j.reason <> r.was_reason
"""
_PROFILES = """
select profile, ceil(1000000 / calls_per_second)::bigint as spacing_us, burst, max_delay_ms, concurrent_calls,
  calls_per_day, calls_per_month, minutes_per_day * 60::bigint as seconds_per_day,
  minutes_per_month * 60::bigint as seconds_per_month, caller_id_calls_per_day,
  report_rules || off_rules as not_enforced
from (
  select * from {profiles}
  union all
  select t.* from (select distinct profile, restricted_profile from {customers} where state = 'restricted') c
  cross join lateral pg_temp.tighter_profile(c.profile, c.restricted_profile) t
) p
"""
_DESTINATIONS = """
select destination_rule, calls_per_day, calls_per_month, minutes_per_day * 60::bigint as seconds_per_day,
  minutes_per_month * 60::bigint as seconds_per_month
from {destinations} where action = 'cap'
"""
_DETAILS = """
select decision_id, decided_at, customer, entry, caller, caller_e164, called, called_e164 from ringfence.decisions
where decision_id >= ringfence.uuid_floor($2) and decision_id < ringfence.uuid_floor($3)
  and decision_id = any ($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A call that would have been answered otherwise."""

    decision_id: UUID
    customer: str
    was: Outcome
    would_be: Outcome

    @property
    def kind(self) -> str:
        """`refused` or `let_out` now, or `otherwise`: for another reason, or held for another time."""
        if (self.was[0] == "reject") == (self.would_be[0] == "reject"):
            return "otherwise"
        return "refused" if self.would_be[0] == "reject" else "let_out"


@dataclass(slots=True)
class Replayed:
    """What came of it. `differing` are the first of all that differ; the counters count all."""

    calls: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[Outcome, Outcome]] = field(default_factory=Counter)
    customers: dict[str, Counter[str]] = field(default_factory=dict)
    """Of each customer with a difference: how many calls are `refused`, `let_out` and `otherwise` different."""
    differing: list[Difference] = field(default_factory=list)

    @property
    def differ(self) -> int:
        """How many calls would have been answered otherwise."""
        return self.changes.total()

    def by_reason(self) -> tuple[Counter[str], Counter[str]]:
        """Of the calls that differ: how many had each reason, and how many would have it."""
        had, would_have = Counter[str](), Counter[str]()
        for (was, would_be), calls in self.changes.items():
            had[was[1]] += calls
            would_have[would_be[1]] += calls
        return had, would_have


class Replay:
    """One policy over recorded calls, on a connection that serves nothing else."""

    def __init__(
        self, connection: asyncpg.Connection, *, as_if_active: bool, refused_call_s: int, limit: int
    ) -> None:
        """`refused_call_s` is how long a call is taken to last that was refused then and would pass now; at most
        `limit` differing calls are kept."""
        self._connection = connection
        self._as_if_active = as_if_active
        self._refused_call_s = refused_call_s
        self._limit = limit
        self._tables: set[str] = set()  # those that this session has of its own

    async def prepare(self, apply: Apply | None) -> None:
        """Take the policy that `apply` makes, or the current one.

        Raises ConflictError if somebody else is changing the policy, and whatever `apply` raises.
        """
        judge = await self._source_of("judged")
        named = [name for source in judge.values() for name in re.findall(r"[a-z_]+", source)]
        read = {row[0] for row in await self._connection.fetch(_TABLES, named)}
        if apply is not None:
            await self._take_applied(apply, read)
        if "customers" not in self._tables:
            await self._own("customers")
            await self._connection.execute("insert into pg_temp.customers select * from ringfence.customers")
        if self._as_if_active:
            await self._connection.execute(_AS_IF_ACTIVE)
        for table in self._tables:
            await self._connection.execute(f"analyze pg_temp.{table}")
        await self._connection.execute(
            "create temp table attempts as select * from ringfence.recorded_attempts(null, null, null)"
        )
        await self._connection.execute(_PLANNING)
        for source in judge.values():
            await self._connection.execute(self._of_this_session(source, judge))

    async def run(
        self, since: datetime, until: datetime, progress: Callable[[datetime, Replayed], object] | None = None
    ) -> Replayed:
        """Judge the calls that were asked about from `since` to before `until` again, with counters that are empty
        at first. `progress` is told up to when they are judged."""
        counters = Counters(await self._profiles(), await self._destinations())
        found = Replayed()
        waiting: list[asyncpg.Record] = []
        floors = await self._connection.fetchrow(FLOORS, since, until)
        assert floors is not None
        lower, upper = floors
        analyzed = False
        while lower is not None:
            below = await self._connection.fetchval(
                "select decision_id from ringfence.decisions where decision_id >= $1 and decision_id < $2 "
                "order by decision_id offset $3 limit 1",
                lower, upper, CHUNK,
            )  # fmt: skip
            await self._connection.execute("truncate pg_temp.attempts")
            await self._connection.execute(
                f"insert into pg_temp.attempts {RECORDED}", lower, below or upper, sorted(WITHHELD)
            )
            if not analyzed:
                await self._connection.execute("analyze pg_temp.attempts")
                analyzed = True
            for reason, calls in await self._connection.fetch(
                "select skipped, count(*) from pg_temp.attempts group by skipped"
            ):
                if reason in self._skipped:
                    found.skipped[reason] += calls
                else:
                    found.calls += calls
            waiting += await self._connection.fetch(_JUDGED)
            waiting.sort(key=itemgetter(3))
            reached = until if below is None else _time_of(below, since)
            cut = len(waiting) if below is None else _first_at(waiting, reached - _DISORDER)
            self._decide(counters, waiting[:cut], found)
            del waiting[:cut]
            if progress is not None:
                progress(reached, found)
            lower = below
        return found

    async def details(self, found: Replayed, since: datetime, until: datetime) -> list[Row]:
        """The differing calls that were kept, with who called whom, in the order they were found."""
        ids = [difference.decision_id for difference in found.differing]
        by_id = {
            row["decision_id"]: dict(row) for row in await self._connection.fetch(_DETAILS, ids, since, until)
        }
        return [
            {
                **by_id[difference.decision_id],
                "verdict": difference.was[0],
                "reason": difference.was[1],
                "would_be_verdict": difference.would_be[0],
                "would_be_reason": difference.would_be[1],
            }
            for difference in found.differing
        ]

    @property
    def _skipped(self) -> tuple[str, ...]:
        return ("emergency", "not_judged", *(("customer_state",) if self._as_if_active else ()))

    async def _take_applied(self, apply: Apply, read: Collection[str]) -> None:
        """Copy what `apply` changes in the tables `read`, and have it undone."""
        with ExitStack() as kept:
            transaction = self._connection.transaction(isolation="repeatable_read")
            await transaction.start()
            copies: dict[str, BinaryIO] = {}
            try:
                await self._connection.execute(_APPLY_BOUNDS)
                await apply(self._connection)
                touched = {row[0] for row in await self._connection.fetch(_TOUCHED)}
                if await self._connection.fetchval("show track_counts") != "on":
                    touched = set(read)
                for table in sorted(touched.intersection(read)):
                    copies[table] = cast(BinaryIO, kept.enter_context(tempfile.TemporaryFile()))
                    await self._connection.copy_from_table(
                        table, schema_name="ringfence", output=copies[table], format="binary"
                    )
            except (
                asyncpg.LockNotAvailableError,
                asyncpg.SerializationError,
                asyncpg.DeadlockDetectedError,
            ) as error:
                raise ConflictError(
                    "somebody else is changing the policy: try again when they are done"
                ) from error
            finally:
                if not self._connection.is_closed():
                    await transaction.rollback()
            for table, copy in copies.items():
                await self._own(table)
                copy.seek(0)
                await self._connection.copy_to_table(table, schema_name="pg_temp", source=copy, format="binary")

    async def _own(self, table: str) -> None:
        await self._connection.execute(f"create temp table {table} (like ringfence.{table} including indexes)")
        self._tables.add(table)

    async def _source_of(self, function: str) -> dict[str, str]:
        """A function as it stands in the database, and those that it calls, by their names."""
        sources: dict[str, str] = {}
        missing = {function}
        while missing:
            found = await self._connection.fetch(_FUNCTIONS, list(missing))
            sources |= {row[0]: row[1] for row in found}
            missing = {name for row in found for name in _NAMED.findall(row[1])} - sources.keys()
            missing &= {row[0] for row in await self._connection.fetch(_FUNCTIONS, list(missing))}
        return sources

    def _of_this_session(self, source: str, judge: Collection[str]) -> str:
        """A function of the judge made one of this session: over its own tables, and the attempts of the chunk."""
        if source.startswith("CREATE OR REPLACE FUNCTION ringfence.judged("):
            skipped = ", ".join(f"'{reason}'" for reason in self._skipped)
            attempts = f"(select * from pg_temp.attempts where skipped not in ({skipped})) a"  # noqa: S608 - constants
            source, found = re.subn(r"unnest\(p_attempts\) a\b", attempts, source)
            if found != 1:
                raise DatabaseError("the judge in the database is not this version's: run 'ringfence db migrate'")
        # Names without a schema are found among the session's own tables first, then where `connect` says.
        source = _OWN_SEARCH_PATH.sub("", source)
        own = self._tables | set(judge)
        return _NAMED.sub(lambda name: f"pg_temp.{name[1]}" if name[1] in own else name[0], source)

    async def _profiles(self) -> dict[str, Profile]:
        found = await self._connection.fetch(
            _PROFILES.format(profiles=self._table("limit_profiles"), customers=self._table("customers"))
        )
        return {
            row["profile"]: Profile(
                row["spacing_us"],
                row["burst"],
                row["max_delay_ms"],
                row["concurrent_calls"],
                _caps(row),
                row["caller_id_calls_per_day"],
                frozenset(row["not_enforced"]),
            )
            for row in found
        }

    async def _destinations(self) -> dict[int, Caps]:
        found = await self._connection.fetch(_DESTINATIONS.format(destinations=self._table("destination_rules")))
        return {row["destination_rule"]: _caps(row) for row in found}

    def _table(self, name: str) -> str:
        return f"pg_temp.{name}" if name in self._tables else f"ringfence.{name}"

    def _decide(self, counters: Counters, calls: Sequence[asyncpg.Record], found: Replayed) -> None:
        for (
            decision_id, customer, profile, at, day, rule, caller, freed_at, seconds, ended_day, reason,
            was_customer, was_verdict, was_reason,
        ) in calls:  # fmt: skip
            if reason is not None:
                would_be = ("reject", reason)
            else:
                end = (freed_at, seconds, ended_day)
                if was_verdict == "reject":  # nobody knows how long it would have lasted
                    end = (at + self._refused_call_s * 1_000_000, self._refused_call_s, day)
                would_be = counters.decide(customer, profile, at, day, rule, caller, *end)
                if would_be[0] == was_verdict and would_be[1] == was_reason:
                    continue
            difference = Difference(decision_id, customer or was_customer, (was_verdict, was_reason), would_be)
            found.changes[difference.was, would_be] += 1
            found.customers.setdefault(difference.customer, Counter())[difference.kind] += 1
            if len(found.differing) < self._limit:
                found.differing.append(difference)


def _caps(row: asyncpg.Record) -> Caps:
    return Caps(row["calls_per_day"], row["calls_per_month"], row["seconds_per_day"], row["seconds_per_month"])


def _time_of(decision_id: UUID, like: datetime) -> datetime:
    """The time in a UUIDv7 (RFC 9562 section 5.7)."""
    return datetime.fromtimestamp((decision_id.int >> 80) / 1000, like.tzinfo)


def _first_at(calls: Sequence[asyncpg.Record], at: datetime) -> int:
    """The place of the first call decided at or after `at`."""
    return bisect_left(calls, int(at.timestamp() * 1_000_000), key=itemgetter(3))
