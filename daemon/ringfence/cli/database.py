"""`ringfence db`: the schema, and the books that are kept in it."""

from __future__ import annotations

from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import ExitCode

app = new_app("The database: its schema and its books.")


@verb(app, "migrate")
async def migrate(session: Session) -> None:
    """Bring the database to the schema of this version. Harmless when it is there already."""
    from ringfence.store import migrate as migrations

    async with session.database() as connection:
        done = await migrations.migrate(connection)
    session.output.document({"migrations": done.migrations, "functions": done.functions, "data": done.data})
    for name in done.migrations:
        session.output.line(f"applied {name}")
    for name in done.functions:
        session.output.line(f"replaced functions/{name}")
    for name in done.data:
        session.output.line(f"loaded {name}")
    if not done.migrations and not done.functions and not done.data:
        session.output.line("already current")


@verb(app, "status")
async def status(session: Session) -> int:
    """Show which migrations the database has; exits 4 unless it is current."""
    from ringfence.store import status as schema

    async with session.database() as connection:
        found = await schema.read(connection)
    session.output.document(found)
    session.output.table(found["files"], ("file", "state", "applied_at"))
    session.output.facts({key: value for key, value in found.items() if key != "files"})
    return ExitCode.OK if found["current"] else ExitCode.DATABASE


@verb(app, "recount")
async def recount(session: Session) -> int:
    """Set every customer's live-call counter to the calls that are really counted; exits 1 if one was wrong."""
    from ringfence.store import status as schema

    async with session.database() as connection:
        wrong = await schema.recount(connection)
    session.output.document(wrong)
    session.output.table(wrong, ("customer", "was", "live"), empty="every counter is right")
    return ExitCode.REFUSED if wrong else ExitCode.OK
