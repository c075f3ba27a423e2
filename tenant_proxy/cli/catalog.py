"""tenant-proxy catalog …: what stands in a database in place of its catalogs (decision 11)"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import asyncpg
import typer

from tenant_proxy.cli.output import console, error, print_json, print_problems
from tenant_proxy.config.load import load
from tenant_proxy.config.problems import ConfigError
from tenant_proxy.config.schema import Cluster
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.shims import install as shims
from tenant_proxy.shims.generate import UnsupportedServer

if TYPE_CHECKING:
    from tenant_proxy.shims.install import Connection

_TIMEOUT_S = 10.0
#: dependents that a message names
_SHOWN = 10

catalog_app = typer.Typer(
    name="catalog", help="Views that show each tenant its own objects alone.", no_args_is_help=True
)


@catalog_app.callback()
def _group() -> None:
    """Views that show each tenant its own objects alone, installed once in a database.

    The login must be one that may create schemas there: a superuser, or one with CREATE on the database.
    Its password is taken from --dsn, PGPASSWORD or ~/.pgpass.
    """


@dataclass(frozen=True, slots=True)
class Target:
    """A database, as somebody who may change it."""

    #: for messages
    name: str
    #: None: `cluster` and `user` say it
    dsn: str | None
    cluster: Cluster | None
    user: str

    async def connect(self) -> Connection:
        settings = {"search_path": "", "application_name": "tenant-proxy catalog"}
        if self.dsn is not None:
            return await asyncpg.connect(
                self.dsn, timeout=_TIMEOUT_S, statement_cache_size=0, server_settings=settings
            )
        assert self.cluster is not None
        tls = self.cluster.tls
        return await asyncpg.connect(
            host=self.cluster.host,
            port=self.cluster.port,
            user=self.user,
            database=self.cluster.database,
            ssl=asyncpg_ssl(tls),
            direct_tls=tls.negotiation == "direct",
            timeout=_TIMEOUT_S,
            statement_cache_size=0,
            server_settings=settings,
        )


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="TENANT_PROXY_CONFIG",
        help="The configuration file that names the cluster.",
        show_default=False,
        metavar="FILE",
    ),
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", help="Of the configuration; not needed if it has one.")
]
User = Annotated[
    str, typer.Option("--user", "-U", envvar="PGUSER", help="Who logs in to the cluster.", metavar="NAME")
]
Dsn = Annotated[
    str | None,
    typer.Option("--dsn", help="The database, as a URL, rather than --cluster.", metavar="URL"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Prints the SQL and changes nothing.")]


@catalog_app.command()
def install(
    config: ConfigFile = None,
    cluster: ClusterName = None,
    user: User = "postgres",
    dsn: Dsn = None,
    dry_run: DryRun = False,
) -> None:
    """Installs them, or brings an older version up to date.  May be run again at any time."""
    target = _target(config, cluster, user, dsn)

    async def run(connection: Connection) -> None:
        if dry_run:
            typer.echo(shims.statements(await shims.read_server(connection)), nl=False)
        elif await shims.install(connection):
            _say(f"{target.name}: installed")
        else:
            _say(f"{target.name}: already installed")

    _on(target, run)


@catalog_app.command()
def uninstall(
    config: ConfigFile = None,
    cluster: ClusterName = None,
    user: User = "postgres",
    dsn: Dsn = None,
    dry_run: DryRun = False,
) -> None:
    """Takes them away.  Where policy.catalogs is `auto` tenants then see the server's own catalogs."""
    target = _target(config, cluster, user, dsn)

    async def run(connection: Connection) -> None:
        if dry_run:
            typer.echo(shims.uninstall_statements(), nl=False)
        elif await shims.uninstall(connection):
            _say(f"{target.name}: uninstalled")
        else:
            _say(f"{target.name}: nothing is installed")

    _on(target, run)


@catalog_app.command()
def status(
    config: ConfigFile = None,
    cluster: ClusterName = None,
    user: User = "postgres",
    dsn: Dsn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints JSON.")] = False,
) -> None:
    """Says what is installed.  The exit status is 0 if it is what this version would install."""
    target = _target(config, cluster, user, dsn)
    good = False

    async def run(connection: Connection) -> None:
        nonlocal good
        state = await shims.read_state(connection)
        good = state.is_current
        if as_json:
            print_json({"ok": good, "installed": state.installed, "current": state.current})
        elif good:
            _say(f"{target.name}: {state.installed}")
        elif state.installed is None:
            _say(f"{target.name}: nothing is installed")
        else:
            _say(f"{target.name}: {state.installed}; this version installs {state.current}")

    _on(target, run)
    raise typer.Exit(0 if good else 1)


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)


def _fail(*lines: str) -> NoReturn:
    for line in lines:
        error(line)
    raise typer.Exit(1)


def _target(config: Path | None, name: str | None, user: str, dsn: str | None) -> Target:
    if dsn is not None:
        if name is not None:
            raise typer.BadParameter("give either --dsn or --cluster")
        return Target("the database", dsn, None, user)
    if config is None:
        raise typer.BadParameter("give --config (and --cluster), or --dsn")
    try:
        clusters = {cluster.name: cluster for cluster in load(config).config.clusters}
    except ConfigError as failed:
        print_problems(failed.problems)
        raise typer.Exit(1) from None
    if name is None and len(clusters) == 1:
        name = next(iter(clusters))
    if name is None or name not in clusters:
        known = ", ".join(sorted(clusters))
        raise typer.BadParameter(f"--cluster must be one of: {known}")
    return Target(f"{name} (database {clusters[name].database})", None, clusters[name], user)


def _on(target: Target, run: Callable[[Connection], Awaitable[None]]) -> None:
    """Runs it on a connection; what goes wrong is said in a line, or three."""

    async def connected() -> None:
        connection = await target.connect()
        try:
            await run(connection)
        finally:
            connection.terminate()

    try:
        asyncio.run(connected())
    except shims.InUse as found:
        shown = found.dependents[:_SHOWN]
        more = len(found.dependents) - len(shown)
        _fail(
            f"{target.name}: {found}, made by tenants of the catalogs: {'; '.join(shown)}"
            + (f"; and {more} more" if more else ""),
            "drop them first, and make them anew afterwards",
        )
    except UnsupportedServer as problem:
        _fail(f"{target.name}: {problem}")
    except asyncpg.InsufficientPrivilegeError as problem:
        _fail(
            f"{target.name}: {problem}",
            "the login must be able to create schemas (GRANT CREATE ON DATABASE … TO …)"
            " and own those that are there",
        )
    except asyncpg.PostgresError as problem:
        detail = f" ({problem.detail})" if problem.detail else ""
        _fail(f"{target.name}: {problem}{detail}")
    except (OSError, asyncpg.InterfaceError, TimeoutError) as problem:
        _fail(f"{target.name}: no connection: {_text(problem)}")


def _text(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.errno is not None and problem.strerror:
        return os.strerror(problem.errno) if problem.errno > 0 else problem.strerror
    return str(problem) or "it takes too long"
