"""Sealed tax ids, their key, and the facts of a vetting as a person writes them."""

from __future__ import annotations

import base64
import contextlib
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import config
from ringfence.cli import vetting_facts
from ringfence.cli.customer_vetting import FACTS, LISTS, facts_from
from ringfence.errors import BadInputError, ConfigError, ConflictError
from ringfence.store.vetting import COLUMNS
from ringfence.vetting_seal import VettingKey, make_key_file, normalised

KEY = VettingKey(bytes(range(32)))


# --- the seal -------------------------------------------------------------------------------------------------


@given(st.text(max_size=200), st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True))
def test_a_sealed_number_is_read_again_for_its_customer(number: str, customer: str) -> None:
    sealed = KEY.seal(number, customer)
    assert KEY.unseal(sealed, customer) == number
    assert KEY.seal(number, customer) != sealed
    if len(number) > 3:
        assert number.encode() not in sealed


def test_a_sealed_number_cannot_be_moved_to_another_customer() -> None:
    with pytest.raises(ConfigError, match="does not open the number of customer 'zeta'"):
        KEY.unseal(KEY.seal("12-3456789", "acme"), "zeta")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ConfigError, match="another key, or changed"):
        VettingKey(bytes(32)).unseal(KEY.seal("12-3456789", "acme"), "acme")


@given(st.data())
def test_a_sealed_number_that_was_changed_is_not_read(data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal("12-3456789", "acme"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ConfigError):
        KEY.unseal(bytes(sealed), "acme")


@given(st.binary(max_size=40))
def test_what_was_never_sealed_is_not_read(rubbish: bytes) -> None:
    with pytest.raises(ConfigError):
        KEY.unseal(rubbish, "acme")


# --- the digest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["123456789", " 12 345 6789", "12.3456789", "１２３４５６７８９"])  # noqa: RUF001
def test_the_same_number_written_otherwise_has_the_same_digest(other: str) -> None:
    assert KEY.digest("12-3456789") == KEY.digest(other)


def test_another_number_or_another_key_has_another_digest() -> None:
    assert KEY.digest("ab123456") == KEY.digest("AB-123456")
    assert len({KEY.digest("123456789"), KEY.digest("123456780"), VettingKey(bytes(32)).digest("123456789")}) == 3


@pytest.mark.parametrize("number", ["", "123", "-----", "1" * 65])
def test_what_can_be_no_number_is_refused(number: str) -> None:
    with pytest.raises(BadInputError, match="tax_id: give 4 to 64 letters and digits"):
        normalised(number)


@given(st.text(alphabet="0123456789ABCDEFXYZ -./", min_size=4, max_size=40))
def test_reading_a_number_twice_changes_nothing(number: str) -> None:
    try:
        once = normalised(number)
    except BadInputError:
        return
    assert normalised(once) == once == normalised(number.lower())


# --- the key --------------------------------------------------------------------------------------------------


def test_a_new_key_is_for_its_owner_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "vetting-key"
    make_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert len(base64.b64decode(text)) == 32
    with pytest.raises(ConflictError, match="is there already"):
        make_key_file(path)
    assert path.read_text() == text
    settings = config.parse(f"vetting: {{key_file: {path}}}")
    assert VettingKey.read(settings.vetting.key).digest("1234") == VettingKey.read(text).digest("1234")


def test_two_new_keys_differ(tmp_path: Path) -> None:
    make_key_file(tmp_path / "a")
    make_key_file(tmp_path / "b")
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no key"), ("", "has 0 bytes"), ("AAAA", "has 3 bytes"), ("not base64!", "not a key in base64")],
)
def test_what_is_no_key_is_named(text: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"vetting.key_file: .*{said}"):
        VettingKey.read(text)


