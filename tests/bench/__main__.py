"""`make bench`: how much the gate costs over Postgres itself, all measured in one run.

Machines are noisy, so read the ratios: the gate against pgbench calling the same function, and against a
bare prepared `SELECT 1`, which is what a round trip costs when nothing is judged.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from ringfence import telemetry
from ringfence.config import DatabaseSettings, GateSettings, JournalSettings, LoggingSettings, NumberingSettings
from ringfence.gate import Gate
from ringfence.numbering import Numbering
from ringfence.store.authorize import Lane
from ringfence.store.connect import connected
from ringfence.store.journal import Journal
from ringfence.store.migrate import migrate
from tests.bench import delay, plans, replay
from tests.integration.calls import attempt, make_customer
from tests.lab.available import postgres_binaries
from tests.lab.postgres import EmbeddedPostgres

_PGBENCH = """\\set account random(1, 20)
select * from ringfence.authorize(array[row(ringfence.new_decision_id(), gen_random_uuid(), 'hook', 'pbx', 'host1',
  'PJSIP/customer-00000001', '1.1', 'C' || :account, '', '', '', '12125550100', '', 12125550100, '',
  '14155550123', 14155550123, '', '{}', '', false, null)::ringfence.attempt], 300);
"""
_CUSTOMERS = 20


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the report; times in milliseconds."""

    name: str
    per_second: float
    p50_ms: float
    p99_ms: float


async def _measure(name: str, tasks: int, seconds: float, once: Callable[[int], Awaitable[object]]) -> Result:
    times: list[float] = []
    stop = time.perf_counter() + seconds

    async def worker(number: int) -> None:
        while (started := time.perf_counter()) < stop:
            await once(number)
            times.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(worker(number) for number in range(tasks)))
    elapsed = time.perf_counter() - started
    cuts = statistics.quantiles(times, n=100)
    return Result(name, len(times) / elapsed, cuts[49], cuts[98])


def _pgbench(server: EmbeddedPostgres, clients: int, seconds: float, script: Path) -> Result:
    binaries = postgres_binaries(server.version)
    assert binaries is not None
    with tempfile.TemporaryDirectory() as logs:
        output = subprocess.run(
            [binaries / "pgbench", "--no-vacuum", "--file", script, "--protocol", "prepared", "--log",
             "--client", str(clients), "--jobs", str(min(2, clients)), "--time", str(max(1, round(seconds))),
             "--host", server.socket_directory, "--port", str(server.port), "--username", "postgres", "postgres"],
            capture_output=True, text=True, check=True, cwd=logs,
        ).stdout  # fmt: skip
        times = [
            int(line.split()[2]) / 1000 for path in Path(logs).iterdir() for line in path.read_text().splitlines()
        ]
    rate = re.search(r"tps = ([0-9.]+)", output)
    assert rate is not None, output
    cuts = statistics.quantiles(times, n=100)
    return Result(f"pgbench authorize, {clients} client(s)", float(rate[1]), cuts[49], cuts[98])


async def _gate_results(database: DatabaseSettings, spool: Path, seconds: float) -> list[Result]:
    writer = telemetry.configure(LoggingSettings(level="info"), io.StringIO())
    journal = Journal(JournalSettings(spool_directory=spool), database, telemetry.get_logger())
    lanes = [Lane(database, 1000) for _ in range(database.connections)]
    gate = Gate(GateSettings(), Numbering(NumberingSettings()), lanes, journal, telemetry.get_logger())
    await journal.start()
    await gate.start()

    async def decide(number: int) -> None:
        decision = await gate.decide(attempt(account=f"C{number % _CUSTOMERS + 1}").attempt)
        assert decision.reason == "authorized", decision

    results = [await _measure(f"gate, {tasks} at once", tasks, seconds, decide) for tasks in (1, 8, 64, 256)]
    await gate.stop(1)
    await journal.stop(1)
    writer.close()
    return results


async def _select_1(database: DatabaseSettings, seconds: float) -> Result:
    connection = await asyncpg.connect(database.dsn)
    statement = await connection.prepare("select 1")
    result = await _measure("asyncpg SELECT 1, prepared", 1, seconds, lambda _: statement.fetchval())
    await connection.close()
    return result


async def _policy(database: DatabaseSettings) -> None:
    async with connected(database, application="bench") as connection:
        await migrate(connection)
        for number in range(1, _CUSTOMERS + 1):
            await make_customer(
                connection, f"c{number}", calls_per_second=100_000, burst=1_000_000, concurrent=10_000_000
            )


def _show(results: list[Result]) -> None:
    by_name = {result.name: result for result in results}
    one, eight = by_name["pgbench authorize, 1 client(s)"], by_name["pgbench authorize, 8 client(s)"]
    bare = results[0]
    table = Table("what", "per s", "p50 ms", "p99 ms", "rate: pgbench x1", "rate: pgbench x8", "p50: SELECT 1")
    for result in results:
        table.add_row(
            result.name,
            f"{result.per_second:,.0f}",
            f"{result.p50_ms:.2f}",
            f"{result.p99_ms:.2f}",
            f"{result.per_second / one.per_second:.2f}",
            f"{result.per_second / eight.per_second:.2f}",
            f"{result.p50_ms / bare.p50_ms:.1f}",
        )
    Console(width=120).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("gate", "delay", "replay", "plans"),
        default="gate",
        help="delay: what it adds to real calls; replay: old calls judged again; plans: what a decision reads",
    )
    parser.add_argument("--seconds", type=float, help="length of each measurement; 4 for gate, 12 for delay")
    parser.add_argument("--calls", type=int, default=500_000, help="for replay: so many")
    given = parser.parse_args()
    if given.what == "replay":
        replay.run(given.calls)
        return
    if given.what == "plans":
        plans.run()
        return
    if given.what == "delay":
        delay.run(given.seconds or 12.0)
        return
    seconds = given.seconds or 4.0
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(18, Path(directory) / "pg") as server:
        database = DatabaseSettings(dsn=server.dsn("postgres"))
        asyncio.run(_policy(database))
        script = Path(directory) / "authorize.sql"
        script.write_text(_PGBENCH)
        results = [asyncio.run(_select_1(database, seconds))]
        results += [_pgbench(server, clients, seconds, script) for clients in (1, 8)]
        results += asyncio.run(_gate_results(database, Path(directory) / "spool", seconds))
    _show(results)


if __name__ == "__main__":
    main()
