"""`ringfence check`: a dry run of one attempt. Nothing is counted and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from ringfence.model import NumberedAttempt

_FAILS = {"enforce": "fails", "report": "would reject", "off": "not judged"}


async def check(
    session: Session,
    *,
    called: Annotated[str, typer.Option(help="Called number as it would be dialled.")],
    caller: Annotated[str, typer.Option(help="Caller ID as it would be shown.")] = "",
    account: Annotated[str, typer.Option(help="Account code.")] = "",
    sip_user: Annotated[str, typer.Option(help="Authenticated SIP user.")] = "",
    trunk: Annotated[str, typer.Option(help="Trunk or gateway the call came from.")] = "",
    source_address: Annotated[str, typer.Option(help="IP address the call came from.")] = "",
    campaign: Annotated[str, typer.Option(help="Campaign the dialplan would name.")] = "",
    asserted: Annotated[str, typer.Option(help="Number in P-Asserted-Identity, for an anonymous caller.")] = "",
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Judge it as if it were then; now by default.")
    ] = None,
) -> int:
    """Say what the judge would answer to one call, rule by rule. Exits 0 if it may leave, 1 if not.

    With --at, dates and calling hours are judged at that moment; what is counted and who is suspended is as now.
    """
    from ringfence.cli.times import moment
    from ringfence.ids import new_decision_id, new_orig_id
    from ringfence.model import Attempt, Entry
    from ringfence.numbering import Numbering

    attempt = Attempt(
        decision_id=new_decision_id(),
        orig_id=new_orig_id(),
        switch="cli",
        host=session.settings.host,
        channel="",
        call_ref="",
        caller=caller,
        called=called,
        account=account,
        sip_user=sip_user,
        trunk=trunk,
        source_address=source_address,
        entry=Entry.CLI,
        campaign=campaign,
        asserted=asserted,
    )
    try:
        asked_at = moment(at) if at else None
    except ValueError:
        raise BadInputError(f"--at: {at!r} is not a time: write 2026-11-21T20:59 or 2026-11-21T20:59Z") from None
    numbering = Numbering(session.settings.numbering)
    if numbering.is_emergency(attempt):
        return _emergency(session)
    if not (account or sip_user or trunk or source_address):
        raise BadInputError("say where the call comes from: --account, --sip-user, --trunk or --source-address")
    return await _judge(session, replace(numbering.number(attempt), asked_at=asked_at))


def _emergency(session: Session) -> int:
    from ringfence import reasons

    sentence = reasons.BY_CODE[reasons.EMERGENCY].sentence
    rules = [{"rule": "emergency", "outcome": "passes", "reason": reasons.EMERGENCY, "data": {}}]
    session.output.document(
        {"verdict": "allow", "allowed": True, "reason": reasons.EMERGENCY, "sentence": sentence, "rules": rules}
    )
    session.output.table(rules, ("rule", "outcome", "reason", "data"))
    session.output.line(f"allow: {reasons.EMERGENCY}. {sentence}")
    return ExitCode.OK


async def _judge(session: Session, numbered: NumberedAttempt) -> int:
    from ringfence.store import authorize, records

    async with session.database() as connection:
        decision, outcomes = await authorize.dry_run(connection, numbered)
        sentence = await records.sentence(connection, decision.reason)
    called = numbered.attempt.called
    rules: list[dict[str, Any]] = [
        {
            "rule": "emergency",
            "mode": "enforce",
            "outcome": "does not apply",
            "reason": None,
            "data": {"called": called},
        }
    ]
    for outcome in outcomes:
        failed = outcome["failed"]
        rules.append(
            {
                "rule": outcome["rule"],
                "mode": outcome["mode"],
                "outcome": _FAILS[outcome["mode"]] if failed else "passes",
                "reason": failed,
                "data": outcome["data"],
            }
        )
    session.output.document(
        {
            "verdict": decision.verdict,
            "allowed": decision.allowed,
            "reason": decision.reason,
            "sentence": sentence,
            "customer": decision.customer,
            "attestation": decision.attestation,
            "sip_status": decision.sip_status,
            "q850_cause": decision.q850_cause,
            "delay_ms": decision.delay_ms,
            "would_reject": decision.would_reject,
            "policy_version": decision.policy_version,
            "rules": rules,
        }
    )
    session.output.table(rules, ("rule", "mode", "outcome", "reason", "data"))
    answer = f"attestation {decision.attestation}" if decision.allowed else f"SIP {decision.sip_status}"
    wait = f", after {decision.delay_ms} ms" if decision.delay_ms else ""
    session.output.line(f"{decision.verdict}: {decision.reason} ({answer}{wait}). {sentence}")
    if decision.would_reject:
        session.output.line(f"rules that only report would refuse it: {', '.join(decision.would_reject)}")
    return ExitCode.OK if decision.allowed else ExitCode.REFUSED


def register(app: typer.Typer) -> None:
    """Add the command to the top."""
    verb(app, "check")(check)
