"""Two switches, each with a daemon of its own, and one database: caps hold over both, and so do suspensions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.acceptance import site as sites
from tests.acceptance.conftest import wait_for_manager
from tests.acceptance.daemon import Daemon
from tests.acceptance.site import WATCHED, Party, SipCall, SipPhone, Site, wait_for
from tests.lab.available import asterisk_versions, sipp_program
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.sipp import Call, CallResult, CallRun
from tests.lab.sipp_values import statuses

CAP = 20
ATTEMPTS = 200
LIVE = 100


@dataclass
class Twins:
    """Both sites. They share the carriers, the database and the addresses that customers call from."""

    sites: tuple[Site, Site]
    carrier: SipPhone  # watched, in mode kill
    emergency: SipPhone
    _runs: list[CallRun] = field(default_factory=list)

    @property
    def first(self) -> Site:
        """The one whose daemon the operator uses."""
        return self.sites[0]

    def start_calls(self, party: Party, each: int, **options: Any) -> list[CallRun]:
        """So many calls through each switch."""
        numbers = [[self.first.new_number("1908") for _ in range(each)] for _ in self.sites]
        return [
            site.start_calls(party, [Call(number, party.number) for number in called], **options)
            for site, called in zip(self.sites, numbers, strict=True)
        ]

    def books(self, party: Party) -> tuple[int, int]:
        """The counter of live calls, and the leases."""
        query = f"""
            select k.live_calls as live,
                   (select count(*) from ringfence.leases l where l.customer = k.customer and l.counted) as leases
            from ringfence.counters k where k.customer = '{party.name}'
        """
        rows = self.first.rows(query)
        return (rows[0]["live"], rows[0]["leases"]) if rows else (0, 0)

    def wait_until_idle(self) -> None:
        """Wait until neither switch has a channel left."""
        for site in self.sites:
            site.wait_until_idle()


@pytest.fixture(scope="module")
def twins(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Asterisk 16 and 22, or what there is twice."""
    versions = asterisk_versions()
    if not versions or sipp_program() is None:
        pytest.skip("the lab has no Asterisk or no SIPp: run scripts/lab-fetch")
    directory = tmp_path_factory.mktemp("twins")
    name = directory.name.replace("-", "_")
    dsn = postgres.create_database(name)
    with ExitStack() as stack:
        carrier = stack.enter_context(SipPhone("127.0.0.7"))
        emergency = stack.enter_context(SipPhone("127.0.0.2"))
        carriers: dict[str, sites.AnswersCalls] = {"watched-answers": carrier, "carrier": emergency}
        made = []
        for index, version in enumerate((versions[0], versions[-1])):
            here = directory / f"{index}"
            port = sites.agi_port()
            parties, endpoints = sites.make_parties(0)
            asterisk = sites.make_asterisk(
                version, here / "asterisk", agi_port=port, endpoints=endpoints, carriers=carriers
            )
            settings: dict[str, Any] = {"dsn": dsn, "agi_port": port, "ami_port": asterisk.ami_port}
            daemon = Daemon(
                here / "daemon", ami_secret="lab-secret", host=f"host-{index}", watched=WATCHED, **settings
            )
            if index == 0:
                daemon.operator("db", "migrate")
            stack.enter_context(asterisk)
            daemon.start()
            stack.callback(daemon.stop)
            made.append(Site(version, here, postgres, name, daemon, asterisk, carriers, parties))
            stack.callback(made[-1].scripted.close)
            wait_for_manager(made[-1])
        yield Twins((made[0], made[1]), carrier, emergency)


class Watcher:
    """Looks at the books again and again while calls run."""

    def __init__(self, twins: Twins, party: Party) -> None:
        self.most = (0, 0)
        self.samples = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(twins, party), daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self, twins: Twins, party: Party) -> None:
        while not self._over.wait(0.05):
            counted, leases = twins.books(party)
            self.most = (max(self.most[0], counted), max(self.most[1], leases))
            self.samples += 1


def most_at_once(calls: Sequence[SipCall]) -> int:
    """The most calls that were out at one time, exactly: from each INVITE to its end."""
    moves = [(call.times["INVITE"], 1) for call in calls]
    moves += [(call.times["ended"], -1) for call in calls if "ended" in call.times]
    now = most = 0
    for _, move in sorted(moves):
        now += move
        most = max(most, now)
    return most


def wait_for_all(runs: Sequence[CallRun]) -> list[CallResult]:
    """The results of several runs."""
    return [result for run in runs for result in run.wait()]


