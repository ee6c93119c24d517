"""A customer's way from prospect to terminated on the command line: vetting, states, findings, infractions."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from ringfence.cli import vetting_facts
from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ConflictError, ExitCode
from ringfence.store import customers, vetting
from tests.integration.calls import FOREIGN, attempt, judge, make_customer, reason
from tests.integration.command import PROGRAM, Command

pytestmark = pytest.mark.integration

TODAY = datetime.now(UTC)
NUMBER = "12-3456789"
FULL = {
    "vetted_by": "Kim",
    "method": "call",
    "legal_name": "Acme Telephone, Inc.",
    "physical_address": "1 Main Street, Springfield",
    "contact_name": "Jo Doe",
    "contact_email": "jo@acme.example",
    "use_case": "Appointment reminders",
    "aup_version": "2026-1",
    "aup_accepted_at": f"{TODAY - timedelta(days=1):%Y-%m-%d}",
    "aup_accepted_by": "Jo Doe",
    "questionnaire_version": "3",
    "source_addresses": ["192.0.2.10"],
}
PROVIDER = {
    "filer_id_499": "812345",
    "rmd_number": "RMD0001234",
    "rmd_status": "listed",
    "rmd_checked_at": f"{TODAY - timedelta(days=89):%Y-%m-%d}",
}


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    made = Command(database, tmp_path)
    with made.config.open("a", encoding="utf-8") as file:
        file.write(f"vetting: {{key_file: {tmp_path / 'vetting-key'}}}\n")
    return made


@pytest.fixture
def acme(ringfence: Command) -> Command:
    """Acme, a prospect with the account ACME."""
    ringfence.ok("customer", "add", "acme", "--name", "Acme", "--account", "ACME")
    return ringfence


@pytest.fixture
def active(ringfence: Command) -> Command:
    """Acme, active by a short vetting."""
    ringfence.ok("customer", "add", "acme", "--name", "Acme", "--account", "ACME", "--vetted-by", "Kim")
    return ringfence


def facts(ringfence: Command, **changes: object) -> str:
    """A YAML file (JSON is YAML) with a full vetting and these changes; None leaves a field out."""
    told = {field: value for field, value in {**FULL, **changes}.items() if value is not None}
    path = ringfence.config.with_name("vetting.yaml")
    path.write_text(json.dumps(told), encoding="utf-8")
    return str(path)


async def called(connection: asyncpg.Connection) -> str:
    """The reason of a call that shows a number of Acme's own."""
    await connection.execute(
        "insert into grants (customer, first, last) select 'acme', 12125550100, 12125550100 "
        "where not exists (select from grants)"
    )
    return await reason(connection)


async def actions(connection: asyncpg.Connection) -> list[str]:
    found = await connection.fetch("select action from policy_changes order by version")
    return [row["action"] for row in found]


# --- prospects and the short way ------------------------------------------------------------------------------


async def test_a_new_customer_is_a_prospect_whose_calls_are_refused(
    acme: Command, connection: asyncpg.Connection
) -> None:
    assert acme.ok("customer", "show", "acme", "--json").json["state"] == "prospect"
    assert await called(connection) == "customer_not_active"
    early = acme("customer", "activate", "acme")
    assert early.code == ExitCode.CONFLICT
    assert "its vetting was never done; 'ringfence customer vet acme --method …' records one" in early.err


