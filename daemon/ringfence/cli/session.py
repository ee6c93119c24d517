"""What every command is given: the configuration, the database, and where its answer goes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ringfence.cli.output import Output
from ringfence.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    import asyncpg

    from ringfence.config import NumberingPlan, Settings

DEFAULT_CONFIG = Path("/etc/ringfence/ringfence.yaml")  # config.DEFAULT_PATH, whose module is slow to load
CONFIG_HELP = f"Configuration file; {DEFAULT_CONFIG} by default."
JSON_HELP = "Answer with one JSON document on standard output."

_ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="PATH", help=CONFIG_HELP)]
_JsonOption = Annotated[bool, typer.Option("--json", help=JSON_HELP)]


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that stand before the noun."""

    config: Path | None
    as_json: bool


class Session:
    """One run of one command."""

    def __init__(self, config: Path | None, as_json: bool) -> None:
        self.config_path = config or DEFAULT_CONFIG
        self._named = config is not None
        self.output = Output(as_json)

    @cached_property
    def settings(self) -> Settings:
        """The configuration, checked. Raises ConfigError."""
        from ringfence import config

        if not self._named and not self.config_path.exists():
            raise ConfigError(
                f"{self.config_path}: there is no such file: name yours with --config PATH or in RINGFENCE_CONFIG"
            )
        return config.load(self.config_path)

    @property
    def default_plan(self) -> NumberingPlan:
        """The numbering plan under which an operator's numbers are read."""
        numbering = self.settings.numbering
        return numbering.plans[numbering.default_plan]

    def database(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """A connection to the configured database for this command. Raises as `store.connect.connected` does."""
        from ringfence.store.connect import connected

        return connected(self.settings.database, application="cli")


def new_app(summary: str) -> typer.Typer:
    """A group of commands without decoration: plain help, plain tracebacks."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def verb(app: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function, async or not, as the command `name`.

    Its first parameter is the Session; `--config` and `--json` are added to those it declares. An int it
    returns is the exit code.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(*, context: typer.Context, config: Path | None, as_json: bool, **arguments: Any) -> None:
            before = context.find_root().obj or Globals(None, False)
            session = Session(config or before.config, as_json or before.as_json)
            try:
                result = function(session, **arguments)
                if inspect.iscoroutine(result):
                    result = asyncio.run(result)
            except KeyboardInterrupt:
                raise typer.Exit(ExitCode.INTERRUPTED) from None
            raise typer.Exit(int(result or 0))

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own),
            inspect.Parameter("config", keyword, default=None, annotation=_ConfigOption),
            inspect.Parameter("as_json", keyword, default=False, annotation=_JsonOption),
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(command)
        return function

    return register