def assert_books_are_straight(twins: Twins, party: Party) -> None:
    """No live call is counted, nothing has to be recounted, and every allowed call has exactly one end."""
    first = twins.first
    wait_for(lambda: twins.books(party) == (0, 0), "nothing is counted", timeout=20, log=first.daemon.log)
    ends = f"""
        select count(*) filter (where d.verdict = 'allow') as allowed,
               count(e.decision_id) filter (where d.verdict = 'allow') as ended,
               count(distinct e.decision_id) as calls, count(e.decision_id) as ends
        from ringfence.decisions d left join ringfence.call_ends e using (customer, decision_id)
        where d.customer = '{party.name}'
    """
    row = wait_for(
        lambda: next((row for row in first.rows(ends) if row["allowed"] == row["ended"]), None),
        "every allowed call has its end",
        log=first.daemon.log,
    )
    assert row["ends"] == row["calls"] == row["allowed"]
    assert first.rows("select * from ringfence.recount()") == []


def test_a_cap_holds_over_two_hosts_and_a_killed_daemon(twins: Twins) -> None:
    party = twins.first.customer(concurrent=CAP)
    before = len(twins.carrier.calls)
    with Watcher(twins, party) as watcher:
        runs = twins.start_calls(party, ATTEMPTS // 2, rate=20, hold_ms=1200)
        wait_until(lambda: len(twins.carrier.calls) >= before + 50, 20, "fifty calls have left", interval=0.05)
        killed = twins.sites[1].daemon
        killed.kill9()
        died = time.monotonic()
        wait_until(
            lambda: (
                any(call.times.get("ended", 0) > died + 0.3 for call in twins.carrier.calls)
                and 503 in statuses(runs[1].results())
            ),
            10,
            "a call asks nobody, and calls end while nobody listens",
            interval=0.05,
        )
        killed.start()
        results = wait_for_all(runs)
        twins.wait_until_idle()
    calls = twins.carrier.calls[before:]
    most = most_at_once(calls)
    found = statuses(results)
    print(f"\ncarrier: {len(calls)} calls, at most {most} at once; books: at most {watcher.most}", end="; ")
    print(f"{watcher.samples} samples; answers {dict(found)}")
    assert sum(found.values()) == ATTEMPTS
    assert found[200] == len(calls) > CAP
    assert found[480] > 0
    assert set(found) <= {200, 480, 503}
    assert most <= CAP
    assert max(watcher.most) == CAP
    assert_books_are_straight(twins, party)
    hosts = f"select distinct host from ringfence.decisions where customer = '{party.name}' order by host"
    assert [row["host"] for row in twins.first.rows(hosts)] == ["host-0", "host-1"]
    entries = f"select distinct entry from ringfence.decisions where customer = '{party.name}'"
    assert twins.first.rows(entries) == [{"entry": "hook"}]


def test_a_suspension_ends_a_hundred_calls_on_two_switches_within_a_second(twins: Twins) -> None:
    party = twins.first.customer()
    before = len(twins.carrier.calls)
    runs = twins.start_calls(party, LIVE // 2, rate=20, hold_ms=40_000)
    emergency = [site.start_calls(party, [Call("911", party.number)], hold_ms=8_000) for site in twins.sites]
    wait_until(
        lambda: sum(call.up for call in twins.carrier.calls[before:]) == LIVE, 20, "all are up", interval=0.05
    )
    wait_until(lambda: sum(call.up for call in twins.emergency.calls) == 2, 10, "both emergency calls are up")
    assert twins.books(party) == (LIVE, LIVE)

    twins.first.daemon.operator("customer", "suspend", party.name, "--reason=complaint 12")
    told = time.monotonic()
    calls = twins.carrier.calls[before:]
    wait_until(lambda: not any(call.up for call in calls), 5, "all are down")
    downs = [call.times["BYE"] - told for call in calls]
    last = max(downs)
    print(f"\n{LIVE} calls: the last was down {last * 1000:.0f} ms after the operator's command was done, and")
    print(f"{(last - min(downs)) * 1000:.0f} ms after the first")
    assert last < 1

    assert sum(call.up for call in twins.emergency.calls) == 2
    assert [result.ended_by for result in wait_for_all(emergency)] == ["caller", "caller"]
    assert {result.ended_by for result in wait_for_all(runs)} == {"callee"}
    twins.wait_until_idle()
    assert_books_are_straight(twins, party)
    ends = f"""
        select hung_up_by, detail, count(*) from ringfence.call_ends where customer = '{party.name}' group by 1, 2
    """
    assert twins.first.rows(ends) == [
        {"hung_up_by": "ringfence", "detail": "the customer was suspended", "count": LIVE}
    ]
