"""What jobs about whole tenants have in common: what is a tenant's on its cluster, progress, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.catalog import logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.lifecycle import rights
from tenant_proxy.lifecycle.archive import ArchiveError
from tenant_proxy.lifecycle.context import refused
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.jobs import Run
from tenant_proxy.lifecycle.migrations import MigrationError
from tenant_proxy.lifecycle.reading import Unreadable
from tenant_proxy.lifecycle.rename import NotRenamed
from tenant_proxy.lifecycle.restore import RestoreError
from tenant_proxy.lifecycle.templates import Roles, TemplateError
from tenant_proxy.lifecycle.tools import Database, ToolError

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Context
    from tenant_proxy.lifecycle.reading import Progress

_PROGRESS_S: Final = 0.5


def database_of(context: Context, tenant: Tenant) -> Database:
    """Where it lives, as the cluster's admin."""
    return database_on(context, tenant.cluster, tenant.database)


def database_on(context: Context, cluster: str, name: str | None = None) -> Database:
    """A database of a cluster, that of its tenants if none is named."""
    return Database.of(context.cluster(cluster), name, context.rehearsal)


def roles_of(tenant: Tenant) -> Roles:
    return Roles(tenant.schema_, *rights.roles_of(tenant))


async def estate_of(context: Context, tenant: Tenant) -> Estate:
    """Its roles are those that are nobody else's: not logins, which may be granted others too."""
    async with context.store.read() as connection:
        custom = await logins.custom_roles(connection, tenant.id)
    _, readwrite, readonly = rights.roles_of(tenant)
    return Estate(
        tenant.schema_, tenant.owner_role, (readwrite, readonly, *(role.server_role for role in custom))
    )


@asynccontextmanager
async def reporting(run: Run) -> AsyncIterator[Progress]:
    """A function to be told of progress, which is written to the job now and then and told to who watches."""
    latest: list[tuple[str, int, int]] = []
    watcher: Callable[[str, int, int], None] | None = run.context.watcher

    def told(what: str, done: int, total: int) -> None:
        latest[:] = [(what, done, total)]
        if watcher is not None:
            watcher(what, done, total)

    async def write() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            if latest:
                what, done, total = latest.pop()
                await run.progress(done, total, what)

    if run.context.rehearsal is not None:
        yield told
        return
    writing = asyncio.ensure_future(write())
    try:
        yield told
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    if latest:  # or who looks at the job later sees it begun
        what, _, total = latest.pop()
        await run.progress(total, total, what)


@asynccontextmanager
async def failing(cluster: str) -> AsyncIterator[None]:
    """Turns what can go wrong in here into Failures."""
    try:
        yield
    except (ArchiveError, TemplateError, MigrationError) as error:
        raise Failure("invalid", str(error)) from error
    except (RestoreError, NotRenamed, Unreadable) as error:
        raise Failure("conflict", str(error)) from error
    except ToolError as error:
        raise Failure("refused", f'cluster "{cluster}": {error}') from error
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
        raise Failure("unavailable", f'cluster "{cluster}" can\'t be reached: {error}') from error
    except asyncpg.PostgresError as error:
        raise refused(cluster, error) from error


def settings_of(tenant: Tenant) -> dict[str, Any]:
    """What the catalog says of it, for an archive."""
    return {
        "plan": tenant.plan,
        "spec": tenant.spec.given(),
        "labels": tenant.labels,
        "sni": tenant.sni,
        "own_database": tenant.database is not None,
    }
