"""However large the policy is, a decision reads a handful of rows by index.

`python -m tests.bench plans` shows the same at 10 million grants.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.config import DatabaseSettings
from ringfence.store.connect import connected
from ringfence.store.migrate import migrate
from tests.integration.plans import ONE_ROW, populate, scans
from tests.lab.available import postgres_binaries
from tests.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration


async def test_every_statement_of_a_decision_reads_single_rows_by_index(tmp_path: Path) -> None:
    if postgres_binaries(15) is None:
        pytest.skip("no PostgreSQL 15, which has auto_explain, in the lab")
    with EmbeddedPostgres(15, tmp_path, fsync=False) as server:
        server.create_database("large")
        async with connected(DatabaseSettings(dsn=server.dsn("large")), application="test") as connection:
            await migrate(connection)
            await populate(connection, customers=20_000, grants=100_000, listed=50_000)
            found = await scans(connection)
    read = {scan.table for scan in found}
    assert read >= {
        "customers",
        "endpoints",
        "grants",
        "limit_profiles",
        "do_not_originate",
        "do_not_call",
        "provider",
    }
    assert read >= {
        "destination_rules",
        "dialing_ranges",
        "campaigns",
        "call_consents",
        "counters",
        "usage",
        "reasons",
    }
    for scan in found:
        if scan.table not in ONE_ROW:
            assert scan.node in ("Index Scan", "Index Only Scan"), (str(scan), scan.statement)
            assert scan.rows <= 2, (str(scan), scan.statement)
            assert scan.removed <= 2, (str(scan), scan.statement)
            assert scan.buffers <= 40, (str(scan), scan.statement)
