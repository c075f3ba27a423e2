"""A tenant's objects and roles taken off a cluster, for good, and the scan that says so.

Each function may be run again, wherever the one before was killed: what is gone already is passed over.  It
goes in pieces, as one transaction that drops ten thousand tables wants more locks than a server has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.lifecycle import inventory, rights
from tenant_proxy.lifecycle.inventory import Estate, Item
from tenant_proxy.lifecycle.reading import Progress, silent
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.lifecycle.sql import literal
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: objects dropped in one transaction
_PIECE: Final = 100
_LARGE_PIECE: Final = 1000
#: others that hold a lock on what has to go are waited for this long, then the step is tried again later
_LOCK_TIMEOUT: Final = "10s"

#: what others have made of the tenant's objects: dropping these would drop that
_DEPENDENTS: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
m AS MATERIALIZED ({inventory.members("ns")}),
-- toast tables, partitions' and ranges' parts, members of operator families: no objects of their own
parts AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN m ON m.classid = d.refclassid
       AND m.objid = d.refobjid WHERE d.deptype IN ('i', 'P', 'S'))
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS dependent
  FROM pg_catalog.pg_depend d
  JOIN m ON m.classid = d.refclassid AND m.objid = d.refobjid
 WHERE d.deptype IN ('n', 'a', 'e')
   AND NOT EXISTS (SELECT FROM m AS o WHERE o.classid = d.classid AND o.objid = d.objid)
   AND NOT EXISTS (SELECT FROM parts p WHERE p.classid = d.classid AND p.objid = d.objid)
   AND d.classid NOT IN ('pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
 ORDER BY 1
"""


async def dependents(connection: Connection, schema: str) -> list[str]:
    """Objects outside of the schema that would go with it."""
    rows = await connection.fetch(_DEPENDENTS, schema)
    return [row["dependent"] for row in rows]


_TABLES: Final = """
SELECT c.relname::text AS name, c.relkind::text AS kind FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
   -- what an extension has goes with it
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY c.oid DESC
"""
_DROPS: Final = {
    "r": "TABLE",
    "p": "TABLE",
    "f": "FOREIGN TABLE",
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
}


async def drop_schema(connection: Connection, schema: str, progress: Progress = silent) -> None:
    tables = await connection.fetch(_TABLES, schema)
    total = len(tables)
    quoted = quote_name(schema)
    # what is few enough goes with the schema
    for first in range(0, total if total > _PIECE else 0, _PIECE):
        async with connection.transaction():
            await _quietly(connection)
            for row in tables[first : first + _PIECE]:
                await connection.execute(
                    f"DROP {_DROPS[row['kind']]} IF EXISTS {quoted}.{quote_name(row['name'])} CASCADE"
                )
        progress("drop", min(first + _PIECE, total), total)
    async with connection.transaction():
        await _quietly(connection)
        await connection.execute(f"DROP SCHEMA IF EXISTS {quoted} CASCADE")
    progress("drop", total, total)


async def _quietly(connection: Connection) -> None:
    await connection.execute(
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; SET LOCAL client_min_messages = warning;"
        " SET LOCAL statement_timeout = 0"
    )


async def drop_large_objects(
    connection: Connection, roles: Sequence[str], progress: Progress = silent
) -> int:
    """Those that the roles own in this database."""
    owned = (
        "SELECT l.oid FROM pg_catalog.pg_largeobject_metadata l"
        " JOIN pg_catalog.pg_roles r ON r.oid = l.lomowner WHERE r.rolname = ANY ($1::text[])"
    )
    total = int(await connection.fetchval(f"SELECT count(*) FROM ({owned}) AS l", list(roles)))
    for first in range(0, total, _LARGE_PIECE):
        await connection.execute(
            f"SELECT count(pg_catalog.lo_unlink(l.oid)) FROM ({owned} LIMIT {_LARGE_PIECE}) AS l", list(roles)
        )
        progress("large objects", min(first + _LARGE_PIECE, total), total)
    return total


