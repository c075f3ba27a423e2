"""The job that moves a tenant to another cluster, and the one that forgets it where it was.

Clients do not notice but by waiting: while it is copied the tenant is stopped in all proxies, so that what
they begin waits, and runs on the new cluster.  Transactions end first, and so do sessions that hold a
connection; where one does not, or where the copy takes longer than clients are to wait, the move is given up
and they go on.  That no row is lost hangs on none of this: the source is locked against writers from
before the snapshot until the schema there has another name.  The copy is checked table by table before the
catalog is told; then logins are made there.  What was the tenant's on the source is kept, under another name,
until `forget`.

Parameters: `cluster`; `pause_s`, how long clients are to wait at most; `force` ends sessions that hold a
connection rather than give up.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenant_proxy.catalog import effective, logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.catalog.states import State, conflict
from tenant_proxy.catalog.store import Change
from tenant_proxy.lifecycle import access, erasing, ledger, placement, restore, rights, server_settings
from tenant_proxy.lifecycle.archive import Manifest
from tenant_proxy.lifecycle.estates import database_of, database_on, estate_of, failing, reporting
from tenant_proxy.lifecycle.export import export
from tenant_proxy.lifecycle.facts import database_exists, read_facts
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.provision import check_server
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.lifecycle.sql import fitting, ident, literal, script
from tenant_proxy.model import IN_MOVE, MOVED, MOVING

if TYPE_CHECKING:
    import asyncpg

    from tenant_proxy.lifecycle.tools import Database

    Connection = asyncpg.Connection[asyncpg.Record]

#: states that a tenant may be moved in
_MOVABLE: Final = (State.READY, State.ACTIVE, State.SUSPENDED)
#: for which those who hold a connection are waited for where no plan says it
GRACE_S: Final = 30.0
#: for which clients wait at most where nobody says otherwise
PAUSE_S: Final = 60.0
#: within which proxies have ended those who hold one
_PROXIES_END_S: Final = 2.0
_LOCK_TIMEOUT_S: Final = 10
_POLL_S: Final = 0.2


_STEPS: Final = ("look", "target", "copy", "logins")


async def _steps(run: Run) -> Sequence[Step]:
    return [
        Step("look", do=_look),
        Step("target", do=_make_target, undo=_drop_target),
        Step("copy", do=_copy, undo=_unswitch, record=_switch),
        Step("logins", do=_settle_logins),
    ]


async def _begin(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state not in _MOVABLE:
        raise conflict(tenant.name, tenant.state, "it can't be moved now")
    cluster = run.context.cluster(run.params["cluster"])
    placement.check_region(cluster, tenant.name, tenant.labels)
    if cluster.name == tenant.cluster:
        raise Failure("invalid", f'tenant "{tenant.name}" is on cluster "{cluster.name}" already')
    run.data |= {
        "from": tenant.cluster,
        "from_database": run.context.database_of(tenant),
        "own_database": tenant.database is not None,
        "kept": fitting(tenant.schema_, f"__moved_{change.job}"),
        "reason": tenant.reason,
    }


async def _stop(run: Run, reason: str) -> None:
    """Proxies hear of it at once; where one does not, its clients wait for locks, and then end."""
    async with run.context.store.change(run.context.actor, run.job.id) as change:
        tenant = await change.tenant(run.job.tenant_name)
        if tenant.state is State.ACTIVE:
            now = await change.now()
            await change.update_tenant(
                tenant, "tenant.suspend", state="suspended", suspended_at=now, reason=reason
            )
        elif tenant.reason in IN_MOVE:
            await change.update_tenant(tenant, "tenant.suspend", reason=reason)


def _there(run: Run, tenant: Tenant) -> Tenant:
    """As it will be on the target."""
    return tenant.model_copy(update={"cluster": run.params["cluster"]})


def _here(run: Run, tenant: Tenant) -> Tenant:
    return tenant.model_copy(update={"cluster": run.data["from"]})


async def _look(run: Run) -> None:
    """Whether a database of its own is there already: only what this job made is dropped again."""
    tenant = _there(run, await run.tenant())
    identities = []
    for name in (run.data["from"], tenant.cluster):
        async with run.context.admin(name) as connection:
            identities.append(
                await connection.fetchval("SELECT system_identifier FROM pg_catalog.pg_control_system()")
            )
    if identities[0] == identities[1]:
        # roles are the whole server's: they could not be taken away where the tenant was
        raise Failure(
            "invalid", f'the clusters "{run.data["from"]}" and "{tenant.cluster}" are the same server'
        )
    if tenant.database is not None:
        async with run.context.admin(tenant.cluster) as connection:
            run.data["database_was_there"] = await database_exists(connection, tenant.database)


async def _make_target(run: Run) -> None:
    """Schema, roles and rights there; custom roles too, whose rights come with the objects."""
    tenant = _there(run, await run.tenant())
    context = run.context
    spec = effective.spec(await context.store.plan_of(tenant), tenant.spec)
    custom = (await estate_of(context, tenant)).roles[2:]
    async with context.admin(tenant.cluster) as connection:
        await check_server(connection, tenant.cluster, spec)
    await server_settings.check(context, tenant.cluster, spec.settings, tenant.schema_)
    if tenant.database is not None:
        async with context.admin(tenant.cluster) as connection:
            if not await database_exists(connection, tenant.database):
                for statement in rights.create_database(tenant.database, spec.tablespace):
                    await connection.execute(statement)
            await connection.execute(script(rights.close_database(tenant.database)))
    async with context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            roles = (*rights.roles_of(tenant), *custom)
            facts = await read_facts(connection, roles, tenant.schema_)
            ours = rights.mark(tenant)
            taken = [role for role, found in facts.roles.items() if found != ours]
            if taken or facts.schema not in (None, ours):
                what = f'a role "{taken[0]}"' if taken else f'a schema "{tenant.schema_}"'
                raise Failure("exists", f'there is {what} on cluster "{tenant.cluster}" already')
            service = context.cluster(tenant.cluster).service.user
            await connection.execute(script(rights.provision(tenant, spec, facts, service)))
            for role in custom:
                if role not in facts.roles:
                    await connection.execute(
                        f"CREATE ROLE {ident(role)} NOLOGIN;"
                        f"COMMENT ON ROLE {ident(role)} IS {literal(rights.mark(tenant))}"
                    )


async def _drop_target(run: Run) -> None:
    tenant = _there(run, await run.tenant())
    custom = (await estate_of(run.context, tenant)).roles[2:]
    if tenant.database is not None:
        async with run.context.admin(tenant.cluster) as connection:
            if not await database_exists(connection, tenant.database):
                return
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            facts = await read_facts(connection, (*rights.roles_of(tenant), *custom), tenant.schema_)
            for role in custom:
                if facts.roles.get(role) == rights.mark(tenant):
                    await connection.execute(script(rights.drop_custom_role(role, facts)))
            statements = rights.unprovision(tenant, facts)
            if statements:
                await connection.execute(script(statements))
    if tenant.database is not None and not run.data.get("database_was_there", True):
        await run.context.close_database(tenant.cluster, tenant.database)
        async with run.context.admin(tenant.cluster) as connection:
            await connection.execute(script(rights.drop_database(tenant.database)))


# --- the copy ------------------------------------------------------------------------------------------


async def _copy(run: Run) -> None:
    tenant = await run.tenant()
    here, there = _here(run, tenant), _there(run, tenant)
    estate = await estate_of(run.context, tenant)
    source, target = database_of(run.context, here), database_of(run.context, there)
    async with failing(here.cluster), source.connected() as connection:
        if await _exists(connection, run.data["kept"]):
            return  # killed between the switch and the catalog
        await _empty_target(run, target, tenant)
        with tempfile.TemporaryDirectory(prefix="tp-move-") as name:
            path = Path(name) / "tenant.tar"
            await _stop(run, MOVING)
            began = time.monotonic()
            async with _at_most(run.params.get("pause_s", PAUSE_S)) as limit:
                if run.context.rehearsal is None:
                    await _wait_for_clients(run, connection, tenant)
                async with connection.transaction(), reporting(run) as progress:
                    await _lock(connection, tenant.schema_)
                    manifest = await export(
                        source, estate, path, tenant=tenant.name, progress=progress, witness=connection
                    )
                    async with failing(there.cluster):
                        done = await restore.restore(target, path, make_roles=False, progress=progress)
                    # what comes now is not given up half-way
                    limit.reschedule(None)
                    await _close(connection, tenant.schema_, run.data["kept"], manifest)
    run.result = {
        "paused_s": round(time.monotonic() - began, 2),
        "tables": len(done.tables),
        "rows": sum(table.rows for table in manifest.tables),
        "notes": done.notes,
        "kept": f"{run.data['kept']} on {here.cluster}",
    }


async def _exists(connection: Connection, schema: str) -> bool:
    return bool(
        await connection.fetchval("SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1", schema)
    )


async def _empty_target(run: Run, target: Database, tenant: Tenant) -> None:
    """What an earlier try copied is copied anew: rows may have come since."""
    async with target.connected() as connection:
        filled = await connection.fetchval(
            "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n"
            " ON n.oid = c.relnamespace WHERE n.nspname = $1",
            tenant.schema_,
        )
    if filled:
        await _drop_target(run)
        await _make_target(run)


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield limit
    except TimeoutError:
        if not limit.expired():
            raise
        raise Failure(
            "busy",
            f"it could not be moved in {seconds:g} s, so its clients go on where it is",
            hint="let them wait longer (--pause), or move it when it is idle",
        ) from None


#: Who is at work in the schema, and who is connected as one of the tenant's own logins: proxies have closed
#: those connections that nobody holds.  Their ears hold nothing, and are in no transaction; a client may have
#: their name.
_AT_WORK: Final = """
SELECT a.pid, a.application_name, a.state, extract(epoch FROM now() - a.state_change)::int AS since
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
   AND (a.usename = ANY ($2::text[])
        AND (a.application_name <> 'tenant_proxy' OR a.state <> 'idle' OR a.xact_start IS NOT NULL)
        OR a.pid IN (SELECT l.pid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = $1 AND l.locktype = 'relation'
                        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                                           WHERE d.datname = pg_catalog.current_database())))
