"""A policy file, read and checked: every fault is named by its path in the file and its line."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from ringfence.errors import BadInputError
from ringfence.policy import checks, model, tree
from ringfence.policy.fields import Name, Place
from ringfence.policy.reader import Path, Reader, line_of
from ringfence.reasons import BY_CODE
from ringfence.store.policy import check_name, did_you_mean

SECTIONS = ("provider", "profiles", "destinations", "calling_hours", "reasons", "customers")
Scope = Literal["policy", "customers"]


@dataclass(frozen=True, slots=True)
class Document:
    """What a policy file says, in canonical form. A file of the scope `customers` says nothing but `customers`."""

    scope: Scope
    provider: tree.Tree
    profiles: dict[str, tree.Tree]
    destinations: tree.Tree
    calling_hours: tree.Tree
    reasons: tree.Tree
    customers: dict[str, tree.Tree]
    sha256: str


class _File(model.Section):
    listed = frozenset(SECTIONS)

    format: Literal["1"]
    scope: Scope
    provider: model.Provider = model.Provider()
    profiles: dict[Name, model.Profile] = Field(default_factory=dict)
    destinations: tuple[model.DestinationRule, ...] = ()
    calling_hours: dict[Place, model.CallingHours] = Field(default_factory=dict)
    reasons: dict[Annotated[str, Field(max_length=64)], model.Reason] = Field(default_factory=dict)
    customers: dict[str, Any]

    @field_validator("destinations")
    @classmethod
    def _one_rule_a_target(cls, found: tuple[model.DestinationRule, ...]) -> tuple[model.DestinationRule, ...]:
        model.one_rule_a_target(found)
        return found

    @field_validator("reasons")
    @classmethod
    def _known_reasons(cls, reasons: dict[str, model.Reason]) -> dict[str, model.Reason]:
        for code, reason in reasons.items():
            if code not in BY_CODE:
                raise ValueError(f"there is no reason {code!r}{did_you_mean(code, list(BY_CODE))}".rstrip(";"))
            status, allows = reason.sip_status, BY_CODE[code].sip_status == 0
            if status is not None and (status != 0 if allows else not 400 <= status <= 699):
                raise ValueError(f"{code}: sip_status is {'0 for what allows a call' if allows else '400 to 699'}")
        return reasons

    @field_validator("customers", mode="before")
    @classmethod
    def _mapping(cls, customers: Any) -> Any:
        if not isinstance(customers, dict):
            raise ValueError("must be a mapping of customers")
        return customers

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict):
            here = [name for name in SECTIONS if name in data]
            if data.get("scope") == "policy" and (missing := [name for name in SECTIONS if name not in here]):
                raise ValueError(
                    f"{missing[0]} is missing: a file of the scope policy says everything; "
                    "write {} or [] for none"
                )
            if data.get("scope") == "customers" and here != ["customers"] and here:
                raise ValueError(f"{here[0]} is for files of the scope policy")
        return data


def load(data: bytes, origin: str) -> Document:
    """Read and check a policy file; `origin` is named in errors.

    Raises BadInputError with one sentence for each of the first twenty faults.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{origin}: not UTF-8 at byte {error.start + 1}") from error
    faults = checks.Faults()

    def customer(name: str, raw: Any) -> Any:
        try:
            check_name("customer", name)
            return _customer(model.Customer.model_validate(raw))
        except BadInputError as error:
            faults.add(("customers", name), str(error))
        except ValidationError as error:
            _add(faults, error, model.Customer, ("customers", name))
        return {}

    raw = Reader(text, origin, convert=customer).read()
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        _add(faults, error, _File, ())
        file = None
    if faults.count or file is None:
        raise _refused(text, origin, faults)
    document = _document(file, hashlib.sha256(data).hexdigest())
    checks.check(document, faults)
    if not faults.count and document.scope == "policy":
        checks.check_profiles(document.customers, document.profiles, faults)
    if faults.count:
        raise _refused(text, origin, faults)
    return document


def refuse(origin: str, faults: checks.Faults) -> None:
    """Raises BadInputError for faults that only the database could tell, if there are any."""
    if faults.count:
        raise BadInputError("\n".join(f"{origin}: {written_path(path)}: {said}" for path, said in faults.kept))