async def end_sessions(connection: Connection, roles: Sequence[str]) -> None:
    """Nobody comes in as one of them any more, and whoever is in is put out."""
    known = await _existing(connection, roles)
    if not known:
        return
    await connection.execute("".join(f"ALTER ROLE {quote_name(role)} NOLOGIN;" for role in known))
    await connection.execute(
        "SELECT count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(pid))"
        " FROM pg_catalog.pg_stat_activity"
        " WHERE usename = ANY ($1::text[]) AND pid <> pg_catalog.pg_backend_pid()",
        known,
    )


_PREPARED: Final = """
SELECT p.gid, p.owner::text AS owner, p.owner = ANY ($2::text[]) AS is_own FROM pg_catalog.pg_prepared_xacts p
 WHERE p.database = pg_catalog.current_database()
   AND (p.owner = ANY ($2::text[]) OR EXISTS (
        SELECT FROM pg_catalog.pg_locks itself
          JOIN pg_catalog.pg_locks l ON l.virtualtransaction = itself.virtualtransaction AND l.pid IS NULL
          JOIN pg_catalog.pg_class c ON c.oid = l.relation
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE itself.transactionid = p.transaction AND itself.pid IS NULL AND n.nspname = $1))
 ORDER BY p.gid
"""


async def end_prepared(connection: Connection, estate: Estate) -> list[tuple[str, str]]:
    """Rolls back what the roles have prepared to commit, which ends with no session; those of others that
    hold something of the schema are left: their names and owners.
    """
    roles = await _existing(connection, estate.all_roles())
    rows = await connection.fetch(_PREPARED, estate.schema, roles)
    own = [row for row in rows if row["is_own"]]
    if own:
        await _become_able(connection, roles)
    for row in own:
        # its owner alone may, or a superuser; in no transaction
        await connection.execute(f"SET ROLE {quote_name(row['owner'])}")
        try:
            await connection.execute(f"ROLLBACK PREPARED {literal(row['gid'])}")
        finally:
            await connection.execute("RESET ROLE")
    return [(row["gid"], row["owner"]) for row in rows if not row["is_own"]]


async def drop_owned(connection: Connection, roles: Sequence[str]) -> None:
    """What they own and may in this database, and on what all databases share: rights, default privileges."""
    known = await _existing(connection, roles)
    if not known:
        return
    await _become_able(connection, known)
    async with connection.transaction():
        await _quietly(connection)
        for statement in rights.drop_owned(known, cascade=True):
            await connection.execute(statement)


async def drop_roles(connection: Connection, database: Database, roles: Sequence[str]) -> None:
    """Looks into each database in which something is a role's, then drops the roles."""
    await drop_owned(connection, roles)
    rows = await connection.fetch(
        "SELECT DISTINCT b.datname::text AS name FROM pg_catalog.pg_shdepend d"
        "  JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid JOIN pg_catalog.pg_database b ON b.oid = d.dbid"
        " WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND r.rolname = ANY ($1::text[])"
        "   AND b.datname <> pg_catalog.current_database() AND b.datallowconn",
        list(roles),
    )
    for row in rows:
        async with database.named(row["name"]).connected() as elsewhere:
            await drop_large_objects(elsewhere, roles)
            await drop_owned(elsewhere, roles)
    for role in await _existing(connection, roles):
        await connection.execute(f"DROP ROLE IF EXISTS {quote_name(role)}")


#: The extension's own.  All of its arguments are given, as they are: of others in its schema none is a better
#: match.
_RESET: Final = """
SELECT n.nspname::text AS schema, p.pronargs::int AS arguments
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
   AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::regclass
  JOIN pg_catalog.pg_proc p ON p.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE e.extname = 'pg_stat_statements' AND p.proname = 'pg_stat_statements_reset' AND p.pronargs >= 3
"""


async def forget_statements(connection: Connection, roles: Sequence[int]) -> None:
    """The texts of its statements, where pg_stat_statements keeps them and lets us."""
    row = await connection.fetchrow(_RESET)
    if row is None:
        return
    for role in roles:
        try:
            await connection.execute(
                f"SELECT {quote_name(row['schema'])}.pg_stat_statements_reset({int(role)}::pg_catalog.oid,"
                f" 0::pg_catalog.oid, 0::pg_catalog.int8{', false' * (row['arguments'] - 3)})"
            )
        except asyncpg.PostgresError:
            return  # not loaded, or not ours to reset; the record says that it is not looked at


