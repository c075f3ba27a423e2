"""Part of `check`: whether the login of backends that tenants share is fit for it (decision 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

import asyncpg

from tenant_proxy.cli.catalogs import Catalogs
from tenant_proxy.config.schema import Cluster, Isolation
from tenant_proxy.lifecycle.sql import ident
from tenant_proxy.tenancy.registry import TenantInfo

#: how it is reported: severity, tenant, code, message, SQL
Found = Callable[[Literal["error", "warning"], str, str, str, str], None]

_OWNS: Final = """
SELECT pg_catalog.count(*) FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
 WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o' AND r.rolname = $1
"""

_INHERITS: Final = "SELECT r.rolinherit FROM pg_catalog.pg_roles r WHERE r.rolname = $1"


def is_wanted(tenants: Iterable[TenantInfo]) -> bool:
    return any(tenant.isolation is Isolation.SHARED for tenant in tenants)


async def judge(
    observer: asyncpg.Connection[asyncpg.Record],
    catalogs: Catalogs,
    cluster: Cluster,
    runs_as: Iterable[tuple[TenantInfo, str]],
    found: Found,
) -> None:
    """`runs_as` are the roles that each tenant's statements run as."""
    user = cluster.service.user
    if user is None:
        return  # the file's problem
    name = ident(user)
    role = catalogs.roles.get(user)
    if role is None:
        sql = f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD '…';"
        found("error", "", "service_missing", f'the service login "{user}" does not exist', sql)
        return
    if not role.can_login:
        text = f'the service login "{user}" may not log in'
        found("error", "", "service_nologin", text, f"ALTER ROLE {name} LOGIN;")
    for word, has in (
        ("SUPERUSER", role.superuser),
        ("BYPASSRLS", role.bypass_rls),
        ("CREATEROLE", role.create_role),
    ):
        if has:
            text = f'the service login "{user}" is {word}, so no tenant runs on shared backends'
            found("error", "", f"service_{word.lower()}", text, f"ALTER ROLE {name} NO{word};")
    major = observer.get_server_version().major
    options = " WITH INHERIT FALSE, SET TRUE" if major >= 16 else ""
    if major < 16 and await observer.fetchval(_INHERITS, user):
        text = f'the service login "{user}" inherits the rights of all tenants'
        found("error", "", "service_inherits", text, f"ALTER ROLE {name} NOINHERIT;")
    owned = await observer.fetchval(_OWNS, user)
    if owned:
        text = f'the service login "{user}" owns objects ({owned}); it should have nothing of its own'
        found("warning", "", "service_owns", text, f"REASSIGN OWNED BY {name} TO CURRENT_USER;")
    for tenant, other in runs_as:
        if tenant.isolation is not Isolation.SHARED or other not in catalogs.roles or other == user:
            continue
        grant = f"GRANT {ident(other)} TO {name}{options};"
        if not catalogs.may_become(user, other):
            text = f'the service login "{user}" can\'t become "{other}"'
            found("error", tenant.name, "service_not_a_member", text, grant)
        elif major >= 16 and catalogs.inherits(user, other):
            text = f'the service login "{user}" has the rights of "{other}" at all times'
            found("error", tenant.name, "service_inherits", text, grant)
