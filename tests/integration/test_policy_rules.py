"""What an apply of a policy file refuses, and what it leaves on record."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from ringfence.cli import policy as command
from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ConflictError, ExitCode
from ringfence.policy.apply import Terms, apply_file
from ringfence.policy.difference import changes, difference
from ringfence.policy.document import load
from ringfence.policy.export import Exported, export
from ringfence.store import policy_files, vetting
from ringfence.store.connect import connected
from tests.integration.calls import reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration

POLICY = """\
format: 1
scope: policy
provider: {name: Voice Ltd, aup_version: "7"}
profiles:
  small: {calls_per_second: 2, concurrent_calls: 5, calls_per_day: 500}
  restricted: {calls_per_second: 1, burst: 1, concurrent_calls: 2}
destinations: []
calling_hours: {}
reasons: {}
customers:
  acme:
    name: Acme
    kind: provider
    state: active
    profile: small
    endpoints: [{kind: account, value: ACME}]
    grants: [{first: "+12125550100", last: "+12125550109"}]
    vetting:
      vetted_by: maria
      method: call
      legal_name: Acme Ltd
      physical_address: 1 Main St
      contact_name: Jo
      contact_email: jo@acme.example
      use_case: appointments
      questionnaire_version: "1"
      aup_version: "7"
      aup_accepted_at: 2026-01-01
      aup_accepted_by: Jo
      filer_id_499: "812345"
      rmd_number: RMD0005678
      rmd_status: listed
