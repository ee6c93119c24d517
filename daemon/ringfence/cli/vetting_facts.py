"""The facts of a vetting in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ringfence.config import StrictLoader
from ringfence.errors import BadInputError
from ringfence.vetting_facts import Facts, checked

__all__ = ["MAX_FILE", "Facts", "checked", "from_file"]

MAX_FILE = 262_144  # bytes


class _AsWritten(StrictLoader):
    """Values are the text that stands there: YAML would read the company number 0123 as 83."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, form) for tag, form in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in StrictLoader.yaml_implicit_resolvers.items()
    }


def from_file(path: Path) -> dict[str, Any]:
    """The facts a YAML file tells. Raises BadInputError with one sentence for each fault, naming its field."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise BadInputError(f"{path}: longer than {MAX_FILE:,} bytes: these are not the facts of a vetting")
        data = yaml.load(text.decode("utf-8"), Loader=_AsWritten)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise BadInputError(f"{path}: {where}{getattr(error, 'problem', None) or 'not YAML'}") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadInputError(f"{path}: write one 'field: value' a line, as for 'legal_name: Acme Ltd'")
    return checked(data, lambda place: f"{path}: {place}")
