"""Numbering plans: how numbers are dialled and shown."""

from __future__ import annotations

from typing import Annotated

import phonenumbers
from pydantic import Field, field_validator, model_validator

from ringfence.config.fields import Digits, Section, Text


class NumberingPlan(Section):
    """How numbers are dialled at an endpoint: its country and its prefixes.

    `outside_line` is dropped from called numbers; `international` stands for `+`; `short_codes` are service
    numbers that may be called as they are (411, 711); `bare_e164` reads digits that fit no national form as
    an E.164 number without its `+`.
    """

    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    international: tuple[Digits, ...] = ()
    outside_line: tuple[Digits, ...] = ()
    short_codes: tuple[Annotated[str, Field(pattern=r"^[1-9][0-9]{1,5}$")], ...] = ()
    bare_e164: bool = True

    @field_validator("country")
    @classmethod
    def _known_country(cls, country: str) -> str:
        if country not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{country!r} is not a country with a numbering plan")
        return country


class EndpointPlan(Section):
    """Which plan an endpoint dials under. Exactly one pattern; `*` and `?` are wildcards."""

    plan: Text
    account: Text | None = None
    sip_user: Text | None = None
    trunk: Text | None = None
    source_address: Text | None = None

    @model_validator(mode="after")
    def _one_pattern(self) -> EndpointPlan:
        if sum(value is not None for value in (self.account, self.sip_user, self.trunk, self.source_address)) != 1:
            raise ValueError("needs exactly one of account, sip_user, trunk, source_address")
        return self


US_PLAN = NumberingPlan(
    country="US", international=("011",), short_codes=("211", "311", "411", "511", "611", "711", "811")
)


class NumberingSettings(Section):
    """Numbering plans, and which endpoint dials under which. The first matching endpoint rule wins."""

    default_plan: Text = "us"
    plans: dict[Text, NumberingPlan] = Field(default_factory=lambda: {"us": US_PLAN})
    endpoints: tuple[EndpointPlan, ...] = ()
    emergency: tuple[Digits, ...] = ("911", "933", "112", "988")

    @model_validator(mode="after")
    def _plans_exist(self) -> NumberingSettings:
        for name in (self.default_plan, *(endpoint.plan for endpoint in self.endpoints)):
            if name not in self.plans:
                raise ValueError(f"plan {name!r} is not in 'plans'")
        return self
