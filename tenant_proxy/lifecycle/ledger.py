"""What is kept beside the tenants in each database: which migrations each schema has had, and templates.

It is here and not in the catalog, so that a migration and the note of it are one transaction: whoever is
killed between the two would else do it twice.  The catalog has a copy, for reports.  It is in no tenant's
schema, so that nobody but the admin can touch it, and dumps of a schema are the tenant's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.catalog.failures import Failure

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SCHEMA: Final = "tp_lifecycle"

_MAKE: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
COMMENT ON SCHEMA {SCHEMA} IS 'tenant_proxy: migrations that tenants have had, and templates';
CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
    schema name NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schema, version)
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.template (
    schema name PRIMARY KEY,
    fingerprint text NOT NULL,
    script text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
"""
#: taken by whoever makes what is in it
LOCK: Final = int.from_bytes(b"tp_lifec", "big")


#: whose it is, where it is; what is in it runs, and is run, with the admin's rights
_THERE: Final = f"""
SELECT pg_catalog.to_regclass('{SCHEMA}.' || $1) IS NOT NULL AS there, r.rolname::text AS owner,
       r.rolsuper OR r.rolcreaterole OR r.rolname = current_user AS ours
  FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = '{SCHEMA}'
"""


async def _is_there(connection: Connection, table: str) -> bool:
    found = await connection.fetchrow(_THERE, table)
    if found is not None and not found["ours"]:
        raise Failure(
            "conflict",
            f'the schema "{SCHEMA}" is owned by "{found["owner"]}", who is no admin of the server',
            detail="Whoever owns it can have code run with the admin's rights.",
            hint=f"look at what is in it, and drop it; REVOKE CREATE ON DATABASE … FROM {found['owner']}",
        )
    return found is not None and bool(found["there"])


async def make(connection: Connection) -> None:
    """Makes it where it is missing."""
    if await _is_there(connection, "template"):
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL client_min_messages = warning")
        # two at once would make it twice
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(_MAKE)


async def exists(connection: Connection) -> bool:
    return await _is_there(connection, "migration")


async def migrations(
    connection: Connection, schemas: Sequence[str] | None = None
) -> dict[str, dict[int, tuple[str, str]]]:
    """schema -> version -> name and checksum; of all schemas if none are given."""
    if not await exists(connection):
        return {}
    rows = await connection.fetch(
        f"SELECT schema::text, version, name, checksum FROM {SCHEMA}.migration"
        " WHERE $1::text[] IS NULL OR schema::text = ANY ($1) ORDER BY schema, version",
        None if schemas is None else list(schemas),
    )
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(row["schema"], {})[row["version"]] = row["name"], row["checksum"]
    return found


async def as_list(connection: Connection, schema: str) -> list[dict[str, Any]]:
    """For an archive's manifest."""
    found = (await migrations(connection, [schema])).get(schema, {})
    return [{"version": version, "name": name, "checksum": sum_} for version, (name, sum_) in found.items()]


async def note(connection: Connection, schema: str, had: Iterable[dict[str, Any]]) -> None:
    """That a schema which came from elsewhere has had these."""
    rows = [(schema, one["version"], one["name"], one["checksum"]) for one in had]
    if not rows:
        return
    await make(connection)
    await connection.executemany(
        f"INSERT INTO {SCHEMA}.migration (schema, version, name, checksum) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING",
        rows,
    )


async def copy(connection: Connection, source: str, target: str) -> None:
    """That a copy is where its original is."""
    if await exists(connection):
        await connection.execute(
            f"INSERT INTO {SCHEMA}.migration (schema, version, name, checksum)"
            f" SELECT $2, version, name, checksum FROM {SCHEMA}.migration WHERE schema = $1"
            " ON CONFLICT DO NOTHING",
            source,
            target,
        )


async def forget(connection: Connection, schema: str) -> None:
    """All that is known of a schema."""
    if not await exists(connection):
        return
    await connection.execute(f"DELETE FROM {SCHEMA}.migration WHERE schema = $1", schema)
    await connection.execute(f"DELETE FROM {SCHEMA}.template WHERE schema = $1", schema)
