"""Logs: one JSON object a line, nothing forged, and a reader that hangs holds up nobody."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from typing import TextIO

import pytest

from ringfence import telemetry
from ringfence.config import LoggingSettings


def logged(*, format: str = "json", level: str = "info", **event: object) -> str:  # noqa: A002 - the setting's name
    """What is written for one event."""
    stream = io.StringIO()
    writer = telemetry.configure(LoggingSettings.model_validate({"format": format, "level": level}), stream)
    telemetry.get_logger(host="pbx1").info("call.decided", **event)
    writer.close()
    return stream.getvalue()


def test_an_event_is_one_json_object_on_one_line() -> None:
    line = logged(caller="12125550100", latency_ms=1.5)
    event = json.loads(line)
    assert line.count("\n") == 1
    assert (event["event"], event["host"], event["caller"], event["level"]) == (
        "call.decided",
        "pbx1",
        "12125550100",
        "info",
    )
    assert event["timestamp"].endswith("Z")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_caller_cannot_forge_a_line_or_colour_a_terminal(format_: str) -> None:
    text = logged(format=format_, caller='1\n{"event": "call.decided"}\x1b[31m')
    assert text.count("\n") == 1
    assert "\x1b[31m{" not in text
    assert "\x1b[31m" not in text


def test_events_below_the_level_are_not_made() -> None:
    assert logged(level="warning") == ""


def test_a_library_that_warns_is_heard_in_the_same_form() -> None:
    stream = io.StringIO()
    writer = telemetry.configure(LoggingSettings(format="json"), stream)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    writer.close()
    event = json.loads(stream.getvalue())
    assert (event["event"], event["library"], event["message"]) == ("library.warning", "asyncio", "slow callback")


class Blocked(io.StringIO):
    """A reader that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, text: str) -> int:
        self.gate.wait()
        return super().write(text)


def test_a_log_that_blocks_holds_up_nobody_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_WAITING_EVENTS", 10)
    stream: TextIO = Blocked()
    writer = telemetry.configure(LoggingSettings(format="json"), stream)
    logger = telemetry.get_logger()
    started = time.monotonic()
    for number in range(100):
        logger.info("call.decided", number=number)
    assert time.monotonic() - started < 0.5
    assert isinstance(stream, Blocked)
    stream.gate.set()
    writer.close()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    [dropped] = [event for event in events if event["event"] == "log.dropped"]
    assert dropped["count"] + len(events) - 1 == 100