"""

#: logins of the tenant that are nobody else's where it is
_ITS_LOGINS: Final = """
SELECT s.server_user FROM login_secret s JOIN access a ON a.login = s.login
 WHERE a.tenant = $1 AND NOT EXISTS (
       SELECT FROM access o JOIN tenant t ON t.id = o.tenant
        WHERE o.login = a.login AND o.tenant <> $1 AND t.cluster = $2 AND t.state <> 'erased')
"""


async def _wait_for_clients(run: Run, connection: Connection, tenant: Tenant) -> None:
    """Until nobody is at work; for the tenant's grace time, and then it is given up, or they end."""
    context = run.context
    spec = effective.spec(await context.store.plan_of(tenant), tenant.spec)
    async with context.store.read() as catalog:
        users = [row[0] for row in await catalog.fetch(_ITS_LOGINS, tenant.id, run.data["from"])]
    clock = asyncio.get_running_loop()
    grace_s = float(spec.grace_s if spec.grace_s is not None else GRACE_S)
    deadline, forced = clock.time() + grace_s, False
    while at_work := await connection.fetch(_AT_WORK, tenant.schema_, users):
        if clock.time() < deadline:
            await asyncio.sleep(_POLL_S)
        elif not run.params.get("force"):
            raise _still_at_work(tenant, at_work, grace_s)
        elif not forced:
            # proxies tell their clients why; who is there without one, or stays, just ends
            forced, deadline = True, clock.time() + _PROXIES_END_S
            await _stop(run, MOVED)
        else:
            await connection.fetch(
                "SELECT pg_catalog.pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid",
                [row["pid"] for row in at_work],
            )
            await asyncio.sleep(_POLL_S)