async def test_the_short_way_vets_and_activates_in_one_command(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    shown = ringfence.ok(
        "customer", "add", "acme", "--name", "Acme", "--account", "ACME", "--vetted-by", "Kim", "--vetted-how",
        "visit", "--vetted-until", "2030-01-01", "--contact-email", "noc@acme.example", "--json",
    ).json  # fmt: skip
    assert (shown["state"], shown["vetted_until"]) == ("active", "2030-01-01T00:00:00Z")
    assert shown["contact_email"] == "noc@acme.example"
    vetting = shown["vetting"]
    assert (vetting["vetted_by"], vetting["method"], vetting["contact_email"]) == (
        "Kim",
        "visit",
        "noc@acme.example",
    )
    assert vetting["note"].startswith("short vetting")
    assert await called(connection) == "authorized"
    assert (await actions(connection))[-3:] == ["endpoint.add", "customer.vet", "customer.active"]


def test_a_vetting_holds_as_long_as_the_provider_says(ringfence: Command, active: Command) -> None:
    until = datetime.fromisoformat(active.ok("customer", "show", "acme", "--json").json["vetted_until"])
    assert timedelta(days=364) < until - TODAY < timedelta(days=366)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--vetted-how", "call"), ExitCode.BAD_INPUT, "--vetted-by: say who vetted, too"),
        (
            ("--vetted-by", "Kim", "--vetted-how", "guess"),
            ExitCode.BAD_INPUT,
            "--vetted-how: Input should be 'call'",
        ),
        (("--vetted-by", "Kim", "--vetted-until", "2020-01-01"), ExitCode.BAD_INPUT, "must be in the future"),
        (("--vetted-by", ""), ExitCode.BAD_INPUT, "--vetted-by: "),
        (("--contact-email", "kim"), ExitCode.BAD_INPUT, "--contact-email: is not an e-mail address"),
        (("--kind", "reseller"), ExitCode.BAD_INPUT, "--kind: 'reseller' is none of end_user, provider"),
        (("--kind", "provider", "--vetted-by", "Kim"), ExitCode.BAD_INPUT, "its vetting cannot be short"),
        (("--restricted-profile", "tight"), ExitCode.NOT_FOUND, "there is no profile 'tight'"),
    ],
)
def test_what_cannot_be_added_is_named_and_nothing_is_added(
    ringfence: Command, options: Sequence[str], code: ExitCode, said: str
) -> None:
    ran = ringfence("customer", "add", "acme", "--name", "Acme", *options)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ringfence.ok("customer", "list", "--json").json == []


# --- full vettings --------------------------------------------------------------------------------------------


async def test_a_full_vetting_lets_a_prospect_be_activated(acme: Command, connection: asyncpg.Connection) -> None:
    ran = acme.ok("customer", "vet", "acme", "--file", facts(acme), "--valid-until", "2028-05-01")
    assert "customer acme is vetted until 2028-05-01 (vetting 1, by Kim, call)" in ran.out
    assert "next: 'ringfence customer activate acme'" in ran.out
    assert await called(connection) == "customer_not_active"
    acme.ok("customer", "activate", "acme")
    assert await called(connection) == "authorized"
    shown = acme.ok("customer", "show", "acme", "--json").json
    assert shown["contact_email"] == "jo@acme.example"
    assert shown["vetting"]["source_addresses"] == ["192.0.2.10"]
    assert "Appointment reminders" in acme.ok("customer", "show", "acme").out


def test_everything_that_is_missing_is_named_at_once_and_nothing_is_recorded(acme: Command) -> None:
    told = ("--method", "call", "--legal-name", "Acme", "--contact-phone", "+1 212 555 0123")
    ran = acme("customer", "vet", "acme", *told)
    assert ran.code == ExitCode.BAD_INPUT
    assert ran.err == (
        "ringfence: a vetting is recorded when it is complete; missing: physical_address, contact_name, use_case, "
        "aup_version, aup_accepted_at, aup_accepted_by, questionnaire_version\n"
    )
    assert acme.ok("customer", "show", "acme", "--json").json["vetting"] is None


async def test_each_required_field_is_required(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    told = vetting_facts.checked(FULL, str)
    for field in told.keys() - {"vetted_by", "method", "source_addresses"}:
        with pytest.raises(BadInputError) as caught:
            await vetting.record(connection, "acme", {**told, field: ""})
        named = "contact_email or contact_phone" if field == "contact_email" else field
        assert str(caught.value).endswith(f"missing: {named}")
    await vetting.record(connection, "acme", told)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aup_accepted_at": "2999-01-01"}, "aup_accepted_at: is in the future"),
        ({"questionnaire_at": "2999-01-01"}, "questionnaire_at: is in the future"),
        ({"valid_until": "2020-01-01"}, "valid_until: must be in the future, by at most 3650 days"),
        ({"valid_until": "2999-01-01"}, "valid_until: must be in the future, by at most 3650 days"),
        ({"frn": "12"}, "vetting.yaml: frn: an FCC Registration Number has 10 digits"),
        ({"legal": "x"}, "vetting.yaml: legal: is not a field of a vetting"),
    ],
)
def test_a_fact_that_cannot_be_is_named(acme: Command, changes: dict[str, str], said: str) -> None:
    ran = acme("customer", "vet", "acme", "--file", facts(acme, **changes))
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err


