"""The configuration of a lab FreeSWITCH, as one XML document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

# What a calling dialplan, its gate and its observers need.
MODULES = (
    "console", "logfile", "event_socket", "commands", "dptools", "hash", "dialplan_xml", "loopback", "sofia",
    "tone_stream", "lua", "json_cdr", "xml_cdr", "cdr_csv",
)  # fmt: skip


@dataclass(frozen=True)
class Gateway:
    """A carrier that calls leave through, by the profile `external`."""

    name: str
    address: str
    port: int
    params: Mapping[str, str] = field(default_factory=lambda: {"caller-id-in-from": "true"})


@dataclass(frozen=True)
class User:
    """A directory entry that `user/NAME` dials through `dial_string`."""

    name: str
    dial_string: str


def document(
    *,
    sip_port: int,
    external_port: int,
    socket_port: int,
    password: str,
    variables: Mapping[str, str],
    gateways: Sequence[Gateway],
    users: Sequence[User],
    dialplan: str,
    contexts: str,
    switch_params: Mapping[str, str],
    settings: str,
) -> str:
    """freeswitch.xml: everything on loopback addresses, nothing that registers or asks the network."""
    preset = "".join(
        f'<X-PRE-PROCESS cmd="set" data={quoteattr(f"{name}={value}")}/>\n'
        for name, value in {"local_ip_v4": "127.0.0.1", "domain": "127.0.0.1", **variables}.items()
    )
    entries = "".join(
        f"<user id={quoteattr(user.name)}>{_params({'dial-string': user.dial_string})}</user>" for user in users
    )
    modules = "".join(f'<load module="mod_{name}"/>' for name in MODULES)
    limits = {
        "loglevel": "debug",
        "max-sessions": "2000",
        "sessions-per-second": "1000",
        "rtp-start-port": "22000",
        "rtp-end-port": "29998",
        "api-expansion": "false",
        **switch_params,
    }
    log = (
        '<settings/><profiles><profile name="default"><settings/><mappings>'
        '<map name="all" value="info,notice,warning,err,crit,alert"/></mappings></profile></profiles>'
    )
    event_socket = {
        "nat-map": "false",
        "listen-ip": "127.0.0.1",
        "listen-port": str(socket_port),
        "password": password,
        "apply-inbound-acl": "loopback.auto",
    }
    profiles = _profile("internal", sip_port, "") + _profile(
        "external", external_port, "".join(_gateway(gateway) for gateway in gateways)
    )
    return f"""<?xml version="1.0"?>
<document type="freeswitch/xml">
{preset}
<section name="configuration">
{_configuration("modules", f"<modules>{modules}</modules>")}
{_configuration("switch", _settings(limits))}
{_configuration("console", '<mappings/><settings><param name="loglevel" value="err"/></settings>')}
{_configuration("logfile", log)}
{_configuration("event_socket", _settings(event_socket))}
{_configuration("acl", "<network-lists/>")}
{_configuration("lua", "<settings/>")}
{_configuration("hash", "<remotes/>")}
{_configuration("loopback", "<settings/>")}
{_configuration("timezones", '<timezones><zone name="UTC">UTC0</zone></timezones>')}
{_configuration("post_load_modules", "<modules/>")}
{_configuration("post_load_switch", "<settings/>")}
{_configuration("pre_load_modules", "<modules/>")}
{_configuration("sofia", f"<global_settings/><profiles>{profiles}</profiles>")}
{settings}
</section>
<section name="dialplan"><context name="default">
{dialplan}
</context>{contexts}</section>
<section name="directory"><domain name="127.0.0.1"><groups><group name="default"><users>{entries}</users></group>
</groups></domain></section>
</document>
"""


def _params(values: Mapping[str, str]) -> str:
    lines = "".join(f"<param name={quoteattr(n)} value={quoteattr(v)}/>\n" for n, v in values.items())
    return f"<params>{lines}</params>"


def _settings(values: Mapping[str, str]) -> str:
    lines = "".join(f"<param name={quoteattr(n)} value={quoteattr(v)}/>\n" for n, v in values.items())
    return f"<settings>{lines}</settings>"


def _configuration(name: str, content: str) -> str:
    return f'<configuration name="{name}.conf">{content}</configuration>'


def _profile(name: str, port: int, gateways: str) -> str:
    values = {
        "sip-ip": "127.0.0.1",
        "rtp-ip": "127.0.0.1",
        "sip-port": str(port),
        "dialplan": "XML",
        "context": "default",
        "auth-calls": "false",
        "inbound-codec-prefs": "PCMU",
        "outbound-codec-prefs": "PCMU",
        "rtp-timer-name": "soft",
        "manage-presence": "false",
        "user-agent-string": "lab-freeswitch",
    }
    return f'<profile name="{name}"><domains/><gateways>{gateways}</gateways>{_settings(values)}</profile>'


def _gateway(gateway: Gateway) -> str:
    values = {
        "username": "lab",
        "password": "lab",
        "proxy": f"{gateway.address}:{gateway.port}",
        "register": "false",
        **gateway.params,
    }
    lines = "".join(f"<param name={quoteattr(n)} value={quoteattr(v)}/>\n" for n, v in values.items())
    return f"<gateway name={quoteattr(gateway.name)}>{lines}</gateway>"
