"""`python -m tests.bench plans`: what a decision reads of a very large policy, as Postgres tells (auto_explain).

10 million grants, 1 million do-not-originate and do-not-call rows, 100,000 customers.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ringfence.config import DatabaseSettings
from ringfence.store.connect import connected
from ringfence.store.migrate import migrate
from tests.integration.plans import Scan, populate, scans
from tests.lab.postgres import EmbeddedPostgres

_VERSION = 15  # the one in the lab that has auto_explain


def run(*, customers: int = 100_000, grants: int = 10_000_000, listed: int = 1_000_000) -> None:
    """Fill the tables, judge calls of every kind, and show how each table was read."""
    with (
        tempfile.TemporaryDirectory(prefix="rf-plans-", ignore_cleanup_errors=True) as directory,
        EmbeddedPostgres(_VERSION, Path(directory, "postgres"), fsync=False) as server,
    ):
        asyncio.run(_run(server, customers=customers, grants=grants, listed=listed))


async def _run(server: EmbeddedPostgres, *, customers: int, grants: int, listed: int) -> None:
    console = Console()
    server.create_database("large")
    async with connected(DatabaseSettings(dsn=server.dsn("large")), application="bench") as connection:
        await migrate(connection)
        started = time.perf_counter()
        await populate(connection, customers=customers, grants=grants, listed=listed)
        console.print(
            f"{customers:,} customers, {grants:,} grants, {listed:,} listed numbers: filled in "
            f"{time.perf_counter() - started:.0f} s"
        )
        found = await scans(connection)
    by_table: dict[tuple[str, str], list[Scan]] = defaultdict(list)
    for scan in found:
        by_table[scan.table, scan.node].append(scan)
    table = Table("table", "read by", "times", "rows at most", "dropped at most", "pages at most")
    for (name, node), group in sorted(by_table.items()):
        table.add_row(
            name,
            node,
            str(len(group)),
            f"{max(scan.rows for scan in group):g}",
            f"{max(scan.removed for scan in group):g}",
            f"{max(scan.buffers for scan in group):.1f}",
        )
    console.print(table)
