"""Installs the schemas in a database, takes them away, and says what is there.

All three work on an open connection; what the server refuses is an `asyncpg.PostgresError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.shims.generate import (
    COLUMNS_SQL,
    SCHEMAS,
    Column,
    Server,
    UnsupportedServer,
    label,
    script,
)
from tenant_proxy.shims.names import CATALOG

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: two installations at once wait for each other: "tp_catal" as a number
_LOCK: Final = int.from_bytes(b"tp_catal", "big")

_INSTALLED: Final = """
SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') FROM pg_catalog.pg_namespace n WHERE n.nspname = $1
"""

#: views and functions of others that were made of ours: a tenant's view of pg_class is one
_DEPENDENTS: Final = """
WITH ours AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY ($1::name[])),
relations AS (
    SELECT c.oid, c.reltype FROM pg_catalog.pg_class c WHERE c.relnamespace IN (SELECT oid FROM ours)),
functions AS (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace IN (SELECT oid FROM ours))
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0)
  FROM pg_catalog.pg_depend d
  LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid
 WHERE (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN (SELECT oid FROM relations)
        OR d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid IN (SELECT oid FROM functions)
        OR d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid IN (SELECT reltype FROM relations))
   AND NOT COALESCE(w.ev_class IN (SELECT oid FROM relations), false)
   AND NOT (d.classid = 'pg_catalog.pg_class'::regclass AND d.objid IN (SELECT oid FROM relations))
   AND NOT (d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid IN (SELECT oid FROM functions))
   AND d.classid <> 'pg_catalog.pg_type'::regclass
 ORDER BY 1
"""


#: schemas of ours that are owned by somebody who is no admin, and could change what all tenants call
_OTHERS: Final = """
SELECT n.nspname::text AS schema, r.rolname::text AS owner
  FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
 WHERE n.nspname = ANY ($1::text[]) AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolname = current_user)
"""


class Taken(UnsupportedServer):
    """A schema of ours is somebody else's."""


class InUse(Exception):
    """Something of others was made of what would have to go."""

    def __init__(self, dependents: list[str]) -> None:
        super().__init__(f"{len(dependents)} objects depend on it")
        self.dependents = dependents


@dataclass(frozen=True, slots=True)
class State:
    #: what stands in the database ("tenant_proxy 1 for PostgreSQL 17, 0a1b…"), None if nothing does
    installed: str | None
    #: what `install` would put there
    current: str

    @property
    def is_current(self) -> bool:
        return self.installed == self.current


async def read_server(connection: Connection) -> Server:
    columns: dict[tuple[str, str], list[Column]] = {}
    for schema, relation, column, kind in await connection.fetch(COLUMNS_SQL):
        columns.setdefault((schema, relation), []).append(Column(column, kind))
    return Server(connection.get_server_version().major, columns)


async def read_state(connection: Connection) -> State:
    """Any login may read this.  UnsupportedServer for majors that nobody has looked at."""
    rows = await connection.fetch(_INSTALLED, CATALOG)
    installed = (rows[0][0] or "made by somebody else") if rows else None
    return State(installed, label(await read_server(connection)))


def statements(server: Server) -> str:
    """What `install` runs, for whoever wants to read it, or to run it with psql."""
    return f"BEGIN;\n\n{script(server)}\nCOMMIT;\n"


def uninstall_statements() -> str:
    return f"BEGIN;\n\n{_drop(SCHEMAS)}\n\nCOMMIT;\n"


async def install(connection: Connection) -> bool:
    """False if all was there already.  In one transaction; InUse if an older version can't be replaced."""
    server = await read_server(connection)
    async with connection.transaction():
        await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
        if others := await connection.fetch(_OTHERS, list(SCHEMAS)):
            raise Taken(
                f'the schema "{others[0]["schema"]}" is owned by "{others[0]["owner"]}", who is no admin of'
                " the server, and could change what all tenants call: look at what is in it, and drop it"
            )
        if (await read_state(connection)).is_current:
            return False
        try:
            async with connection.transaction():
                await connection.execute(script(server))
        except (asyncpg.InvalidTableDefinitionError, asyncpg.InvalidFunctionDefinitionError):
            # other columns than before, as after an upgrade of the server: only a new view can have them
            await _drop_all(connection)
            await connection.execute(script(server))
    return True


async def uninstall(connection: Connection) -> bool:
    """False if nothing was there.  InUse if something of others was made of it."""
    async with connection.transaction():
        await connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({_LOCK})")
        if not await connection.fetch(_INSTALLED, CATALOG):
            return False
        await _drop_all(connection)
    return True


async def _drop_all(connection: Connection) -> None:
    dependents = [row[0] for row in await connection.fetch(_DEPENDENTS, list(SCHEMAS))]
    if dependents:
        raise InUse(dependents)
    await connection.execute(_drop(SCHEMAS))


def _drop(schemas: Iterable[str]) -> str:
    return f"DROP SCHEMA IF EXISTS {', '.join(schemas)} CASCADE;"