async def test_the_policy_accepted_must_be_the_one_that_holds(
    acme: Command, connection: asyncpg.Connection
) -> None:
    await connection.execute("update provider set aup_version = '2027-1'")
    ran = acme("customer", "vet", "acme", "--file", facts(acme))
    assert ran.code == ExitCode.BAD_INPUT
    assert "aup_version: '2026-1' was accepted, and the policy that holds is '2027-1'" in ran.err
    acme.ok("customer", "vet", "acme", "--file", facts(acme), "--aup-version", "2027-1")


def test_a_vetting_done_again_tells_only_what_changed(acme: Command) -> None:
    acme.ok("customer", "vet", "acme", "--file", facts(acme, note="long talk", rmd_status="listed"))
    again = acme.ok(
        "customer", "vet", "acme", "--vetted-by", "Lee", "--method", "documents", "--use-case", "Surveys", "--json"
    ).json
    assert (again["vetting_id"], again["vetted_by"], again["use_case"]) == (2, "Lee", "Surveys")
    assert (again["legal_name"], again["source_addresses"]) == (FULL["legal_name"], ["192.0.2.10"])
    assert again["rmd_status"] == "listed"
    # How and what is remarked belongs to that vetting alone.
    assert (again["method"], again["note"]) == ("documents", "")
    emptied = acme("customer", "vet", "acme", "--method", "call", "--use-case", "")
    assert (emptied.code, "missing: use_case" in emptied.err) == (ExitCode.BAD_INPUT, True)
    acme.ok("customer", "set", "acme", "--contact-email", "new@acme.example")
    third = acme.ok("customer", "vet", "acme", "--method", "visit", "--nothing-changed", "--json").json
    assert (third["vetted_by"], third["contact_email"]) == ("tester", "new@acme.example")
    assert (third["method"], third["use_case"]) == ("visit", "Surveys")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--method: say how it was vetted"),
        (("--nothing-changed",), "--method: say how it was vetted"),
        (("--use-case", "Surveys"), "--method: say how it was vetted"),
        (("--method", "call"), "--nothing-changed: no fact about the customer is told"),
        (
            ("--method", "call", "--vetted-by", "Lee", "--note", "x", "--valid-until", "2027-01-01"),
            "--nothing-changed: no fact about the customer is told",
        ),
        (
            ("--method", "call", "--nothing-changed", "--use-case", "Surveys"),
            "--nothing-changed: but use_case is told too",
        ),
    ],
)
async def test_a_vetting_that_nobody_made_is_not_recorded(
    acme: Command, connection: asyncpg.Connection, options: Sequence[str], said: str
) -> None:
    acme.ok("customer", "vet", "acme", "--file", facts(acme))
    ran = acme("customer", "vet", "acme", *options)
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err
    assert await connection.fetchval("select count(*) from vettings") == 1


def test_a_short_vetting_says_that_it_is_one(acme: Command) -> None:
    vetting = acme.ok(
        "customer", "vet", "acme", "--short", "--vetted-by", "Kim", "--note", "by phone", "--json"
    ).json
    assert vetting["note"] == "short vetting: only who vetted, how and until when is on record here. by phone"
    assert vetting["legal_name"] == ""
    full = acme.ok("customer", "vet", "acme", "--file", facts(acme), "--json").json
    assert full["note"] == ""


async def test_a_provider_must_be_in_the_robocall_mitigation_database(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "acme", "--name", "Acme", "--account", "ACME", "--kind", "provider")
    lacking = ringfence("customer", "vet", "acme", "--file", facts(ringfence))
    assert "missing: filer_id_499, rmd_number, rmd_status, rmd_checked_at\n" in lacking.err
    for at, said in (
        ("2999-01-01", "is in the future"),
        ("2020-01-01", "is more than 90 days ago: look it up again"),
    ):
        ran = ringfence("customer", "vet", "acme", "--file", facts(ringfence, **PROVIDER), "--rmd-checked-at", at)
        assert ran.code == ExitCode.BAD_INPUT
        assert f"rmd_checked_at: {said}" in ran.err
    assert ringfence("customer", "vet", "acme", "--short").code == ExitCode.BAD_INPUT
    gone = ringfence.ok(
        "customer", "vet", "acme", "--file", facts(ringfence, **{**PROVIDER, "rmd_status": "not_listed"})
    )
    assert "it is not listed in the Robocall Mitigation Database" in gone.out
    ringfence.ok("customer", "activate", "acme")
    assert await called(connection) == "provider_not_in_rmd"
    ringfence.ok("customer", "vet", "acme", "--method", "documents", "--rmd-status", "listed")
    assert await called(connection) == "authorized"


