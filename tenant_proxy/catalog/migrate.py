"""Brings the catalog's tables up to date: numbered files, each once, in order, whoever comes first.

Those that were applied are kept with a checksum: a file that was changed afterwards is found, and so is a
catalog that a newer version has been at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.catalog.failures import Failure

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SCHEMA: Final = "tenant_proxy"

#: two who migrate wait for each other: "tp_migra" as a number
_LOCK: Final = int.from_bytes(b"tp_migra", "big")

_TABLE: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC;
COMMENT ON SCHEMA {SCHEMA} IS 'catalog of tenant_proxy';
CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
    version int PRIMARY KEY,
    name text NOT NULL,
    checksum bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        return hashlib.sha256(self.sql.encode()).digest()


@dataclass(frozen=True, slots=True)
class Status:
    #: the newest that was applied; 0 when there is no catalog
    version: int
    pending: tuple[Migration, ...]

    @property
    def is_current(self) -> bool:
        return not self.pending


def migrations() -> tuple[Migration, ...]:
    """All there are, in order; NNNN_name.sql."""
    found = []
    for file in (Path(__file__).parent / "migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def is_missing(connection: Connection) -> bool:
    # in tables, as to_regclass goes by what the backend remembers, even behind a lock that was waited for
    return not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = 'migration')",
        SCHEMA,
    )


async def status(connection: Connection) -> Status:
    """Failure (outdated) where the catalog is not one that this version could have made."""
    if await is_missing(connection):
        return Status(0, migrations())
    return _status(await connection.fetch(_APPLIED))


_APPLIED: Final = f"SELECT version, name, checksum FROM {SCHEMA}.migration ORDER BY version"


def _status(rows: Sequence[asyncpg.Record]) -> Status:
    known = migrations()
    applied = {row["version"]: row for row in rows}
    newest = max(applied, default=0)
    if newest > max(migration.version for migration in known):
        raise Failure(
            "outdated",
            f"the catalog is at version {newest}, which this tenant-proxy does not know",
            hint="use the version that migrated it, or a newer one",
        )
    for migration in known:
        row = applied.get(migration.version)
        if row is not None and row["checksum"] != migration.checksum:
            raise Failure(
                "outdated",
                f'migration {migration.version:04} of the catalog ("{row["name"]}") is not the one of this'
                " tenant-proxy",
                hint="a released migration never changes: compare the installed versions",
            )
    return Status(newest, tuple(migration for migration in known if migration.version not in applied))


async def migrate(connection: Connection) -> tuple[Migration, ...]:
    """Applies what is missing, all in one transaction; returns what that was."""
    async with connection.transaction():
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", _LOCK)
        pending = (await status(connection)).pending
        if pending:
            await connection.execute(script(pending))
    return pending


def script(pending: tuple[Migration, ...]) -> str:
    """The SQL that applies them, to be run in one transaction."""
    parts = [_TABLE, f"SET LOCAL search_path = {SCHEMA}, pg_catalog, pg_temp;\n"]
    for migration in pending:
        parts.append(migration.sql)
        parts.append(
            f"INSERT INTO {SCHEMA}.migration (version, name, checksum)"
            f" VALUES ({migration.version}, '{migration.name}', '\\x{migration.checksum.hex()}');\n"
        )
    return "\n".join(parts)


async def check(connection: Connection) -> None:
    """Failure (outdated) unless the catalog is the one that this version works with."""
    try:
        found = _status(await connection.fetch(_APPLIED))
    except asyncpg.UndefinedTableError:
        found = Status(0, ())
    if found.version == 0:
        raise Failure(
            "outdated", "there is no catalog in this database", hint="make it: tenant-proxy db init"
        )
    if found.pending:
        raise Failure(
            "outdated",
            f"the catalog is at version {found.version}, this tenant-proxy needs {found.pending[-1].version}",
            hint="bring it up to date: tenant-proxy db migrate",
        )


async def grant_follower(connection: Connection, role: str) -> None:
    """What a proxy's login needs that only follows: the two views, and to add what it metered."""
    name = '"' + role.replace('"', '""') + '"'
    await connection.execute(
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {name};"
        f"GRANT SELECT ON {SCHEMA}.served_tenants, {SCHEMA}.served_logins, {SCHEMA}.migration TO {name};"
        f"GRANT SELECT, INSERT, UPDATE ON {SCHEMA}.usage, {SCHEMA}.usage_added TO {name};"
    )
