"""The check-up of an Asterisk's dialplan: where calls go out, and whether the hook comes first."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ringfence.switches.asterisk.extensions import Dialplan, read_files
from ringfence.switches.findings import Report

DEFAULT_DIALPLAN = Path("/etc/asterisk/extensions.conf")
_CHECK = "extensions"


def from_files(report: Report, files: Collection[Path], *, near: bool) -> Dialplan | None:
    """Read these files, or Asterisk's own if none is given and the switch runs on this host."""
    if not files and near and DEFAULT_DIALPLAN.is_file():
        files = [DEFAULT_DIALPLAN]
    if not files:
        report.unseen(_CHECK, "this user may not see the dialplan: name extensions.conf with --dialplan FILE")
        return None
    try:
        return read_files(files)
    except OSError as error:
        report.unseen(_CHECK, f"{error.filename}: {error.strerror}")
        return None


def look(report: Report, dialplan: Dialplan, trunks: Collection[str], emergency: Collection[str]) -> None:
    """Every line that dials a trunk. Emergency numbers may have extensions without a hook."""
    good = other = 0
    for line in dialplan.dials(trunks):
        what = f"{line.context}, {line.extension} ({line.where})"
        if line.extension in emergency or (line.asked and line.judged):
            good += 1
            continue
        other += 1
        if line.asked:
            report.unsafe(_CHECK, f"{what} dials what was not judged: dial ${{RINGFENCE_NUMBER}}")
        elif line.certain:
            report.unsafe(
                _CHECK, f"{what} dials {line.trunk} unasked: put Gosub(ringfence,${{EXTEN}},1) before it"
            )
        else:
            report.unseen(_CHECK, f"{what} dials {line.trunk} without the hook: is that a trunk?")
    if good:
        report.ok(
            _CHECK, f"{good} line{'s' * (good > 1)} that dial{'s' * (good == 1)} a trunk: the hook comes first"
        )
    elif not other:
        report.unseen(_CHECK, "no line dials a trunk; AEL and Lua are seen in what 'dialplan show' prints")
