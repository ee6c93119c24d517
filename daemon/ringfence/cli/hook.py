"""`ringfence hook`: what the admin adds to the switch, ready to be copied, with secrets that nobody else has."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from ringfence.config import Address

app = new_app("Hook: what to add to a switch so that it asks before each call.")

_SOURCE = Path(__file__).parents[3] / "dialplan"  # beside the code when it runs from a clone
_DAEMON_HELP = "Where the daemon listens; else what the configuration says, else its default."
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
Daemon = Annotated[list[str] | None, typer.Option("--daemon", metavar="HOST:PORT", help=_DAEMON_HELP)]


def shipped() -> Path:
    """Where the files to copy are."""
    return _SOURCE if _SOURCE.is_dir() else Path(sys.prefix, "share", "ringfence", "dialplan")


@verb(app, "freeswitch")
def freeswitch(session: Session, *, daemon: Daemon = None) -> None:
    """Print what makes FreeSWITCH ask. The hook's name and the password are new each time: use one output."""
    suffix, password = secrets.token_hex(12), secrets.token_hex(16)
    listed = _daemons(session, daemon, "freeswitch")
    variables = {
        f"execute_on_originate_{suffix}": "lua ringfence_gate.lua",
        "outbound_redirect_fatal": "true",
        "ringfence_daemons": ",".join(listed),
        "ringfence_dialplan_daemons": "|".join(listed),
        "ringfence_fail": "closed",
        "ringfence_wait": "3",
        "ringfence_emergency": ",".join(_emergency(session)),
        "ringfence_internal": "loopback/*",
    }
    files = shipped() / "freeswitch"
    parts = {
        "vars_xml": [f'<X-PRE-PROCESS cmd="set" data="{name}={value}"/>' for name, value in variables.items()],
        "switch_conf_xml": ['<param name="api-expansion" value="false"/>'],
        "event_socket_conf_xml": [
            '<param name="listen-ip" value="127.0.0.1"/>',
            '<param name="listen-port" value="8021"/>',
            f'<param name="password" value="{password}"/>',
            '<param name="apply-inbound-acl" value="loopback.auto"/>',
        ],
        "dialplan": [
            '<action application="execute_extension" data="$1 XML ringfence"/>',
            '<action application="bridge" data="sofia/gateway/carrier/$1"/>',
        ],
    }
    copied = {
        "gate": str(files / "ringfence_gate.lua"),
        "dialplan": str(files / "ringfence_dialplan.xml"),
        "call_records": [str(files / f"{name}.conf.xml.sample") for name in ("json_cdr", "xml_cdr", "cdr_csv")],
    }
    session.output.document(
        {"suffix": suffix, "password": password, "variables": variables, "add": parts, "copy": copied}
    )
    tell = _Steps(session)
    tell.step(
        "Copy the gate into FreeSWITCH's scripts directory, which this tells: fs_cli -x 'global_getvar script_dir'"
    )
    tell.lines(f"cp {copied['gate']} SCRIPTS/")
    tell.step("Into vars.xml, before anything that calls out. Keep the first line to yourself.")
    tell.lines(*parts["vars_xml"])
    tell.step("Into autoload_configs/switch.conf.xml, so that no caller's text can run a command.")
    tell.lines(*parts["switch_conf_xml"])
    tell.step(
        "Into autoload_configs/event_socket.conf.xml; the password also into event_socket.password_file's file."
    )
    tell.lines(*parts["event_socket_conf_xml"])
    tell.step(
        "Load mod_lua in autoload_configs/modules.conf.xml, restart FreeSWITCH, and look: ringfence doctor --fire"
    )
    tell.step("Call records that name the decision: take over one of these.")
    tell.lines(*copied["call_records"])
    tell.step(
        "Only dialled calls judged? Instead of the first line of vars.xml, conf/dialplan/ and your extension get:"
    )
    tell.lines(f"cp {copied['dialplan']} conf/dialplan/", *parts["dialplan"])


