"""A large policy, and what Postgres really does for each statement of the judge over it (auto_explain)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from tests.integration.calls import attempt, judge

# The table with one row by its own constraint: reading it whole is reading one row.
ONE_ROW = frozenset({"provider"})

_POPULATE = """
set session_replication_role = replica;  -- rows that are right by construction need no triggers
insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day, calls_per_month,
                            minutes_per_day, minutes_per_month, caller_id_calls_per_day)
  select 'p' || i, 1000, 1000, 1000, 100000, 1000000, 100000, 1000000, 100000 from generate_series(1, 50) i;
insert into customers (customer, name, profile, state, vetted_until)
  select 'c' || i, 'n', 'p' || (i % 50 + 1), 'active', now() + interval '1 year'
  from generate_series(1, {customers}) i;
insert into endpoints (customer, kind, value, traffic)
  select 'c' || i, 'account', 'A' || i, case when i % 2 = 0 then 'telemarketing' else 'conversational' end
  from generate_series(1, {customers}) i;
insert into grants (customer, first, last)
  select 'c' || (i % {customers} + 1), 12000000000 + i * 10, 12000000000 + i * 10 + 5
  from generate_series(1, {grants}) i;
insert into do_not_originate (prefix, category, source)
  select 13000000000 + i * 7, 'subscriber_request', 'registry' from generate_series(1, {listed}) i;
insert into do_not_call (number, source)
  select 14150000000 + i * 3, 'registry' from generate_series(1, {listed}) i;
insert into call_consents (customer, number, evidence)
  select 'c' || (i % {customers} + 1), 14150000000 + i * 3, 'form' from generate_series(1, {customers}) i;
insert into destination_rules (customer, area, action, calls_per_day)
  select 'c' || i, 'domestic', 'cap', 100000 from generate_series(1, {customers}) i;
insert into destination_rules (prefix, action) select 240 + i, 'deny' from generate_series(1, 20) i;
insert into campaigns (customer, campaign, traffic)
  select 'c' || i, 'spring', 'telemarketing' from generate_series(1, {customers}) i;
insert into counters (customer) select customer from customers;
insert into usage (customer, scope) select 'c' || i, 'caller:' || (12000000000 + i * 10)
  from generate_series(1, {customers}) i;
insert into infractions (customer, happened_at, decision_id, caller, reason, consequence)
  select 'c' || i, now() - interval '2 days', gen_random_uuid(), '1', 'caller_id_not_authorized', 'warned'
  from generate_series(1, {customers}) i;
insert into policy_changes (changed_by, action) select 'test', 'x' from generate_series(1, {customers}) i;
set session_replication_role = origin;
"""


@dataclass(frozen=True, slots=True)
class Scan:
    """One node of an executed plan that reads a table."""

    statement: str
    node: str
    table: str
    rows: float  # a loop
    removed: float  # a loop: read, and then not wanted
    buffers: float  # a loop: pages looked at

    def __str__(self) -> str:
        return f"{self.node} on {self.table}: {self.rows:g} rows, {self.removed:g} dropped, {self.buffers:g} pages"


async def populate(connection: asyncpg.Connection, *, customers: int, grants: int, listed: int) -> None:
    """Fill every table that the judge reads."""
    await connection.execute(_POPULATE.format(customers=customers, grants=grants, listed=listed))
    await connection.execute("vacuum analyze")


async def scans(connection: asyncpg.Connection) -> list[Scan]:
    """What is read while calls of every kind are judged: let out, refused by each sort of rule, and struck.

    The connection must be a superuser's, to a server that has auto_explain.
    """
    for setting in (
        "load 'auto_explain'",
        "set auto_explain.log_min_duration = 0",
        "set auto_explain.log_nested_statements = on",
        "set auto_explain.log_analyze = on",
        "set auto_explain.log_buffers = on",
        "set auto_explain.log_format = json",
        "set auto_explain.log_level = notice",
    ):
        await connection.execute(setting)
    await judge(connection, attempt("A1", caller=12000000010))  # catalogs are read once
    plans: list[Mapping[str, Any]] = []

    def collect(_: object, message: Any) -> None:
        _, marker, text = str(message.message).partition("plan:\n")
        if marker:
            plans.append(json.loads(text))

    connection.add_log_listener(collect)
    own = {"caller": 12000000020, "called": 14155550123}
    await judge(connection, attempt("A3", **own))
    await judge(connection, attempt("A3", **own, campaign="spring"))
    await judge(connection, attempt("A4", caller=12000000030, called=14150000003))
    await judge(connection, attempt("A5", caller=13000000007))
    await judge(connection, attempt("A6", called=24155550123))
    await judge(connection, attempt("nobody"))
    await judge(connection, *(attempt(f"A{i}", caller=12000000000 + (i - 1) * 10) for i in range(10, 40)))
    await asyncio.sleep(0)  # listeners are called by the loop
    connection.remove_log_listener(collect)
    return [scan for plan in plans for scan in _scans(plan["Query Text"], plan["Plan"])]


def _scans(statement: str, node: Mapping[str, Any]) -> Iterator[Scan]:
    if "Relation Name" in node and "Scan" in node["Node Type"] and node.get("Actual Loops", 0):
        loops = node["Actual Loops"]
        yield Scan(
            statement,
            node["Node Type"],
            node["Relation Name"],
            node["Actual Rows"],
            node.get("Rows Removed by Filter", 0),
            (node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0)) / loops,
        )
    for child in node.get("Plans", ()):
        yield from _scans(statement, child)
