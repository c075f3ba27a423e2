"""The job that erases a tenant whose grace is over: its objects, roles and rights on the cluster, its rows in
the catalog, and then a scan that nothing is left.

What stays is the tenant's row with its name, state and times, entries of the log of changes (none has data or
secrets in it), and what was counted for invoices; the record says so.  It goes on where it was killed, and is
not undone: what is gone is gone.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy import __version__
from tenant_proxy.catalog import audit, effective, logins
from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.catalog.states import State, conflict
from tenant_proxy.catalog.store import Change
from tenant_proxy.lifecycle import access, certificate, erasing, inventory, ledger, provision, rights
from tenant_proxy.lifecycle.estates import database_of, database_on, estate_of, failing, reporting
from tenant_proxy.lifecycle.facts import database_exists
from tenant_proxy.lifecycle.inventory import Estate, Oids
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.reading import UNKNOWN, read_tables

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: what an erasure does not reach
STAYS: Final = (
    "the tenant's row in the catalog: its name, state and times",
    "the log of changes: what was done when and by whom, and names of logins; not what was changed",
    "usage that was counted for invoices",
    "archives that were exported of it",
    "backups, WAL archives and server logs, for as long as they are kept elsewhere",
)


#: texts of others that a record names
MOST_MENTIONS: Final = 200


async def _steps(run: Run) -> Sequence[Step]:
    tenant = await run.tenant()
    spec = effective.spec(await run.context.store.plan_of(tenant), tenant.spec)
    return [
        Step("look", do=_look),
        *(Step(f"service {name}", do=partial(_unserve, name)) for name in spec.services or ()),
        # from here on nobody may be it
        Step("logins", do=_drop_logins),
        Step("objects", do=_drop_objects),
        Step("roles", do=_drop_roles),
        Step("scan", do=_scan),
    ]


async def _estate(run: Run) -> Estate:
    """As it was when the job began: the catalog forgets custom roles on the way."""
    known = run.data.get("estate")
    if known is None:
        return await estate_of(run.context, await run.tenant())
    return Estate(known["schema"], known["owner"], tuple(known["roles"]))


async def _look(run: Run) -> None:
    if "items" in run.data:
        return  # a job before this one looked, and took some of it away
    run.data |= await _found(run)


async def _found(run: Run) -> dict[str, Any]:
    """What there is; all of it, or the next look is for nothing."""
    tenant = await run.tenant()
    estate = await estate_of(run.context, tenant)
    database = database_of(run.context, tenant)
    async with run.context.store.read() as connection:
        granted = [one.login for one in await logins.accesses(connection, tenant=tenant.name)]
    found: dict[str, Any] = {
        "logins": granted,
        "estate": {"schema": estate.schema, "owner": estate.owner, "roles": list(estate.roles)},
    }
    if tenant.database is not None:
        async with run.context.admin(tenant.cluster) as connection:
            if not await database_exists(connection, tenant.database):
                return found | {"oids": Oids((), ()).as_dict(), "items": [], "tables": []}
    async with failing(tenant.cluster), database.connected() as connection:
        others = await erasing.dependents(connection, estate.schema)
        if others and not run.params.get("cascade"):
            raise Failure(
                "conflict",
                f'objects of others are made of those of tenant "{tenant.name}": {"; ".join(others[:5])}',
                detail=f"{len(others)} in all; they would go with them",
                hint="drop them first, or erase with --cascade",
            )
        found["oids"] = (await inventory.oids(connection, estate)).as_dict()
        found["items"] = (await inventory.take(connection, estate)).as_list()
        if run.context.rehearsal is not None:  # its rows are counted for the record alone
            return found | {"tables": []}
        tables = await read_tables(database, estate, lenient=True)
    return found | {
        "tables": [[table.name, None if table.rows == UNKNOWN else table.rows] for table in tables]
    }


async def _unserve(name: str, run: Run) -> None:
    await provision.serve(run, name, "unprovision")


async def _take_access(change: Change, tenant: Tenant) -> None:
    for name in await change.connection.fetch(
        "SELECT l.name FROM access a JOIN login l ON l.id = a.login WHERE a.tenant = $1 ORDER BY 1", tenant.id
    ):
        await change.audit("access.revoke", "access", f"{name['name']} on {tenant.name}")
    await change.connection.execute("DELETE FROM access WHERE tenant = $1", tenant.id)
    await change.connection.execute(
        """UPDATE access SET is_default = true WHERE (login, tenant) IN (
               SELECT DISTINCT ON (login) login, tenant FROM access a
                WHERE NOT EXISTS (SELECT FROM access b WHERE b.login = a.login AND b.is_default)
                ORDER BY login, created_at)"""
    )


async def _drop_logins(run: Run) -> None:
    """Logins of nobody else go; those of others lose what is this tenant's."""
    async with run.context.store.change(run.context.actor, run.job.id) as change:
        tenant = await change.tenant(run.job.tenant_name)
        await _take_access(change, tenant)
    for name in run.data["logins"]:
        async with run.context.store.read() as connection:
            login = await logins.find_login(connection, name)
        if login is not None:
            await access.settle(run.context, login, tenant.cluster)


