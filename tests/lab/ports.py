"""Free loopback ports for switches, databases and SIP endpoints."""

from __future__ import annotations

import random
import socket
import threading

# Below the range the kernel hands out for outgoing connections (32768 and up by default) and clear of
# the RTP ranges in `tests.lab.asterisk`, so a port stays free between being chosen here and being bound.
_FIRST, _LAST = 12_000, 19_999

_lock = threading.Lock()
_taken: set[int] = set()


def _is_free(port: int, address: str) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nothing on `address` uses for UDP or TCP; never the same one twice in a process."""
    with _lock:
        for _ in range(2_000):
            port = random.randint(_FIRST, _LAST)
            if port not in _taken and _is_free(port, address):
                _taken.add(port)
                return port
    raise RuntimeError(f"no free port on {address} between {_FIRST} and {_LAST}")
