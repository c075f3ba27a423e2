"""The job that makes a tenant's objects on its cluster, or lays their rights anew.

Parameters: `spec` (the effective one), and `repair` for a tenant that is provisioned already: there nothing
is undone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Spec, Tenant
from tenant_proxy.catalog.states import State
from tenant_proxy.catalog.store import Change
from tenant_proxy.lifecycle import rights, services
from tenant_proxy.lifecycle.facts import database_exists, read_facts
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.sql import ident, script

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection


def _spec(run: Run) -> Spec:
    """As it was when the job began, so that its steps stay the same."""
    return Spec.model_validate(run.params["spec"])


async def bare_steps(run: Run) -> list[Step]:
    """Those that make an empty schema with its roles and rights."""
    tenant = await run.placed()
    steps: list[Step] = []
    if tenant.database is not None:
        steps.append(Step("look", do=_look))
        steps.append(Step("database", do=_make_database, undo=_drop_database))
    steps.append(Step("objects", do=_make_bare_objects, undo=_drop_objects))
    return steps


async def _steps(run: Run) -> Sequence[Step]:
    spec = _spec(run)
    steps = await bare_steps(run)
    if spec.template and not run.params.get("repair"):
        # undone alike, so that both are one step, and one transaction on the cluster
        steps[-1] = Step(steps[-1].name, do=_make_from_template, undo=steps[-1].undo)
    steps += [
        Step(f"service {name}", do=partial(_serve, name), undo=partial(_unserve, name))
        for name in spec.services or ()
    ]
    return steps


# --- the database, where it is its own ---------------------------------------------------------------


async def _look(run: Run) -> None:
    """Whether the database is there before anything is made: only what this job made is ever dropped."""
    tenant = await run.tenant()
    assert tenant.database is not None
    async with run.context.admin(tenant.cluster) as connection:
        run.data["database_was_there"] = await database_exists(connection, tenant.database)
    if run.data["database_was_there"] and tenant.provisioned_at is None:
        raise Failure(
            "exists",
            f'there is a database "{tenant.database}" on cluster "{tenant.cluster}" already',
            hint="choose another: tenant-proxy tenant create --database NAME",
        )


async def _make_database(run: Run) -> None:
    tenant = await run.tenant()
    assert tenant.database is not None
    spec = _spec(run)
    async with run.context.admin(tenant.cluster) as connection:
        await check_server(connection, tenant.cluster, spec)
        if not await database_exists(connection, tenant.database):
            # not in a transaction: PostgreSQL makes databases in none
            for statement in rights.create_database(tenant.database, spec.tablespace):
                await connection.execute(statement)
        await connection.execute(script(rights.close_database(tenant.database)))


async def _drop_database(run: Run) -> None:
    tenant = await run.tenant()
    assert tenant.database is not None
    if run.data.get("database_was_there", True):
        return
    await run.context.close_database(tenant.cluster, tenant.database)
    async with run.context.admin(tenant.cluster) as connection:
        if await database_exists(connection, tenant.database):
            await connection.execute(script(rights.drop_database(tenant.database)))


# --- schema, roles, rights -----------------------------------------------------------------------------


async def _make_bare_objects(run: Run) -> None:
    await _make_objects(run)


async def _make_from_template(run: Run) -> None:
    template = _spec(run).template
    assert template is not None
    await import_module(_TEMPLATES).make(run, await run.placed(), template, _make_objects)


#: has `make(run, tenant, template, objects)`, which may be run again
_TEMPLATES: Final = "tenant_proxy.lifecycle.clone"


async def _make_objects(run: Run, *more: Callable[[Connection], Awaitable[str]]) -> bool:
    """`more`: SQL that makes what is in the schema, of the same transaction where the schema is new; whether
    that is so.
    """
    tenant = await run.placed()
    spec = _spec(run)
    service = run.context.cluster(tenant.cluster).service.user
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        facts = await read_facts(connection, rights.roles_of(tenant), tenant.schema_)
        if not run.params.get("repair"):
            _check_nobodys(tenant, facts)
        await check_server(connection, tenant.cluster, spec)
        sql = script(rights.provision(tenant, spec, facts, service))
        if facts.schema is None:
            sql += "".join([await one(connection) for one in more])
        # one message, and so one transaction
        await connection.execute(sql)
    return facts.schema is None


async def check_server(connection: Connection, cluster: str, spec: Spec) -> None:
    """What is asked for and the server does not have: told before anything is made, and in words of ours, as
    PostgreSQL's name a file of the server.
    """
    if not spec.extensions and not spec.tablespace:
        return
    row = await connection.fetchrow(_SERVER_HAS, spec.extensions or [], spec.tablespace or None)
    assert row is not None
    if row["extensions"]:
        raise Failure(
            "invalid",
            f'cluster "{cluster}" has no extension "{row["extensions"][0]}"',
            hint="install it on that server, or take it out of `extensions` of the tenant or its plan",
        )
    if row["superusers"]:
        name = row["superusers"][0]
        raise Failure(
            "invalid",
            f'the extension "{name}" is not in the database, and the admin login "{row["admin"]}" of cluster'
            f' "{cluster}" may not create it',
            hint=f"let a superuser run there: CREATE EXTENSION {ident(name)} SCHEMA public (where tenants"
            " have databases of their own, in template1)",
        )
    if spec.tablespace == "pg_global":
        raise Failure(
            "invalid",
            'the tablespace "pg_global" is for what all databases of a server share',
            hint="choose another `tablespace`, or none, which is the database's own",
        )
    if not row["has_tablespace"]:
        raise Failure(
            "invalid",
            f'cluster "{cluster}" has no tablespace "{spec.tablespace}"',
            hint="CREATE TABLESPACE there, or take `tablespace` out of the tenant or its plan",
        )
    if not row["may_grant"]:
        name, admin = ident(spec.tablespace or ""), ident(row["admin"])
        raise Failure(
            "invalid",
            f'the admin login "{row["admin"]}" of cluster "{cluster}" may not let tenants use the tablespace'
            f' "{spec.tablespace}"',
            hint=f"GRANT CREATE ON TABLESPACE {name} TO {admin} WITH GRANT OPTION, or give no `tablespace`,"
            " which is the database's own",
        )


#: $1 extensions, $2 a tablespace or NULL
_SERVER_HAS: Final = """
WITH missing AS (SELECT name FROM unnest($1::text[]) AS name
                  WHERE name NOT IN (SELECT e.extname FROM pg_catalog.pg_extension e))
