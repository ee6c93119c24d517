"""Those who are told: a real SMTP server, a real HTTP server, and ones that behave badly."""

from __future__ import annotations

import asyncio
import datetime
import email
import email.policy
import ipaddress
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.lab.ports import free_port

USER, PASSWORD = b"ringfence", b"mail-password"


@dataclass(frozen=True)
class Received:
    """A message as the server took it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw: bytes
    encrypted: bool
    login: str


class Mailbox:
    """A mail server on loopback (aiosmtpd). `refusals` are answers to the next RCPTs, first to last; while `held`
    it does not answer the message."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None,
                 login: bool = False, port: int | None = None) -> None:  # fmt: skip
        self.port = port or free_port()
        self.refusals: list[str] = []
        self.received: queue.Queue[Received] = queue.Queue()
        self.held = threading.Event()
        self._released = threading.Event()
        self._tls = tls is not None
        options: dict[str, Any] = {"tls_context": starttls, "require_starttls": starttls is not None}
        if login:
            options |= {"authenticator": self._log_in, "auth_required": True, "auth_require_tls": True}
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, ssl_context=tls, ready_timeout=10, **options
        )

    def __enter__(self) -> Mailbox:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._controller.stop()

    def release(self) -> None:
        """Answer what is held, and hold nothing more."""
        self.held.clear()
        self._released.set()

    async def next(self, within_s: float = 15) -> Received:
        """The next message that was taken."""
        return await asyncio.to_thread(self.received.get, timeout=within_s)

    def _log_in(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login, data.password) == (USER, PASSWORD), auth_data=data)

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        login = session.auth_data.login.decode() if session.auth_data else ""
        self.received.put(
            Received(
                envelope.mail_from,
                envelope.rcpt_tos,
                message,
                envelope.content,
                self._tls or bool(session.ssl),
                login,
            )
        )
        if self.held.is_set():
            await asyncio.to_thread(self._released.wait, 30)
        return "250 taken"


@dataclass(frozen=True)
class Posted:
    """A request as it arrived, and when by the clock of time.monotonic."""

    path: str
    headers: dict[str, str]
    content: bytes


class Hook:
    """An HTTP server on loopback. `answers` are the statuses of the next answers, then it is always 204; while
    `held` it takes requests and does not answer them."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.answers: list[int] = []
        self.received: queue.Queue[Posted] = queue.Queue()
        self.held = threading.Event()
        self._released = threading.Event()
        self.location = ""
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/notices?from=ringfence"
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                held = hook.held.is_set()
                hook.received.put(Posted(self.path, {k.lower(): v for k, v in self.headers.items()}, content))
                if held:
                    hook._released.wait(30)
                status = hook.answers.pop(0) if hook.answers else 204
                with suppress(OSError):
                    self.send_response(status)
                    if hook.location:
                        self.send_header("Location", hook.location)
                    said = b"" if status == 204 else b"no, \x1b[31mnot now"
                    self.send_header("Content-Length", str(len(said)))
                    self.end_headers()
                    self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                """Nothing: the tests look at what arrived."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Hook:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        """Answer what is held, and hold nothing more."""
        self.held.clear()
        self._released.set()

    async def next(self, within_s: float = 15) -> Posted:
        """The next request that arrived."""
        return await asyncio.to_thread(self.received.get, timeout=within_s)


@contextmanager
def dripping(byte: bytes) -> Iterator[int]:
    """A server that sends one byte after the other for ever and never ends a line; gives its port."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", free_port()))
    server.settimeout(0.1)

    def drip(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while not stop.wait(0.05):
                peer.sendall(byte)

    def serve() -> None:
        while not stop.is_set():
            with suppress(OSError):
                peer, _ = server.accept()
                threading.Thread(target=drip, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        server.close()


def certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a new certificate for 127.0.0.1, and the file with which clients trust it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ringfence lab")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = directory / "server.crt", directory / "server.key"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted
