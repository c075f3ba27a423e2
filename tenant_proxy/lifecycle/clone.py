"""A tenant that begins as another is, or with the objects of a template.

A clone is an archive that nobody keeps: everything of one snapshot, checked row by row, and it may be on
another cluster.  A template's objects come from a script that is kept (`templates`), as a new tenant is not
to wait.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenant_proxy.catalog import logins
from tenant_proxy.catalog.records import Tenant
from tenant_proxy.catalog.states import PROVISIONED, conflict
from tenant_proxy.catalog.store import Change
from tenant_proxy.lifecycle import provision, templates
from tenant_proxy.lifecycle.estates import database_of, failing, roles_of
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.templates import Roles, TemplateError
from tenant_proxy.lifecycle.transfer import (
    drop_custom_roles,
    forget_custom_roles,
    make_custom_roles,
    restore_archive,
    write_archive,
)

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection


async def make(run: Run, tenant: Tenant, template: str, objects: Callable[..., Awaitable[bool]]) -> None:
    """Makes `objects` and, in the same transaction, the template's.  In a schema that is there by itself,
    unless there is something: it is one transaction, so what is there is all of it.
    """
    database = database_of(run.context, tenant)

    async def filled(connection: Connection) -> str:
        async with failing(tenant.cluster):
            script = await templates.current(connection, database, template, pattern)
            return templates.filled(script, roles_of(tenant))

    async def pattern(connection: Connection) -> Roles:
        return await _template(run, connection, tenant, template)

    if await objects(run, filled):
        return
    async with run.context.admin(tenant.cluster, tenant.database) as connection, failing(tenant.cluster):
        if not await connection.fetchval(_THERE, tenant.schema_):
            await connection.execute(await filled(connection))


#: whether there is anything in the schema $1
_THERE: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid
                WHERE n.nspname = $1 AND d.refclassid = 'pg_catalog.pg_namespace'::regclass
                  AND d.classid <> 'pg_catalog.pg_default_acl'::regclass)
"""


async def _template(run: Run, connection: Connection, tenant: Tenant, template: str) -> Roles:
    """Its roles, where it is a tenant's schema itself; else its rights are the standard ones."""
    async with run.context.store.read() as catalog:
        row = await catalog.fetchrow(
            "SELECT * FROM tenant WHERE schema = $1 AND cluster = $2 AND database IS NOT DISTINCT FROM $3"
            " AND state <> 'erased'",
            template,
            tenant.cluster,
            tenant.database,
        )
    if row is not None:
        return roles_of(Tenant.of(row))
    owner = await connection.fetchval(_OWNER, template)
    if owner is None:
        raise TemplateError(f'there is no schema "{template}" to begin with')
    return Roles(template, owner)


_OWNER: Final = """
SELECT r.rolname::text FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
 WHERE n.nspname = $1
"""


# --- clone ------------------------------------------------------------------------------------------


async def _steps(run: Run) -> Sequence[Step]:
    return [
        *await provision.bare_steps(run),
        Step("custom roles", do=_custom_roles, undo=drop_custom_roles, unrecord=forget_custom_roles),
        Step("copy", do=_copy),
    ]


async def _source(run: Run) -> Tenant:
    return await run.context.store.tenant_by_id(run.params["source"])


async def _custom_roles(run: Run) -> None:
    source = await _source(run)
    async with run.context.store.read() as connection:
        wanted = [
            one.model_dump(mode="json", include={"name", "server_role", "grants"})
            for one in await logins.custom_roles(connection, source.id)
        ]
    await make_custom_roles(run, await run.tenant(), wanted)


async def _copy(run: Run) -> None:
    source = await _source(run)
    if source.state not in PROVISIONED:
        raise conflict(source.name, source.state, "it has nothing to clone")
    with tempfile.TemporaryDirectory(prefix="tp-clone-") as name:
        path = Path(name) / "tenant.tar"
        await write_archive(run, source, path, None)
        await restore_archive(run, path, None, bool(run.params.get("accept")))
    run.result.pop("access", None)


async def _cloned(run: Run, change: Change) -> None:
    await provision.ended(run, change)
    source = await _source(run)
    await change.audit("tenant.clone", "tenant", run.job.tenant_name, None, {"source": source.name})


KIND_CLONE: Final = Kind("clone", _steps, begin=provision.begun, end=_cloned, undone=provision.was_undone)
