"""The configuration file: every fault is one sentence that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence import config
from ringfence.errors import ConfigError, ExitCode


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "ringfence.yaml")
    assert caught.value.exit_code is ExitCode.CONFIG
    return str(caught.value)


def test_an_empty_file_gives_the_defaults() -> None:
    settings = config.parse("")
    assert settings.gate.deadline_ms == 1000
    assert settings.gate.on_database_down == "reject"
    assert "911" in settings.numbering.emergency


def test_an_unknown_key_is_named_with_its_path_and_the_key_that_was_meant() -> None:
    assert fault("gate: {deadline: 5}") == (
        "ringfence.yaml: gate.deadline: is not a setting; did you mean 'deadline_ms'?"
    )


def test_every_fault_is_told_at_once() -> None:
    message = fault("gate: {deadline_ms: 1, max_batch: many}\nlogging: {level: loud}")
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "gate.deadline_ms",
        "gate.max_batch",
        "logging.level",
    ]


def test_a_key_written_twice_is_refused() -> None:
    assert "key 'gate' is written twice" in fault("gate: {}\ngate: {}")


def test_broken_yaml_is_told_with_its_line() -> None:
    assert fault("gate: [").startswith("ringfence.yaml: line 1, column 8: ")


@pytest.mark.parametrize("text", ["- 1", "word", "3"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "must be a mapping" in fault(text)


@pytest.mark.parametrize("dsn", ["postgresql://u:secret@h/db", "postgresql://h/db?password=secret"])
def test_a_password_in_the_file_is_refused_and_not_repeated(dsn: str) -> None:
    message = fault(f"database: {{dsn: '{dsn}'}}")
    assert "must not hold a password" in message
    assert "secret" not in message


def test_a_plan_that_is_not_there_is_named() -> None:
    assert "plan 'fr' is not in 'plans'" in fault("numbering: {default_plan: fr}")


def test_a_country_without_a_numbering_plan_is_refused() -> None:
    assert "'XX' is not a country" in fault("numbering: {plans: {us: {country: XX}}}")


def test_an_address_must_be_host_and_port() -> None:
    assert "'5038' is not HOST:PORT" in fault("switches: [{kind: asterisk, ami: {address: '5038'}}]")


def test_an_ipv6_address_is_written_in_brackets() -> None:
    settings = config.parse("switches: [{kind: asterisk, ami: {address: '[::1]:5038'}}]")
    ami = settings.switches[0].ami
    assert ami is not None
    assert (ami.address.host, ami.address.port, str(ami.address)) == ("::1", 5038, "[::1]:5038")


def test_two_switches_need_two_names() -> None:
    assert "same name" in fault("switches: [{kind: asterisk}, {kind: asterisk}]")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(tmp_path / "none.yaml")


def test_a_secret_is_read_from_the_systemd_credential(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "database-password").write_text("s3cret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert config.parse("").database.password == "s3cret"


def test_a_secret_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(0o644)
    settings = config.parse(f"database: {{password_file: {path}}}")
    with pytest.raises(ConfigError, match="may be read by everybody"):
        _ = settings.database.password


def test_an_ami_secret_cannot_smuggle_in_a_header(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x\r\nAction: Command")
    path.chmod(0o600)
    settings = config.parse(f"switches: [{{kind: asterisk, ami: {{secret_file: {path}}}}}]")
    ami = settings.switches[0].ami
    assert ami is not None
    with pytest.raises(ConfigError, match="control character"):
        _ = ami.secret
