"""The configuration files of a lab Asterisk, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.asterisk import Customer, Trunk

# Everything a calling dialplan and its observers need, and nothing that runs commands or opens ports.
_MODULES = """
res_timing_timerfd res_sorcery_config res_sorcery_memory res_sorcery_astdb res_rtp_asterisk
codec_ulaw codec_alaw res_pjproject res_pjsip res_pjsip_session res_pjsip_sdp_rtp res_pjsip_caller_id
res_pjsip_endpoint_identifier_ip res_pjsip_endpoint_identifier_user res_pjsip_header_funcs
res_pjsip_rfc3326 res_pjsip_pubsub res_pjsip_refer res_pjsip_logger res_pjsip_nat res_pjsip_acl
res_pjsip_diversion res_pjsip_authenticator_digest res_pjsip_outbound_authenticator_digest
res_pjsip_path res_pjsip_dtmf_info chan_pjsip chan_bridge_media
func_pjsip_endpoint func_pjsip_contact func_pjsip_aor
bridge_simple bridge_native_rtp bridge_softmix bridge_holding bridge_builtin_features
bridge_builtin_interval_features pbx_config pbx_spool
app_dial app_stack app_verbose app_originate app_transfer app_playtones app_echo app_exec app_userevent
app_cdr app_while app_chanisavail app_channelredirect res_agi res_speech res_clioriginate
func_channel func_callerid func_cdr func_strings func_logic func_global func_timeout func_hangupcause
func_uri func_base64 func_dialplan func_math func_extstate func_groupcount func_lock func_sprintf
cdr_custom cdr_manager
"""
MODULES = tuple(_MODULES.split())

# Loaded where they exist: since 22.10 cdr_custom is built upon the first.
OPTIONAL_MODULES = ("res_cdrel_custom",)

# Files that Asterisk looks for and reports as errors when they are absent.
PLAIN_FILES = {
    "acl.conf": "",
    "ccss.conf": "[general]\n",
    "cel.conf": "[general]\nenable=no\n",
    "features.conf": "[general]\n",
    "indications.conf": (
        "[general]\ncountry=us\n[us]\ndescription=United States\nringcadence=2000,4000\ndial=350+440\n"
        "busy=480+620/500,0/500\nring=440+480/2000,0/4000\ncongestion=480+620/250,0/250\n"
    ),
    "pjproject.conf": "",
    "stasis.conf": "",
    "udptl.conf": "[general]\n",
}

CDR_FIELDS = (
    "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start", "answer",
    "end", "duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid", "linkedid",
    "userfield",
)  # fmt: skip


def directories(base: Path, run: Path, modules: Path, data: Path) -> str:
    """asterisk.conf: nothing is read or written outside these directories."""
    places = {
        "astcachedir": base / "lib",
        "astetcdir": base / "etc",
        "astmoddir": modules,
        "astvarlibdir": base / "lib",
        "astdbdir": base / "lib",
        "astkeydir": base / "lib",
        "astdatadir": data,
        "astagidir": base / "lib",
        "astspooldir": base / "spool",
        "astrundir": run,
        "astlogdir": base / "log",
    }
    lines = "".join(f"{name} => {path}\n" for name, path in places.items())
    return f"[directories]\n{lines}[options]\nmaxfiles = 20000\nhideconnect = yes\nsystemname = lab\n"


def pjsip(port: int, customers: Sequence[Customer], trunks: Sequence[Trunk]) -> str:
    """pjsip.conf: customers recognised by address, trunks reached and recognised by address."""
    parts = [
        "[global]\ntype=global\nuser_agent=lab-asterisk\n",
        f"[transport-udp]\ntype=transport\nprotocol=udp\nbind=127.0.0.1:{port}\n",
    ]
    for customer in customers:
        lines = [f"context={customer.context}", "identify_by=ip", "trust_id_inbound=yes"]
        lines += [f"accountcode={customer.accountcode}"] if customer.accountcode else []
        lines += [f"set_var={name}={value}" for name, value in customer.variables.items()]
        parts += [_endpoint(customer.name, lines), _identify(customer.name, customer.source_ip)]
    for trunk in trunks:
        lines = [f"context={trunk.context}", f"aors={trunk.name}", "identify_by=ip", "send_pai=yes"]
        lines += [trunk.options] if trunk.options else []
        aor = f"[{trunk.name}]\ntype=aor\ncontact=sip:{trunk.address}:{trunk.port}\n"
        parts += [_endpoint(trunk.name, lines), aor, _identify(trunk.name, trunk.address)]
    return "\n".join(parts) + "\n"


def _endpoint(name: str, lines: Sequence[str]) -> str:
    common = ("disallow=all", "allow=ulaw,alaw", "direct_media=no", "transport=transport-udp")
    return f"[{name}]\ntype=endpoint\n" + "".join(f"{line}\n" for line in (*common, *lines))


def _identify(name: str, address: str) -> str:
    return f"[{name}-address]\ntype=identify\nendpoint={name}\nmatch={address}/32\n"


def manager(port: int, user: str, secret: str, channel_variables: Sequence[str]) -> str:
    """manager.conf: one user who may do everything, from this machine only."""
    shown = f"channelvars={','.join(channel_variables)}\n" if channel_variables else ""
    return (
        f"[general]\nenabled=yes\nbindaddr=127.0.0.1\nport={port}\n{shown}\n"
        f"[{user}]\nsecret={secret}\ndeny=0.0.0.0/0.0.0.0\npermit=127.0.0.1/255.255.255.255\n"
        "read=all\nwrite=all\n"
    )


def cdr_custom(fields: Sequence[str]) -> str:
    """cdr_custom.conf: the fields, quoted, in this order."""
    columns = ",".join(f"${{CSV_QUOTE(${{CDR({name})}})}}" for name in fields)
    return f"[mappings]\nCustom.csv => {columns}\n"
