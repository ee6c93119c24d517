"""The pages say what the code does, and point at what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scripts.docs import PAGES

ROOT = Path(__file__).parents[2]
PROSE = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SOURCES = sorted((ROOT / "daemon").rglob("*.py"))
EVENT = re.compile(r"""(?:\.|_)(?:debug|info|warning|error|exception|critical)\(\s*"([a-z]+\.[a-z_]+)\"""")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_current(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == PAGES[name](), "run 'make docs'"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


def test_every_log_event_is_listed_and_every_listed_event_is_logged() -> None:
    logged = {event for path in SOURCES for event in EVENT.findall(path.read_text("utf-8"))}
    logged |= {"log.dropped"}  # written by the writer itself
    page = (ROOT / "docs" / "logs.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", page, re.MULTILINE))
    assert logged - listed == set()
    assert listed - logged == set()
    assert len(logged) > 20


def test_nothing_in_the_project_leans_on_files_outside_it() -> None:
    outside = re.compile(r"(?:\.\./|/work/)shared")
    skipped = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    for path in ROOT.rglob("*"):
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts) and path.suffix != ".bin":
            assert not outside.search(path.read_text("utf-8", errors="ignore")), path