async def _existing(connection: Connection, roles: Sequence[str]) -> list[str]:
    rows = await connection.fetch(
        "SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::text[]) ORDER BY 1",
        list(roles),
    )
    return [row["name"] for row in rows]


async def _become_able(connection: Connection, roles: Sequence[str]) -> None:
    """Only members of a role, or superusers, drop what is its."""
    if await connection.fetchval("SELECT pg_catalog.current_setting('is_superuser') = 'on'"):
        return
    inherit = " WITH INHERIT TRUE, SET TRUE" if connection.get_server_version().major >= 16 else ""
    await connection.execute("".join(f"GRANT {quote_name(role)} TO CURRENT_USER{inherit};" for role in roles))


async def scan(
    connection: Connection, database: Database, estate: Estate, was: inventory.Oids
) -> tuple[Item, ...]:
    """What is left of the tenant, in every database of the cluster that lets us in."""
    left = list(await inventory.left_of(connection, estate, was))
    here = Estate("", estate.owner, estate.roles)
    for name in await _others(connection):
        # a schema of the name in another database is another's
        async with database.named(name).connected() as elsewhere:
            found = await inventory.left_of(elsewhere, here, inventory.Oids((), was.roles))
        left += [Item(item.kind, f"{name}: {item.name}", item.detail) for item in found]
    return tuple(sorted(set(left)))


async def _others(connection: Connection) -> list[str]:
    """The other databases of the cluster that let us in."""
    rows = await connection.fetch(
        "SELECT datname::text AS name FROM pg_catalog.pg_database"
        " WHERE datallowconn AND datname <> pg_catalog.current_database() AND datname <> 'template0'"
        "   AND pg_catalog.has_database_privilege(oid, 'CONNECT')"
    )
    return [row["name"] for row in rows]


#: Texts that PostgreSQL does not know the meaning of, in which a name of $1 stands as a word.  They are
#: others': what is in them may be of this tenant, or the name a word of theirs.
_MENTIONS: Final = r"""
WITH names AS (
    SELECT pg_catalog.string_agg(pg_catalog.regexp_replace(name, '([^[:alnum:]_])', '\\\1', 'g'), '|') AS text
      FROM pg_catalog.unnest($1::pg_catalog.text[]) AS name),
-- what extensions have made says nothing of tenants, nor does what the server itself has (below 16384)
parts AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
pattern AS (SELECT '(^|[^[:alnum:]_$])(' || text || ')($|[^[:alnum:]_$])' AS text FROM names)
SELECT 'function' AS kind,
       pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
                         pg_catalog.pg_get_function_identity_arguments(p.oid)) AS name
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang, pattern
 WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
   AND p.prosrc OPERATOR(pg_catalog.~) pattern.text
   AND NOT EXISTS (SELECT FROM parts
                    WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid = p.oid)
UNION ALL
SELECT 'trigger', pg_catalog.format('%I on %s', t.tgname, t.tgrelid::pg_catalog.regclass)
  FROM pg_catalog.pg_trigger t, pattern
 WHERE t.tgnargs > 0 AND pg_catalog.encode(t.tgargs, 'escape') OPERATOR(pg_catalog.~) pattern.text
UNION ALL
SELECT 'comment', i.type || ' ' || i.identity
  FROM pg_catalog.pg_description d CROSS JOIN pattern
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
 WHERE d.objoid >= 16384 AND d.description OPERATOR(pg_catalog.~) pattern.text
   AND NOT EXISTS (SELECT FROM parts WHERE classid = d.classoid AND objid = d.objoid)
"""


async def mentions(connection: Connection, database: Database, estate: Estate) -> tuple[Item, ...]:
    """Texts of others, in all databases that let us in, that name what the tenant's schema or roles were."""
    found = []
    for name in [database.name, *await _others(connection)]:
        # a schema of the name in another database is another's
        named = (*estate.all_roles(), *([estate.schema] if name == database.name and estate.schema else []))
        async with database.named(name).connected() as one:
            await one.execute("SET search_path = ''")
            rows = await one.fetch(_MENTIONS, list(named))
        place = "" if name == database.name else f"{name}: "
        found += [Item(row["kind"], f"{place}{row['name']}", "") for row in rows]
    return tuple(sorted(set(found)))
