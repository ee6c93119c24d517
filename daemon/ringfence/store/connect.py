"""Connections to Postgres, with every way they can fail told as one sentence."""

from __future__ import annotations

import asyncio
import getpass
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from ringfence.config import DatabaseSettings
from ringfence.errors import ConfigError, ConflictError, DatabaseError

# What a broken or refused connection raises; asyncpg has no common base for these.
CONNECTION_FAULTS = (
    OSError,
    TimeoutError,
    ssl.SSLError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
)


async def connect(
    settings: DatabaseSettings,
    *,
    application: str,
    statement_timeout_ms: int = 0,
) -> asyncpg.Connection:
    """A connection to the configured database, made within `connect_timeout_s`.

    `statement_timeout_ms` bounds each statement on the server's side, waits for locks included; 0 is no bound.
    Raises DatabaseError with what to do about it.
    """
    options = {"application_name": f"ringfence {application}", "search_path": "ringfence"}
    if statement_timeout_ms:
        options["statement_timeout"] = str(statement_timeout_ms)
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            return await asyncpg.connect(
                settings.dsn,
                password=settings.password,
                timeout=settings.connect_timeout_s,
                # The server's bound first; ours for a server that hangs.
                command_timeout=statement_timeout_ms * 1.5 / 1000 or None,
                server_settings=options,
            )
    except ConfigError as error:  # the password cannot be read, now
        raise DatabaseError(str(error)) from error
    except CONNECTION_FAULTS as error:
        raise DatabaseError(_sentence(settings, error)) from error
    except (ValueError, asyncpg.PostgresError) as error:
        raise DatabaseError(f"database.dsn: {settings.dsn}: {error}") from error


@asynccontextmanager
async def connected(
    settings: DatabaseSettings, *, application: str, actor: str | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one command, closed at the end. Changes are written down as made by `actor`, by default
    the user at the keyboard.

    Raises DatabaseError as `connect` does, also when the schema is missing or the role lacks a privilege, and
    ConflictError when the database refuses a change that contradicts what is there.
    """
    connection = await connect(settings, application=application)
    try:
        await connection.execute("select set_config('ringfence.actor', $1, false)", actor or current_actor())
        yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(f"{error}: connect as a member of ringfence_admin or the owner") from error
    except (
        asyncpg.UndefinedTableError,
        asyncpg.UndefinedFunctionError,
        asyncpg.InvalidSchemaNameError,
    ) as error:
        raise DatabaseError(
            f"the database has no current ringfence schema: run 'ringfence db migrate' ({error})"
        ) from error
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.ObjectNotInPrerequisiteStateError) as error:
        raise ConflictError(str(error)) from error
    except CONNECTION_FAULTS as error:
        raise DatabaseError(_sentence(settings, error)) from error
    finally:
        connection.terminate() if connection.is_closed() else await connection.close(timeout=2)


def current_actor() -> str:
    """Who is at the keyboard: the user behind sudo, else the login user."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def _sentence(settings: DatabaseSettings, error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        cause = f"no answer within {settings.connect_timeout_s:g} s"
    elif isinstance(error, ConnectionRefusedError):
        cause = "connection refused; is Postgres running there?"
    elif isinstance(error, asyncpg.PostgresError):
        cause = str(error)
    else:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot use the database {settings.dsn}: {cause}"
