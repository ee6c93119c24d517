"""Reading a dialplan for the lines that dial a trunk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.switches.asterisk.extensions import DialLine, Dialplan, read_files, read_shown

TRUNKS = ("PJSIP/carrier*",)
SIMPLE = """\
[out]
exten => _X.,1,Gosub(ringfence,${EXTEN},1)
 same => n,Dial(PJSIP/${RINGFENCE_NUMBER}@carrier,30,b(ringfence-identity^s^1))
 same => n,Hangup()
"""
STRICT = """\
[out]
exten => _X.,1,Gosub(ringfence-before,${EXTEN},1)
 same => n(dial),Dial(PJSIP/${RINGFENCE_NUMBER}@carrier,30,b(ringfence-leg^s^1(${RINGFENCE_NUMBER})))
 same => n,Gosub(ringfence-after,${RINGFENCE_NUMBER},1)
"""
# Printed by Asterisk 22.
SHOWN = """\
[ Context 'out' created by 'pbx_config' ]
  '_8X.' =>         1. Gosub(ringfence,${EXTEN},1)                [extensions.conf:8]
                    2. Dial(PJSIP/${EXTEN}@carrier,30)            [extensions.conf:9]
  '_X.' =>          1. Dial(PJSIP/${EXTEN}@carrier,30)            [extensions.conf:5]
     [dial]         2. Dial(PJSIP/${EXTEN}@carrier2,30)           [extensions.conf:6]

[ Context 'ringfence-end' created by 'pbx_config' ]
  's' =>            1. Return()                                   [ringfence.conf:270]
-= 3 extensions (5 priorities) in 2 contexts. =-
"""


def read(tmp_path: Path, text: str) -> Dialplan:
    path = tmp_path / "extensions.conf"
    path.write_text(text, encoding="utf-8")
    return read_files([path])


def dialled(dialplan: Dialplan, trunks: tuple[str, ...] = TRUNKS) -> list[DialLine]:
    return list(dialplan.dials(trunks))


@pytest.mark.parametrize("text", [SIMPLE, STRICT], ids=["simple", "strict"])
def test_both_forms_of_the_hook_are_seen(tmp_path: Path, text: str) -> None:
    (line,) = dialled(read(tmp_path, text))
    assert (line.trunk, line.asked, line.judged) == ("PJSIP/carrier", True, True)
    assert (line.context, line.extension) == ("out", "_X.")


def test_the_strict_form_without_its_handler_on_the_leg_asks_nobody(tmp_path: Path) -> None:
    (line,) = dialled(read(tmp_path, STRICT.replace(",b(ringfence-leg^s^1(${RINGFENCE_NUMBER}))", "")))
    assert not line.asked


def test_a_line_without_the_hook_is_named_with_its_place(tmp_path: Path) -> None:
    (line,) = dialled(read(tmp_path, "[out]\nexten => _X.,1,NoOp()\n same => n,Dial(PJSIP/${EXTEN}@carrier,30)\n"))
    assert not line.asked
    assert line.where == "extensions.conf:3"


def test_the_hook_of_one_extension_does_not_count_for_another(tmp_path: Path) -> None:
    lines = dialled(read(tmp_path, f"{SIMPLE}exten => 5,1,Dial(PJSIP/5@carrier)\n"))
    assert [line.asked for line in lines] == [True, False]


def test_dialling_what_was_not_judged_is_seen(tmp_path: Path) -> None:
    (line,) = dialled(read(tmp_path, SIMPLE.replace("PJSIP/${RINGFENCE_NUMBER}", "PJSIP/${EXTEN}")))
    assert line.asked
    assert not line.judged


@pytest.mark.parametrize(
    ("dial", "trunks"),
    [
        ("Dial(PJSIP/${EXTEN}@carrier&PJSIP/${EXTEN}@carrier2,30)", ["PJSIP/carrier", "PJSIP/carrier2"]),
        ('ExecIf($["${A}" = "b"]?Dial(PJSIP/1@carrier,30):NoOp())', ["PJSIP/carrier"]),
        ("RetryDial(file,1,2,PJSIP/1@carrier)", ["PJSIP/carrier"]),
        ("Dial(PJSIP/carrier/sip:1@192.0.2.1)", ["PJSIP/carrier"]),
        ("Dial(PJSIP/${EXTEN},20)", []),
        ("Dial(Local/1@from-inside)", []),
        ("Dial(PJSIP/1@phone)", []),
        ("Dial(PJSIP/${EXTEN}@${TRUNK},30)", ["PJSIP/${TRUNK}"]),
        ("NoOp(see Dial in the manual)", []),
    ],
)
def test_where_a_line_leads(tmp_path: Path, dial: str, trunks: list[str]) -> None:
    assert [line.trunk for line in dialled(read(tmp_path, f"[a]\nexten => s,1,{dial}\n"))] == trunks


def test_includes_comments_and_templates_are_read_as_asterisk_reads_them(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text(
        " same => n,Dial(PJSIP/2@carrier)\n[b]\nexten = 1,1,Dial(PJSIP/3@carrier)\n"
    )
    text = """\
[a](!,template)
exten => 1,1,NoOp(a\\; b) ; Dial(PJSIP/0@carrier)
;-- exten => 1,1,Dial(PJSIP/1@carrier)
 same => n,Dial(PJSIP/1@carrier)
--;
#include "more/*.conf"
#include extensions.conf
"""
    lines = dialled(read(tmp_path, text))
    assert [(line.context, line.where) for line in lines] == [("a", "a.conf:1"), ("b", "a.conf:3")]


def test_what_dialplan_show_printed_is_read_too(tmp_path: Path) -> None:
    lines = dialled(read(tmp_path, SHOWN))
    assert lines == dialled(read_shown(SHOWN))
    assert [(line.extension, line.asked, line.judged, line.where) for line in lines] == [
        ("_8X.", True, False, "extensions.conf:9"),
        ("_X.", False, False, "extensions.conf:5"),
        ("_X.", False, False, "extensions.conf:6"),
    ]


def test_without_watched_trunks_every_number_at_an_endpoint_leads_out(tmp_path: Path) -> None:
    text = "[a]\nexten => s,1,Dial(PJSIP/1@anything)\n same => n,Dial(PJSIP/phone)\n"
    assert [line.trunk for line in dialled(read(tmp_path, text), ())] == ["PJSIP/anything"]
