"""The transaction of a load of many rows: kept or undone as a whole, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

# If this process dies, the server is to notice and roll back.
_SETTINGS = """
set local work_mem = '128MB';
set local jit = off;
set local client_connection_check_interval = '2s';
"""


@dataclass(slots=True)
class Load:
    """A load that is going on; it is undone at its end unless somebody says `keep`."""

    keep: bool = False


@asynccontextmanager
async def bulk_load(connection: asyncpg.Connection) -> AsyncIterator[Load]:
    """A transaction that is committed if `keep` was set, and rolled back if not or if anything is raised.

    Interrupted, it closes the connection: a rollback would wait for the statement, and without us the server does
    it by itself.
    """
    transaction = connection.transaction()
    await transaction.start()
    load = Load()
    try:
        await connection.execute(_SETTINGS)
        yield load
    except (KeyboardInterrupt, asyncio.CancelledError):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncpg's loose ends
        connection.terminate()
        raise
    except BaseException:
        if not connection.is_closed():
            await transaction.rollback()
        raise
    await (transaction.commit() if load.keep else transaction.rollback())
