"""Part of `check`: what keeps all tenants that share a schema from shared backends (decision 12).

A tenant's own code is the tenant's matter.  What an operator has put into `public`, by an extension
mostly, takes all tenants along if the guard can't prove it harmless.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, Literal

import asyncpg

from tenant_proxy.config.schema import Isolation
from tenant_proxy.guard.judge import Guard
from tenant_proxy.lifecycle.sql import ident
from tenant_proxy.relay.code import function_doubt, scope_of
from tenant_proxy.relay.code_catalogs import SYSTEM_SCHEMAS, read_functions
from tenant_proxy.tenancy.registry import TenantInfo

#: how it is reported: severity, tenant, code, message, SQL
Found = Callable[[Literal["warning"], str, str, str, str], None]

ELSEWHERE: Final = "a schema that no policy allows"
#: such a schema, where what mends it puts extensions
ASIDE: Final = "operators_extensions"

_MOVABLE: Final = (
    "SELECT e.extname::pg_catalog.text AS extname, e.extrelocatable FROM pg_catalog.pg_extension e"
)


async def judge(
    observer: asyncpg.Connection[asyncpg.Record],
    tenants: Iterable[TenantInfo],
    of_catalog: TenantInfo | None,
    runs_as: Iterable[tuple[TenantInfo, str]],
    found: Found,
) -> None:
    """`of_catalog` stands for those that are not among `tenants`; `runs_as` are the roles of these."""
    own = {tenant.schema for tenant in tenants}
    readers: dict[str, list[TenantInfo]] = defaultdict(list)
    for tenant in (*tenants, *([of_catalog] if of_catalog is not None else ())):
        if tenant.isolation is Isolation.SHARED:
            for schema in {*tenant.policy.allowed_schemas, *SYSTEM_SCHEMAS} - own:
                readers[schema].append(tenant)
    if not readers:
        return
    roles: dict[str, set[str]] = defaultdict(set)
    for tenant, role in runs_as:
        roles[tenant.name].add(role)
    scopes = {schema: scope_of(those[0], roles[those[0].name]) for schema, those in readers.items()}
    movable = {row["extname"]: row["extrelocatable"] for row in await observer.fetch(_MOVABLE)}
    guard = Guard()
    told: set[tuple[str, str]] = set()
    for row in await read_functions(observer, readers.keys() - set(SYSTEM_SCHEMAS)):
        schema, extension = row["schema"], row["extension"]
        thing = schema, extension or row["name"]
        if thing in told:
            continue
        doubt = function_doubt(guard, scopes[schema], row)
        if not doubt:
            continue
        told.add(thing)
        of, mends, sql = "", f"it belongs in {ELSEWHERE}", ""
        if extension is not None:
            of = f' (extension "{extension}")'
            if movable[extension]:
                mends = f"move it to {ELSEWHERE}"
                move = f"ALTER EXTENSION {ident(extension)} SET SCHEMA {ASIDE};"
                sql = f"CREATE SCHEMA IF NOT EXISTS {ASIDE}; {move}"
            else:
                mends = f"drop it and create it in {ELSEWHERE}, as it can't be moved"
        text = (
            f'{doubt}{of}, so {_names(readers[schema], of_catalog)}, which may read schema "{schema}", gets'
            f" no shared backends; if it is not for tenants, {mends}"
        )
        found("warning", "", "no_shared_backends", text, sql)


def _names(tenants: list[TenantInfo], of_catalog: TenantInfo | None) -> str:
    if of_catalog in tenants:
        return "every tenant of the catalog"
    if len(tenants) == 1:
        return f"tenant {tenants[0].name}"
    return f"each of {len(tenants)} tenants ({tenants[0].name} …)"