def _still_at_work(tenant: Tenant, at_work: Sequence[asyncpg.Record], grace_s: float) -> Failure:
    shown = [
        f"pid {row['pid']} ({row['application_name'] or 'no name'}) {row['state']} for {row['since']} s"
        for row in at_work[:5]
    ]
    more = len(at_work) - len(shown)
    return Failure(
        "busy",
        f'{len(at_work)} sessions of tenant "{tenant.name}" still hold a connection after {grace_s:g} s',
        detail="; ".join(shown) + (f"; and {more} more" if more else ""),
        hint="SHOW PINS of the console tells why; --force ends them",
    )


async def _lock(connection: Connection, schema: str) -> None:
    """Nobody writes any more, until the end of the transaction."""
    rows = await connection.fetch(
        "SELECT c.relname::text AS name FROM pg_catalog.pg_class c"
        "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.oid",
        schema,
    )
    names = [f"{quote_name(schema)}.{quote_name(row['name'])}" for row in rows]
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
    if names:
        await connection.execute(f"LOCK TABLE {', '.join(names)} IN EXCLUSIVE MODE")


async def _close(connection: Connection, schema: str, kept: str, manifest: Manifest) -> None:
    """Under another name: whoever waits for a lock is ended rather than let write to what is left behind."""
    rows = await connection.fetch(
        "SELECT c.relname::text AS name FROM pg_catalog.pg_class c"
        "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relkind = 'r'",
        schema,
    )
    if {row["name"] for row in rows} != {table.name for table in manifest.tables}:
        raise Failure("conflict", "tables were made or dropped while it was copied", hint="move it again")
    await connection.execute(f"ALTER SCHEMA {quote_name(schema)} RENAME TO {quote_name(kept)}")
    await connection.execute(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        " WHERE pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(pid))"
    )


