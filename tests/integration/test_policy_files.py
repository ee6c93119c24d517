"""The policy as files: export, diff and apply against a real database."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ConflictError, ExitCode
from ringfence.policy import database as stored_policy
from ringfence.policy.apply import Terms, apply_document, apply_file
from ringfence.policy.difference import changes, difference
from ringfence.policy.document import load
from ringfence.policy.export import Exported, export
from ringfence.store import migrate, policy_files
from ringfence.store.connect import connected
from tests.integration.calls import attempt, judge, reason
from tests.integration.command import PROGRAM, Command
from tests.lab.postgres import EmbeddedPostgres
from tests.policy_documents import customers, text_of

pytestmark = pytest.mark.integration

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.yaml"))
WHOLE = """\
format: 1
scope: policy
provider: {name: Voice Ltd}
profiles:
  small: {calls_per_second: 2, concurrent_calls: 5}
  restricted: {calls_per_second: 1, burst: 1, concurrent_calls: 2, calls_per_day: 200}
destinations:
  - {area: premium, action: deny}
  - {area: international, action: cap, minutes_per_day: 60}
calling_hours: {US: {every_day: 08:00-21:00}}
reasons: {customer_suspended: {q850_cause: 1}}
customers:
  acme:
    name: Acme
    state: active
    profile: small
    endpoints: [{kind: account, value: ACME}]
    campaigns: {spring: {traffic: telemarketing}}
    destinations: [{prefix: "+44", action: deny}]
    grants:
      - {first: "+12125550100", last: "+12125550109", evidence: order 1}
      - {number: "+12125550120", source: letter, evidence: LOA 7}
    vetting:
      {vetted_by: maria, method: call, legal_name: Acme Ltd, contact_email: a@acme.example.com,
       physical_address: 1 Main St, contact_name: Jo, use_case: appointments, questionnaire_version: '1',
       aup_version: '1', aup_accepted_at: 2026-01-01, aup_accepted_by: Jo}
  beta:
    name: Beta
    state: prospect
    profile: small
    endpoints: [{kind: account, value: BETA}]
"""


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "policy.yaml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


@pytest.fixture
async def whole(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database in which WHOLE is applied."""
    await applied(connection, WHOLE)
    return connection


async def applied(connection: asyncpg.Connection, text: str, **terms: Any) -> dict[str, int]:
    document = load(text.encode(), "p.yaml")
    return dict((await apply_file(connection, document, origin="p.yaml", terms=Terms(**terms))).counts)


async def exported(connection: asyncpg.Connection, customer: str | None = None, *, numbers: bool = True) -> str:
    parts = export(connection, Exported(), customer=customer, numbers=numbers)
    return "".join([part async for part in parts])