@verb(app, "asterisk")
def asterisk(session: Session, *, daemon: Daemon = None) -> None:
    """Print what makes Asterisk ask. The manager's secret is new each time: use one output."""
    secret = secrets.token_hex(16)
    listed = _daemons(session, daemon, "asterisk")
    if len(listed) > 1:
        raise BadInputError("--daemon: Asterisk asks one daemon: give one address")
    files = shipped() / "asterisk"
    parts = {
        "extensions_conf": [
            "#include ringfence.conf",
            "[globals]",
            f"RINGFENCE_AGI=agi://{listed[0]}/gate",
            f"RINGFENCE_EMERGENCY={'|'.join(_emergency(session)).replace('*', '[*]')}",
        ],
        "each_extension": [
            "exten => _X.,1,Gosub(ringfence,${EXTEN},1)",
            " same => n,Dial(PJSIP/${RINGFENCE_NUMBER}@carrier,30,b(ringfence-identity^s^1))",
            " same => n,Hangup()",
        ],
        "manager_conf": [
            line.replace("CHANGE-ME", secret)
            for line in _text(files / "manager.conf.sample").splitlines()
            if line and not line.startswith(";")
        ],
        "cdr_conf": ["[general]", "unanswered=yes"],
    }
    copied = {
        "hook": str(files / "ringfence.conf"),
        "call_records": [str(files / f"{name}.conf.sample") for name in ("cdr_custom", "cdr_manager")],
    }
    session.output.document({"secret": secret, "add": parts, "copy": copied})
    tell = _Steps(session)
    tell.step("Copy the hook.")
    tell.lines(f"cp {copied['hook']} /etc/asterisk/")
    tell.step("Into /etc/asterisk/extensions.conf.")
    tell.lines(*parts["extensions_conf"])
    tell.step("Each extension that calls out; your trunk in place of carrier. The strict form: docs/asterisk.md.")
    tell.lines(*parts["each_extension"])
    tell.step("Into /etc/asterisk/manager.conf; the secret also into /etc/ringfence/ami-secret.")
    tell.lines(*parts["manager_conf"])
    tell.step("Call records that name the decision: take over one of these, and in cdr.conf:")
    tell.lines(*copied["call_records"], *parts["cdr_conf"])
    tell.step(
        "Reload, and look: asterisk -rx 'core reload'; ringfence doctor --dialplan /etc/asterisk/extensions.conf"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFoundError(
            f"{path}: {error.strerror}: the files to copy were not installed with the program"
        ) from error


class _Steps:
    """Numbered sentences, each with the lines to be copied below it."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._count = 0

    def step(self, sentence: str) -> None:
        self._count += 1
        if self._count > 1:
            self._output.line("")
        self._output.line(f"{self._count}. {sentence}")

    def lines(self, *lines: str) -> None:
        for line in lines:
            self._output.line(f"   {line}")


def _daemons(session: Session, given: list[str] | None, kind: str) -> list[str]:
    """Where the switch asks, as HOST:PORT."""
    from pydantic import TypeAdapter, ValidationError

    from ringfence.config import AsteriskSettings, FastAgiSettings, FreeSwitchHookSettings, TcpAddress

    if given:
        try:
            return [str(TypeAdapter[Any](TcpAddress).validate_python(text)) for text in given]
        except ValidationError:
            raise BadInputError(f"--daemon: {', '.join(given)}: not HOST:PORT") from None
    listens: list[Address] = [
        switch.fastagi.listen if isinstance(switch, AsteriskSettings) else switch.hook.listen
        for switch in (session.settings.switches if _configured(session) else ())
        if switch.kind == kind
    ]
    default = FastAgiSettings() if kind == "asterisk" else FreeSwitchHookSettings()
    return [str(_reached_at(address)) for address in listens[:1] or [default.listen]]


def _reached_at(address: Address) -> Address:
    return address.model_copy(update={"host": "127.0.0.1"}) if address.host in _ANYWHERE else address


def _emergency(session: Session) -> tuple[str, ...]:
    from ringfence.config import NumberingSettings

    return (session.settings.numbering if _configured(session) else NumberingSettings()).emergency


def _configured(session: Session) -> bool:
    """Whether there is a configuration to take addresses and numbers from; a new installation has none yet."""
    return session.config_path.exists()
