"""A whole site around one FreeSWITCH: the gate as it is shipped, carriers, a database and the daemon."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.daemon import Daemon
from tests.acceptance.site import Party, Site
from tests.lab.freeswitch import FreeSwitch, Gateway, User
from tests.lab.ports import free_port
from tests.lab.sipp import Carrier

SHIPPED = Path(__file__).parents[2] / "dialplan" / "freeswitch"
SUFFIX = "k3v9q0x7"  # of the hook's name: any unguessable text
USER_NUMBER = "12025550911"  # where the directory's user 1000 is reached, by the carrier

# What is called decides how it is dialled: prefix → dial string; $1 is the whole number.
ROUTES = {
    "1202": "sofia/gateway/carrier/$1",
    "1303": "sofia/gateway/busy/$1",
    "1404": "sofia/gateway/silent/$1",
    "1406": "sofia/gateway/redirect/$1",
    "1505": "sofia/gateway/busy/$1|sofia/gateway/carrier/$1",
    "1606": "sofia/gateway/silent/$1,sofia/gateway/carrier/$1",
    "1707": "sofia/gateway/silent/$1:_:sofia/gateway/carrier/$1",
    "1808": "loopback/plain$1/default",
    "1901": "user/1000@127.0.0.1",
    "": "sofia/gateway/carrier/$1",
}
_ACCOUNT = """
<extension name="account" continue="true"><condition field="network_addr" expression="^(127\\..*)$">
<action application="export" data="accountcode=$1" inline="true"/>
<action application="set" data="hangup_after_bridge=true" inline="true"/>
<action application="set" data="call_timeout=20" inline="true"/>
</condition></extension>
"""
_ROUTE = """
<extension name="to {prefix}"><condition field="destination_number" expression="^({prefix}\\d+)$">
<action application="bridge" data="{dial}"/></condition></extension>
"""
_PLAIN = """
<extension name="loopback"><condition field="destination_number" expression="^plain(\\d+)$">
<action application="bridge" data="sofia/gateway/carrier/$1"/></condition></extension>
"""

# Calls whose destination begins with "dialled" ask in the dialplan.
_DIALLED = """
<extension name="dialled"><condition field="destination_number" expression="^dialled(.+)$">
<action application="execute_extension" data="$1 XML ringfence"/>
<action application="bridge" data="sofia/gateway/carrier/$1"/></condition></extension>
"""


class FreeSwitchDaemon(Daemon):
    """One `ringfence serve` for one FreeSWITCH."""

    def __init__(self, directory: Path, *, dsn: str, hook_port: int, socket_port: int, password: str) -> None:
        super().__init__(directory, dsn=dsn, agi_port=hook_port, ami_port=socket_port, ami_secret=password)
        settings = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        settings["switches"] = [
            {
                "kind": "freeswitch",
                "name": "lab",
                "hook": {"listen": f"127.0.0.1:{hook_port}"},
                "event_socket": {
                    "address": f"127.0.0.1:{socket_port}",
                    "password_file": str(directory / "ami-secret"),
                    "reconnect_min_s": 0.05,
                    "reconnect_max_s": 0.2,
                    "check_interval_s": 1,
                },
            }
        ]
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")


class FreeSwitchSite(Site):
    """What a test gets; `asterisk` is the FreeSWITCH, so that `Site` can be used as it is."""

    asterisk: Any

    @property
    def switch(self) -> FreeSwitch:
        """The FreeSWITCH."""
        switch: FreeSwitch = self.asterisk
        return switch

    def customer(self, form: str = "simple", variant: str = "", *, numbers: int = 1, **caps: float) -> Party:
        """A new active customer; its account is the address it calls from."""
        seat = self.stranger(form, variant)
        granted = tuple(f"1212{5_550_000 + next(self._counter)}" for _ in range(numbers))
        limits = {"calls_per_second": 500, "burst": 500, "concurrent": 500, **caps}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
        self.daemon.operator("profile", "set", seat.name, *options)
        self.daemon.operator(
            "customer", "add", seat.name, f"--name={seat.name}", f"--profile={seat.name}",
            f"--account={seat.source_ip}", "--vetted-by=site",
        )  # fmt: skip
        self.daemon.operator("number", "grant", seat.name, f"+{granted[0]}", f"+{granted[-1]}")
        return Party(seat.name, seat.source_ip, seat.form, granted)

    def decisions(self, account: str) -> list[dict[str, Any]]:
        """The decisions on calls of the party of this name or address, oldest first."""
        address = next((p.source_ip for p in self.all_parties if p.name == account), account)
        return super().decisions(address)

    @property
    def all_parties(self) -> Sequence[Party]:
        """Every seat there is, taken or not."""
        return SEATS

    def originate(  # type: ignore[override]
        self,
        party: Party,
        dial: str,
        *,
        caller: str | None = None,
        app: str = "&park",
        command: str = "originate",
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """API originate with the party's account; what the API answers, with every channel gone again."""
        shown = party.number if caller is None else caller
        given = {"origination_caller_id_number": shown, "accountcode": party.source_ip, **(variables or {})}
        text = ",".join(f"{name}={value}" for name, value in given.items() if value)
        answer = self.switch.cli(f"{command} {{{text}}}{dial} {app}")
        return answer.strip()

    def hang_up_all(self) -> None:
        """End every call."""
        self.switch.cli("hupall NORMAL_CLEARING")
        self.wait_until_idle()


