"""`ringfence check`: a dry run of one attempt. Nothing is counted and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from ringfence.model import Attempt


async def check(
    session: Session,
    *,
    called: Annotated[str, typer.Option(help="Called number as it would be dialled.")],
    caller: Annotated[str, typer.Option(help="Caller ID as it would be shown.")] = "",
    account: Annotated[str, typer.Option(help="Account code.")] = "",
    sip_user: Annotated[str, typer.Option(help="Authenticated SIP user.")] = "",
    trunk: Annotated[str, typer.Option(help="Trunk or gateway the call came from.")] = "",
    source_address: Annotated[str, typer.Option(help="IP address the call came from.")] = "",
) -> int:
    """Say what the judge would answer to one call, rule by rule. Exits 0 if it may leave, 1 if not."""
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
    )
    numbering = Numbering(session.settings.numbering)
    if numbering.is_emergency(attempt):
        return _emergency(session)
    if not (account or sip_user or trunk or source_address):
        raise BadInputError("say where the call comes from: --account, --sip-user, --trunk or --source-address")
    return await _judge(session, attempt, numbering)


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


async def _judge(session: Session, attempt: Attempt, numbering: object) -> int:
    from ringfence.numbering import Numbering
    from ringfence.store import authorize, records

    assert isinstance(numbering, Numbering)
    async with session.database() as connection:
        decision, outcomes = await authorize.dry_run(connection, numbering.number(attempt))
        sentence = await records.sentence(connection, decision.reason)
    rules = [
        {"rule": "emergency", "outcome": "does not apply", "reason": None, "data": {"called": attempt.called}}
    ]
    for outcome in outcomes:
        failed = outcome["failed"]
        rules.append(
            {
                "rule": outcome["rule"],
                "outcome": "fails" if failed else "passes",
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
            "policy_version": decision.policy_version,
            "rules": rules,
        }
    )
    session.output.table(rules, ("rule", "outcome", "reason", "data"))
    answer = f"attestation {decision.attestation}" if decision.allowed else f"SIP {decision.sip_status}"
    session.output.line(f"{decision.verdict}: {decision.reason} ({answer}). {sentence}")
    return ExitCode.OK if decision.allowed else ExitCode.REFUSED


def register(app: typer.Typer) -> None:
    """Add the command to the top."""
    verb(app, "check")(check)