def _document(file: _File, sha256: str) -> Document:
    reasons = {}
    for code in sorted(file.reasons):
        said = tree.reason(file.reasons[code].model_dump(), BY_CODE[code])
        if said:
            reasons[code] = said
    return Document(
        file.scope,
        tree.provider(dict(file.provider)),
        {name: _profile(file.profiles[name]) for name in sorted(file.profiles)},
        _destinations(file.destinations),
        tree.calling_hours({place: _week(hours) for place, hours in file.calling_hours.items()}),
        reasons,
        {name: file.customers[name] for name in sorted(file.customers)},
        sha256,
    )


def _profile(said: model.Profile) -> tree.Tree:
    return tree.profile({**dict(said), "burst": said.burst_or_rate}, said.modes)


def _destinations(said: Sequence[model.DestinationRule]) -> tree.Tree:
    return tree.destinations([dict(rule) for rule in said])


def _week(said: model.CallingHours) -> Mapping[str, str]:
    return {day: hours for day in model.DAYS if (hours := said.every_day or getattr(said, day)) is not None}


def _customer(said: model.Customer) -> tree.Tree:
    found = {**tree.customer(dict(said)), "contact_email": said.contact_email}
    if said.endpoints is not None:
        found["endpoints"] = tree.endpoints([dict(endpoint) for endpoint in said.endpoints])
    if said.campaigns is not None:
        found["campaigns"] = tree.campaigns({name: dict(campaign) for name, campaign in said.campaigns.items()})
    if said.destinations is not None:
        found["destinations"] = _destinations(said.destinations)
    if said.grants is not None:
        found["grants"] = sorted(_grant(grant) for grant in said.grants)
    if said.vetting is not None:
        found["vetting"] = tree.vetting(dict(said.vetting))
    return found


def _grant(said: model.Grant) -> tree.Grant:
    first, last = (said.number, said.number) if said.number is not None else (said.first, said.last)
    return tree.Grant(
        first or 0,
        last or 0,
        said.source,
        sys.intern(said.evidence),
        said.attestation,
        said.valid_from or "",
        said.valid_until or "",
        said.shared,
    )


def written_path(path: Path) -> str:
    """A path as people write it, `customers.acme.grants[2].first`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "(top)"


def _add(faults: checks.Faults, error: ValidationError, top: type[model.Section], above: Path) -> None:
    for fault in error.errors(include_url=False):
        where = tuple(part for part in fault["loc"] if part != "[key]")
        if fault["type"] == "extra_forbidden":
            known = _keys_at(top, where[:-1])
            message = f"is not a key here{did_you_mean(str(where[-1]), known)}".rstrip(";")
        elif fault["type"] == "missing":
            message = "is missing"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            shown = fault.get("input")
            if isinstance(shown, str) and shown[:60] not in message:
                message += f" (found {shown[:60]!r})"
        faults.add((*above, *where), message)


def _keys_at(top: type[model.Section], where: Path) -> list[str]:
    """The keys that the mapping at `where` may have."""
    found: Any = top
    for part in where:
        if isinstance(found, type) and issubclass(found, model.Section) and part in found.model_fields:
            found = found.model_fields[str(part)].annotation
        sections = _sections(found)
        found = sections[0] if sections else found
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, model.Section) else []


def _sections(annotation: Any) -> list[type[model.Section]]:
    if isinstance(annotation, type) and issubclass(annotation, model.Section):
        return [annotation]
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections(part)]


def _refused(text: str, origin: str, faults: checks.Faults) -> BadInputError:
    reader = Reader(text, origin, convert=lambda _name, _raw: None, wanted=[path for path, _ in faults.kept])
    reader.read()
    told = [
        (line_of(path, reader.lines), f"{written_path(path)}: {said}" if path else said)
        for path, said in faults.kept
    ]
    lines = [f"{origin}: line {line}: {said}" for line, said in sorted(told)]
    if faults.count > len(lines):
        lines.append(f"{origin}: and {faults.count - len(lines):,} more faults")
    return BadInputError("\n".join(lines))