SEATS = [
    Party(f"fs-{number}", f"127.0.{60 + number // 200}.{1 + number % 200}", "simple") for number in range(300)
]


def dialplan() -> str:
    """The context customers call in: who they are, then one extension a route."""
    routes = "".join(_ROUTE.format(prefix=prefix, dial=dial) for prefix, dial in ROUTES.items())
    return _ACCOUNT + _PLAIN + _DIALLED + routes


def shipped(name: str) -> str:
    """The configuration in a shipped file, without what stands around it."""
    text = (SHIPPED / name).read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return text.replace("<include>", "").replace("</include>", "")


def make_switch(directory: Path, carriers: Mapping[str, Carrier], hook_port: int) -> FreeSwitch:
    """A FreeSWITCH with the gate as it is shipped."""
    carrier = carriers["carrier"]
    return FreeSwitch(
        directory,
        gateways=[Gateway(name, each.address, each.port) for name, each in carriers.items()],
        users=[User("1000", f"sofia/external/{USER_NUMBER}@{carrier.address}:{carrier.port}")],
        dialplan=dialplan(),
        contexts=shipped("ringfence_dialplan.xml"),
        settings="".join(shipped(f"{name}.conf.xml.sample") for name in ("json_cdr", "xml_cdr", "cdr_csv")),
        scripts={"ringfence_gate.lua": (SHIPPED / "ringfence_gate.lua").read_text(encoding="utf-8")},
        variables={
            f"execute_on_originate_{SUFFIX}": "lua ringfence_gate.lua",
            "ringfence_daemons": f"127.0.0.1:{hook_port}",
            "ringfence_dialplan_daemons": f"127.0.0.1:{hook_port}",
            "outbound_redirect_fatal": "true",
        },
    )


def carriers(directory: Path) -> dict[str, Carrier]:
    """Four carriers: one answers, one is busy, one never answers, one sends callers elsewhere."""
    return {
        "carrier": Carrier(directory / "carrier", address="127.0.0.2"),
        "busy": Carrier(directory / "busy", address="127.0.0.3", scenario="carrier-busy"),
        "silent": Carrier(directory / "silent", address="127.0.0.4", scenario="carrier-silent"),
        "redirect": Carrier(
            directory / "redirect", address="127.0.0.5", scenario="carrier-busy", status="302 Moved Temporarily"
        ),
    }


def make_site(directory: Path, postgres: Any, name: str, started: Mapping[str, Carrier]) -> FreeSwitchSite:
    """Everything but the processes."""
    hook_port = free_port()
    switch = make_switch(directory / "freeswitch", started, hook_port)
    daemon = FreeSwitchDaemon(
        directory / "daemon",
        dsn=postgres.create_database(name),
        hook_port=hook_port,
        socket_port=switch.socket_port,
        password=switch.password,
    )
    return FreeSwitchSite(
        version=0,
        directory=directory,
        postgres=postgres,
        database=name,
        daemon=daemon,
        asterisk=switch,  # type: ignore[arg-type]
        carriers=started,
        parties={("simple", ""): list(SEATS)},
        _counter=count(1),
    )