async def _drop_objects(run: Run) -> None:
    tenant, estate = await run.tenant(), await _estate(run)
    if tenant.database is not None:
        async with run.context.admin(tenant.cluster) as connection:
            exists = await database_exists(connection, tenant.database)
        if exists:
            async with failing(tenant.cluster), database_of(run.context, tenant).connected() as connection:
                await _end_prepared(connection, tenant, estate)
        await run.context.close_database(tenant.cluster, tenant.database)
        async with run.context.admin(tenant.cluster) as connection:
            if await database_exists(connection, tenant.database):
                for statement in rights.drop_database(tenant.database):
                    await connection.execute(statement)
        return
    async with failing(tenant.cluster), reporting(run) as progress:
        async with database_of(run.context, tenant).connected() as connection:
            await erasing.end_sessions(connection, estate.all_roles())
            await _end_prepared(connection, tenant, estate)
            await erasing.drop_large_objects(connection, estate.all_roles(), progress)
            try:
                await erasing.drop_schema(connection, estate.schema, progress)
            except asyncpg.LockNotAvailableError as error:
                raise Failure(
                    "conflict",
                    f'somebody holds what is tenant "{tenant.name}"\'s: {error}',
                    hint="pg_locks and pg_stat_activity of that database say who; then go on:"
                    f" tenant-proxy job resume {run.job.id}",
                ) from error
            await ledger.forget(connection, estate.schema)


async def _end_prepared(connection: Connection, tenant: Tenant, estate: Estate) -> None:
    others = await erasing.end_prepared(connection, estate)
    if others:
        shown = ", ".join(f'"{gid}" of {owner}' for gid, owner in others[:5])
        raise Failure(
            "conflict",
            f'prepared transactions of others hold what is tenant "{tenant.name}"\'s: {shown}',
            hint="COMMIT PREPARED or ROLLBACK PREPARED there, then go on: tenant-proxy tenant erase "
            + tenant.name,
        )


async def _drop_roles(run: Run) -> None:
    tenant, estate = await run.tenant(), await _estate(run)
    database = database_on(run.context, tenant.cluster)
    async with failing(tenant.cluster), database.connected() as connection:
        await erasing.forget_statements(connection, run.data["oids"]["roles"])
        try:
            await erasing.drop_roles(connection, database, estate.all_roles())
        except asyncpg.DependentObjectsStillExistError as error:
            raise Failure(
                "conflict",
                f'the admin of cluster "{tenant.cluster}" can\'t take away all that tenant "{tenant.name}"'
                f" has: {error.args[0]}",
                detail=error.detail or "",
                hint="let a superuser take it away or give it to somebody (REVOKE, ALTER … OWNER TO), then go"
                f" on: tenant-proxy job resume {run.job.id}",
            ) from error


async def _scan(run: Run) -> None:
    if run.context.rehearsal is not None:  # all of it
        run.data["scanned_at"] = _now()
        return
    tenant, estate = await run.tenant(), await _estate(run)
    database = database_on(run.context, tenant.cluster)
    async with failing(tenant.cluster), database.connected() as connection:
        left = await erasing.scan(connection, database, estate, Oids.from_dict(run.data["oids"]))
        if tenant.database is not None:
            # schemas of the name are others'
            left = tuple(
                item
                for item in left
                if item.kind != "schema"
                and not (item.kind == "setting" and item.detail.startswith("search_path="))
            )
            if await database_exists(connection, tenant.database):
                raise Failure("conflict", f'the database "{tenant.database}" is still there')
    if left:
        shown = "; ".join(f"{item.kind} {item.name} {item.detail}".rstrip() for item in left[:5])
        raise Failure(
            "conflict",
            f'{len(left)} things of tenant "{tenant.name}" are left: {shown}',
            hint=f"take them away and go on: tenant-proxy job resume {run.job.id}",
        )
    async with failing(tenant.cluster), database.connected() as connection:
        # in a database of its own the schema's name was nobody else's to name
        named = estate if tenant.database is None else replace(estate, schema="")
        found = await erasing.mentions(connection, database, named)
    run.data["mentions"] = [f"{item.kind} {item.name}" for item in found]
    run.data["scanned_at"] = _now()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# --- what the catalog says ------------------------------------------------------------------------


async def _begin(run: Run, change: Change) -> None:
    tenant = await change.tenant(run.job.tenant_name)
    if tenant.state is not State.DELETING and tenant.failed_from is not State.DELETING:
        hint = f"delete it first: tenant-proxy tenant delete {tenant.name}"
        raise conflict(tenant.name, tenant.state, "only a deleted tenant is erased", hint=hint)
    now = await change.now()
    if tenant.erase_after is not None and tenant.erase_after > now and not run.params.get("at_once"):
        raise Failure(
            "conflict",
            f'tenant "{tenant.name}" may be restored until {tenant.erase_after:%Y-%m-%d %H:%M:%S} UTC',
            hint="its grace is not over; erase with --now to end it",
        )
    before = await change.connection.fetchval(
        "SELECT data FROM job WHERE tenant = $1 AND kind = 'erase' AND state = 'failed'"
        " ORDER BY id DESC LIMIT 1",
        tenant.id,
    )
    run.data |= before or {}
    if tenant.state is not State.DELETING:
        await change.update_tenant(tenant, "tenant.delete", state="deleting", failed_from=None)


