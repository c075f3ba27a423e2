"""Logins, their secrets and what they may, as the catalog has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.catalog.failures import not_found
from tenant_proxy.catalog.records import Access, CustomRole, Login, Secret

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_ACCESS: Final = """
SELECT l.name AS login, t.name AS tenant, a.level, coalesce(r.name, '') AS role,
       CASE a.level WHEN 'owner' THEN t.owner_role WHEN 'readwrite' THEN t.readwrite_role
                    WHEN 'readonly' THEN t.readonly_role ELSE r.server_role END AS server_role,
       a.expires_at, a.pending, a.is_default, a.created_at
  FROM access a JOIN login l ON l.id = a.login JOIN tenant t ON t.id = a.tenant
  LEFT JOIN custom_role r ON r.id = a.custom_role
"""

_PLACES: Final = """
SELECT t.id AS tenant, t.cluster, t.database, t.schema, a.expires_at,
       CASE a.level WHEN 'owner' THEN t.owner_role WHEN 'readwrite' THEN t.readwrite_role
                    WHEN 'readonly' THEN t.readonly_role ELSE r.server_role END AS role,
       coalesce((t.spec ->> 'connection_limit')::int, (p.spec ->> 'connection_limit')::int, 0)
           AS connection_limit
  FROM access a JOIN tenant t ON t.id = a.tenant LEFT JOIN plan p ON p.name = t.plan
  LEFT JOIN custom_role r ON r.id = a.custom_role
 WHERE a.login = $1 AND t.state <> 'erased'
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A right of a login where it is on a cluster."""

    tenant: int
    cluster: str
    #: None: the cluster's
    database: str | None
    schema: str
    expires_at: datetime | None
    role: str
    connection_limit: int


#: of an array of ranges asyncpg would ask what it is, which takes longer than all the rest of a grant
COLUMNS: Final = (
    "id, name, kind, claims, expires_at, coalesce(addresses::text[], '{}') AS addresses, max_clients,"
    " disabled, version, created_at, updated_at"
)
_LOGIN: Final = f"SELECT {COLUMNS} FROM login WHERE name = $1"


def login_of(row: Any) -> Login:
    given = dict(row)
    given["addresses"] = [str(address) for address in given["addresses"] or ()]
    return Login.of(given)


async def find_login(connection: Connection, name: str, *, lock: bool = False) -> Login | None:
    row = await connection.fetchrow(_LOGIN + (" FOR UPDATE" * lock), name)
    return None if row is None else Login.of(row)


async def need_login(connection: Connection, name: str, *, lock: bool = False) -> Login:
    return await find_login(connection, name, lock=lock) or not_found("login", name)


async def secrets(connection: Connection, login: int) -> list[Secret]:
    rows = await connection.fetch("SELECT * FROM login_secret WHERE login = $1 ORDER BY slot", login)
    return [Secret.of(row) for row in rows]


async def places(connection: Connection, login: int) -> list[Placed]:
    rows = await connection.fetch(_PLACES, login)
    return [Placed(**dict(row)) for row in rows]


_STANDING: Final = f"""
SELECT (SELECT coalesce(jsonb_object_agg(server_user, verifier), '{{}}')
          FROM login_secret WHERE login = $1) AS secrets,
       (SELECT coalesce(jsonb_agg(to_jsonb(place)), '[]') FROM ({_PLACES}) place) AS places
"""


async def standing(connection: Connection, login: int) -> tuple[dict[str, str], list[Placed]]:
    """Its verifiers by server user, and its places; by one statement."""
    row = await connection.fetchrow(_STANDING, login)
    assert row is not None
    places = [
        Placed(**{**one, "expires_at": one["expires_at"] and datetime.fromisoformat(one["expires_at"])})
        for one in row["places"]
    ]
    return row["secrets"], places


async def accesses(
    connection: Connection,
    *,
    tenant: str | None = None,
    login: str | None = None,
    after: tuple[str, str] = ("", ""),
    limit: int | None = None,
) -> list[Access]:
    """By tenant and login; those behind `after`, which is one of both."""
    rows = await connection.fetch(
        f"""{_ACCESS} WHERE t.state <> 'erased' AND ($1::text IS NULL OR t.name = $1)
               AND ($2::text IS NULL OR l.name = $2) AND (t.name, l.name) > ($3, $4)
             ORDER BY t.name, l.name LIMIT $5""",
        tenant,
        login,
        *after,
        limit,
    )
    return [Access.of(row) for row in rows]


async def find_access(connection: Connection, login: int, tenant: int) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "SELECT * FROM access WHERE login = $1 AND tenant = $2 FOR UPDATE", login, tenant
    )


async def custom_roles(connection: Connection, tenant: int) -> list[CustomRole]:
    rows = await connection.fetch("SELECT * FROM custom_role WHERE tenant = $1 ORDER BY name", tenant)
    return [CustomRole.of(row) for row in rows]