SELECT ARRAY(SELECT m.name FROM missing m
              WHERE m.name NOT IN (SELECT e.name FROM pg_catalog.pg_available_extensions() e)) AS extensions,
       ARRAY(SELECT m.name FROM missing m
               JOIN pg_catalog.pg_available_extensions() e ON e.name = m.name
               JOIN pg_catalog.pg_available_extension_versions() v
                 ON v.name = e.name AND v.version = e.default_version
              WHERE v.superuser AND NOT v.trusted AND NOT r.rolsuper) AS superusers,
       $2::text IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = $2) AS has_tablespace,
       $2::text IS NULL OR EXISTS (
           SELECT FROM pg_catalog.pg_tablespace t WHERE t.spcname = $2
              AND pg_catalog.has_tablespace_privilege(t.oid, 'CREATE WITH GRANT OPTION')) AS may_grant,
       r.rolname::text AS admin
  FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER
"""


def _check_nobodys(tenant: Tenant, facts: rights.Facts) -> None:
    """What is there already must have been made for this tenant: an earlier try did not come to its end."""
    ours = rights.mark(tenant)
    if facts.schema is not None and facts.schema != ours:
        raise Failure(
            "exists",
            f'there is a schema "{tenant.schema_}" on cluster "{tenant.cluster}" already',
            hint=f"make it the tenant's: tenant-proxy tenant adopt {tenant.name}",
        )
    others = [role for role, found in facts.roles.items() if found != ours]
    if others:
        raise Failure(
            "exists",
            f'there is a role "{others[0]}" on cluster "{tenant.cluster}" already',
            hint="another catalog may have a tenant of this name on the cluster",
        )


async def _drop_objects(run: Run) -> None:
    tenant = await run.tenant()
    if run.params.get("repair"):
        return  # they were there before
    if tenant.database is not None:
        async with run.context.admin(tenant.cluster) as connection:
            if not await database_exists(connection, tenant.database):
                return
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            facts = await read_facts(connection, rights.roles_of(tenant), tenant.schema_)
            statements = rights.unprovision(tenant, facts)
            if statements:
                await connection.execute(script(statements))


# --- services -------------------------------------------------------------------------------------------


async def _serve(name: str, run: Run) -> None:
    made = await serve(run, name, "provision")
    if made is not None:
        run.result.setdefault("services", {})[name] = made


async def _unserve(name: str, run: Run) -> None:
    if not run.params.get("repair"):
        await serve(run, name, "unprovision")


async def serve(run: Run, name: str, action: services.Action) -> dict[str, Any] | None:
    if run.context.rehearsal is not None:
        run.context.rehearsal.note(f"service {name}: {action}")
        return None
    return await services.call(name, action, await run.tenant(), run.context.config)


# --- what the catalog says ------------------------------------------------------------------------------


async def _current(run: Run, change: Change) -> Tenant:
    return await change.tenant(run.job.tenant_name)


async def begun(run: Run, change: Change) -> None:
    tenant = await _current(run, change)
    if run.params.get("repair"):
        return
    await change.update_tenant(
        tenant, "tenant.provision", state=State.PROVISIONING.value, failed_from=None, reason=""
    )


async def ended(run: Run, change: Change) -> None:
    tenant = await _current(run, change)
    if run.params.get("repair"):
        await change.audit("tenant.repair", "tenant", tenant.name)
        return
    now = await change.now()
    await change.update_tenant(tenant, "tenant.ready", state=State.READY.value, provisioned_at=now)


async def was_undone(run: Run, change: Change) -> None:
    if run.params.get("repair"):
        return
    tenant = await _current(run, change)
    error: dict[str, Any] = run.job.error or {}
    await change.update_tenant(
        tenant,
        "tenant.fail",
        state=State.FAILED.value,
        failed_from=State.PROVISIONING.value,
        reason=str(error.get("message", "provisioning was undone")),
    )


KIND_PROVISION: Final = Kind("provision", _steps, begin=begun, end=ended, undone=was_undone, together=True)