# --- the switch ----------------------------------------------------------------------------------------


async def _switch(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    await change.update_tenant(tenant, "tenant.move", cluster=run.params["cluster"])


async def _unswitch(run: Run) -> None:
    """Until the schema has its other name nothing was switched."""
    here = _here(run, await run.tenant())
    async with run.context.admin(here.cluster, here.database) as connection:
        if not await _exists(connection, run.data["kept"]):
            return
    raise Failure(
        "conflict",
        "the tenant is on its new cluster, where it may have been written to",
        hint=f"go on: tenant-proxy job resume {run.job.id}; or move it back",
    )


async def _settle_logins(run: Run) -> None:
    tenant = await run.tenant()
    async with run.context.store.read() as connection:
        names = [one.login for one in await logins.accesses(connection, tenant=tenant.name)]
        found = [await logins.need_login(connection, name) for name in names]
    for login in found:
        for cluster in (run.params["cluster"], run.data["from"]):
            await access.settle(run.context, login, cluster)


async def _stopped(run: Run, change: Change) -> None:
    """On its old cluster it serves again.  On the new one not before its logins are there."""
    if run.job.position <= _STEPS.index("copy"):
        await _as_before(run, change)


async def _as_before(run: Run, change: Change) -> None:
    """Active again, where it was."""
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state is State.SUSPENDED and tenant.reason in IN_MOVE:
        await change.update_tenant(
            tenant, "tenant.resume", state="active", suspended_at=None, reason=run.data["reason"]
        )


KIND_MOVE: Final = Kind("move", _steps, begin=_begin, end=_as_before, undone=_stopped, undoes=False)


# --- forgetting where it was ------------------------------------------------------------------------------


async def _forget_steps(run: Run) -> Sequence[Step]:
    return [Step("objects", do=_forget)]


async def _forget(run: Run) -> None:
    """Parameters: `cluster`, `database`, `own_database` and `kept`, the schema's name there."""
    tenant, params = await run.tenant(), run.params
    estate = await estate_of(run.context, tenant)
    old = Estate(params["kept"], estate.owner, estate.roles)
    cluster = run.context.cluster(params["cluster"])
    database = database_on(run.context, cluster.name, params["database"])
    async with failing(cluster.name), reporting(run) as progress:
        if not params["own_database"]:
            async with database.connected() as connection:
                await erasing.drop_large_objects(connection, old.all_roles(), progress)
                await erasing.drop_schema(connection, old.schema, progress)
                await ledger.forget(connection, tenant.schema_)
                await erasing.drop_roles(connection, database, old.all_roles())
            return
        await run.context.close_database(cluster.name, params["database"])
        async with database.named(cluster.database).connected() as connection:
            if await database_exists(connection, params["database"]):
                await connection.execute(script(rights.drop_database(params["database"])))
            await erasing.drop_roles(connection, database.named(cluster.database), old.all_roles())


KIND_FORGET: Final = Kind("forget", _forget_steps, undoes=False)
