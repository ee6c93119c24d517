"""The settings of a FreeSWITCH, and what is said of faults in them."""

from __future__ import annotations

import pytest

from ringfence.config import AsteriskSettings, FreeSwitchSettings, parse
from ringfence.errors import ConfigError

BOTH = """
switches:
  - kind: asterisk
    name: a
  - kind: freeswitch
    name: f
    hook: {listen: "127.0.0.1:8085"}
    event_socket: {address: "127.0.0.1:8022"}
    legs:
      internal:
        - {profile: internal, domain: "10.*"}
        - {gateway: pbx2}
"""


def test_both_kinds_of_switch_side_by_side() -> None:
    asterisk, freeswitch = parse(BOTH).switches
    assert isinstance(asterisk, AsteriskSettings)
    assert isinstance(freeswitch, FreeSwitchSettings)
    assert str(freeswitch.hook.listen) == "127.0.0.1:8085"
    assert [rule.gateway for rule in freeswitch.legs.internal] == [None, "pbx2"]
    assert freeswitch.watch.mode == "kill"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{kind: freeswitch, hook: {max_sessions: 0}}", r"hook\.max_sessions"),
        ("{kind: freeswitch, legs: {internal: [{}]}}", r"legs\.internal\.0: needs at least one of gateway"),
        ("{kind: freeswitch, watch: {mode: maim}}", r"watch\.mode"),
        ("{kind: freeswitch, watch: {trunks: [x]}}", r"watch\.trunks: is not a setting"),
        ("{kind: yate}", r"switches\.0"),
        ("{kind: freeswitch, fastagi: {}}", r"fastagi: is not a setting"),
    ],
)
def test_a_fault_is_named_by_its_path(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(f"switches: [{text}]")
