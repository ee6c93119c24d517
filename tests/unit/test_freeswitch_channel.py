"""What a leg shows, read as a question: which number is judged, what is refused unasked, what stays inside."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import reasons
from ringfence.config import LegRule
from ringfence.switches.freeswitch.channel import Question, read
from ringfence.switches.freeswitch.framing import Limits, MessageReader
from ringfence.switches.freeswitch.places import host_of
from ringfence.switches.sip import is_number, same_number, user_of
from tests.lab.freeswitch_standin import channel_data

OWN = "+13125550100"


def headers_of(recording: str, **changes: str) -> dict[str, str]:
    (message,) = MessageReader(Limits()).feed(channel_data(recording))
    return {**message.decoded(), **changes}


def ask(
    headers: Mapping[str, str], internal: tuple[LegRule, ...] = (), repeated: frozenset[str] = frozenset()
) -> Question:
    return read(headers, repeated, switch="fs", host="pbx", internal=internal)


def test_a_recorded_originate_by_a_gateway() -> None:
    question = ask(headers_of("connect_originate_gateway"))
    attempt = question.attempt
    assert (attempt.caller, attempt.called) == (OWN, "15551230001")
    assert attempt.channel == "sofia/external/15551230001"
    assert attempt.places["gateway"] == "carrier"
    assert attempt.places["origination"] == OWN
    assert (question.origin, question.stays_inside, question.objection) == ("", False, "")
    assert len(question.nonce) == 32


def test_a_recorded_bridge_tells_who_asked() -> None:
    question = ask(headers_of("connect_bridge_gateway"))
    attempt = question.attempt
    assert (attempt.caller, attempt.called, attempt.account) == ("13125550100", "15551230001", "ACME")
    assert attempt.source_address == "127.0.0.11"
    assert question.origin == "aade28cf-ec38-4dff-8b74-7b1bf50ca8eb"
    assert not question.origin_is_outbound
    assert not question.objection


@pytest.mark.parametrize(
    "recording", [f"gate_sync_{name}_outbound_1" for name in ("allow_exit", "block_hangup", "allow_rewrite_cid")]
)
def test_recorded_legs_without_a_gateway(recording: str) -> None:
    question = ask(headers_of(recording))
    assert is_number(question.attempt.caller)
    assert is_number(question.attempt.called)
    assert question.objection == ""


@pytest.mark.parametrize("recording", ["out_b7_sync_full_set_exit_continue", "out_b8_sync_full_hangup"])
def test_a_recorded_question_of_the_dialplan(recording: str) -> None:
    question = ask(headers_of(recording))
    assert not question.from_gate
    assert question.attempt.caller == OWN
    assert question.attempt.called.isdecimal()
    assert not question.objection


def test_the_dialplan_shows_what_it_will_show() -> None:
    headers = headers_of("out_b7_sync_full_set_exit_continue", variable_effective_caller_id_number="+13125550199")
    assert ask(headers).attempt.caller == "+13125550199"


FOREIGN = "sip:12125550000@x"


@pytest.mark.parametrize(
    "name",
    [
        "variable_sip_from_uri",
        "variable_sip_invite_from_uri",
        "variable_sip_force_full_from",
        "variable_sip_handle_full_from",
        "variable_sip_invite_full_from",
        "variable_sip_h_P-Asserted-Identity",
        "variable_sip_h_p-asserted-identity",
        "variable_sip_h_P-Preferred-Identity",
        "variable_sip_h_Remote-Party-ID",
    ],
)
def test_a_place_that_shows_another_number_is_a_conflict(name: str) -> None:
    question = ask(headers_of("connect_originate_gateway", **{name: f'"Bank" <{FOREIGN}>;x=1'}))
    assert question.objection == reasons.CALLER_ID_CONFLICT
    assert "12125550000" in question.attempt.places.values()
    assert OWN in question.attempt.places.values()
    same = ask(headers_of("connect_originate_gateway", **{name: f"<sip:{OWN}@x>"}))
    assert (same.objection, same.attempt.caller) == ("", OWN)


def test_a_place_without_a_number_leaves_the_number_to_the_others() -> None:
    for text in ("sip:anonymous@anonymous.invalid", "sip:trunk-17@carrier"):
        question = ask(headers_of("connect_originate_gateway", variable_sip_from_uri=text))
        assert (question.objection, question.attempt.caller) == ("", OWN)
        assert question.attempt.places["sip_from_uri"] in ("anonymous", "trunk-17")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("+13125550100", "13125550100", True),
        ("+1 (312) 555-0100", "13125550100", True),
        ("+3125550100", "3125550100", False),  # a Dutch number and an American one
        ("13125550100", "3125550100", False),
        ("+13125550100", "+13125550101", False),
    ],
)
def test_when_two_numbers_are_the_same(one: str, other: str, same: bool) -> None:
    assert same_number(one, other) is same


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("sip:+1312@x:5060;transport=udp", "+1312"),
        ('"A <sip:1@x>" <sip:2@y;a=b>;tag=1', "2"),
        ("<sip:2@y>", "2"),
        ("tel:+1312;phone-context=x", "+1312"),
        ("1312@x", "1312"),
        ("sip:1312;npdi@x", "1312"),
        ("sip:1312:secret@x", "1312"),
        ("sip:%2B1312@x", "+1312"),
        ("<sip:carrier.example>", ""),
        ("<sip:1@x><sip:2@y>", "<sip:1@x><sip:2@y>"),
        ("sip:1@2@x", "sip:1@2@x"),
    ],
)
def test_the_user_of_an_address(text: str, user: str) -> None:
    assert user_of(text) == user


def test_hosts() -> None:
    assert host_of("sip:1@Carrier.Example:5060;x=y") == "carrier.example"
    assert host_of("sip:1@[2001:db8::1]:5060") == "2001:db8::1"
    assert host_of("sip:carrier.example;lr") == "carrier.example"


@pytest.mark.parametrize(
    ("changes", "called"),
    [
        ({"variable_sip_invite_req_uri": "sip:19005550000@carrier"}, "19005550000"),
        ({"variable_sip_destination_url": "sip:9915551230001@carrier"}, "9915551230001"),
    ],
)
def test_the_request_uri_is_what_is_called(changes: dict[str, str], called: str) -> None:
    question = ask(headers_of("connect_originate_gateway", **changes))
    assert (question.attempt.called, question.objection) == (called, "")
    assert question.attempt.places["dialled"] == "15551230001"


@pytest.mark.parametrize(
    "changes",
    [
        {"variable_sip_destination_url": "sip:911@carrier"},
        {"variable_origination_channel_name": "sofia/external/911"},
        {"variable_sip_invite_to_uri": "sip:19005550000@x"},
        {"variable_sip_force_full_to": "<sip:19005550000@x>"},
        {"Caller-Destination-Number": "15551230001^19005550000"},
        {"variable_execute_on_originate_z": "set sip_from_uri=x"},
        {"variable_api_on_originate": "x"},
        {"variable_sip_h_From": "<sip:1@x>"},
        {"variable_sip_h_f": "<sip:1@x>"},
        {"variable_sip_h_X-A": "1\r\nP-Asserted-Identity: <sip:1@x>"},
        {"variable_sip_h_X\nP-Asserted-Identity": "x"},
        {"variable_sip_h_X: a": "x"},
        {"variable_sip_from_display": 'x"\r\nFrom: y'},
        {"Caller-Caller-ID-Name": "x\ny"},
        {"Caller-Caller-ID-Number": f"{OWN}\n"},
        {"variable_alert_info": "x\r\nFrom: y"},
        {"Caller-Caller-ID-Name": 'x" <sip:12125550000@y>;a="'},
        {"Caller-Caller-ID-Name": "x%22 <sip:12125550000@y>;a=%22"},
        {"Caller-Caller-ID-Name": "x%0d%0aFrom: y"},
        {"Caller-Caller-ID-Name": "x\\"},
        {"variable_sip_from_display": 'x" <sip:12125550000@y>;a="'},
        {"variable_sip_from_uri": f"sip:{OWN}@x", "Caller-Caller-ID-Number": "x@y>,<sip:12125550000"},
        {"variable_sip_h_P-Asserted-Identity": f"<sip:{OWN}@x>, <tel:+12125550000>"},
        {"variable_sip_h_P-Asserted-Identity": f"<sip:{OWN}@x>\u2028"},
        {"variable_sip_h_P-Asserted-Identity": f"<sip:{OWN}@x>, tel:+12125550000"},
        {"variable_sip_h_P-Asserted-Identity": f"sip:{OWN}@x, tel:+12125550000"},
        {"variable_sip_h_P-Asserted-Identity": f'"a" sip:{OWN}@x'},
        {"variable_sip_invite_params": "x?P-Asserted-Identity=%3Csip:1@x%3E"},
        {"variable_sip_invite_from_params": "x>,<sip:12125550000@y"},
        {"variable_sip_invite_tel_params": "rn=+19005550000"},
        {"variable_sip_invite_req_uri": "sip:15551230001@c?From=%3Csip:1@x%3E"},
        {"variable_sip_destination_url": "sip:15551230001@c?From=x"},
        {"Unique-ID": "x api reload"},
        {"Unique-ID": ""},
    ],
)
def test_what_could_change_the_invite_is_refused_unasked(changes: dict[str, str]) -> None:
    assert ask(headers_of("connect_originate_gateway", **changes)).objection == reasons.MALFORMED_ATTEMPT


def test_a_header_of_the_switch_that_comes_twice_is_refused_unasked() -> None:
    headers = headers_of("connect_originate_gateway")
    assert ask(headers, repeated=frozenset({"Caller-Caller-ID-Number"})).objection == reasons.MALFORMED_ATTEMPT
    assert not ask(headers, repeated=frozenset({"variable_x"})).objection


def test_a_prefix_of_the_carrier_in_the_request_uri_is_no_disagreement() -> None:
    for changes in (
        {"Caller-Destination-Number": "15551230001^+15551230001"},
        {"variable_sip_destination_url": "sip:9915551230001@c", "variable_sip_invite_to_uri": "sip:15551230001@c"},
    ):
        assert not ask(headers_of("connect_originate_gateway", **changes)).objection


RULES = (LegRule(profile="internal", domain="10.*"), LegRule(gateway="pbx2"), LegRule(endpoint="group"))


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({}, False),
        ({"variable_originate_endpoint": "loopback"}, True),
        ({"variable_originate_endpoint": "group"}, True),
        ({"variable_sip_gateway_name": "pbx2"}, True),
        ({"Channel-Name": "sofia/internal/1@10.1.1.1", "variable_sip_destination_url": "sip:1@10.1.1.1"}, True),
        ({"Channel-Name": "sofia/external/1@10.1.1.1", "variable_sip_destination_url": "sip:1@10.1.1.1"}, False),
        ({"Channel-Name": "sofia/internal/1@192.0.2.1", "variable_sip_destination_url": "sip:1@192.0.2.1"}, False),
        (
            {
                "Channel-Name": "sofia/internal/1@10.1.1.1",
                "variable_sip_destination_url": "sip:1@10.1.1.1;fs_path=sip%3Acarrier.example",
            },
            False,
        ),
        (
            {
                "Channel-Name": "sofia/internal/1@10.1.1.1",
                "variable_sip_destination_url": "sip:1@10.1.1.1",
                "variable_sip_route_uri": "sip:carrier.example",
            },
            False,
        ),
        ({"variable_sip_gateway_name": "pbx2", "variable_origination_channel_name": "x"}, False),
        ({"variable_sip_gateway_name": "pbx2", "variable_execute_on_originate_x": "x"}, False),
    ],
)
def test_which_legs_stay_inside(changes: dict[str, str], inside: bool) -> None:
    assert ask(headers_of("connect_originate_gateway", **changes), RULES).stays_inside is inside


def test_a_routing_number_makes_the_called_number_no_number() -> None:
    uri = "sip:15551230001;rn=+19005550000@carrier"
    assert ask(headers_of("connect_originate_gateway", variable_sip_invite_req_uri=uri)).attempt.called == (
        "15551230001;rn=+19005550000"
    )


def test_names_that_can_be_quoted_are_let_through() -> None:
    for name in ("Acme, Inc.", 'The \\"Best\\" Ltd', "100% Ltd", "Größe", "O'Neil & Co"):
        question = ask(headers_of("connect_originate_gateway", **{"Caller-Caller-ID-Name": name}))
        assert (question.objection, question.attempt.caller_name) == ("", name)


def test_the_legs_of_an_attempt_share_what_they_have_in_common() -> None:
    first = headers_of("connect_bridge_gateway")
    again = {**first, "Unique-ID": "another", "variable_sip_gateway_name": "carrier2"}
    assert ask(first).shared_by == ask(again).shared_by
    for name, value in (
        ("Caller-Caller-ID-Number", "12125550000"),
        ("variable_sip_destination_url", "sip:915551230001@x"),
        ("Other-Leg-Unique-ID", "another-caller"),
        ("variable_sip_from_uri", "sip:13125550100@x"),
        ("variable_accountcode", "OTHER"),
    ):
        assert ask({**again, name: value}).shared_by != ask(first).shared_by
    alone = headers_of("connect_originate_gateway")
    assert ask(alone).shared_by != ask({**alone, "Unique-ID": "another"}).shared_by


@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                [
                    *("Unique-ID", "Channel-Name", "Call-Direction", "Caller-Caller-ID-Number", "Answer-State"),
                    *("Caller-Destination-Number", "variable_sip_destination_url", "variable_sip_from_uri"),
                    *("variable_sip_invite_req_uri", "variable_sip_h_P-Asserted-Identity", "Other-Leg-Unique-ID"),
                    *("variable_originate_endpoint", "variable_ringfence_nonce", "variable_sip_route_uri"),
                ]
            ),
            st.text(max_size=30),
        ),
        st.one_of(st.text(max_size=80), st.sampled_from([OWN, FOREIGN, "<" * 40, "sip:@", "@", "\x00"])),
    ),
    st.frozensets(st.text(max_size=10), max_size=3),
)
def test_whatever_is_shown_is_read(headers: dict[str, str], repeated: frozenset[str]) -> None:
    question = ask(headers, RULES, repeated)
    attempt = question.attempt
    texts = [attempt.caller, attempt.called, attempt.channel, attempt.account, *attempt.places.values()]
    assert all(len(text) <= 255 and "\x00" not in text for text in texts)
    assert all(char.isalnum() or char == "-" for char in question.leg + question.origin + question.nonce)


@given(
    st.sampled_from(["sip_from_uri", "sip_invite_full_from", "sip_h_P-Asserted-Identity"]), st.text(max_size=60)
)
def test_no_text_in_a_place_hides_a_number_from_judgement(name: str, text: str) -> None:
    """What is not objected to shows the judged number, or nothing that reads as a number."""
    question = ask(
        headers_of("connect_originate_gateway", **{f"variable_{name}": f'"x{quote(text)}" <{FOREIGN}>'})
    )
    assert question.objection
