"""`ringfence customer vet` and what belongs to it: the facts as options, and the key that seals tax ids."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from ringfence.vetting_seal import VettingKey

# Every fact in the order of the form, each group under its name: field, option, help.
FACTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Vetting": (
        ("vetted_by", "--vetted-by", "who vetted; by default you."),
        ("method", "--method", "call, visit or documents; --short without it: documents."),
        ("valid_until", "--valid-until", "when it must be done again; by default as 'provider show' has it."),
        ("red_flags", "--red-flag", "what was odd. May be repeated."),
        ("documents", "--document", "where a proof is filed. May be repeated."),
        ("prior_actions", "--prior-actions", "tracebacks and enforcement actions known of."),
        ("note", "--note", "anything else."),
    ),
    "Business": (
        ("legal_name", "--legal-name", "registered name."),
        ("trading_name", "--trading-name", "name it is known by."),
        ("entity_type", "--entity-type", "corporation, LLC, sole proprietor …"),
        ("incorporation_state", "--incorporation-state", "where it is registered."),
        ("incorporation_country", "--incorporation-country", "ISO code, e.g. US."),
        ("tax_id", "--tax-id", "EIN or government number, kept sealed; - reads it from standard input."),
        ("physical_address", "--physical-address", "where it is."),
        ("address_kind", "--address-kind", "office, home, virtual, po_box or hotel."),
    ),
    "Contact": (
        ("contact_name", "--contact-name", "whom to talk to."),
        ("contact_email", "--contact-email", "notices go there."),
        ("contact_phone", "--contact-phone", "telephone."),
        ("alternate_phone", "--alternate-phone", "a second telephone."),
        ("website", "--website", "web site."),
    ),
    "Traffic": (
        ("use_case", "--use-case", "what the calls are for, in the customer's words."),
        ("campaign_type", "--campaign-type", "conversational, call centre, notification, telemarketing …"),
        ("expected_calls_per_second", "--expected-calls-per-second", "rate to expect."),
        ("expected_calls_per_day", "--expected-calls-per-day", "volume to expect."),
        ("source_addresses", "--source-address", "IP address or network it calls from. May be repeated."),
    ),
    "Agreement": (
        ("questionnaire_version", "--questionnaire-version", "version of the questionnaire answered."),
        ("questionnaire_at", "--questionnaire-at", "when."),
        ("aup_version", "--aup-version", "version of the acceptable-use policy accepted."),
        ("aup_accepted_at", "--aup-accepted-at", "when."),
        ("aup_accepted_by", "--aup-accepted-by", "who accepted it for the customer."),
    ),
    "Provider": (
        ("filer_id_499", "--filer-id-499", "FCC Form 499 filer id, 6 digits."),
        ("rmd_number", "--rmd-number", "number of its filing in the Robocall Mitigation Database."),
        ("rmd_status", "--rmd-status", "listed or not_listed."),
        ("rmd_checked_at", "--rmd-checked-at", "when that was looked up, at most 90 days ago."),
        ("ocn", "--ocn", "Operating Company Number."),
        ("frn", "--frn", "FCC Registration Number, 10 digits."),
        ("stir_shaken", "--stir-shaken", "full, partial or none."),
    ),
}  # fmt: skip
LISTS = ("red_flags", "documents", "source_addresses")
_OF_THE_CHECK = frozenset({"vetted_by", "method", "valid_until", "note"})  # and not of the customer


def _with_facts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each fact, in the place of its `**facts`."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for group, facts in FACTS.items():
        for field, option, text in facts:
            kind: Any = list[str] | None if field in LISTS else str | None
            annotation = Annotated[kind, typer.Option(option, help=f"{group}: {text}")]
            parameters.append(
                inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            )
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def facts_from(options: dict[str, Any], names: dict[str, str] | None = None) -> dict[str, Any]:
    """The facts that options tell, by field; `names` are options that are called otherwise than in `vet`.

    Raises BadInputError with one sentence for each fault, naming its option.
    """
    from ringfence.cli.vetting_facts import checked

    called = {field: option for facts in FACTS.values() for field, option, _ in facts} | (names or {})

    def named(place: str) -> str:
        return called.get(place.partition(".")[0], place)

    return checked({field: value for field, value in options.items() if value not in (None, [])}, named)


def _key(session: Session) -> VettingKey:
    from ringfence.vetting_seal import VettingKey

    return VettingKey.read(session.settings.vetting.key)


@_with_facts
async def vet(
    session: Session,
    *,
    customer: Annotated[str, typer.Argument(help="The customer's short name.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="YAML file with the same facts; options stand above it.")
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Record only who vetted, how and until when; the note says so.")
    ] = False,
    nothing_changed: Annotated[
        bool, typer.Option("--nothing-changed", help="Every fact was checked, and is as the last vetting has it.")
    ] = False,
    accept_duplicate: Annotated[
        str, typer.Option("--accept-duplicate", metavar="REASON", help="Why another has the same tax id.")
    ] = "",
    **facts: Any,
) -> None:
    """Record who the customer is and who found that out.

    What is not told is taken over from the last vetting; what is missing then is named, and nothing is recorded.
    A vetting that is not short names its method, and a fact or --nothing-changed.
    """
    from ringfence.cli import vetting_facts
    from ringfence.store import policy, vetting

    if facts["tax_id"] == "-":
        facts["tax_id"] = sys.stdin.readline().strip()
    found = (vetting_facts.from_file(file) if file else {}) | facts_from(facts)
    _require_a_check(found, short=short, nothing_changed=nothing_changed)
    if accept_duplicate:
        policy.check_text("--accept-duplicate", accept_duplicate)
    key = _key(session) if found.get("tax_id") else None
    async with session.database() as connection:
        shown = await vetting.record(
            connection, customer, found, short=short, key=key, accept_duplicate=accept_duplicate
        )
        state, kind = await connection.fetchrow(
            "select state, kind from customers where customer = $1", customer
        ) or ("", "")  # fmt: skip
    session.output.document(shown)
    session.output.line(
        f"customer {customer} is vetted until {shown['valid_until']:%Y-%m-%d} "
        f"(vetting {shown['vetting_id']}, by {shown['vetted_by']}, {shown['method']})"
    )
    for flag in shown["red_flags"]:
        session.output.line(f"red flag: {flag}")
    if kind == "provider" and shown["rmd_status"] != "listed":
        session.output.line(
            "it is not listed in the Robocall Mitigation Database: its calls are refused until it is"
        )
    if state == "prospect":
        session.output.line(
            f"next: 'ringfence customer activate {customer}': it is a prospect, and may place no calls"
        )


def _require_a_check(found: dict[str, Any], *, short: bool, nothing_changed: bool) -> None:
    """Raises BadInputError unless somebody says what was checked, and how: a vetting is evidence of that."""
    told = sorted(field for field in found if field not in _OF_THE_CHECK)
    if nothing_changed and told:
        raise BadInputError(f"--nothing-changed: but {', '.join(told)} is told too: leave out one of them")
    if short:
        return
    if "method" not in found:
        raise BadInputError("--method: say how it was vetted: call, visit or documents")
    if not told and not nothing_changed:
        raise BadInputError(
            "--nothing-changed: no fact about the customer is told; give what was found out, or --nothing-changed "
            "if every fact of the last vetting was checked and still holds"
        )


def vetting_key(
    session: Session,
    *,
    path: Annotated[
        Path | None, typer.Argument(help="File to make; by default the one that vetting.key_file names.")
    ] = None,
) -> None:
    """Make the key that seals tax ids, in a file that only its owner reads. None is overwritten."""
    from ringfence.vetting_seal import make_key_file

    target = path or session.settings.vetting.key_file
    if target is None:
        raise BadInputError("PATH: name the file to make, or vetting.key_file in the configuration")
    make_key_file(target)
    session.output.document({"key_file": str(target)})
    session.output.line(f"{target} made: keep a copy in a safe place, for without it no sealed tax id can be read")


async def reveal(session: Session, customer: str) -> str:
    """The customer's tax id in the clear, which is written down. Raises as `store.vetting.reveal` does."""
    from ringfence.store import vetting

    key = _key(session)
    async with session.database() as connection:
        return await vetting.reveal(connection, customer, key)


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun's app."""
    verb(app, "vet")(vet)
    verb(app, "vetting-key")(vetting_key)
