"""The words of a notice, from its kind and its facts. Nothing a customer or a caller chose acts on the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ringfence.escape import visible
from ringfence.reasons import BY_CODE
from ringfence.store.notices import Notice

_SHORT_CODE_DIGITS = 6  # no E.164 number is that short

# What the reasons that lead to a notice say to the customer; elsewhere they speak of it to the operator.
_NOT_GRANTED = "The caller ID {caller} is not granted to you."
_TO_CUSTOMER = {
    "caller_id_not_authorized": _NOT_GRANTED,
    "caller_id_do_not_originate": f"{_NOT_GRANTED} It is on the do-not-originate list: nobody may show it.",
    "caller_id_unallocated": f"{_NOT_GRANTED} It is a number that no provider has been allocated.",
    "calls_per_second_exceeded": "You are over your calls-per-second cap.",
    "concurrent_calls_exceeded": "You are at your concurrent-call cap.",
    "calls_per_day_exceeded": "You have used up your calls for the day.",
    "calls_per_month_exceeded": "You have used up your calls for the month.",
    "minutes_per_day_exceeded": "You have used up your minutes for the day.",
    "minutes_per_month_exceeded": "You have used up your minutes for the month.",
    "destination_cap_exceeded": "You have used up a cap for this destination.",
    "caller_id_cap_exceeded": "A caller ID that you show has used up its calls for the day.",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A subject of one line and a body of plain text."""

    subject: str
    body: str


def render(notice: Notice) -> Text:
    """What the customer is told. Every kind has words, and facts that are missing are left out."""
    words = {"warning": _warning, "suspension": _suspension, "breach": _breach, "expiry": _expiry, "test": _test}
    subject, paragraphs = words[notice.kind](notice.data)
    name = _shown(notice.customer_name, 100)
    lines = [f"To {name}:", *paragraphs]
    if notice.provider:
        lines.append(_shown(notice.provider, 200))
    lines.append(f"Notice {notice.notice_id}, {moment(notice.created_at)}.")
    return Text(_shown(f"{subject}: {name}", 200), "\n\n".join(lines) + "\n")


def for_operator(notice: Notice, told_by: str) -> Text:
    """The same with a word ahead on who tells the customer: `email`, `webhook`, or nobody."""
    text = render(notice)
    done = f"ringfence notice delivered {notice.notice_id} --how '…'"
    ahead = {
        "email": f"A copy of what customer {notice.customer} is told by e-mail.",
        "webhook": f"Customer {notice.customer} has no e-mail address. The webhook was asked to tell it this.",
    }.get(told_by, f"Customer {notice.customer} has no e-mail address. Tell it this, then run: {done}")
    return Text(f"[{_shown(notice.customer, 63)}] {text.subject}", f"{ahead}\n\n---\n\n{text.body}")


def moment(value: object) -> str:
    """A time, or the text of one as Postgres writes it into JSON, in UTC to the minute."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return _shown(value, 40)
    return f"{at.astimezone(UTC) if at.tzinfo else at:%Y-%m-%d %H:%M} UTC"


def _warning(data: Mapping[str, Any]) -> tuple[str, list[str]]:
    left = data.get("warnings_left")
    more = (
        f"You will be warned {left} more time(s) before the service is suspended."
        if isinstance(left, int) and left > 0
        else "If it happens again, your service is suspended."
    )
    seen = f" at {moment(data['happened_at'])}" if "happened_at" in data else ""
    return "Warning: caller ID that is not yours", [
        f"A call from you{seen} showed the caller ID {number(data.get('caller'))}. {_why(data, 'reason')}",
        "The call was not put through. Show only numbers that you have the right to use. " + more,
        *_reference(data),
    ]


def _suspension(data: Mapping[str, Any]) -> tuple[str, list[str]]:
    paragraphs = ["Your outbound calls are refused from now on; emergency calls pass."]
    if "infraction" in data:
        seen = f" at {moment(data['happened_at'])}" if "happened_at" in data else ""
        paragraphs.append(
            f"The reason: a call from you{seen} showed the caller ID {number(data.get('caller'))}. "
            f"{_why(data, 'cause')}"
        )
    elif data.get("reason"):
        paragraphs.append(f"The reason: {_shown(data['reason'], 500)}")
    paragraphs.append("Answer this notice to have the case looked at.")
    return "Your service is suspended", [*paragraphs, *_reference(data)]


def _breach(data: Mapping[str, Any]) -> tuple[str, list[str]]:
    rule = _shown(data.get("rule", "a cap"), 60).replace("_", " ")
    when = f" at {moment(data['at'])}" if "at" in data else ""
    return f"Calls over a limit: {rule}", [
        f"A call{when} was refused. {_why(data, 'reason')}",
        "Calls over the limit go on being refused; those under it pass. You are told once a day and limit.",
        *_reference(data),
    ]


def _expiry(data: Mapping[str, Any]) -> tuple[str, list[str]]:
    ended, when = data.get("ended") is True, moment(data.get("at", ""))
    if data.get("what") == "vetting":
        subject = "Your vetting has run out" if ended else "Your vetting runs out"
        follows = "Your calls are refused until it is renewed." if ended else "Your calls are then refused."
        return subject, [f"{subject}: {when}. {follows}", "Get in touch to have it renewed."]
    subject = "Your right to numbers has run out" if ended else "Your right to numbers runs out"
    follows = "Calls that show them are refused." if ended else "Calls that show them are then refused."
    return subject, [
        f"{subject}: {when}. {_shown(data.get('numbers', 'Some'), 20)} number(s). {follows}",
        *_blocks(data),
        "Get in touch to have it renewed.",
    ]


def _test(_data: Mapping[str, Any]) -> tuple[str, list[str]]:
    return "Test", ["This is a test. Nothing has happened, and nothing needs to be done."]


def _blocks(data: Mapping[str, Any]) -> list[str]:
    found = data.get("blocks")
    blocks = [b for b in found if isinstance(b, list) and len(b) == 2] if isinstance(found, list) else []
    if not blocks:
        return []
    lines = [number(first) if first == last else f"{number(first)} to {number(last)}" for first, last in blocks]
    grants = data.get("grants")
    if isinstance(grants, int) and grants > len(blocks):
        lines.append(f"and {grants - len(blocks)} more")
    return ["\n".join(f"    {line}" for line in lines)]


def _why(data: Mapping[str, Any], key: str) -> str:
    reason = str(data.get(key))
    if reason in _TO_CUSTOMER:
        return _TO_CUSTOMER[reason].replace("{caller}", number(data.get("caller")))
    known = BY_CODE.get(reason)
    return known.sentence if known else ""


def _reference(data: Mapping[str, Any]) -> list[str]:
    return [f"Reference: {_shown(data['decision'], 60)}"] if data.get("decision") else []


def number(value: object) -> str:
    """A number as people write it: E.164 with its plus, and anything else as it was shown, made visible."""
    text = str(value if value not in (None, "") else "(none)")
    return f"+{text}" if text.isascii() and text.isdigit() and len(text) > _SHORT_CODE_DIGITS else _shown(text, 80)


def _shown(value: object, limit: int) -> str:
    return visible(str(value), limit)