async def test_calls_are_refused_when_a_vetting_runs_out_and_pass_again_when_it_is_done_again(
    active: Command, connection: asyncpg.Connection
) -> None:
    await connection.execute("update customers set vetted_until = now()")
    assert await called(connection) == "customer_vetting_expired"
    active.ok("customer", "suspend", "acme", "--reason", "vetting")
    late = active("customer", "reinstate", "acme", "--reason", "x")
    assert (late.code, "its vetting ran out" in late.err) == (ExitCode.CONFLICT, True)
    active.ok("customer", "vet", "acme", "--short")
    active.ok("customer", "reinstate", "acme", "--reason", "vetted")
    assert await called(connection) == "authorized"


async def test_customers_whose_vetting_runs_out_soon_are_listed_the_first_first(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    for name, until in (("late", "30"), ("soon", "5"), ("never", None), ("gone", "5"), ("out", "-1")):
        ringfence.ok("customer", "add", name, "--name", name, *(["--vetted-by", "Kim"] if until else []))
        await connection.execute(
            "update customers set vetted_until = now() + $2 * interval '1 day' where customer = $1",
            name, float(until) if until else None,
        )  # fmt: skip
    ringfence.ok("customer", "terminate", "gone", "--reason", "x", "--yes")

    def listed(*options: str) -> list[str]:
        return [row["customer"] for row in ringfence.ok("customer", "list", *options, "--json").json]

    assert listed("--due-days", "7") == ["out", "soon"]
    assert listed("--due-days", "31") == ["out", "soon", "late"]
    assert listed("--state", "prospect") == ["never"]
    assert listed("--state", "terminated") == ["gone"]
    assert ringfence("customer", "list", "--state", "lost").code == ExitCode.BAD_INPUT
    assert "no customers match" in ringfence.ok("customer", "list", "--state", "restricted").out


# --- tax ids --------------------------------------------------------------------------------------------------


async def test_a_tax_id_is_sealed_and_shown_only_to_who_holds_the_key_and_that_is_written_down(
    acme: Command, connection: asyncpg.Connection
) -> None:
    keyless = acme("customer", "vet", "acme", "--file", facts(acme), "--tax-id", NUMBER)
    assert keyless.code == ExitCode.CONFIG
    assert "vetting.key_file" in keyless.err
    acme.ok("customer", "vetting-key")
    assert acme("customer", "vetting-key").code == ExitCode.CONFLICT
    told = acme.ok("customer", "vet", "acme", "--file", facts(acme), "--tax-id", "-", stdin=f"{NUMBER}\n".encode())
    assert NUMBER not in told.out
    dump = str(await connection.fetch("select * from vettings")) + str(
        await connection.fetch("table policy_changes")
    )
    assert NUMBER not in dump
    assert "123456789" not in dump
    assert acme.ok("customer", "show", "acme", "--json").json["vetting"]["tax_id"] == "sealed"
    assert acme.ok("customer", "show", "acme", "--reveal", "--json").json["vetting"]["tax_id"] == NUMBER
    assert (await actions(connection))[-1] == "customer.reveal"
    # A vetting done again keeps it, and needs no key for that.
    acme.config.with_name("vetting-key").rename(acme.config.with_name("safe"))
    acme.ok("customer", "vet", "acme", "--method", "call", "--nothing-changed")
    assert acme("customer", "show", "acme", "--reveal").code == ExitCode.CONFIG
    acme.ok("customer", "vetting-key")
    other = acme("customer", "show", "acme", "--reveal")
    assert (other.code, "does not open the number" in other.err) == (ExitCode.CONFIG, True)
    assert (await actions(connection)).count("customer.reveal") == 1
    emptied = acme.ok("customer", "vet", "acme", "--method", "call", "--tax-id", "", "--json").json
    assert emptied["tax_id"] == ""
    assert acme("customer", "show", "acme", "--reveal").code == ExitCode.NOT_FOUND


async def test_a_customer_that_comes_back_under_another_name_is_known_by_its_tax_id(
    acme: Command, connection: asyncpg.Connection
) -> None:
    acme.ok("customer", "vetting-key")
    acme.ok("customer", "vet", "acme", "--file", facts(acme), "--tax-id", NUMBER)
    acme.ok("customer", "terminate", "acme", "--reason", "robocalls", "--yes")
    acme.ok("customer", "add", "newco", "--name", "Newco")
    again = ("customer", "vet", "newco", "--file", facts(acme), "--tax-id", "123456789")
    refused = acme(*again)
    assert refused.code == ExitCode.CONFLICT
    assert "red flag: the same tax id as customer 'acme' (terminated)" in refused.err
    assert acme.ok("customer", "show", "newco", "--json").json["vetting"] is None
    accepted = acme.ok(*again, "--accept-duplicate", "new owners")
    assert "red flag: same tax id as acme (terminated): new owners" in accepted.out
    detail = await connection.fetchval("select detail from policy_changes order by version desc limit 1")
    assert json.loads(detail)["accepted_duplicate"] == "new owners"
    # What was accepted need not be accepted again, and stays on record.
    later = acme.ok(
        "customer", "vet", "newco", "--method", "documents", "--red-flag", "no web site", "--json"
    ).json
    assert later["red_flags"] == ["no web site", "same tax id as acme (terminated): new owners"]


def test_a_duplicate_whose_state_got_worse_must_be_accepted_anew(acme: Command) -> None:
    acme.ok("customer", "vetting-key")
    acme.ok("customer", "vet", "acme", "--file", facts(acme), "--tax-id", NUMBER)
    acme.ok("customer", "activate", "acme")
    acme.ok("customer", "add", "twin", "--name", "Twin")
    twin = ("customer", "vet", "twin", "--file", facts(acme), "--tax-id", NUMBER)
    acme.ok(*twin, "--accept-duplicate", "sister company")
    acme.ok("customer", "suspend", "acme", "--reason", "robocalls")
    refused = acme("customer", "vet", "twin", "--method", "call", "--nothing-changed")
    assert (refused.code, "'acme' (suspended)" in refused.err) == (ExitCode.CONFLICT, True)


# --- states ---------------------------------------------------------------------------------------------------


async def test_a_restricted_customer_calls_under_its_restricted_profile(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("profile", "set", "none", "--calls-per-second", "1", "--concurrent", "0")
    ringfence.ok(
        "customer", "add", "acme", "--name", "Acme", "--account", "ACME", "--vetted-by", "Kim",
        "--restricted-profile", "none",
    )  # fmt: skip
    assert await called(connection) == "authorized"
    ringfence.ok("customer", "restrict", "acme", "--reason", "spike")
    assert await called(connection) == "concurrent_calls_exceeded"
    shown = ringfence.ok("customer", "show", "acme", "--json").json
    assert (shown["profile"], shown["caps_of"], shown["concurrent_calls"]) == ("default", "none", 0)
    ringfence.ok("customer", "set", "acme", "--restricted-profile", "restricted")
    assert await called(connection) == "authorized"
    ringfence.ok("customer", "activate", "acme", "--reason", "explained")
    assert ringfence.ok("customer", "show", "acme", "--json").json["caps_of"] == "default"


@pytest.mark.parametrize(
    ("state", "refused", "possible"),
    [
        ("prospect", ("restrict", "suspend", "reinstate"), ("activate", "terminate")),
        ("active", ("reinstate",), ("restrict", "suspend", "terminate")),
        ("restricted", ("restrict", "reinstate"), ("activate", "suspend", "terminate")),
        ("suspended", ("activate", "restrict"), ("reinstate", "terminate")),
        ("terminated", ("activate", "restrict", "suspend", "reinstate"), ()),
    ],
)
async def test_a_move_that_is_not_possible_names_the_state_and_what_is(
    connection: asyncpg.Connection, state: str, refused: Sequence[str], possible: Sequence[str]
) -> None:
    await make_customer(connection, state=state)
    for verb in refused:
        with pytest.raises(ConflictError) as caught:
            await customers.move(connection, "acme", verb, "x")
        assert str(caught.value).startswith(f"customer 'acme' is {state}: ")
        for each in possible:
            assert f"'ringfence customer {each} acme'" in str(caught.value)
    assert await connection.fetchval("select state from customers") == state
    for verb in possible:
        transaction = connection.transaction()
        await transaction.start()
        await customers.move(connection, "acme", verb, "x")
        await transaction.rollback()


async def test_a_reinstatement_names_who_approved_it_and_may_be_restricted(
    active: Command, connection: asyncpg.Connection
) -> None:
    active.ok("customer", "suspend", "acme", "--reason", "complaint")
    active.ok("customer", "reinstate", "acme", "--reason", "cleared", "--by", "Lee", "--restricted")
    move = await connection.fetchrow("select * from customer_states order by move_id desc limit 1")
    assert move is not None
    assert (move["from_state"], move["state"], move["reason"]) == ("suspended", "restricted", "cleared")
    assert (move["moved_by"], move["approved_by"]) == ("tester", "Lee")


async def test_a_terminated_customer_is_gone_for_good(active: Command, connection: asyncpg.Connection) -> None:
    unsure = active("customer", "terminate", "acme", "--reason", "fraud")
    assert (unsure.code, "--yes" in unsure.err) == (ExitCode.BAD_INPUT, True)
    active.ok("customer", "terminate", "acme", "--reason", "fraud", "--yes")
    assert await reason(connection) == "endpoint_unknown"
    assert await connection.fetchval("select hang_up from customers") is True
    assert active("customer", "terminate", "acme", "--reason", "fraud", "--yes").code == ExitCode.CONFLICT
    assert active("customer", "vet", "acme", "--short").code == ExitCode.CONFLICT
    assert active("customer", "add", "acme", "--name", "Acme").code == ExitCode.CONFLICT


async def test_a_terminated_customer_gives_up_all_it_holds(
    active: Command, connection: asyncpg.Connection
) -> None:
    active.ok("number", "grant", "acme", "+12125550100", "+12125550109")
    active.ok("number", "grant", "acme", "+12125550200", "--shared")
    active.ok("endpoint", "add", "acme", "--source-address", "192.0.2.10")
    active.ok("campaign", "add", "acme", "reminders", "--traffic", "conversational")
    active.ok("destination", "deny", "premium", "--customer", "acme")
    active.ok("destination", "deny", "satellite")
    active.ok("customer", "add", "zeta", "--name", "Zeta", "--account", "ZETA", "--vetted-by", "Kim")
    active.ok("number", "grant", "zeta", "+13105550100")
    ran = active.ok("customer", "terminate", "acme", "--reason", "fraud", "--yes")
    assert "it gave up 2 grants, 2 endpoints, 1 campaigns and 1 destination rules" in ran.out
    revoked = await connection.fetch(
        "select customer, reason, revoked_by, shared from revoked_grants order by first"
    )
    assert [tuple(row) for row in revoked] == [
        ("acme", "fraud", "tester", False),
        ("acme", "fraud", "tester", True),
    ]
    left = await connection.fetchrow(
        "select (select array_agg(customer) from grants), (select array_agg(customer) from endpoints), "
        "(select array_agg(customer) from campaigns), (select array_agg(customer || area) from destination_rules)"
    )
    assert left is not None
    assert tuple(left) == (["zeta"], ["zeta"], None, ["*satellite"])
    assert (await actions(connection))[-6:] == [
        "number.revoke", "endpoint.remove", "endpoint.remove", "campaign.remove", "destination.remove",
        "customer.terminated",
    ]  # fmt: skip
    # What it gave up another may have.
    active.ok("number", "grant", "zeta", "+12125550100")
    active.ok("endpoint", "add", "zeta", "--account", "ACME")


@pytest.mark.parametrize(
    "command",
    [
        ("number", "grant", "acme", "+12125550100"),
        ("number", "import", "FILE", "--customer", "acme"),
        ("number", "import", "FILE", "--replace", "acme"),
        ("endpoint", "add", "acme", "--account", "ACME2"),
        ("campaign", "add", "acme", "reminders", "--traffic", "conversational"),
        ("customer", "set", "acme", "--name", "Acme again"),
    ],
)
async def test_a_terminated_customer_gets_nothing_more(
    active: Command, connection: asyncpg.Connection, tmp_path: Path, command: Sequence[str]
) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("number\n+12125550100\n", encoding="utf-8")
    active.ok("customer", "terminate", "acme", "--reason", "fraud", "--yes")
    version = await connection.fetchval("select max(version) from policy_changes")
    ran = active(*(str(numbers) if word == "FILE" else word for word in command))
    assert (ran.code, ran.out) == (ExitCode.CONFLICT, "")
    assert "customer 'acme' is terminated: that is for good, and it gets nothing more" in ran.err
    assert await connection.fetchval("select max(version) from policy_changes") == version


def test_a_line_of_an_import_for_a_terminated_customer_is_bad(active: Command, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("customer,number\nacme,+12125550100\n", encoding="utf-8")
    active.ok("customer", "terminate", "acme", "--reason", "fraud", "--yes")
    ran = active("number", "import", str(numbers))
    assert ran.code == ExitCode.BAD_INPUT
    assert "line 2: customer: 'acme' is terminated" in ran.err


async def test_the_moves_of_the_command_line_are_those_of_the_database(connection: asyncpg.Connection) -> None:
    becomes = {verb: {state} for verb, state in customers._BECOMES.items()} | {
        "reinstate": {"active", "restricted"}
    }
    told = {
        state: {after for verb in verbs for after in becomes[verb]} for state, verbs in customers._MOVES.items()
    }
    pairs = [(before, after) for before in customers.STATES for after in customers.STATES]
    assert len(pairs) == 25
    for before, after in pairs:
        may = await connection.fetchval("select ringfence.state_may_become($1, $2)", before, after)
        assert (after in told[before]) == may, (before, after)


def test_the_page_about_customers_works_as_written(ringfence: Command) -> None:
    page = (Path(__file__).parents[2] / "docs" / "customers.md").read_text("utf-8")
    block = page[page.index("    # bolt.yaml") :].split("\n\n")[0]
    path = ringfence.config.with_name("bolt.yaml")
    path.write_text(block, encoding="utf-8")
    commands = re.findall(r"^    ringfence (.* bolt .*|customer activate bolt)$", page, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        ringfence.ok(*shlex.split(command.replace("bolt.yaml", str(path))))


async def test_a_contact_address_that_no_mail_can_go_to_is_named(
    active: Command, connection: asyncpg.Connection
) -> None:
    assert "contact address" not in active.ok("customer", "show", "acme").out
    ran = active("customer", "set", "acme", "--contact-email", "jö@acme.example")
    assert (ran.code, "--contact-email: is not an e-mail address" in ran.err) == (ExitCode.BAD_INPUT, True)
    active.ok("customer", "set", "acme", "--contact-email", "jo@acme")  # a host of one label is one
    assert "contact address" not in active.ok("customer", "show", "acme").out
    await connection.execute("update customers set contact_email = 'jö@acme.example'")
    shown = active.ok("customer", "show", "acme")
    assert "its contact address is not an e-mail address of plain ASCII" in shown.out
    assert "'ringfence customer set acme --contact-email …' corrects it" in shown.out


# --- findings and infractions ---------------------------------------------------------------------------------


async def test_illegal_traffic_suspends_the_whole_customer_and_hangs_up_its_calls(
    active: Command, connection: asyncpg.Connection
) -> None:
    assert await called(connection) == "authorized"
    ran = active.ok(
        "finding",
        "add",
        "acme",
        "--kind",
        "illegal_traffic",
        "--summary",
        "bank impostor",
        "--evidence",
        "ITG 4711",
    )
    assert (
        "customer acme is suspended (was active) from the next attempt on; its live calls are being hung up"
        in ran.out
    )
    assert await called(connection) == "customer_suspended"
    row = await connection.fetchrow("select hang_up, state_reason from customers")
    assert row is not None
    assert tuple(row) == (True, "finding 1: bank impostor")
    assert await connection.fetchval("select kind from notices") == "suspension"


async def test_what_is_only_suspicious_is_put_down_and_calls_go_on(
    active: Command, connection: asyncpg.Connection
) -> None:
    for kind in ("suspicious_traffic", "complaint"):
        active.ok("finding", "add", "acme", "--kind", kind, "--summary", "short calls")
    assert await called(connection) == "authorized"
    listed = active.ok("finding", "list", "acme", "--json").json
    assert [(row["kind"], row["suspended"]) for row in listed] == [
        ("complaint", False),
        ("suspicious_traffic", False),
    ]
    assert (await actions(connection))[-1] == "customer.finding"


def test_illegal_traffic_of_a_prospect_is_put_down_and_leaves_it_one(acme: Command) -> None:
    ran = acme.ok("finding", "add", "acme", "--kind", "illegal_traffic", "--summary", "x")
    assert "customer acme is prospect: it may place no calls, and stays so" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nobody", "--kind", "complaint", "--summary", "x"), ExitCode.NOT_FOUND, "there is no customer 'nobody'"),
        (("acme", "--kind", "rumour", "--summary", "x"), ExitCode.BAD_INPUT, "--kind: 'rumour' is none of"),
        (("acme", "--kind", "complaint", "--summary", ""), ExitCode.BAD_INPUT, "--summary: give 1 to 1000"),
        (
            ("acme", "--kind", "complaint", "--summary", "x", "--evidence", "e" * 501),
            ExitCode.BAD_INPUT, "--evidence: give 0 to 500",
        ),
    ],
)  # fmt: skip
def test_a_finding_that_cannot_be_is_named(
    acme: Command, arguments: Sequence[str], code: ExitCode, said: str
) -> None:
    ran = acme("finding", "add", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert acme.ok("finding", "list", "--json").json == []


async def test_an_infraction_is_listed_and_taken_back(active: Command, connection: asyncpg.Connection) -> None:
    await connection.execute("update provider set warnings_before_suspension = 0")
    await judge(connection, attempt(caller=FOREIGN))
    [row] = active.ok("infraction", "list", "acme", "--json").json
    assert (row["caller"], row["consequence"], row["counts"]) == (f"+{FOREIGN}", "suspended", True)
    ran = active.ok("infraction", "reverse", "1", "--reason", "letter on file")
    assert "customer acme stays suspended until 'ringfence customer reinstate acme --reason …'" in ran.out
    assert active.ok("customer", "show", "acme", "--json").json["state"] == "suspended"
    [row] = active.ok("infraction", "list", "--json").json
    assert (row["counts"], row["reversed_by"], row["reversal_reason"]) == (False, "tester", "letter on file")
    again = active("infraction", "reverse", "1", "--reason", "x")
    assert (again.code, "taken back already, by tester" in again.err) == (ExitCode.CONFLICT, True)
    assert active("infraction", "reverse", "99", "--reason", "x").code == ExitCode.NOT_FOUND
    assert (await actions(connection))[-1] == "infraction.reverse"


async def test_the_history_tells_everything_in_order_of_time(
    acme: Command, connection: asyncpg.Connection
) -> None:
    acme.ok("customer", "vet", "acme", "--file", facts(acme))
    acme.ok("customer", "activate", "acme")
    await judge(connection, attempt(caller=FOREIGN))
    acme.ok("infraction", "reverse", "1", "--reason", "letter")
    acme.ok("finding", "add", "acme", "--kind", "illegal_traffic", "--summary", "x")
    told = acme.ok("customer", "history", "acme", "--json").json
    assert [(row["what"], row["detail"].get("to")) for row in told] == [
        ("state", "prospect"),
        ("customer.add", None),
        ("endpoint.add", None),
        ("vetting", None),
        ("state", "active"),
        ("infraction", None),
        ("infraction reversed", None),
        ("finding", None),
        ("state", "suspended"),
    ]
    assert [row["at"] for row in told] == sorted(row["at"] for row in told)
    assert [row["what"] for row in acme.ok("customer", "history", "acme", "--limit", "2", "--json").json] == [
        "finding",
        "state",
    ]
    people = acme.ok("customer", "history", "acme").out
    assert "finding 1: x" in people
    assert "valid until 20" in people
    for nobody_reads in ("red_flags", "red flags", "valid_until", "approved_by", "decision"):
        assert nobody_reads not in people
    assert acme("customer", "history", "acm").code == ExitCode.NOT_FOUND


async def test_an_admin_may_do_all_of_this(
    database: DatabaseSettings, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    role = f"kyc_{os.getpid()}"
    await connection.execute(f"create role {role} login in role ringfence_admin")
    try:
        dsn = database.dsn.replace("postgresql://postgres", f"postgresql://{role}")
        assert dsn != database.dsn
        admin = Command(DatabaseSettings(dsn=dsn), tmp_path)
        admin.ok("customer", "add", "acme", "--name", "Acme", "--account", "ACME", "--vetted-by", "Kim")
        admin.ok("customer", "vet", "acme", "--file", facts(admin))
        await judge(connection, attempt(caller=FOREIGN))
        admin.ok("infraction", "reverse", "1", "--reason", "x")
        admin.ok("finding", "add", "acme", "--kind", "illegal_traffic", "--summary", "x")
        admin.ok("customer", "reinstate", "acme", "--reason", "x")
        admin.ok("customer", "terminate", "acme", "--reason", "x", "--yes")
        assert admin.ok("customer", "history", "acme", "--json").json[-1]["detail"]["to"] == "terminated"
    finally:
        await connection.execute(f"drop role {role}")


def test_a_key_is_made_without_any_configuration(tmp_path: Path) -> None:
    path = tmp_path / "key"
    done = subprocess.run([*PROGRAM, "customer", "vetting-key", str(path)], capture_output=True, check=False)
    assert done.returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
