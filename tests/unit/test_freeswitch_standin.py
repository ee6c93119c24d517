"""The stand-in answers what a real FreeSWITCH answered, byte by byte."""

from __future__ import annotations

import pytest

from ringfence.switches.freeswitch.framing import Limits, MessageReader
from tests.lab.freeswitch_standin import RECORDINGS, Leg, channel_data


@pytest.mark.parametrize(
    "recording",
    [
        "gate_sync_allow_exit_outbound_1",
        "gate_sync_allow_with_set_vars_outbound_1",
        "gate_sync_allow_rewrite_cid_outbound_1",
        "gate_sync_block_hangup_outbound_1",
        "gate_sync_block_execute_hangup_outbound_1",
    ],
)
def test_the_stand_in_answers_as_recorded(recording: str) -> None:
    asked = (RECORDINGS / f"{recording}.s2c.bin").read_bytes().decode()
    answered = (RECORDINGS / f"{recording}.c2s.bin").read_bytes()
    (first, *_) = MessageReader(Limits()).feed(answered)
    leg = Leg(first.headers["Unique-ID"], channel_data(recording))
    told = b"".join(leg.command(block) for block in asked.strip("\n").split("\n\n"))
    assert told == answered
    assert bool(leg.hung_up) == ("block" in recording)


def test_values_of_the_channel_data_can_be_changed() -> None:
    data = channel_data("connect_bridge_gateway", {"Caller-Caller-ID-Number": "+1 312\n", "variable_new": "x"})
    (message,) = MessageReader(Limits()).feed(data)
    assert message.decoded()["Caller-Caller-ID-Number"] == "+1 312\n"
    assert message.decoded()["variable_new"] == "x"
    assert not message.repeated
