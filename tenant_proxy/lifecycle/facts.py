"""Reads from a cluster what `rights` needs to know before it writes SQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tenant_proxy.lifecycle.rights import Facts, LoginFacts

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.context import Connection

_SERVER: Final = """
SELECT pg_catalog.current_setting('server_version_num')::int / 10000 AS major,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER) AS superuser,
       EXISTS (SELECT FROM pg_catalog.pg_database d
                CROSS JOIN pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
                WHERE d.datname = pg_catalog.current_database()
                  AND a.grantee = 0 AND a.privilege_type = 'CONNECT') AS public_connects,
       (SELECT coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '')
          FROM pg_catalog.pg_namespace n WHERE n.nspname = $2) AS schema,
       ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r
              WHERE r.rolname = ANY ($1::text[]) ORDER BY r.rolname) AS roles,
       ARRAY(SELECT coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), '') FROM pg_catalog.pg_roles r
              WHERE r.rolname = ANY ($1::text[]) ORDER BY r.rolname) AS marks
"""


async def read_facts(connection: Connection, roles: Iterable[str], schema: str = "") -> Facts:
    """Of those of the roles that are there, and of a schema in the connection's database."""
    row = await connection.fetchrow(_SERVER, list(roles), schema)
    assert row is not None
    return Facts(
        major=row["major"],
        superuser=row["superuser"],
        roles=dict(zip(row["roles"], row["marks"], strict=True)),
        schema=row["schema"],
        public_connects=row["public_connects"],
    )


async def database_exists(connection: Connection, name: str) -> bool:
    return bool(await connection.fetchval("SELECT true FROM pg_catalog.pg_database WHERE datname = $1", name))


_LOGIN: Final = """
WITH users AS (
    SELECT r.oid, r.rolname::text AS name, pg_catalog.shobj_description(r.oid, 'pg_authid') AS mark
      FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[])),
databases AS (
    SELECT d.oid, d.datname::text AS name, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba)) AS acl
      FROM pg_catalog.pg_database d)
SELECT 'user' AS kind, u.name AS "user", coalesce(u.mark, '') AS name, NULL::text[] AS settings FROM users u
UNION ALL
SELECT 'superuser', '', '', NULL FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER AND r.rolsuper
UNION ALL
SELECT 'member', u.name, g.rolname::text, NULL FROM users u
  JOIN pg_catalog.pg_auth_members a ON a.member = u.oid JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
UNION ALL
SELECT 'setting', u.name, d.name, s.setconfig FROM users u
  JOIN pg_catalog.pg_db_role_setting s ON s.setrole = u.oid JOIN databases d ON d.oid = s.setdatabase
UNION ALL
SELECT DISTINCT 'connect', coalesce(u.name, ''), d.name, NULL::text[]
  FROM databases d CROSS JOIN LATERAL pg_catalog.aclexplode(d.acl) a LEFT JOIN users u ON u.oid = a.grantee
 WHERE a.privilege_type = 'CONNECT' AND (u.oid IS NOT NULL OR a.grantee = 0)
"""


async def read_login_facts(connection: Connection, server_users: Iterable[str]) -> LoginFacts:
    rows = await connection.fetch(_LOGIN, list(server_users))
    found = [(row["kind"], row["user"], row["name"]) for row in rows]
    return LoginFacts(
        major=connection.get_server_version().major,
        superuser=any(kind == "superuser" for kind, _, _ in found),
        users={user: mark for kind, user, mark in found if kind == "user"},
        memberships={(user, role) for kind, user, role in found if kind == "member"},
        settings={(row["user"], row["name"]): row["settings"] for row in rows if row["kind"] == "setting"},
        connects={(user, name) for kind, user, name in found if kind == "connect" and user},
        public_connects={name for kind, user, name in found if kind == "connect" and not user},
    )
