"""A TCP connection for one try: whatever the other side does or does not do, it is cut at its deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ringfence.errors import RingfenceError


class NotSentError(RingfenceError):
    """The other side did not take the notice, or did not say so in time."""


@contextmanager
def dialled(host: str, port: int, until: float) -> Iterator[socket.socket]:
    """A connection that is shut down at `until` (time.monotonic()), through TLS and in the middle of an answer.

    Timeouts of a socket bound each step and not their sum: a server that sends one byte a second would never end.
    Only the look-up of a name takes as long as the resolver lets it; nothing is sent after `until` all the same.
    Raises NotSentError, also for whatever the caller's use of the connection raises as OSError.
    """
    cut = threading.Event()
    try:
        sock = socket.create_connection((host, port), timeout=max(0.001, until - time.monotonic()))
    except OSError as error:
        raise NotSentError(f"cannot connect to {host}:{port}: {told(error)}") from error
    if time.monotonic() >= until:  # the name was looked up for too long
        sock.close()
        raise NotSentError(f"no connection to {host}:{port} in time")
    with sock, sock.dup() as twin:  # TLS takes the socket over; its twin still reaches the connection

        def end() -> None:
            cut.set()
            with suppress(OSError):
                twin.shutdown(socket.SHUT_RDWR)

        alarm = threading.Timer(until - time.monotonic(), end)
        alarm.daemon = True
        alarm.start()
        try:
            yield sock
        except (OSError, EOFError, NotSentError) as error:
            if cut.is_set():
                raise NotSentError(f"no answer from {host}:{port} in time") from error
            if isinstance(error, NotSentError):
                raise
            raise NotSentError(f"{host}:{port}: {told(error)}") from error
        finally:
            alarm.cancel()
            alarm.join()  # the twin is closed next: its number may be another connection's then


def told(error: BaseException) -> str:
    """An error as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
