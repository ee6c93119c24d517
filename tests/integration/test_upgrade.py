"""A database of the version before the whole policy comes up with this one, and its customers keep calling."""

from __future__ import annotations

from itertools import count

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.store import sqlfiles
from ringfence.store.connect import connected
from ringfence.store.migrate import migrate
from tests.integration.calls import attempt, judge
from tests.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration

# What the version before had of its own: functions that this version has under another signature, and a trigger.
_FORMER = """
create function ringfence.lock_grants(p_customers text[]) returns void language sql as 'select';
create function ringfence.refuse_overlap() returns trigger language plpgsql as $$
begin
  perform ringfence.lock_grants(array(select distinct customer from new_grants));
  return null;
end
$$;
create trigger refuse_overlap_on_update after update on ringfence.grants
  referencing new table as new_grants for each statement execute function ringfence.refuse_overlap();
create function ringfence.authorize_call(
  p_account text, p_caller text, p_called text, p_switch text default 'sql', p_host text default '*',
  p_channel text default ''
) returns ringfence.decision language sql as 'select null::ringfence.decision';
"""
_number = count(1)
_POLICY = """
set search_path = ringfence;
insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls) values ('office', 10, 10, 10);
insert into customers (customer, name, state, profile) values
  ('acme', 'Acme', 'active', 'office'), ('zeta', 'Zeta', 'active', 'office'),
  ('idle', 'Idle', 'prospect', 'office'), ('slow', 'Slow', 'restricted', 'office'),
  ('gone', 'Gone', 'suspended', 'office');
insert into endpoints (customer, kind, value) select customer, 'account', upper(customer) from customers;
insert into grants (customer, first, last, source) values
  ('acme', 12125550100, 12125550199, 'assigned'), ('zeta', 12125550150, 12125550150, 'letter'),
  ('zeta', 18005550100, 18005550100, 'letter'), ('slow', 13105550100, 13105550100, 'assigned'),
  ('gone', 14155550100, 14155550100, 'assigned');
"""


@pytest.fixture
async def former(postgres: EmbeddedPostgres) -> DatabaseSettings:
    """A database as the version before left it, with customers."""
    name = f"former_{next(_number)}"
    postgres.create_database(name)
    settings = DatabaseSettings(dsn=postgres.dsn(name))
    async with connected(settings, application="test") as connection:
        await connection.execute("create schema ringfence")
        await connection.execute(
            "create table ringfence.migrations (name text primary key, digest text not null, "
            "applied_at timestamptz not null default now())"
        )
        for file in sqlfiles.migrations()[:7]:
            await connection.execute(file.text)
            await connection.execute("insert into ringfence.migrations values ($1, $2)", file.name, file.digest)
        await connection.execute(_FORMER)
        await connection.execute(_POLICY)
    return settings


async def test_customers_of_the_version_before_keep_calling_and_nobody_else_does(former: DatabaseSettings) -> None:
    async with connected(former, application="test") as connection:
        done = await migrate(connection)
        assert done.migrations[0] == "0008_provider"

        async def reason(account: str, caller: int) -> str:
            return (await judge(connection, attempt(account, caller=caller)))[0].reason

        assert await reason("ACME", 12125550100) == "authorized"
        assert await reason("ZETA", 18005550100) == "authorized"  # validated by letter, before that was ruled out
        assert await reason("IDLE", 12125550100) == "customer_not_active"
        assert await reason("SLOW", 13105550100) == "customer_not_vetted"
        assert await reason("GONE", 14155550100) == "customer_suspended"
        # A number that two customers held already stays with both.
        assert await reason("ACME", 12125550150) == await reason("ZETA", 12125550150) == "authorized"
        assert await connection.fetchval("select count(*) from grants where shared") == 2
        due = await connection.fetch("select customer, method from vettings order by customer")
        assert [tuple(row) for row in due] == [("acme", "upgrade"), ("gone", "upgrade"), ("zeta", "upgrade")]


async def test_an_upgrade_is_done_once(former: DatabaseSettings) -> None:
    async with connected(former, application="test") as connection:
        await migrate(connection)
        again = await migrate(connection)
        assert (again.migrations, again.functions, again.data) == ((), (), ())
        with pytest.raises(asyncpg.ExclusionViolationError, match="both must be shared"):
            await connection.execute(
                "insert into grants (customer, first, last) values ('zeta', 12125550120, 12125550120)"
            )
