"""Bytes to messages: every recording in pieces of every size, and what an attacker would send."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.switches.freeswitch.framing import (
    FramingError,
    Limits,
    Message,
    MessageReader,
    json_event,
    plain_event,
)

DATA = Path(__file__).parents[1] / "data" / "freeswitch"
SMALL = Limits(header_bytes=2_000, header_lines=50, body_bytes=3_000)


def from_freeswitch() -> list[Path]:
    inbound = [*DATA.glob("in_*.s2c.bin"), *DATA.glob("*_inbound.s2c.bin")]
    outbound = [*DATA.glob("out_*.c2s.bin"), *DATA.glob("*_outbound_*.c2s.bin"), *DATA.glob("connect_*.c2s.bin")]
    return sorted([*inbound, *outbound])


def read(data: bytes, sizes: list[int], limits: Limits | None = None) -> list[Message]:
    reader = MessageReader(limits or Limits())
    messages: list[Message] = []
    position, turn = 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        messages += reader.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    return messages


@pytest.mark.parametrize("recording", from_freeswitch(), ids=lambda path: path.name)
def test_a_recording_reads_the_same_in_pieces_of_any_size(recording: Path) -> None:
    data = recording.read_bytes()
    whole = read(data, [len(data)])
    assert whole
    assert all(message.kind for message in whole)
    for size in (1, 2, 3, 7, 64, 4096):
        assert read(data, [size]) == whole


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(from_freeswitch()), st.lists(st.integers(1, 9000), min_size=1, max_size=20))
def test_a_recording_reads_the_same_in_random_pieces(recording: Path, sizes: list[int]) -> None:
    data = recording.read_bytes()
    assert read(data, sizes) == read(data, [len(data)])


@pytest.mark.parametrize("recording", sorted(DATA.glob("in_json_*.s2c.bin")), ids=lambda path: path.name)
def test_recorded_events_are_objects_of_texts(recording: Path) -> None:
    events = [json_event(m) for m in read(recording.read_bytes(), [65_536]) if m.kind == "text/event-json"]
    assert {"CHANNEL_CREATE", "CHANNEL_HANGUP_COMPLETE"} <= {event["Event-Name"] for event in events}
    assert all(event["Event-Sequence"].isdecimal() for event in events)


def test_a_plain_event_says_the_same_as_its_json() -> None:
    plain, as_json = (
        read((DATA / f"in_{form}_a1_answered_bridge.s2c.bin").read_bytes(), [65_536]) for form in ("plain", "json")
    )
    one = next(plain_event(m, Limits()) for m in plain if b"CHANNEL_HANGUP_COMPLETE" in m.body)
    other = next(json_event(m) for m in as_json if b"CHANNEL_HANGUP_COMPLETE" in m.body)
    assert one["Hangup-Cause"] == other["Hangup-Cause"] == "NORMAL_CLEARING"
    assert one["variable_switch_r_sdp"].startswith("v=0\r\no=")


def test_a_truncated_recording_gives_what_is_whole() -> None:
    data = (DATA / "in_json_a2_rejected_by_carrier_486.s2c.bin").read_bytes()
    whole = read(data, [len(data)])
    for cut in range(0, len(data), 997):
        assert whole[: len(read(data[:cut], [512]))] == read(data[:cut], [512])


@given(st.text(min_size=1, max_size=80))
def test_a_value_forges_no_header(value: str) -> None:
    """However a caller's text looks, it stays the value of its own header."""
    text = f"{value}\nUnique-ID: forged\r\nContent-Length: 7\n\nEvent-Name: FORGED"
    block = f"Event-Name: CHANNEL_DATA\nCaller-Caller-ID-Name: {quote(text)}\nUnique-ID: real\n\n"
    (message,) = read(block.encode(), [len(block)])
    headers = message.decoded()
    assert headers["Caller-Caller-ID-Name"] == text
    assert (headers["Unique-ID"], headers["Event-Name"]) == ("real", "CHANNEL_DATA")
    assert "Content-Length" not in headers
    body = json.dumps({"Event-Name": "X", "Caller-Caller-ID-Name": text}).encode()
    (event,) = read(b"Content-Length: %d\nContent-Type: text/event-json\n\n%s" % (len(body), body), [5])
    assert json_event(event) == {"Event-Name": "X", "Caller-Caller-ID-Name": text}


def test_the_first_of_two_headers_counts_and_both_are_told() -> None:
    (message,) = read(b"Unique-ID: a\nvariable_x: 1\nUnique-ID: b\n\n", [3])
    assert message.headers["Unique-ID"] == "a"
    assert message.repeated == {"Unique-ID"}


@given(st.lists(st.binary(max_size=400), max_size=30))
def test_whatever_comes_memory_is_bounded_and_nothing_else_is_raised(pieces: list[bytes]) -> None:
    reader = MessageReader(SMALL)
    most = SMALL.header_bytes + SMALL.body_bytes + 2 * 400
    for piece in pieces:
        try:
            messages = reader.feed(piece)
        except FramingError:
            return
        assert len(reader._buffer) <= most
        assert all(len(message.headers) <= SMALL.header_lines for message in messages)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Content-Length", "Content-Type", "Unique-ID", "", ":", "x" * 300]),
            st.one_of(
                st.integers().map(str), st.text(max_size=40), st.just("99999999999999999999"), st.just("-1")
            ),
        ),
        max_size=60,
    ),
    st.binary(max_size=200),
    st.integers(1, 50),
)
def test_hostile_headers_end_in_a_message_or_a_framing_error(
    headers: list[tuple[str, str]], body: bytes, size: int
) -> None:
    block = (
        "".join(f"{name}: {value}\n" for name, value in headers).encode("utf-8", "surrogatepass") + b"\n" + body
    )
    try:
        messages = read(block, [size], SMALL)
    except FramingError:
        return
    for message in messages:
        message.decoded()
        for parse in (json_event, lambda m: plain_event(m, SMALL)):
            try:
                assert all(isinstance(value, str) for value in parse(message).values())
            except FramingError:
                continue


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 3001\n\n",
        b"Content-Length: 1\nContent-Length: 2\n\n",
        b"Content-Length: -1\n\n",
        b"Content-Length: 1e3\n\n",
        "Content-Length: \u0663\n\n".encode(),
        b"x" * 2_001,
        b"a: b\n" * 51 + b"\n",
    ],
)
def test_a_bound_that_is_exceeded_is_an_error(data: bytes) -> None:
    with pytest.raises(FramingError):
        read(data, [len(data)], SMALL)


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff\xfe", b"[" * 2_000, b'"x"', b"1" * 2_500])
def test_a_body_that_is_no_event_is_an_error(body: bytes) -> None:
    with pytest.raises(FramingError):
        json_event(Message({}, body))