def test_the_key_comes_from_the_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_key_file(tmp_path / "vetting-key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert VettingKey.read(config.parse("").vetting.key)


def test_a_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    make_key_file(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"vetting.key_file: .* may be read by everybody"):
        _ = config.parse(f"vetting: {{key_file: {tmp_path / 'key'}}}").vetting.key


# --- the facts ------------------------------------------------------------------------------------------------


def fault(tmp_path: Path, text: str) -> str:
    """What is said of a file."""
    path = tmp_path / "vetting.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError) as caught:
        vetting_facts.from_file(path)
    return str(caught.value).replace(str(path), "vetting.yaml")


def test_every_fact_of_the_table_is_a_field_and_an_option() -> None:
    fields = set(vetting_facts.Facts.model_fields)
    options = {field for facts in FACTS.values() for field, _, _ in facts}
    assert fields == options == {*COLUMNS, "tax_id"} - {"tax_id_sealed", "tax_id_digest"}
    assert {name for name, f in vetting_facts.Facts.model_fields.items() if "list[" in str(f.annotation)} == {
        *LISTS
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("legal_nam: A", "legal_nam: is not a field of a vetting; did you mean 'legal_name'?"),
        ("legal_name: A\nlegal_name: B", "key 'legal_name' is written twice"),
        ("contact_email: kim@nowhere", "contact_email: is not an e-mail address, such as noc@example.com (found"),
        ("contact_phone: call me", "contact_phone: is not a telephone number"),
        ("aup_accepted_at: soon", "aup_accepted_at: is not a date: write 2026-11-21"),
        ("rmd_number: [RMD0012345]", "rmd_number: must be text"),
        ("rmd_number: RMD12", "rmd_number: write it as RMD and 7 to 10 digits"),
        ("frn: '123'", "frn: an FCC Registration Number has 10 digits"),
        ("ocn: '12'", "ocn: an Operating Company Number has 4 digits or letters"),
        ("filer_id_499: '1'", "filer_id_499: a Form 499 filer id has 6 digits"),
        ("method: guess", "method: Input should be 'call', 'visit' or 'documents'"),
        ("source_addresses: [10.0.0.1, nowhere]", "source_addresses.1: is not an IP address or network"),
        ("documents: one", "documents: Input should be a valid list"),
        ("note: \"a\\u0007b\"", "note: holds a control character"),
        ("expected_calls_per_day: -1", "expected_calls_per_day: Input should be greater than or equal to 0"),
        ("- a list", "write one 'field: value' a line"),
        ("a: [", "line 1"),
        ("1: x", "1: "),
        ("", "write one 'field: value' a line"),
        ("valid_until: 2026-99-99", "valid_until: is not a date"),
    ],
)  # fmt: skip
def test_a_fact_that_cannot_be_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    told = fault(tmp_path, text)
    assert told.startswith("vetting.yaml: ")
    assert said in told


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    assert len(fault(tmp_path, "frn: x\nocn: x\nrmd_status: y").splitlines()) == 3


def test_a_bad_tax_id_is_not_repeated(tmp_path: Path) -> None:
    assert "123456789" not in fault(tmp_path, "tax_id: " + "123456789" * 30)


def test_an_option_is_named_as_it_was_written() -> None:
    with pytest.raises(BadInputError, match=r"^--method: .*\n--source-address: is not an IP address"):
        facts_from({"method": "guess", "source_addresses": ["x"], "legal_name": None})


@given(st.text(max_size=300))
def test_whatever_stands_in_a_file_is_facts_or_a_named_fault(text: str) -> None:
    for value in (text, f"legal_name: {text}", f"aup_accepted_at: {text}", f"source_addresses: [{text}]"):
        with contextlib.suppress(BadInputError):
            assert set(_loaded(value)) <= set(vetting_facts.Facts.model_fields)


def _loaded(text: str) -> dict[Any, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        return vetting_facts.from_file(Path(file.name))


def test_dates_are_read_as_yaml_and_as_options_write_them() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert facts_from({"questionnaire_at": "2026-11-21"}) == {"questionnaire_at": at}
    assert _loaded("questionnaire_at: 2026-11-21") == {"questionnaire_at": at}
    assert facts_from({"aup_accepted_at": "2026-11-21T01:00+01:00"})["aup_accepted_at"] == at


def test_a_file_is_read_as_it_is_written_and_what_is_empty_is_not_told() -> None:
    text = "ocn: 0123\nfiler_id_499: 812345\nfrn: 0012345678\nstir_shaken: none\nlegal_name:\nwebsite: ''"
    assert _loaded(text) == {
        "ocn": "0123", "filer_id_499": "812345", "frn": "0012345678", "stir_shaken": "none", "website": "",
    }  # fmt: skip
    assert _loaded("expected_calls_per_day: 5000")["expected_calls_per_day"] == 5000


def test_lines_are_joined_and_networks_are_written_one_way() -> None:
    facts = facts_from({"use_case": "one\n  two", "source_addresses": ["192.0.2.77/24", "2001:DB8::0001"]})
    assert facts == {"use_case": "one two", "source_addresses": ["192.0.2.0/24", "2001:db8::1"]}