async def everything(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Every row of every table."""
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'ringfence'::regnamespace and relkind = 'r'"
    )
    return {
        name: sorted(str(row) for row in await connection.fetch(f"select * from ringfence.{name}"))
        for (name,) in tables
    }


# --- the examples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_loads_once_and_calls_pass_by_it(
    example: Path, ringfence: Command, connection: asyncpg.Connection
) -> None:
    assert ringfence("policy", "diff", str(example)).code == ExitCode.REFUSED
    ran = ringfence.ok("policy", "apply", str(example), "--reason", "first", "--json").json
    assert ran["applied"] is True
    assert ran["policy_version"] == await policy_files.version(connection)
    before = await everything(connection)
    again = ringfence.ok("policy", "apply", str(example), "--json").json
    assert (again["applied"], again["changes"]) == (False, [])
    assert await everything(connection) == before
    assert ringfence.ok("policy", "diff", str(example)).out.startswith("no difference")
    first = await connection.fetchrow(
        "select customer, first from grants where customer = 'office' order by first"
    )
    assert await reason(connection, "OFFICE", first["first"]) == "authorized"
    assert await reason(connection, "CENTRE", first["first"], called=12015550123) == "caller_id_not_authorized"


def test_there_are_two_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["strict", "validated"]


# --- export, apply and export again --------------------------------------------------------------------------


async def test_what_was_applied_is_what_is_exported(whole: asyncpg.Connection, postgres: EmbeddedPostgres) -> None:
    text = await exported(whole)
    assert await applied(whole, text) == {}
    assert await exported(whole) == text
    postgres.create_database("restored")
    async with connected(DatabaseSettings(dsn=postgres.dsn("restored")), application="test") as other:
        await migrate.migrate(other)
        await applied(other, text)
        assert await exported(other) == text


async def test_a_customers_file_touches_that_customer_only(whole: asyncpg.Connection) -> None:
    beta = await exported(whole, "beta")
    text = await exported(whole, "acme")
    assert "scope: customers" in text
    assert "beta" not in text
    assert await applied(whole, text.replace("name: Acme\n", "name: Acme 2\n")) == {"customers_changed": 1}
    assert await exported(whole, "beta") == beta
    assert await exported(whole, "acme") == text.replace("name: Acme\n", "name: Acme 2\n")


async def test_without_numbers_an_apply_leaves_grants_alone(whole: asyncpg.Connection) -> None:
    text = await exported(whole, numbers=False)
    assert "grants" not in text.replace("grants of", "").split("customers:\n")[1]
    assert await applied(whole, text.replace("name: Beta", "name: B")) == {"customers_changed": 1}
    assert await whole.fetchval("select count(*) from grants") == 2


async def test_hypothesis_finds_no_customers_that_do_not_come_back(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls) values ('small', 9, 9, 9)"
    )
    made: list[dict[str, Any]] = []

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(customers())
    def collect(held: dict[str, Any]) -> None:
        made.append(held)

    collect()
    for held in made:
        text = text_of(held)
        transaction = connection.transaction()
        await transaction.start()
        await apply_document(connection, load(text.encode(), "p.yaml"))
        back = {name: found async for name, found, _ in stored_policy.customers(connection)}
        assert text_of(back) == text
        assert not await difference(connection, load(text.encode(), "p.yaml"), "p.yaml")
        await transaction.rollback()


async def test_a_customer_that_is_terminated_and_holds_nothing_is_not_exported(whole: asyncpg.Connection) -> None:
    text = WHOLE[: WHOLE.index("  beta:")]
    await applied(whole, text, terminate_missing=True, reason="left")
    assert "beta" not in await exported(whole)
    assert "state: terminated" in await exported(whole, "beta")
    assert await applied(whole, text) == {}


# --- what an apply does --------------------------------------------------------------------------------------


async def test_a_new_customer_is_a_prospect_until_its_vetting_is_there(whole: asyncpg.Connection) -> None:
    moves = await whole.fetch(
        "select from_state, state from customer_states where customer = 'acme' order by 1, 2"
    )
    assert {tuple(move) for move in moves} == {(None, "prospect"), ("prospect", "active")}
    unvetted = WHOLE.replace("    state: prospect\n", "    state: active\n")
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="its vetting was never done"):
        await applied(whole, unvetted)


async def test_a_call_follows_the_policy_that_was_applied(whole: asyncpg.Connection) -> None:
    assert await reason(whole, "ACME", 12125550105) == "authorized"
    assert await reason(whole, "ACME", 12125550120) == "authorized"
    await applied(whole, WHOLE.replace('first: "+12125550100", last', 'first: "+12125550106", last'))
    assert await reason(whole, "ACME", 12125550105) == "caller_id_not_authorized"
    await applied(whole, WHOLE.replace("provider: {name: Voice Ltd}", "provider: {assigned_numbers_only: true}"))
    assert await reason(whole, "ACME", 12125550120) == "caller_id_not_assigned"


async def test_a_grant_on_other_terms_is_revoked_and_granted_anew(whole: asyncpg.Connection) -> None:
    before = await whole.fetchval("select grant_id from grants where first = 12125550120")
    counts = await applied(whole, WHOLE.replace("LOA 7", "LOA 8"), reason="new letter")
    assert counts == {"customers_changed": 1, "grants_revoked": 1, "grants_added": 1}
    revoked = await whole.fetchrow("select * from revoked_grants")
    assert (revoked["grant_id"], revoked["evidence"], revoked["reason"]) == (before, "LOA 7", "new letter")
    assert revoked["revoked_by"] == "tester"
    assert await whole.fetchval("select granted_by from grants where first = 12125550120") == "tester"


async def test_a_rule_that_changes_keeps_its_number_and_its_counters(whole: asyncpg.Connection) -> None:
    numbers = "select destination_rule from destination_rules where area = 'international'"
    before = await whole.fetchval(numbers)
    await applied(whole, WHOLE.replace("minutes_per_day: 60", "minutes_per_day: 90"))
    assert await whole.fetchval(numbers) == before
    assert await whole.fetchval("select minutes_per_day from destination_rules where area = 'international'") == 90


async def test_numbers_and_endpoints_go_from_one_customer_to_another_in_one_file(
    whole: asyncpg.Connection,
) -> None:
    text = WHOLE.replace("    endpoints: [{kind: account, value: BETA}]\n", (
        "    endpoints: [{kind: account, value: ACME}]\n    grants: [{number: '+12125550120'}]\n"
    ))  # fmt: skip
    text = text.replace("    endpoints: [{kind: account, value: ACME}]\n", "    endpoints: []\n", 1)
    text = text.replace('      - {number: "+12125550120", source: letter, evidence: LOA 7}\n', "")
    await applied(whole, text)
    assert await whole.fetchval("select customer from endpoints where value = 'ACME'") == "beta"
    assert await whole.fetchval("select customer from grants where first = 12125550120") == "beta"


async def test_profiles_that_nobody_needs_go_and_needed_ones_stay(whole: asyncpg.Connection) -> None:
    await whole.execute(
        "insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls) values "
        "('old', 1, 1, 1), ('past', 1, 1, 1); insert into customers (customer, name, profile, state) "
        "values ('gone', 'Gone', 'past', 'terminated')"
    )
    assert "past" not in await exported(whole)
    assert await applied(whole, WHOLE) == {"profiles_removed": 1}
    assert {row[0] for row in await whole.fetch("select profile from limit_profiles")} == {
        "small",
        "restricted",
        "past",
    }


async def test_reasons_and_hours_that_the_file_does_not_name_are_as_shipped_and_gone(
    whole: asyncpg.Connection,
) -> None:
    assert await whole.fetchval("select q850_cause from reasons where reason = 'customer_suspended'") == 1
    text = WHOLE.replace("{customer_suspended: {q850_cause: 1}}", "{}")
    text = text.replace("{US: {every_day: 08:00-21:00}}", "{US-TX: {sunday: 12:00-21:00, monday: closed}}")
    assert await applied(whole, text) == {"calling_hours": 2, "reasons": 1}
    assert await whole.fetchval("select q850_cause from reasons where reason = 'customer_suspended'") == 21
    rows = await whole.fetch(
        "select country, state, weekday, opens::text, closes::text from calling_hours order by 3"
    )
    assert [tuple(row) for row in rows] == [
        ("US", "TX", 0, "12:00:00", "21:00:00"),
        ("US", "TX", 1, "00:00:00", "00:00:00"),
    ]


# --- vettings ------------------------------------------------------------------------------------------------


async def test_a_vetting_is_added_only_if_it_says_something_else_and_keeps_what_is_sealed(
    whole: asyncpg.Connection,
) -> None:
    await whole.execute(
        "alter table vettings disable trigger user; update vettings set tax_id_sealed = 'sealed', "
        "tax_id_digest = 'digest'; alter table vettings enable trigger user"
    )
    text = await exported(whole)
    assert "sealed" not in text
    assert "tax_id" not in text
    assert await applied(whole, text) == {}
    assert await applied(whole, WHOLE) == {}
    counts = await applied(whole, text.replace("legal_name: Acme Ltd", "legal_name: Acme Corp"))
    assert counts == {"customers_changed": 1, "vettings": 1}
    newest = await whole.fetchrow("select * from vettings order by vetting_id desc limit 1")
    assert (newest["legal_name"], newest["tax_id_sealed"], newest["tax_id_digest"]) == (
        "Acme Corp",
        b"sealed",
        b"digest",
    )


async def test_a_vetting_without_moments_is_of_now_and_holds_as_long_as_the_provider_says(
    whole: asyncpg.Connection,
) -> None:
    days = await whole.fetchval(
        "select extract(day from vetted_until - now())::int from customers where customer = 'acme'"
    )
    assert days in (364, 365)


async def test_a_contact_address_of_the_customers_own_stays(whole: asyncpg.Connection) -> None:
    text = WHOLE.replace("    name: Acme\n", "    name: Acme\n    contact_email: noc@acme.example.com\n")
    assert await applied(whole, text) == {"customers_changed": 1}
    assert "    contact_email: noc@acme.example.com\n" in await exported(whole)
    assert await applied(whole, WHOLE) == {}
    assert (
        await whole.fetchval("select contact_email from customers where customer = 'acme'")
        == "noc@acme.example.com"
    )


# --- states --------------------------------------------------------------------------------------------------


async def test_a_customer_is_restricted_suspended_and_reinstated_by_the_file(whole: asyncpg.Connection) -> None:
    acme = ("    name: Acme\n    state: active\n", "    name: Acme\n    state: {}\n")
    restricted, suspended = (WHOLE.replace(acme[0], acme[1].format(to)) for to in ("restricted", "suspended"))
    await applied(whole, restricted, reason="complaints")
    await applied(whole, suspended, reason="traceback 4711")
    row = await whole.fetchrow("select state, state_reason, hang_up from customers where customer = 'acme'")
    assert tuple(row) == ("suspended", "traceback 4711", True)
    with pytest.raises(ConflictError, match="reinstating needs --reason, and --approved-by"):
        await applied(whole, WHOLE, reason="sorry")
    await applied(whole, WHOLE, reason="sorry", approved_by="director")
    moved = await whole.fetchrow("select state, approved_by from customer_states order by move_id desc limit 1")
    assert tuple(moved) == ("active", "director")


async def test_a_customer_cannot_go_back_to_prospect(whole: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="is active and cannot become prospect"):
        await applied(whole, WHOLE.replace("state: active", "state: prospect"))


async def test_a_customer_that_the_file_lacks_is_an_error_until_it_is_to_be_terminated(
    ringfence: Command, whole: asyncpg.Connection, file: Callable[[str], str]
) -> None:
    path = file(WHOLE[: WHOLE.index("  acme:")] + WHOLE[WHOLE.index("  beta:") :])
    ran = ringfence("policy", "apply", path)
    assert ran.code == ExitCode.CONFLICT
    assert "the file says nothing about customer 'acme'" in ran.err
    assert await whole.fetchval("select state from customers where customer = 'acme'") == "active"
    done = ringfence.ok("policy", "apply", path, "--terminate-missing", "--reason", "left", "--json").json
    assert (done["counts"]["customers_terminated"], done["counts"]["grants_revoked"]) == (1, 2)
    row = await whole.fetchrow("select state, state_reason, hang_up from customers where customer = 'acme'")
    assert tuple(row) == ("terminated", "left", True)
    for table in ("endpoints", "campaigns", "destination_rules", "grants"):
        assert not await whole.fetchval(f"select exists (select from {table} where customer = 'acme')")


# --- all or nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("    state: prospect\n", "    state: active\n", asyncpg.ObjectNotInPrerequisiteStateError),
        ("value: BETA", "value: FOREIGN", ConflictError),
        ("profile: small\n    endpoints: [{kind: account, value: BETA}]", (
            "profile: small\n    grants: [{number: '+13105550199'}]"), asyncpg.ExclusionViolationError),
        ("name: Beta", "name: Beta\n    time_zone: Europe/Pariss", BadInputError),
    ],
)  # fmt: skip
async def test_what_fails_leaves_nothing_behind(
    whole: asyncpg.Connection, old: str, new: str, error: type[Exception]
) -> None:
    await whole.execute(
        "insert into customers (customer, name, profile, state) values ('other', 'Other', 'small', 'terminated'); "
        "insert into endpoints (customer, kind, value) values ('other', 'account', 'FOREIGN'); "
        "insert into grants (customer, first, last) values ('other', 13105550199, 13105550199)"
    )
    text = WHOLE[: WHOLE.index("provider")] + WHOLE[WHOLE.index("customers:") :]
    text = text.replace("scope: policy", "scope: customers").replace("name: Acme", "name: Changed")
    assert old in text
    before = await everything(whole)
    with pytest.raises(error):
        await applied(whole, text.replace(old, new))
    assert await everything(whole) == before
    assert not await whole.fetchval("select count(*) from pg_locks where locktype = 'advisory'")


async def test_a_dry_run_tries_everything_and_leaves_nothing(
    ringfence: Command, connection: asyncpg.Connection, file: Callable[[str], str]
) -> None:
    before = await everything(connection)
    ran = ringfence.ok("policy", "apply", file(WHOLE), "--dry-run")
    assert "would apply: provider 1, profiles added 1, " in ran.out
    assert "+  acme:" in ran.out
    assert ringfence.ok("policy", "apply", file(WHOLE), "--dry-run", "--json").json["applied"] is False
    assert await everything(connection) == before
    unvetted = file(WHOLE.replace("    state: prospect\n", "    state: active\n"))
    assert ringfence("policy", "apply", unvetted, "--dry-run").code == ExitCode.CONFLICT


async def test_the_last_thing_written_says_which_file_it_was(
    ringfence: Command, connection: asyncpg.Connection, file: Callable[[str], str]
) -> None:
    out = ringfence.ok("policy", "apply", file(WHOLE), "--reason", "go live").out
    last = await connection.fetchrow("select * from policy_changes order by version desc limit 1")
    assert out.endswith(f"the policy is at version {last['version']}\n")
    assert (last["action"], last["customer"], last["changed_by"]) == ("policy.apply", "", "tester")
    detail = json.loads(last["detail"])
    assert detail["sha256"] == hashlib.sha256(WHOLE.encode()).hexdigest()
    assert (detail["reason"], detail["customers_added"], detail["grants_added"]) == ("go live", 2, 2)
    assert "no difference; the policy stays at version" in ringfence.ok("policy", "apply", file(WHOLE)).out
    assert await policy_files.version(connection) == last["version"]


async def test_an_apply_for_another_version_of_the_policy_is_refused(
    ringfence: Command, whole: asyncpg.Connection, file: Callable[[str], str]
) -> None:
    path = file(WHOLE.replace("name: Acme", "name: Acme 2"))
    seen = ringfence("policy", "diff", path, "--json").json["policy_version"]
    await whole.execute("select note_change('profile.set', '', '{}')")
    ran = ringfence("policy", "apply", path, "--expect-version", str(seen))
    assert (ran.code, ran.out) == (ExitCode.CONFLICT, "")
    assert f"the policy is at version {seen + 1}, not {seen}" in ran.err
    ringfence.ok("policy", "apply", path, "--expect-version", str(seen + 1))


async def test_two_applies_at_once_come_one_after_the_other(
    whole: asyncpg.Connection, database: DatabaseSettings
) -> None:
    async with connected(database, application="test") as other:
        texts = [WHOLE.replace("name: Acme\n", f"name: Acme {number}\n") for number in (1, 2)]
        counts = await asyncio.gather(applied(whole, texts[0]), applied(other, texts[1]))
    assert counts == [{"customers_changed": 1}] * 2


async def test_a_change_at_the_same_moment_is_a_conflict_and_not_lost(
    whole: asyncpg.Connection, database: DatabaseSettings
) -> None:
    async with connected(database, application="test") as other:
        holding = other.transaction()
        await holding.start()
        await other.execute("update customers set name = 'Mine' where customer = 'acme'")
        apply = asyncio.create_task(applied(whole, WHOLE.replace("name: Acme", "name: Yours")))
        async with connected(database, application="test") as third:
            while not await third.fetchval("select count(*) from pg_locks where not granted"):
                assert not apply.done()
        await holding.commit()
        with pytest.raises(ConflictError, match="somebody changed the same things at the same moment"):
            await apply
        assert await other.fetchval("select name from customers where customer = 'acme'") == "Mine"


async def test_a_call_does_not_wait_for_an_apply(whole: asyncpg.Connection, database: DatabaseSettings) -> None:
    transaction = whole.transaction()
    await transaction.start()
    await apply_document(whole, load(WHOLE.replace("minutes_per_day: 60", "calls_per_day: 9").encode(), "p.yaml"))
    async with connected(database, application="test") as calls:
        await calls.execute("set statement_timeout = '5s'")
        assert await reason(calls, "ACME", 12125550105) == "authorized"
        assert await reason(calls, "ACME", 13105550199) == "caller_id_not_authorized"
    await transaction.rollback()


async def test_a_document_is_tried_in_a_transaction_that_is_rolled_back(whole: asyncpg.Connection) -> None:
    before = await everything(whole)
    transaction = whole.transaction()
    await transaction.start()
    done = await apply_document(whole, load(WHOLE.replace('"+44"', '"+4470"').encode(), "p.yaml"))
    assert (await whole.fetchval("select max(version) from policy_changes"), dict(done.counts)) == (
        done.policy_version,
        {"customers_changed": 1, "destinations": 2},
    )
    assert (await apply_document(whole, load(WHOLE.encode(), "p.yaml"))).counts["destinations"] == 2
    await transaction.rollback()
    assert await everything(whole) == before


async def test_an_admin_who_owns_nothing_may_apply_and_export(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await connection.execute(
        "do $$ begin create role login_applier login in role ringfence_admin; "
        "exception when duplicate_object then null; end $$"
    )
    dsn = database.dsn.replace("postgres@", "login_applier@")
    async with connected(DatabaseSettings(dsn=dsn), application="test") as admin:
        await applied(admin, WHOLE)
        assert await applied(admin, await exported(admin)) == {}


# --- what people and programs see ----------------------------------------------------------------------------


async def test_a_diff_names_each_change_by_its_path(whole: asyncpg.Connection) -> None:
    text = WHOLE.replace("calls_per_second: 2,", "calls_per_second: 3,").replace("LOA 7", "LOA 8")
    text = text.replace('last: "+12125550109"', 'last: "+12125550110"').replace("value: BETA", "value: GAMMA")
    text = (
        text.replace("area: premium, action: deny", "area: premium, action: allow")
        + "  new: {name: N, profile: small}\n"
    )
    document = load(text.encode(), "p.yaml")
    async with whole.transaction():
        found = {change["path"]: change for change in changes(await difference(whole, document, "p.yaml"))}
    assert set(found) == {
        "profiles.small.calls_per_second",
        "profiles.small.burst",
        "destinations[premium].action",
        "customers.acme.grants[+12125550100..+12125550109]",
        "customers.acme.grants[+12125550100..+12125550110]",
        "customers.acme.grants[+12125550120].evidence",
        "customers.beta.endpoints[account BETA]",
        "customers.beta.endpoints[account GAMMA]",
        "customers.new",
    }
    assert (found["profiles.small.burst"]["before"], found["profiles.small.burst"]["after"]) == (2, 3)
    assert found["customers.acme.grants[+12125550100..+12125550110]"]["after"]["evidence"] == "order 1"
    assert found["customers.new"]["before"] is None
    assert found["customers.new"]["after"]["endpoints"] == []


async def test_a_diff_is_plain_in_a_pipe_and_coloured_on_a_terminal(
    ringfence: Command, whole: asyncpg.Connection, file: Callable[[str], str]
) -> None:
    path = file(WHOLE.replace("name: Acme\n", "name: Acme 2\n"))
    plain = ringfence("policy", "diff", path)
    assert plain.code == ExitCode.REFUSED
    assert plain.out.splitlines()[:3] == [
        f"--- database, policy version {await policy_files.version(whole)}",
        f"+++ {path}",
        "@@ -1,5 +1,5 @@ customers.acme",
    ]
    assert "-    name: Acme\n+    name: Acme 2\n" in plain.out
    main, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "policy", "diff", path, stdout=terminal, env={**ringfence.environment, "TERM": "xterm"}
    )
    assert await process.wait() == ExitCode.REFUSED
    os.close(terminal)
    shown = os.read(main, 65536).decode()
    os.close(main)
    assert "\x1b[32m+    name: Acme 2\x1b[0m" in shown


async def test_text_of_strangers_is_harmless_in_a_diff(whole: asyncpg.Connection, ringfence: Command) -> None:
    await whole.execute("update campaigns set description = $1", "\x1b]0;owned\x07\u202e\n- x")
    out = ringfence.ok("policy", "export").out
    assert "\x1b" not in out
    assert "\u202e" not in out
    text = await exported(whole)
    assert await applied(whole, text) == {}


async def test_an_export_goes_to_a_file_whole_and_private(
    ringfence: Command, whole: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "out.yaml"
    told = ringfence.ok("policy", "export", str(path), "--json").json
    assert path.read_text("utf-8") == ringfence.ok("policy", "export").out
    assert path.stat().st_mode & 0o777 == 0o600
    assert (told["customers"], told["grants"]) == (2, 2)
    assert told["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ringfence.ok("policy", "export", "--json").json["text"] == path.read_text("utf-8")
    failed = ringfence("policy", "export", str(path), "--customer", "acm")
    assert failed.code == ExitCode.NOT_FOUND
    assert "did you mean 'acme'?" in failed.err
    assert path.read_text("utf-8").count("scope: policy") == 1
    assert ringfence("policy", "export", "/nowhere/x.yaml").code == ExitCode.BAD_INPUT


def test_a_file_may_come_from_standard_input(ringfence: Command) -> None:
    assert ringfence("policy", "apply", "-", stdin=b"format: 1\n").code == ExitCode.BAD_INPUT
    ringfence.ok("policy", "apply", "-", stdin=WHOLE.encode())
    assert ringfence.ok("policy", "diff", "-", "--json", stdin=WHOLE.encode()).json["changes"] == []
    assert "cannot be read" in ringfence("policy", "diff", "/nowhere.yaml").err


async def test_attempts_of_before_and_after_name_their_policy_versions(whole: asyncpg.Connection) -> None:
    [before] = await judge(whole, attempt("ACME", 12125550105))
    await applied(whole, WHOLE.replace("name: Acme\n", "name: Acme 2\n"))
    [after] = await judge(whole, attempt("ACME", 12125550105))
    assert after.policy_version == before.policy_version + 2  # its entry, and the closing one