async def _end(run: Run, change: Change) -> None:
    """The record is in the log, too, whose chain covers it."""
    tenant = await change.tenant(run.job.tenant_name)
    for name in run.data["logins"]:
        await access.drop_unused(change, name)
    await change.connection.execute("DELETE FROM custom_role WHERE tenant = $1", tenant.id)
    await change.connection.execute("DELETE FROM token WHERE tenant = $1", tenant.id)
    await change.connection.execute("DELETE FROM tenant_migration WHERE tenant = $1", tenant.id)
    # what other jobs had been told of it
    await change.connection.execute(
        "UPDATE job SET params = '{}', data = '{}', result = NULL, progress = '{}',"
        """ error = CASE WHEN error IS NOT NULL THEN '{"code": "erased", "message": "erased"}'::jsonb END"""
        " WHERE tenant = $1 AND id <> $2",
        tenant.id,
        run.job.id,
    )
    # answers that were kept for who asks again, who is told that it was done
    await change.connection.execute(
        "UPDATE idempotency SET response = jsonb_set(response, '{body}', 'null') WHERE response IS NOT NULL"
        " AND jsonb_path_exists(response -> 'body', '$.** ? (@ == $name)',"
        " jsonb_build_object('name', $1::text))",
        tenant.name,
    )
    left = await change.connection.fetch(_KEPT, tenant.id, run.data["logins"])
    if left:
        raise Failure("conflict", "the catalog holds more of it: " + ", ".join(row["what"] for row in left))
    # who let it go: the one who erases it may be a proxy, once its grace is over
    deleted_by = await change.connection.fetchval(
        "SELECT actor FROM audit WHERE action = 'tenant.delete' AND kind = 'tenant' AND name = $1"
        " ORDER BY id DESC LIMIT 1",
        tenant.name,
    )
    now = await change.now()
    await change.update_tenant(
        tenant,
        "tenant.erase",
        state="erased",
        erased_at=now,
        spec={},
        labels={},
        sni=[],
        reason="",
        storage_bytes=0,
    )
    blanked = await audit.forget(change.connection, tenant.name, run.data["logins"])
    record = _record(run, tenant) | {"deleted_by": deleted_by, "log_blanked": blanked}
    key = run.context.config.lifecycle.signing_key
    signed = certificate.signed(record, None if key is None else certificate.read_private_key(key.reveal()))
    await change.audit(audit.ERASURE, "tenant", tenant.name, None, signed)
    run.data.clear()
    run.result = signed


#: what the catalog must not hold of it any more; $1 the tenant, $2 logins that it had
_KEPT: Final = """
SELECT 'access' AS what FROM access WHERE tenant = $1
UNION SELECT 'custom roles' FROM custom_role WHERE tenant = $1
UNION SELECT 'tokens' FROM token WHERE tenant = $1
UNION SELECT 'versions' FROM tenant_migration WHERE tenant = $1
UNION SELECT 'logins and their secrets' FROM login l WHERE l.name = ANY ($2::text[])
  AND NOT EXISTS (SELECT FROM access a WHERE a.login = l.id)
UNION SELECT 'what jobs noted' FROM job WHERE tenant = $1 AND kind <> 'erase'
  AND (params <> '{}' OR data <> '{}' OR result IS NOT NULL)
"""


def _record(run: Run, tenant: Tenant) -> dict[str, Any]:
    items: list[dict[str, str]] = run.data["items"]
    text = json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    kinds: dict[str, int] = {}
    for item in items:
        kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    mentions: list[str] = run.data.get("mentions", [])
    return {
        "format": certificate.FORMAT,
        "made_by": f"tenant_proxy {__version__}",
        "tenant": tenant.name,
        "tenant_id": tenant.id,
        "cluster": tenant.cluster,
        "database": run.context.database_of(tenant),
        "schema": tenant.schema_,
        "roles": sorted((run.data["estate"]["owner"], *run.data["estate"]["roles"])),
        "logins": run.data["logins"],
        "created_at": tenant.created_at.isoformat(timespec="seconds"),
        "erased_at": _now(),
        "requested_by": run.job.actor,
        "job": run.job.id,
        "removed": dict(sorted(kinds.items())),
        "removed_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "rows": dict(run.data["tables"]),
        "scan": {"at": run.data["scanned_at"], "left": 0},
        # texts of others in which its names stand, as far as they fit; others' to change
        "mentions": mentions[:MOST_MENTIONS],
        "mentioned": len(mentions),
        "stays": list(STAYS),
    }


KIND_ERASE: Final = Kind("erase", _steps, begin=_begin, end=_end, undoes=False)
