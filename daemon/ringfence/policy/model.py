"""The sections of a policy file as strict models. What the database refuses is refused here first, by its path."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ringfence import rules
from ringfence.errors import BadInputError
from ringfence.policy.fields import (
    Area,
    Cap,
    Country,
    Flag,
    Hours,
    Line,
    Moment,
    Name,
    Number,
    Prefix,
    Rate,
    Text,
    Whole,
    read_moment,
)
from ringfence.store.endpoints import Endpoint as StoredEndpoint
from ringfence.store.grants import block_fault, source_fault
from ringfence.store.policy import did_you_mean

DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
Traffic = Literal["conversational", "telemarketing"]
Mode = Literal["enforce", "report", "off"]


class Section(BaseModel):
    """A mapping of the file. A key with nothing behind it is as if it were not there, unless it is `listed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listed: ClassVar[frozenset[str]] = frozenset()
    """Keys for which nothing and an empty list are not the same."""

    @model_validator(mode="before")
    @classmethod
    def _said(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("must be a mapping")
        for key in data:
            if data[key] is None and key in cls.listed:
                raise ValueError(
                    f"{key} is empty: write [] for none, or leave the key out to leave them as they are"
                )
        return {key: value for key, value in data.items() if value is not None}


class Provider(Section):
    """The row of table `provider`, and its defaults."""

    name: Annotated[Line, Field(max_length=200)] = ""
    role: Literal["originating", "gateway", "intermediate", "terminating"] = "originating"
    frn: Annotated[Text, Field(pattern=r"^([0-9]{10})?$")] = ""
    ocn: Annotated[Text, Field(pattern=r"^([0-9A-Z]{4})?$")] = ""
    rmd_number: Annotated[Text, Field(pattern=r"^(RMD[0-9]{7,10})?$")] = ""
    home_country: Country = "US"
    assigned_numbers_only: Flag = False
    aup_version: Annotated[Line, Field(max_length=64)] = ""
    vetting_valid_days: Annotated[Whole, Field(ge=1, le=3650)] = 365
    expiry_notice_days: Annotated[Whole, Field(ge=0, le=365)] = 30
    strikes: Flag = True
    warnings_before_suspension: Annotated[Whole, Field(ge=0, le=100)] = 1
    infraction_hours: Annotated[Whole, Field(ge=0, le=8760)] = 24
    infractions_count_days: Annotated[Whole, Field(ge=1, le=3650)] = 365
    suspension_hangs_up: Flag = True


class Profile(Section):
    """A limit profile. Caps that are not named do not exist; rules that are not named are enforced."""

    calls_per_second: Annotated[Rate, Field(gt=0)]
    burst: Annotated[Whole, Field(ge=1, le=2_000_000_000)] | None = None
    concurrent_calls: Cap
    calls_per_day: Cap | None = None
    calls_per_month: Cap | None = None
    minutes_per_day: Cap | None = None
    minutes_per_month: Cap | None = None
    caller_id_calls_per_day: Cap | None = None
    max_delay_ms: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    modes: dict[Text, Mode] = {}

    @field_validator("modes")
    @classmethod
    def _known_rules(cls, modes: dict[str, Mode]) -> dict[str, Mode]:
        for name, mode in modes.items():
            if name not in rules.BY_NAME:
                raise ValueError(f"there is no rule {name!r}{did_you_mean(name, rules.WITH_MODE)}".rstrip(";"))
            if rules.BY_NAME[name].always and mode != rules.ENFORCE:
                raise ValueError(f"the rule {name!r} is always enforced")
        return modes

    @property
    def burst_or_rate(self) -> int:
        """How many calls may come at one instant: the rate, rounded up, if nothing is said."""
        return self.burst or max(1, math.ceil(self.calls_per_second))


class DestinationRule(Section):
    """What calls to a prefix, or to a country or class, may do."""

    area: Area = ""
    prefix: Prefix = ""
    action: Literal["allow", "deny", "cap"]
    calls_per_day: Cap | None = None
    calls_per_month: Cap | None = None
    minutes_per_day: Cap | None = None
    minutes_per_month: Cap | None = None

    @model_validator(mode="after")
    def _one_target(self) -> DestinationRule:
        if bool(self.area) == bool(self.prefix):
            raise ValueError("needs either area or prefix")
        caps = (self.calls_per_day, self.calls_per_month, self.minutes_per_day, self.minutes_per_month)
        if (self.action == "cap") != any(cap is not None for cap in caps):
            raise ValueError("action cap needs a cap, such as minutes_per_day, and the other actions have none")
        return self

    @property
    def target(self) -> str:
        """What the rule is for: there is one rule for each target."""
        return self.prefix or self.area


def one_rule_a_target(found: tuple[DestinationRule, ...] | None) -> tuple[DestinationRule, ...] | None:
    """Raises ValueError if two of the rules are for the same target."""
    targets = [rule.target for rule in found or ()]
    if len(set(targets)) != len(targets):
        raise ValueError(f"two rules are for {next(each for each in targets if targets.count(each) > 1)}")
    return found


class CallingHours(Section):
    """When telemarketing may call: the days of a week, or `every_day`."""

    every_day: Hours | None = None
    sunday: Hours | None = None
    monday: Hours | None = None
    tuesday: Hours | None = None
    wednesday: Hours | None = None
    thursday: Hours | None = None
    friday: Hours | None = None
    saturday: Hours | None = None

    @model_validator(mode="after")
    def _days(self) -> CallingHours:
        named = [day for day in DAYS if getattr(self, day) is not None]
        if bool(named) == (self.every_day is not None):
            raise ValueError("needs either every_day or days of the week")
        return self


class Reason(Section):
    """What a reason answers; what is not named is as shipped."""

    sip_status: Whole | None = None
    q850_cause: Annotated[Whole, Field(ge=0, le=127)] | None = None
    sentence: Text | None = None


class Endpoint(Section):
    """How calls are recognised as the customer's."""

    kind: Literal["account", "sip_user", "trunk", "source_address"]
    value: Text
    host: Annotated[Text, Field(min_length=1, max_length=255)] = "*"
    traffic: Traffic = "conversational"
    enabled: Flag = True

    @field_validator("value")
    @classmethod
    def _canonical(cls, value: str, info: ValidationInfo) -> str:
        try:
            return StoredEndpoint(info.data.get("kind", "account"), value).checked().value
        except BadInputError as error:
            raise ValueError(str(error)) from None

    @property
    def identity(self) -> tuple[str, str, str]:
        """What is on one endpoint only."""
        return self.kind, self.value, self.host


class Campaign(Section):
    """What a customer's calls are for."""

    traffic: Traffic
    description: Annotated[Text, Field(max_length=500)] = ""
    enabled: Flag = True


CampaignName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


class Grant(Section):
    """A right to show a number, or every number from `first` to `last`."""

    number: Number | None = None
    first: Number | None = None
    last: Number | None = None
    source: Literal["assigned", "letter", "callback", "bill", "resporg"] = "assigned"
    evidence: Annotated[Line, Field(max_length=500)] = ""
    attestation: Literal["A", "B", "C"] = "A"
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    shared: Flag = False

    @field_validator("last")
    @classmethod
    def _a_block(cls, last: int | None, info: ValidationInfo) -> int | None:
        first = info.data.get("first")
        if last is not None and first is not None and (fault := block_fault(first, last)):
            raise ValueError(fault)
        return last

    @field_validator("source")
    @classmethod
    def _of_a_toll_free_number(cls, source: str, info: ValidationInfo) -> str:
        first = info.data.get("number") or info.data.get("first")
        last = info.data.get("number") or info.data.get("last")
        if first is not None and last is not None and (fault := source_fault(first, last, source)):
            raise ValueError(fault.removeprefix("source: "))
        return source

    @model_validator(mode="after")
    def _one_block(self) -> Grant:
        if (self.number is None) == (self.first is None) or (self.first is None) != (self.last is None):
            raise ValueError("needs either number, or first and last")
        if self.valid_from and self.valid_until and read_moment(self.valid_until) <= read_moment(self.valid_from):
            raise ValueError("valid_until is not after valid_from")
        return self


class Vetting(Section):
    """What was found out about a customer, as in table `vettings` but for the tax id."""

    vetted_at: Moment | None = None
    vetted_by: Annotated[Text, Field(min_length=1)]
    method: Literal["call", "visit", "documents", "upgrade"]
    valid_until: Moment | None = None
    legal_name: Text = ""
    trading_name: Text = ""
    entity_type: Text = ""
    incorporation_state: Text = ""
    incorporation_country: Text = ""
    physical_address: Text = ""
    address_kind: Literal["", "office", "home", "virtual", "po_box", "hotel"] = ""
    contact_name: Text = ""
    contact_email: Annotated[Text, Field(max_length=254)] = ""
    contact_phone: Text = ""
    alternate_phone: Text = ""
    website: Text = ""
    use_case: Text = ""
    campaign_type: Text = ""
    expected_calls_per_second: Rate | None = None
    expected_calls_per_day: Cap | None = None
    source_addresses: tuple[Text, ...] = ()
    questionnaire_version: Text = ""
    questionnaire_at: Moment | None = None
    aup_version: Text = ""
    aup_accepted_at: Moment | None = None
    aup_accepted_by: Text = ""
    prior_actions: Text = ""
    red_flags: tuple[Text, ...] = ()
    documents: tuple[Text, ...] = ()
    filer_id_499: Text = ""
    rmd_number: Text = ""
    rmd_status: Literal["", "listed", "not_listed"] = ""
    rmd_checked_at: Moment | None = None
    ocn: Text = ""
    frn: Text = ""
    stir_shaken: Literal["", "full", "partial", "none"] = ""
    note: Text = ""


class Customer(Section):
    """A customer and all it holds. What is None is left as it is."""

    listed: ClassVar[frozenset[str]] = frozenset({"endpoints", "campaigns", "destinations", "grants"})

    name: Annotated[Line, Field(min_length=1, max_length=200)]
    kind: Literal["end_user", "provider"] = "end_user"
    state: Literal["prospect", "active", "restricted", "suspended", "terminated"] | None = None
    time_zone: Line = "UTC"
    profile: Name
    restricted_profile: Name = "restricted"
    contact_email: Annotated[Line, Field(max_length=254)] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    campaigns: dict[CampaignName, Campaign] | None = None
    destinations: tuple[DestinationRule, ...] | None = None
    grants: tuple[Grant, ...] | None = None
    vetting: Vetting | None = None

    @field_validator("destinations")
    @classmethod
    def _one_rule_a_target(cls, found: tuple[DestinationRule, ...] | None) -> tuple[DestinationRule, ...] | None:
        return one_rule_a_target(found)

    @field_validator("endpoints")
    @classmethod
    def _distinct(cls, found: tuple[Endpoint, ...] | None) -> tuple[Endpoint, ...] | None:
        if len({endpoint.identity for endpoint in found or ()}) != len(found or ()):
            raise ValueError("an endpoint is there twice: only one has its kind, value and host")
        return found
