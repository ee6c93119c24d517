"""Log set-up: structlog events leave the call's way at once and are rendered and written by a thread."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from ringfence.config import LoggingSettings
from ringfence.escape import visible

MAX_WAITING_EVENTS = 20_000
_STOP: dict[str, Any] = {}
_HANDFUL_S = 0.01


class LogWriter:
    """Renders and writes events in a thread of its own, so that a slow log never holds up a call.

    At most `MAX_WAITING_EVENTS` wait; beyond that events are counted, and the count is logged as
    `log.dropped` once there is room again (decisions stand in Postgres all the same).
    """

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        self._stream = stream
        self._render: Any = (
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
        self._as_json = as_json
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(MAX_WAITING_EVENTS)
        self._dropped = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        """The last processor of the structlog chain: hand the event over."""
        try:
            self._queue.put_nowait(dict(event))
        except queue.Full:
            self._dropped += 1
        raise structlog.DropEvent

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s`. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            try:
                self._queue.put(_STOP, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._flush()

    def _run(self) -> None:
        while True:
            event = self._queue.get()
            if event is _STOP:
                return
            self._write(event)
            if self._queue.empty():
                self._flush()
                # Events are taken in handfuls: a wake-up for each would fight the event loop for the interpreter.
                self._stopping.wait(_HANDFUL_S)

    def _flush(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._write({"event": "log.dropped", "level": "error", "count": dropped})
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._dropped += 1

    def _write(self, event: dict[str, Any]) -> None:
        if not self._as_json:
            event = {
                key: visible(value, 4096) if isinstance(value, str) and key != "exception" else value
                for key, value in event.items()
            }
        try:
            self._stream.write(self._render(None, "", event) + "\n")
        except (OSError, ValueError):
            self._dropped += 1


def configure(settings: LoggingSettings, stream: TextIO | None = None) -> LogWriter:
    """Set structlog up for the whole process; JSON lines unless `stream` (standard error) is a terminal.

    Close the writer that is returned before the process ends.
    """
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    writer = LogWriter(stream, as_json=as_json)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            writer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level(settings)),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging()
    return writer


def set_level(settings: LoggingSettings) -> None:
    """Change the level of loggers made from now on and of those made with `get_logger` before."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_level(settings)))


def get_logger(**bound: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger whose events carry `bound`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


class _ToStructlog(logging.Handler):
    """Warnings of libraries (asyncio, asyncpg, panoramisk) become `library.warning` events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning(
            "library.warning",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info or None,
        )


def _adopt_standard_logging() -> None:
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    root.setLevel(logging.WARNING)


def _level(settings: LoggingSettings) -> int:
    return logging.getLevelNamesMapping()[settings.level.upper()]
