"""The job that makes an existing schema a tenant's: mends what can be mended, and lays the tenant's rights.

One transaction does all of it, and nothing is undone: a schema that was there before is never dropped because
something failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg

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
from tenant_proxy.lifecycle.sql import ident, idents, literal, script

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection

#: what it was granted by the catalog: its logins' roles on the server, and custom roles
_GRANTED: Final = """
SELECT s.server_user::text AS name, false AS own FROM login_secret s JOIN access a ON a.login = s.login
 WHERE a.tenant = $1
UNION ALL SELECT server_role::text, true FROM custom_role WHERE tenant = $1
"""


async def scan(context: Context, tenant: Tenant, logins: Sequence[str] = ()) -> list[Problem]:
    """`logins` are roles of the server that are the tenant's already."""
    estate, members = await _estate(context, tenant, logins)
    policy = merged(context.config.policy, tenant.spec.policy or {})
    async with context.admin(tenant.cluster, tenant.database) as connection:
        facts = await read_facts(connection, [tenant.owner_role], tenant.schema_)
        if facts.schema is None:
            raise Failure("not_found", f'there is no schema "{tenant.schema_}" on cluster "{tenant.cluster}"')
        found = await adopting.scan(connection, estate, policy=policy, members=members)
        if tenant.owner_role not in facts.roles:
            admin = await connection.fetchval("SELECT CURRENT_USER::text")
            what = "the role that all of it is to belong to is not there yet"
            mend = _owner(tenant, facts, admin).rstrip("\n")
            found.append(Problem("note", adopting.OWNER_MISSING, ident(tenant.owner_role), what, mend))
    return found


async def _estate(context: Context, tenant: Tenant, logins: Sequence[str]) -> tuple[Estate, set[str]]:
    """What is to be the tenant's, and who may be a member of its roles."""
    owner, readwrite, readonly = rights.roles_of(tenant)
    async with context.store.read() as catalog:
        granted = await catalog.fetch(_GRANTED, tenant.id)
    custom = [row["name"] for row in granted if row["own"]]
    members = {str(row["name"]) for row in granted} | {context.cluster(tenant.cluster).service.user or ""}
    return Estate(tenant.schema_, owner, (readwrite, readonly, *custom, *logins)), members


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
            await _check_owners(run, connection, tenant)
            mended = adopting.script(found)
            ours = rights.mark(tenant)
            comment = f"COMMENT ON SCHEMA {ident(tenant.schema_)} IS {literal(ours)};\n"
            try:
                await connection.execute(mended + comment)
            except asyncpg.InsufficientPrivilegeError as error:
                raise Failure(
                    "conflict",
                    f'the admin login of cluster "{tenant.cluster}" may not mend what is there: {error}',
                    hint=_SUPERUSER.format(tenant.name),
                ) from None
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


_SUPERUSER: Final = "let a superuser run what this prints, and adopt then: tenant-proxy tenant scan {} --sql"


async def _check_owners(run: Run, connection: Connection, tenant: Tenant) -> None:
    """Only who has an owner's rights can give away what it has."""
    estate, _ = await _estate(run.context, tenant, run.params.get("logins", ()))
    owners = await adopting.out_of_reach(connection, estate)
    if not owners:
        return
    admin = await connection.fetchval("SELECT CURRENT_USER::text")
    names = ", ".join(f'"{name}"' for name in owners)
    if any(owners.values()):
        hint = _SUPERUSER.format(tenant.name)
    else:
        hint = f"GRANT {idents(owners)} TO {ident(admin)} there; or " + _SUPERUSER.format(tenant.name)
    raise Failure(
        "conflict",
        f'what is in schema "{tenant.schema_}" belongs to {names}, and the admin login "{admin}" of cluster'
        f' "{tenant.cluster}" has not their rights',
        hint=hint,
    )


def _owner(tenant: Tenant, facts: rights.Facts, admin: str) -> str:
    """The role that everything is given to; the others are made with the rights.  Who makes it gives it to
    the admin, whose the rights are to be then.
    """
    owner = tenant.owner_role
    statements = [
        f"CREATE ROLE {ident(owner)} NOLOGIN",
        f"COMMENT ON ROLE {ident(owner)} IS {literal(rights.mark(tenant))}",
    ]
    if not facts.superuser:
        options = " WITH ADMIN TRUE, INHERIT TRUE, SET TRUE" if facts.major >= 16 else " WITH ADMIN OPTION"
        itself = rights.membership(owner, "CURRENT_USER", facts.major, inherit=True)
        # who made it has the ADMIN option, and can't be given it again
        statements.append(
            f"DO $$ BEGIN IF CURRENT_USER = {literal(admin)} THEN {itself};"
            f" ELSE GRANT {ident(owner)} TO {ident(admin)}{options}; END IF; END $$"
        )
    return script(statements)


async def _adopted(run: Run, change: Change) -> None:
    await provision.ended(run, change)
    await change.audit(
        "tenant.adopt", "tenant", run.job.tenant_name, None, {"mended": run.result.get("mended")}
    )


KIND_ADOPT: Final = Kind("adopt", _steps, begin=provision.begun, end=_adopted, undone=provision.was_undone)
