"""The job that makes an existing schema a tenant's: mends what can be mended, and lays the tenant's rights.

One transaction does all of it, and nothing is undone: a schema that was there before is never dropped because
something failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import Spec, Tenant
from tenant_proxy.catalog.store import Change
from tenant_proxy.config.schema import merged
from tenant_proxy.lifecycle import adopting, provision, rights
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.facts import read_facts
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.jobs import Kind, Run, Step
from tenant_proxy.lifecycle.records import Problem
from tenant_proxy.lifecycle.sql import ident, literal, script

#: what it was granted by the catalog: its logins' roles on the server, and custom roles
_GRANTED: Final = """
SELECT s.server_user::text AS name, false AS own FROM login_secret s JOIN access a ON a.login = s.login
 WHERE a.tenant = $1
UNION ALL SELECT server_role::text, true FROM custom_role WHERE tenant = $1
"""


async def scan(context: Context, tenant: Tenant, logins: Sequence[str] = ()) -> list[Problem]:
    """`logins` are roles of the server that are the tenant's already."""
    owner, readwrite, readonly = rights.roles_of(tenant)
    async with context.store.read() as catalog:
        granted = await catalog.fetch(_GRANTED, tenant.id)
    custom = [row["name"] for row in granted if row["own"]]
    members = {str(row["name"]) for row in granted} | {context.cluster(tenant.cluster).service.user or ""}
    estate = Estate(tenant.schema_, owner, (readwrite, readonly, *custom, *logins))
    policy = merged(context.config.policy, tenant.spec.policy or {})
    async with context.admin(tenant.cluster, tenant.database) as connection:
        if not await connection.fetchval(
            "SELECT true FROM pg_catalog.pg_namespace WHERE nspname = $1", tenant.schema_
        ):
            raise Failure("not_found", f'there is no schema "{tenant.schema_}" on cluster "{tenant.cluster}"')
        return await adopting.scan(connection, estate, policy=policy, members=members)


async def _steps(run: Run) -> Sequence[Step]:
    return [Step("objects", do=_adopt)]


async def _adopt(run: Run) -> None:
    tenant = await run.tenant()
    found = await scan(run.context, tenant, run.params.get("logins", ()))
    left = [one for one in found if one.weight == "breaks" and not one.mend]
    if left and not run.params.get("accept"):
        raise Failure(
            "conflict",
            f"{len(left)} things break isolation that no rule mends: "
            + "; ".join(f"{one.object}: {one.what}" for one in left[:5]),
            hint="mend them, or adopt with --accept",
        )
    spec = Spec.model_validate(run.params["spec"])
    service = run.context.cluster(tenant.cluster).service.user
    async with run.context.admin(tenant.cluster, tenant.database) as connection:
        async with connection.transaction():
            facts = await read_facts(connection, rights.roles_of(tenant), tenant.schema_)
            _check_nobodys(tenant, facts)
            await provision.check_server(connection, tenant.cluster, spec)
            made = _owner(tenant, facts)
            mended = adopting.script(found)
            ours = rights.mark(tenant)
            comment = f"COMMENT ON SCHEMA {ident(tenant.schema_)} IS {literal(ours)};\n"
            await connection.execute(made + mended + comment)
            facts = replace(facts, roles={**facts.roles, tenant.owner_role: ours}, schema=ours)
            await connection.execute(script(rights.provision(tenant, spec, facts, service)))
    run.result = {
        "mended": sum(bool(one.mend) for one in found),
        "left": [one.as_dict() for one in found if not one.mend],
    }


def _check_nobodys(tenant: Tenant, facts: rights.Facts) -> None:
    """A schema or role of another tenant, or of another catalog, is not adopted."""
    ours = rights.mark(tenant)
    if (facts.schema or "").startswith("tenant_proxy:") and facts.schema != ours:
        raise Failure("exists", f'the schema "{tenant.schema_}" is another tenant\'s')
    for role, found in facts.roles.items():
        if found != ours:
            raise Failure("exists", f'there is a role "{role}" on cluster "{tenant.cluster}" already')


def _owner(tenant: Tenant, facts: rights.Facts) -> str:
    """The role that everything is given to; the others are made with the rights."""
    owner = tenant.owner_role
    if owner in facts.roles:
        return ""
    statements = [
        f"CREATE ROLE {ident(owner)} NOLOGIN",
        f"COMMENT ON ROLE {ident(owner)} IS {literal(rights.mark(tenant))}",
    ]
    if not facts.superuser:
        statements.append(rights.membership(owner, "CURRENT_USER", facts.major, inherit=True))
    return script(statements)


async def _adopted(run: Run, change: Change) -> None:
    await provision.ended(run, change)
    await change.audit(
        "tenant.adopt", "tenant", run.job.tenant_name, None, {"mended": run.result.get("mended")}
    )


KIND_ADOPT: Final = Kind("adopt", _steps, begin=provision.begun, end=_adopted, undone=provision.was_undone)
