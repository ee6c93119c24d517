"""`make docs`: write the pages that are made from the code."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ringfence.config import Settings
from ringfence.reasons import REASONS

ROOT = Path(__file__).parents[1]

_REASONS_HEAD = """\
# Every reason

A decision carries one of these words, in the log, in Postgres, in the CDR, on the channel and in the command
line. The SIP status and the Q.850 cause are defaults: change a row of the table `ringfence.reasons` and the next
refusal answers it. Rows that are there are never overwritten by an upgrade.

`retry` says whether the same call may pass later without anybody changing the policy. Asterisk derives the SIP
status from the cause it hangs up with; the causes here give the status beside them on Asterisk 16 and 22.

| reason | SIP | Q.850 | retry | meaning |
| --- | --- | --- | --- | --- |
"""


def reasons_page() -> str:
    """docs/reasons.md, from the one list of reasons."""
    rows = [
        f"| `{r.code}` | {r.sip_status or '-'} | {r.q850_cause or '-'} | "
        f"{'yes' if r.retryable else '-'} | {r.sentence} |"
        for r in REASONS
    ]
    return _REASONS_HEAD + "\n".join(rows) + "\n"


_CONFIGURATION_HEAD = """\
# What stands in the configuration file

`/etc/ringfence/ringfence.yaml`, or the file that `--config` or `RINGFENCE_CONFIG` names. Everything has a default
but `switches`. A key that is not a setting, a key written twice and a value out of bounds are faults, each told
with its path: `ringfence check-config` tells them all, and `--connect` tries the database and the switches too.

`SIGHUP` (`systemctl reload ringfence`) takes over `gate`, `numbering` and `logging` at once. The rest needs a
restart, and the log says so.

No secret stands in the file. Each is read from the systemd credential of its name (`database-password`,
`ami-secret`), else from the file that the setting names, which must not be readable by everybody.
"""


def configuration_page() -> str:
    """docs/configuration.md, from the settings models."""
    return _CONFIGURATION_HEAD + "".join(_sections(Settings, ""))


def _sections(model: type[BaseModel], path: str) -> list[str]:
    rows, below = [], []
    for name, field in model.model_fields.items():
        where = f"{path}{name}"
        nested = _models_in(field.annotation)
        if nested:
            for each in nested:
                below += _sections(each, f"{where}." if len(nested) == 1 else f"{where}[{_kind(each)}].")
        else:
            rows.append(f"| `{where}` | {_default(field)} | {_bounds(field)} |")
    text = f"\n## {path.rstrip('.') or 'top'}\n\n{inspect.cleandoc(model.__doc__ or '')}\n"
    if rows:
        text += "\n| setting | default | bounds |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    return [text, *below]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [] if annotation.__name__ == "Address" else [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]


def _kind(model: type[BaseModel]) -> str:
    return str(typing.get_args(model.model_fields["kind"].annotation)[0])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        return "this host's name"
    if field.default is None or field.default == ():
        return "none"
    return f"`{', '.join(field.default) if isinstance(field.default, tuple) else field.default}`"


def _bounds(field: FieldInfo) -> str:
    choices = typing.get_args(field.annotation)
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in choices)
    words = []
    for rule in field.metadata:
        for name, sign in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
            if (value := getattr(rule, name, None)) is not None:
                words.append(f"{sign} {value:,}")
        if pattern := getattr(rule, "pattern", None):
            words.append(f"matches `{pattern}`")
    return ", ".join(words)


PAGES = {"docs/reasons.md": reasons_page, "docs/configuration.md": configuration_page}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (ROOT / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
