"""`python -m tests.bench replay`: how many recorded calls a second of one core judges again.

A policy of 1,000 customers with 50 grants each, and a day of calls, of which the busiest customer has a tenth;
every tenth customer sells by telephone, and nearly every called number is another. The rate is calls by CPU time,
of the server's backend and of this process together, so that a busy machine counts for little.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from ringfence.config import DatabaseSettings
from ringfence.store import replay as replays
from ringfence.store.connect import connected
from ringfence.store.migrate import migrate
from ringfence.store.replay import Replay
from tests.lab.postgres import EmbeddedPostgres

_POLICY = """
insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day,
                            caller_id_calls_per_day)
select 'p' || i, 10 + i, 10, 50 + i, 20000, case when i % 5 = 0 then 500 end from generate_series(1, 20) i;
insert into customers (customer, name, profile, state, vetted_until)
select 'c' || i, 'c' || i, 'p' || 1 + i % 20, 'active', now() + interval '1 year' from generate_series(1, 1000) i;
insert into endpoints (customer, kind, value, traffic)
select 'c' || i, 'account', 'A' || i, case when i % 10 = 0 then 'telemarketing' else 'conversational' end
from generate_series(1, 1000) i;
insert into grants (customer, first, last)
select 'c' || i, 12120000000 + i * 10000 + j * 100, 12120000000 + i * 10000 + j * 100 + 99
from generate_series(1, 1000) i, generate_series(0, 49) j;
insert into do_not_originate (prefix, category, source)
select 13000000000 + i * 7, 'unused', 'bench' from generate_series(1, 50000) i;
insert into do_not_call (number, source)
select 14000000000 + i * 11, 'bench' from generate_series(1, 500000) i;
insert into destination_rules (customer, prefix, action)
select '*', 881 + i, 'deny' from generate_series(1, 100) i;
insert into destination_rules (customer, area, action)
values ('*', 'premium', 'deny'), ('*', 'satellite', 'deny'), ('*', 'international', 'allow');
insert into destination_rules (customer, area, action, calls_per_day)
select 'c' || i, 'domestic', 'cap', 1000000 from generate_series(1, 50) i
"""
_DECISIONS = """
insert into decisions (
  decision_id, customer, decided_at, orig_id, verdict, reason, sip_status, q850_cause, attestation, delay_ms,
  grant_id, policy_version, degraded, entry, switch, host, channel, call_ref, account, sip_user, trunk,
  source_address, caller, caller_name, caller_e164, called, called_e164, places)
select
  (left(uuid_floor(at)::text, 14) || '7' || lpad(to_hex(i % 4096), 3, '0') || '-8000-'
   || lpad(to_hex(i), 12, '0'))::uuid,
  'c' || c, at, gen_random_uuid(), 'allow', 'authorized', 0, 0, 'A', 0, 1, 1, false, 'hook', 'pbx', 'host1',
  'PJSIP/customer-00000001', '1.1', 'A' || c, '', '', '10.0.0.1', caller::text, '', caller,
  called::text, called, '{}'
from (
  select i, 1 + floor(1000 * power(random(), 3))::integer as c,
    date_trunc('day', now(), 'UTC') - interval '1 day' + i * interval '1 day' / $1 as at,
    12010000000 + floor(random() * 7890000000)::bigint as called
  from generate_series(0, $1 - 1) i
) x
cross join lateral (select 12120000000 + c * 10000 + floor(random() * 100)::bigint as caller) y
"""
_ENDS = """
insert into call_ends (decision_id, customer, source, hung_up_by, started_at, answered_at, ended_at, duration_ms,
                       billable_ms, q850_cause, sip_status, trunk, trunk_channel, detail, recorded_at)
select decision_id, customer, 'event', 'caller', decided_at, decided_at + interval '5 s',
  decided_at + interval '30 s', 30000, 25000, 16, 200, 'carrier', 'channel', '', decided_at + interval '30.01 s'
from decisions
"""


async def _fill(connection: asyncpg.Connection, calls: int) -> None:
    await migrate(connection)
    await connection.execute(_POLICY)
    await connection.execute(_DECISIONS, calls)
    await connection.execute(_ENDS)
    await connection.execute("vacuum analyze")


def _cpu_s(pid: int) -> float:
    """What the kernel charged to a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(database: DatabaseSettings, calls: int) -> None:
    async with connected(database, application="bench") as connection:
        await _fill(connection, calls)
    async with connected(database, application="bench") as connection:
        backend = connection.get_server_pid()
        run = Replay(connection, as_if_active=True, refused_call_s=60, limit=50)
        await run.prepare(None)
        now = datetime.now(UTC)
        server, mine, started = _cpu_s(backend), _cpu_s(os.getpid()), time.perf_counter()
        found = await run.run(now - timedelta(days=3), now)
        elapsed_s = time.perf_counter() - started
        steps = {"server": _cpu_s(backend) - server, "this process": _cpu_s(os.getpid()) - mine}
        total = sum(steps.values())
        assert found.calls == calls
        before = _cpu_s(backend)
        await connection.execute("truncate pg_temp.attempts")
        low, high = await connection.fetchrow(replays.FLOORS, now - timedelta(days=3), now) or ("", "")
        await connection.execute(f"insert into pg_temp.attempts {replays.RECORDED}", low, high, [])
        steps["of the server: reading"] = _cpu_s(backend) - before
    table = Table("what", "CPU s", "us a call", "calls a second")
    for name, cpu_s in (*steps.items(), ("all, one core", total), ("by the clock", elapsed_s)):
        table.add_row(name, f"{cpu_s:.1f}", f"{cpu_s / calls * 1e6:.1f}", f"{calls / cpu_s:,.0f}")
    Console(width=100).print(table)
    Console().print(f"{found.differ:,} of {calls:,} differ; load {os.getloadavg()[0]:.1f}")


def run(calls: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(18, Path(directory) / "pg") as server:
        asyncio.run(_measure(DatabaseSettings(dsn=server.dsn("postgres")), calls))
