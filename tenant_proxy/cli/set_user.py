"""Part of `check`: what the extension set_user means for tenants, where the server has it (decision 17)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

import asyncpg

from tenant_proxy.cli.catalogs import Catalogs
from tenant_proxy.lifecycle.sql import ident
from tenant_proxy.tenancy.registry import TenantInfo

#: how it is reported: severity, tenant, code, message, SQL
Found = Callable[[Literal["error", "info"], str, str, str, str], None]

_VERSION: Final = "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'set_user'"

#: functions by which a role becomes another, and which of the roles may run them
_BECOMES: Final = """
SELECT r.rolname::pg_catalog.text AS role,
       pg_catalog.quote_ident(n.nspname) || '.' || p.proname
         || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' AS function,
       NOT pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE') AS granted
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
   AND d.refobjid = e.oid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
  JOIN pg_catalog.pg_proc p ON p.oid = d.objid
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_roles r ON r.rolname = ANY ($1::pg_catalog.text[])
 WHERE e.extname = 'set_user' AND p.proname IN ('set_user', 'set_user_u', 'set_session_auth')
   AND NOT r.rolsuper AND pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')
 ORDER BY 1, 2
"""


async def judge(
    observer: asyncpg.Connection[asyncpg.Record],
    catalogs: Catalogs,
    runs_as: Iterable[tuple[TenantInfo, str]],
    found: Found,
) -> None:
    """`runs_as` are the roles that each tenant's statements run as."""
    version = await observer.fetchval(_VERSION)
    if version is None:
        return
    text = (
        f"the extension set_user {version} is there; shared backends are switched without it, as what it adds"
        " can be got around, and RESET ALL behind its switch ends the server"
    )
    found("info", "", "set_user_unused", text, "")
    tenants = {role: tenant for tenant, role in runs_as if role in catalogs.roles}
    for row in await observer.fetch(_BECOMES, sorted(tenants)):
        role, function = row["role"], row["function"]
        text = f'"{role}" may run {function}, by which it becomes whoever it likes'
        whom = ident(role) if row["granted"] else "PUBLIC"
        sql = f"REVOKE EXECUTE ON FUNCTION {function} FROM {whom};"
        found("error", tenants[role].name, "set_user_granted", text, sql)
