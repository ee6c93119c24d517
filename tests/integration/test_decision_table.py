"""The decision table: every reason the judge gives, reached by a real attempt, and every rule in each mode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest

from ringfence.model import Number, NumberedAttempt, Verdict
from ringfence.reasons import AUTHORIZED, BY_CODE
from ringfence.store import sqlfiles
from ringfence.store.authorize import dry_run
from tests.integration.calls import FOREIGN, attempt, judge, make_customer

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Case:
    """One way to be refused: the rule, the reason, what is in the tables, and the call."""

    rule: str
    reason: str
    tables: str = ""
    call: Mapping[str, Any] = field(default_factory=dict)
    caller: Number | None = None
    called: Number | None = None
    withheld: bool = False

    def attempt(self) -> NumberedAttempt:
        numbered = attempt(**self.call)
        return replace(
            numbered,
            caller=self.caller or numbered.caller,
            called=self.called or numbered.called,
            caller_withheld=self.withheld,
        )

    def __str__(self) -> str:
        return self.reason


_TELEMARKETING = "update endpoints set traffic = 'telemarketing';"
_USED_UP = (
    "insert into counters (customer, {0}, {1}) values ('acme', "
    "case '{0}' when 'day' then current_date else date_trunc('month', current_date)::date end, {2});"
)
_LISTED = "insert into do_not_originate (prefix, category, source) values ({0}, '{1}', 'registry');"

ALWAYS_ENFORCED = (
    Case("endpoint", "endpoint_unknown", call={"account": "NOBODY"}),
    Case("endpoint", "endpoint_disabled", "update endpoints set enabled = false;"),
    Case("customer", "customer_suspended", "update customers set state = 'suspended';"),
    Case("customer", "customer_not_active", "update customers set state = 'prospect';"),
    Case("customer", "customer_not_active", "update customers set state = 'terminated';"),
    Case("called_number", "called_number_missing", call={"called": None}),
    Case("called_number", "called_number_malformed", called=Number(None, "too_long")),
)
BY_MODE = (
    Case("vetting", "customer_not_vetted", "update customers set vetted_until = null;"),
    Case("vetting", "customer_vetting_expired", "update customers set vetted_until = now();"),
    Case("vetting", "provider_not_in_rmd", "update customers set kind = 'provider', rmd_status = 'not_listed';"),
    Case("vetting", "provider_not_in_rmd", "update customers set kind = 'provider';"),
    Case("campaign", "campaign_unknown", call={"campaign": "spring"}),
    Case(
        "campaign",
        "campaign_unknown",
        "insert into campaigns (customer, campaign, traffic, enabled) "
        "values ('acme', 'spring', 'telemarketing', false);",
        call={"campaign": "spring"},
    ),
    Case("caller_id", "caller_id_missing", call={"caller": None}),
    Case("caller_id", "caller_id_withheld", call={"caller": None}, withheld=True),
    Case("caller_id", "caller_id_malformed", caller=Number(None, "not_digits")),
    Case("do_not_originate", "caller_id_do_not_originate", _LISTED.format(12125550100, "subscriber_request")),
    Case("do_not_originate", "caller_id_do_not_originate", _LISTED.format(121255501, "unused")),
    Case("do_not_originate", "caller_id_do_not_originate", _LISTED.format(1212, "invalid")),
    Case("do_not_originate", "caller_id_unallocated", _LISTED.format(1212555, "unallocated")),
    Case("grant", "caller_id_not_authorized", call={"caller": FOREIGN}),
    Case("grant", "caller_id_not_assigned", "update provider set assigned_numbers_only = true; "
                                            "update grants set source = 'letter';"),
    Case("grant", "caller_id_grant_not_in_date", "update grants set valid_until = now();"),
    Case("grant", "caller_id_grant_not_in_date", "update grants set valid_from = now() + interval '1 hour';"),
    Case("destination", "destination_denied",
         "insert into destination_rules (prefix, action) values (1415, 'deny');"),
    Case("do_not_call", "called_number_do_not_call",
         _TELEMARKETING + "insert into do_not_call (number, source) values (14155550123, 'national');"),
    Case("calling_hours", "outside_calling_hours",
         _TELEMARKETING + "update calling_hours set opens = '00:00', closes = '00:00';"
         "delete from dialing_ranges; insert into dialing_ranges (first, last, country, time_zones) "
         "values (100000000000000, 199999999999999, 'US', '{America/Los_Angeles}');"),
    Case("calls_per_second", "calls_per_second_exceeded",
         "update limit_profiles set calls_per_second = 0.001, burst = 1;"
         "insert into counters (customer, next_call) values ('acme', now() + interval '500 s');"),
    Case("concurrent_calls", "concurrent_calls_exceeded", "update limit_profiles set concurrent_calls = 0;"),
    Case("calls_per_day", "calls_per_day_exceeded",
         "update limit_profiles set calls_per_day = 7;" + _USED_UP.format("day", "calls_today", 7)),
    Case("calls_per_month", "calls_per_month_exceeded",
         "update limit_profiles set calls_per_month = 7;" + _USED_UP.format("month", "calls_this_month", 7)),
    Case("minutes_per_day", "minutes_per_day_exceeded",
         "update limit_profiles set minutes_per_day = 2;" + _USED_UP.format("day", "seconds_today", 120)),
    Case("minutes_per_month", "minutes_per_month_exceeded",
         "update limit_profiles set minutes_per_month = 2;" + _USED_UP.format("month", "seconds_this_month", 120)),
    Case("destination_cap", "destination_cap_exceeded",
         "insert into destination_rules (prefix, action, calls_per_day) values (1415, 'cap', 0);"),
    Case("caller_id_cap", "caller_id_cap_exceeded", "update limit_profiles set caller_id_calls_per_day = 0;"),
)  # fmt: skip
CAPS = frozenset(case.rule for case in BY_MODE[-8:])


async def arrange(connection: asyncpg.Connection, case: Case) -> None:
    await make_customer(connection)
    if case.tables:
        await connection.execute(case.tables)


async def set_mode(connection: asyncpg.Connection, column: str, case: Case) -> None:
    """What is no number is granted to nobody: `grant` must be as lenient as `caller_id` to let it pass."""
    rules = [case.rule, "grant"] if case.reason == "caller_id_malformed" else [case.rule]
    await connection.execute(f"update limit_profiles set {column} = $1", rules)


@pytest.mark.parametrize("case", ALWAYS_ENFORCED, ids=str)
async def test_whose_call_it_is_and_what_it_calls_is_always_enforced(
    connection: asyncpg.Connection, case: Case
) -> None:
    await arrange(connection, case)
    [decision] = await judge(connection, case.attempt())
    assert (decision.verdict, decision.reason) == (Verdict.REJECT, case.reason)


@pytest.mark.parametrize("case", BY_MODE, ids=str)
async def test_a_rule_that_is_enforced_refuses_the_call(connection: asyncpg.Connection, case: Case) -> None:
    await arrange(connection, case)
    [decision] = await judge(connection, case.attempt())
    known = BY_CODE[case.reason]
    assert (decision.verdict, decision.reason, decision.attestation) == (Verdict.REJECT, case.reason, "")
    assert (decision.sip_status, decision.q850_cause) == (known.sip_status, known.q850_cause)
    assert decision.would_reject == ()
    row = await connection.fetchrow("select reason, would_reject, caller_withheld from decisions")
    assert row is not None
    assert (row["reason"], row["would_reject"], row["caller_withheld"]) == (case.reason, [], case.withheld)
    assert await connection.fetchval("select count(*) from leases") == 0


@pytest.mark.parametrize("case", BY_MODE, ids=str)
async def test_a_rule_that_only_reports_lets_the_call_pass_and_says_so(
    connection: asyncpg.Connection, case: Case
) -> None:
    await arrange(connection, case)
    await set_mode(connection, "report_rules", case)
    [decision] = await judge(connection, case.attempt())
    assert (decision.verdict, decision.reason) == (Verdict.ALLOW, AUTHORIZED)
    expected = [case.reason, "caller_id_not_authorized"] if case.reason == "caller_id_malformed" else [case.reason]
    assert list(decision.would_reject) == expected
    assert await connection.fetchval("select would_reject from decisions") == expected
    assert await connection.fetchval("select count(*) from leases") == 1
    unsure = {"caller_id", "do_not_originate", "grant"}
    assert decision.attestation == ("B" if case.rule in unsure else "A")
    assert await connection.fetchval("select count(*) from infractions") == 0
    assert await connection.fetchval("select count(*) from notices") == 0


@pytest.mark.parametrize("case", BY_MODE, ids=str)
async def test_a_rule_that_is_off_is_not_judged(connection: asyncpg.Connection, case: Case) -> None:
    await arrange(connection, case)
    await set_mode(connection, "off_rules", case)
    [decision] = await judge(connection, case.attempt())
    assert (decision.verdict, decision.reason, decision.would_reject) == (Verdict.ALLOW, AUTHORIZED, ())
    assert await connection.fetchval("select count(*) from notices") == 0


@pytest.mark.parametrize("case", [*ALWAYS_ENFORCED, *BY_MODE], ids=str)
async def test_a_dry_run_names_the_rule_that_refuses(connection: asyncpg.Connection, case: Case) -> None:
    await arrange(connection, case)
    decision, rules = await dry_run(connection, case.attempt())
    assert decision.reason == case.reason
    assert [rule["failed"] for rule in rules if rule["rule"] == case.rule] == [case.reason]
    assert await connection.fetchval("select count(*) from decisions") == 0


@pytest.mark.parametrize("case", [case for case in BY_MODE if case.rule in CAPS], ids=str)
async def test_the_first_refusal_of_the_day_under_a_cap_is_told_once(
    connection: asyncpg.Connection, case: Case
) -> None:
    await arrange(connection, case)
    for _ in range(3):
        await judge(connection, case.attempt())
    [notice] = await connection.fetch("select kind, customer, data->>'reason' as reason from notices")
    assert tuple(notice) == ("breach", "acme", case.reason)


def test_the_table_has_every_reason_the_judge_can_give() -> None:
    text = next(file.text for file in sqlfiles.functions() if file.name == "judged")
    given = set(re.findall(r"(?:then|else) '([a-z_]+)'", text)) & set(BY_CODE)
    caps = {code for code in BY_CODE if code.endswith("_exceeded")} - {"deadline_exceeded"}
    reached = {case.reason for case in (*ALWAYS_ENFORCED, *BY_MODE)}
    assert reached == given | caps
    assert {case.rule for case in BY_MODE if case.reason in caps} == CAPS


@pytest.mark.parametrize("mode", ["report_rules", "off_rules"])
async def test_letting_withheld_callers_pass_lets_no_disguised_number_pass(
    connection: asyncpg.Connection, mode: str
) -> None:
    await make_customer(connection)
    await connection.execute(f"update limit_profiles set {mode} = '{{caller_id}}'")
    disguised = replace(attempt(), caller=Number(None, "not_digits"))
    assert (await judge(connection, disguised))[0].reason == "caller_id_not_authorized"
    assert await connection.fetchval("select count(*) from infractions") == 0


async def test_a_restricted_customer_is_held_to_the_tighter_of_both_profiles(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection, concurrent=5, per_day=3)
    await connection.execute(
        "update limit_profiles set calls_per_second = 500, burst = 500, concurrent_calls = 50, "
        "calls_per_day = null, off_rules = '{grant, do_not_originate}', report_rules = '{vetting}' "
        "where profile = 'restricted'"
    )
    await connection.execute(
        "update limit_profiles set report_rules = '{do_not_originate}' where profile = 'acme'; "
        "update customers set state = 'restricted'; "
        "insert into do_not_originate (prefix, category, source) values (12125550100, 'unused', 'registry')"
    )
    # A rule that one of them enforces is enforced; one that is lenient in both is as strict as the stricter.
    assert (await judge(connection, attempt(caller=FOREIGN)))[0].reason == "caller_id_not_authorized"
    for _ in range(3):
        [decision] = await judge(connection, attempt())
        assert (decision.reason, decision.would_reject) == (AUTHORIZED, ("caller_id_do_not_originate",))
    assert (await judge(connection, attempt()))[0].reason == "calls_per_day_exceeded"