"""
AHEAD = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
LONG_AGO = f"{datetime.now(UTC) - timedelta(days=95):%Y-%m-%d}"


async def applied(connection: asyncpg.Connection, text: str, **terms: Any) -> dict[str, int]:
    document = load(text.encode(), "p.yaml")
    return dict((await apply_file(connection, document, origin="p.yaml", terms=Terms(**terms))).counts)


async def exported(connection: asyncpg.Connection) -> str:
    return "".join([part async for part in export(connection, Exported())])


def replaced(old: str, new: str) -> str:
    assert old in POLICY
    return POLICY.replace(old, new)


# --- vettings that a file adds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("method: call", "method: upgrade", "method: Input should be 'call', 'visit' or 'documents'"),
        ("method: call", f"method: call\n      vetted_at: {AHEAD}", "vetted_at: is in the future"),
        ("method: call", "method: call\n      valid_until: 2099-01-01", "valid_until: must be in the future, by"),
        ("method: call", "method: call\n      valid_until: 2020-01-01", "valid_until: must be in the future, by"),
        ("method: call", "method: call\n      vetted_at: 2019-01-01", "valid_until: must be in the future, by"),
        ("jo@acme.example", "jo at acme", "contact_email: is not an e-mail address"),
        ("1 Main St", "'1  Main St'", "physical_address: write it as '1 Main St'"),
        ("      contact_email: jo@acme.example\n", "", "missing: contact_email or contact_phone"),
        ('      filer_id_499: "812345"\n', "", "missing: filer_id_499"),
        ("      rmd_number: RMD0005678\n", "", "missing: rmd_number"),
        ("RMD0005678", "rmd0005678", "rmd_number: write it as 'RMD0005678'"),
        ("RMD0005678", "RMD1", "rmd_number: write it as RMD and 7 to 10 digits"),
        ("rmd_status: listed", f"rmd_status: listed\n      rmd_checked_at: {LONG_AGO}",
         "rmd_checked_at: is more than 90 days ago: look it up again"),
        ('aup_version: "7"\n      aup', 'aup_version: "6"\n      aup', "aup_version: '6' was accepted, and"),
        ("      aup_accepted_at: 2026-01-01\n", "", "missing: aup_accepted_at"),
        ("aup_accepted_at: 2026-01-01", f"aup_accepted_at: {AHEAD}", "aup_accepted_at: is in the future"),
        ('      questionnaire_version: "1"\n', "", "missing: questionnaire_version"),
        ("method: call", f"method: call\n      note: '{vetting.SHORT}'", "its vetting cannot be short"),
    ],
)  # fmt: skip
async def test_a_vetting_that_customer_vet_would_refuse_is_refused_by_its_path(
    connection: asyncpg.Connection, old: str, new: str, said: str
) -> None:
    with pytest.raises(BadInputError) as refused:
        await applied(connection, replaced(old, new))
    assert str(refused.value).startswith("p.yaml: customers.acme.vetting")
    assert said in str(refused.value)
    assert not await connection.fetchval("select count(*) from customers")


async def test_an_unvetted_wholesaler_is_not_activated_by_a_file(connection: asyncpg.Connection) -> None:
    bare = POLICY[: POLICY.index("      legal_name")]
    with pytest.raises(BadInputError, match="a vetting is recorded when it is complete; missing: legal_name"):
        await applied(connection, bare)


async def test_a_provider_that_no_date_names_was_looked_up_when_the_file_was_applied(
    connection: asyncpg.Connection,
) -> None:
    await applied(connection, POLICY)
    assert await connection.fetchval("select rmd_checked_at = vetted_at from vettings")
    assert await reason(connection, "ACME", 12125550105) == "authorized"
    assert await applied(connection, POLICY) == {}


async def test_vettings_that_are_there_are_not_judged_again(connection: asyncpg.Connection) -> None:
    await applied(connection, POLICY)
    await connection.execute(
        "insert into vettings (customer, vetted_by, method, valid_until, legal_name, note, rmd_checked_at) "
        "values ('acme', 'lee', 'upgrade', now() + interval '90 days', 'Acme', 'old', now() - interval '1 year')"
    )
    text = await exported(connection)
    assert "method: upgrade" in text
    assert await applied(connection, text) == {}
    assert await applied(connection, text.replace("name: Acme\n", "name: Acme 2\n", 1)) == {"customers_changed": 1}
    with pytest.raises(BadInputError, match=r"customers\.acme\.vetting\.method: Input should be"):
        await applied(connection, text.replace("legal_name: Acme\n", "legal_name: Acme Corp\n"))


async def test_an_end_user_may_have_a_short_vetting_that_says_so(connection: asyncpg.Connection) -> None:
    short = replaced("kind: provider", "kind: end_user")
    short = short[: short.index("      legal_name")] + f"      note: '{vetting.SHORT}'\n"
    await applied(connection, short)
    assert await applied(connection, await exported(connection)) == {}
    assert await reason(connection, "ACME", 12125550105) == "authorized"


async def test_a_terminated_customer_is_vetted_no_more(connection: asyncpg.Connection) -> None:
    await applied(connection, POLICY)
    gone = replaced("state: active", "state: terminated")
    await applied(connection, gone, reason="left")
    with pytest.raises(BadInputError, match=r"customers\.acme\.vetting: the customer is terminated"):
        await applied(connection, gone.replace("Acme Ltd", "Acme Corp"), reason="again")


async def test_a_contact_address_that_no_mail_can_go_to_is_refused(connection: asyncpg.Connection) -> None:
    with pytest.raises(BadInputError, match=r"customers\.acme\.contact_email: is not an e-mail address"):
        await applied(connection, replaced("    state: active\n", "    state: active\n    contact_email: a b@c\n"))


# --- what is on record ---------------------------------------------------------------------------------------


async def entries(connection: asyncpg.Connection) -> list[tuple[str, str, dict[str, Any]]]:
    found = await connection.fetch("select action, customer, detail from policy_changes order by version")
    return [(row["action"], row["customer"], json.loads(row["detail"])) for row in found]


async def test_each_changed_part_is_an_entry_with_what_was_before_and_after(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Any
) -> None:
    await applied(connection, POLICY)
    before = len(await entries(connection))
    text = replaced("calls_per_day: 500", "calls_per_day: 400").replace("name: Acme\n", "name: Acme 2\n")
    text = text.replace("0109", "0119").replace("Acme Ltd", "Acme Corp").replace("value: ACME", "value: PBX")
    await applied(connection, text, reason="order 8")
    made = (await entries(connection))[before:]
    assert [entry[:2] for entry in made[-3:]] == [
        ("policy.change", ""),
        ("policy.change", "acme"),
        ("policy.apply", ""),
    ]
    assert made[-3][2]["changes"] == [{"path": "profiles.small.calls_per_day", "before": 500, "after": 400}]
    detail = made[-2][2]
    assert (detail["reason"], detail["sha256"]) == ("order 8", made[-1][2]["sha256"])
    assert {change["path"] for change in detail["changes"]} == {
        "customers.acme.name",
        "customers.acme.endpoints[account ACME]",
        "customers.acme.endpoints[account PBX]",
    }
    assert detail["changes"][0] == {"path": "customers.acme.name", "before": "Acme", "after": "Acme 2"}
    assert detail["grants_revoked"] == {"count": 1, "grants": [{"first": "+12125550100", "last": "+12125550109"}]}
    assert detail["vetting"]["told"] == ["legal_name", "rmd_checked_at"]
    shown = Command(database, tmp_path).ok("customer", "history", "acme").out
    assert "policy.change" in shown
    assert "Acme 2" in shown


async def test_many_grants_and_endpoints_are_counted_and_not_named(connection: asyncpg.Connection) -> None:
    many = ", ".join(f'{{number: "+1212555{number:04}"}}' for number in range(0, 3000, 2))
    lines = ", ".join(f"{{kind: account, value: A{number}}}" for number in range(300))
    text = replaced('{first: "+12125550100", last: "+12125550109"}', many)
    await applied(connection, text.replace("{kind: account, value: ACME}", lines))
    [detail] = [detail for action, customer, detail in await entries(connection)
                if (action, customer) == ("policy.change", "acme")]  # fmt: skip
    assert detail["grants_added"] == {"count": 1500, "first": "+12125550000", "last": "+12125552998"}
    assert len(detail["changes"]) + detail["more_changes"] == 306
    assert len(json.dumps(detail)) < 20_000


# --- moves that need a reason --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["restricted", "suspended", "terminated"])
async def test_a_customer_is_not_restricted_suspended_or_terminated_without_a_reason(
    connection: asyncpg.Connection, state: str
) -> None:
    await applied(connection, POLICY)
    text = replaced("state: active", f"state: {state}")
    with pytest.raises(ConflictError, match=r"customer 'acme' would become .* say why with --reason"):
        await applied(connection, text)
    assert await connection.fetchval("select state from customers") == "active"
    await applied(connection, text, reason="traceback 4711")
    assert await applied(connection, text) == {}
    assert await connection.fetchval("select state_reason from customers") == "traceback 4711"


async def test_customers_that_a_file_lacks_are_terminated_for_a_reason(connection: asyncpg.Connection) -> None:
    await applied(connection, POLICY)
    text = POLICY[: POLICY.index("customers:")] + "customers: {}\n"
    with pytest.raises(ConflictError, match="say why with --reason"):
        await applied(connection, text, terminate_missing=True)


# --- restricted profiles that lack a cap ---------------------------------------------------------------------


async def test_a_restricted_profile_that_lacks_a_cap_comes_back_and_is_replayed(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Any
) -> None:
    await applied(connection, POLICY)
    text = await exported(connection)
    assert await applied(connection, text) == {}
    assert await reason(connection, "ACME", 12125550105) == "authorized"
    ringfence = Command(database, tmp_path)
    path = tmp_path / "policy.yaml"
    path.write_text(text.replace("state: active", "state: restricted"))
    assert ringfence("policy", "diff", str(path)).code == ExitCode.REFUSED
    ran = ringfence("policy", "replay", str(path), "--since", "1h")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    ringfence.ok("policy", "apply", str(path), "--reason", "complaints")
    assert await reason(connection, "ACME", 12125550105) == "authorized"
    assert await applied(connection, await exported(connection)) == {}


# --- reading, comparing, waiting -----------------------------------------------------------------------------


async def test_a_diff_tells_what_becomes_of_customers_that_the_file_lacks(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Any
) -> None:
    await applied(connection, POLICY)
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY[: POLICY.index("customers:")] + "customers: {}\n")
    ringfence = Command(database, tmp_path)
    ran = ringfence("policy", "diff", str(path))
    assert ran.code == ExitCode.REFUSED
    assert "the file says nothing about customer 'acme': 'policy apply' refuses that without" in ran.out
    assert "they are terminated, not deleted" in ran.out
    assert ringfence("policy", "diff", str(path), "--json").json["missing"] == ["acme"]


async def test_an_apply_does_not_wait_for_long_while_somebody_else_changes_the_policy(
    connection: asyncpg.Connection, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.policy.apply._LOCK_WAIT_S", 0.05)
    async with connected(database, application="test") as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select ringfence.lock_grants()")
        with pytest.raises(ConflictError, match="somebody else is changing the policy"):
            await applied(connection, POLICY)
        await transaction.rollback()
    assert await connection.fetchval("show lock_timeout") == "0"
    assert (await applied(connection, POLICY))["customers_added"] == 1


def test_a_file_longer_than_a_policy_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_FILE", 10)
    with pytest.raises(BadInputError, match="/dev/zero: longer than 10 bytes: this is no policy file"):
        command.loaded("/dev/zero")


async def test_a_file_of_some_customers_is_compared_with_those_alone(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await applied(connection, POLICY)
    await connection.execute(
        "insert into customers (customer, name, profile) select 'c' || n, 'C', 'small'"
        " from generate_series(1, 5) n"
    )
    asked: list[list[str]] = []
    held = policy_files.held

    async def watched(connection: asyncpg.Connection, names: Any, *, numbers: bool) -> Any:
        asked.append(list(names))
        return await held(connection, names, numbers=numbers)

    monkeypatch.setattr(policy_files, "held", watched)
    some = "format: 1\nscope: customers\ncustomers:\n"
    some += "".join(f"  {name}: {{name: D, profile: small}}\n" for name in ("c2", "c4", "new"))
    async with connection.transaction():
        found = await difference(connection, load(some.encode(), "p.yaml"), "p.yaml")
    assert asked == [["c2", "c4"]]
    assert {change["path"] for change in changes(found)} == {
        "customers.c2.name",
        "customers.c4.name",
        "customers.new",
    }
