"""The AGI header: what Asterisk writes is read, and nothing a caller writes into it is believed."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.switches.asterisk.channel import Form, read_question
from ringfence.switches.asterisk.headers import ORDER, MalformedError, parse
from tests.unit.asterisk_stand_ins import agi_header

CALLER_CHOSEN = ("agi_callerid", "agi_calleridname", "agi_dnid", "agi_rdnis", "agi_extension")


def lines_of(name: str) -> list[bytes]:
    return agi_header(name).removesuffix(b"\n\n").split(b"\n")


def header(**changes: str) -> list[bytes]:
    values = dict(line.decode().split(": ", 1) for line in lines_of("extension_allowed_22")) | changes
    return "\n".join(f"{name}: {value}" for name, value in values.items()).encode().split(b"\n")


@pytest.mark.parametrize("version", [16, 22])
@pytest.mark.parametrize("kind", ["extension_allowed", "leg_allowed", "transferee_allowed", "local_originate"])
def test_a_recorded_header_is_read_whole(version: int, kind: str) -> None:
    headers = parse(lines_of(f"{kind}_{version}"))
    assert tuple(headers)[: len(ORDER)] == ORDER
    assert headers["agi_uniqueid"].startswith("lab-")


def test_the_form_and_the_dialled_number_come_from_the_arguments() -> None:
    question = read_question(parse(lines_of("leg_allowed_16")))
    assert (question.form, question.number) == (Form.LEG, "92025550100")


def test_without_a_number_argument_the_extension_is_the_number() -> None:
    assert read_question(parse(lines_of("extension_allowed_16"))).number == "12025550100"


@pytest.mark.parametrize(
    "arguments",
    [
        {"agi_arg_1": ""},
        {"agi_arg_1": "Extension"},
        {"agi_arg_1": "leg"},
        {"agi_arg_1": "leg", "agi_arg_2": ""},
        {"agi_arg_1": "leg", "agi_arg_2": "1202&PJSIP/900"},
        {"agi_arg_1": "extension", "agi_arg_2": "1" * 65},
        {"agi_arg_1": "extension", "agi_arg_2": "١٢"},
        {"agi_arg_1": "extension", "agi_arg_2": "1", "agi_arg_3": "x"},
    ],
)
def test_arguments_the_dialplan_would_never_send_make_the_attempt_malformed(arguments: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        read_question(parse(header(**arguments)))


@pytest.mark.parametrize("name", ORDER)
def test_a_header_that_is_missing_makes_the_attempt_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse([line for line in lines_of("extension_allowed_22") if not line.startswith(f"{name}: ".encode())])


@pytest.mark.parametrize("name", ORDER)
def test_a_header_that_stands_twice_makes_the_attempt_malformed(name: str) -> None:
    lines = lines_of("extension_allowed_22")
    lines.insert(ORDER.index(name), lines[ORDER.index(name)])
    with pytest.raises(MalformedError):
        parse(lines)


def test_a_header_nobody_knows_makes_the_attempt_malformed() -> None:
    with pytest.raises(MalformedError):
        parse([*lines_of("extension_allowed_22"), b"agi_surprise: 1"])


def test_a_caller_name_with_a_line_break_cannot_bring_its_own_account() -> None:
    with pytest.raises(MalformedError, match="agi_callingpres"):
        parse(header(agi_calleridname="x\nagi_accountcode: VICTIM"))


def test_a_caller_name_that_repeats_the_rest_of_the_header_makes_the_attempt_malformed() -> None:
    rest = "\n".join(line.decode() for line in lines_of("extension_allowed_22")[ORDER.index("agi_callingpres") :])
    with pytest.raises(MalformedError):
        parse(header(agi_calleridname=f"x\n{rest}"))


def test_a_nul_makes_the_attempt_malformed() -> None:
    with pytest.raises(MalformedError, match="NUL"):
        parse(header(agi_calleridname="a\0b"))


def test_bytes_that_are_no_text_are_shown_as_escapes() -> None:
    lines = [b"agi_calleridname: \xff\xfe" if line.startswith(b"agi_calleridname") else line for line in header()]
    assert parse(lines)["agi_calleridname"] == r"\xff\xfe"


@given(st.lists(st.binary(max_size=60), max_size=40))
def test_any_bytes_are_either_read_or_malformed(lines: list[bytes]) -> None:
    try:
        parse(lines)
    except MalformedError:
        return
    raise AssertionError("noise was read as a header")


@given(st.sampled_from(CALLER_CHOSEN), st.text(st.characters(codec="utf-8", exclude_characters="\n\0")))
def test_any_text_without_a_line_break_arrives_as_it_is(name: str, text: str) -> None:
    headers = parse(header(**{name: text}))
    assert headers == {**parse(header()), name: text}


@given(
    st.sampled_from(CALLER_CHOSEN),
    st.lists(
        st.one_of(
            st.sampled_from([f"{name}: forged" for name in ORDER] + ["", "agi_arg_1: leg", "agi_arg_2: 1"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=20),
        ),
        min_size=2,
        max_size=len(ORDER) + 3,
    ),
)
@example(
    "agi_extension",
    ["1", "agi_priority: 1", "agi_enhanced: 0.0", "agi_accountcode: forged", "agi_threadid: 1", ""],
)
def test_no_value_a_caller_chooses_can_change_another_header(name: str, injected: list[str]) -> None:
    """The header ends at the first empty line, as it does on the wire; what is left over is never a reply."""
    sent = header(**{name: "\n".join(injected)})
    first_empty = sent.index(b"") if b"" in sent else len(sent)
    try:
        headers = parse(sent[:first_empty])
    except MalformedError:
        return
    # Only a caller who knows every later header by heart gets here, and then the true ones are left over:
    # they arrive in place of the reply to the daemon's first command (test_fastagi_session).
    assert first_empty < len(sent)
    assert any(line.startswith(b"agi_threadid: ") for line in sent[first_empty:])
    assert headers["agi_channel"] == parse(header())["agi_channel"]
