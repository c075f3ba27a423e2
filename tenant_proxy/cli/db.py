"""tenant-proxy db …: the catalog's own tables"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenant_proxy.catalog import migrate as migrations
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.store import unavailable
from tenant_proxy.cli.output import ConfigOption, print_json
from tenant_proxy.cli.town import JsonOption, configuration, fail, say

if TYPE_CHECKING:
    from tenant_proxy.catalog.migrate import Connection

db_app = typer.Typer(
    name="db",
    help="The catalog of tenants: its tables, in the database of catalog.dsn.",
    no_args_is_help=True,
)


DryRun = Annotated[bool, typer.Option("--dry-run", help="Prints the SQL and changes nothing.")]
Follower = Annotated[
    str | None,
    typer.Option("--follower", metavar="ROLE", help="Lets this role read what proxies need, and no more."),
]


@db_app.callback()
def _group() -> None:
    """The catalog of tenants: its tables, in the database of catalog.dsn."""


@db_app.command()
def init(
    config: ConfigOption, dry_run: DryRun = False, follower: Follower = None, as_json: JsonOption = False
) -> None:
    """Makes the catalog, or brings it up to date.  May be run again at any time."""
    migrate(config, dry_run, follower, as_json)


@db_app.command()
def migrate(
    config: ConfigOption, dry_run: DryRun = False, follower: Follower = None, as_json: JsonOption = False
) -> None:
    """Brings the catalog up to date."""

    async def run(connection: Connection) -> None:
        if dry_run:
            pending = (await migrations.status(connection)).pending
            script = migrations.script(pending) if pending else "-- nothing to do"
            print_json({"sql": [script] if pending else []}) if as_json else typer.echo(script)
            return
        applied = [f"{one.version:04} {one.name}" for one in await migrations.migrate(connection)]
        found = await migrations.status(connection)
        if follower is not None:
            await migrations.grant_follower(connection, follower)
        if as_json:
            print_json({"version": found.version, "applied": applied, "follower": follower})
            return
        for one in applied:
            say(f"applied {one}")
        say(f"the catalog is at version {found.version}")
        if follower is not None:
            say(f'"{follower}" may follow it')

    _on(config, run, as_json=as_json)


@db_app.command()
def status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Says at which version it is.  The exit status is 0 if it is the one this tenant-proxy works with."""
    found: dict[str, Any] = {}

    async def run(connection: Connection) -> None:
        state = await migrations.status(connection)
        found.update(
            ok=state.is_current,
            version=state.version,
            pending=[f"{one.version:04} {one.name}" for one in state.pending],
        )

    _on(config, run, as_json=as_json)
    if as_json:
        print_json(found)
    elif found["version"]:
        pending = f"; to be applied: {', '.join(found['pending'])}" if found["pending"] else ""
        say(f"the catalog is at version {found['version']}{pending}")
    else:
        say("there is no catalog in this database yet; make it: tenant-proxy db init")
    raise typer.Exit(0 if found["ok"] else 1)


def _on(path: Path, run: Callable[[Connection], Awaitable[None]], *, as_json: bool = False) -> None:
    dsn = configuration(path).catalog.dsn

    async def connected() -> None:
        import asyncpg

        if dsn is None:
            raise Failure("invalid", "the configuration names no catalog (catalog.dsn)")
        try:
            connection = await asyncpg.connect(dsn.reveal(), timeout=10, statement_cache_size=0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise unavailable(error) from None
        try:
            await run(connection)
        except asyncpg.PostgresError as error:
            raise Failure("refused", str(error), detail=error.detail or "", hint=error.hint or "") from None
        finally:
            connection.terminate()

    try:
        asyncio.run(connected())
    except Failure as failure:
        fail(failure, as_json=as_json)
