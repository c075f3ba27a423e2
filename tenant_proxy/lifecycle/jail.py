"""SQL that may run what a tenant has defined, in a session that has more rights than the tenant.

Triggers, checks, generated columns, defaults and casts are the tenant's, and run as whoever writes its rows
or makes a definition in which they are needed (`harmless`).
SET ROLE does not hold them: what the session's user may do is one RESET ROLE away.  In a function that is
SECURITY DEFINER and its owner's PostgreSQL refuses that.  Only triggers and exclusion constraints that are
deferred would run when the function is left: they are fired before, and where the tenant's code could put
them off once more it is refused (before version 18 they run as whoever ends the transaction).  Whatever else
is put off is refused too: where code runs at the end of a transaction, a check of a foreign key (which plans
with the tenant's indexes and compares by its casts) as any other, it can put off more, or declare a cursor
WITH HOLD, which runs as whoever ends the transaction in all versions.

Such code may also change settings, and shadow names by temporary objects: what follows in the session is sent
behind `RESTORED`, or names everything with its schema.

Many tenants behind one another are confined by less work of the server's (`jailed_often`), to the same end.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.auth.scram import build_verifier
from tenant_proxy.lifecycle import erasing, ledger
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.lifecycle.rights import end_backends, membership
from tenant_proxy.lifecycle.sql import ident, idents, literal

if TYPE_CHECKING:
    from tenant_proxy.lifecycle.inventory import Estate
    from tenant_proxy.lifecycle.tools import Database

    Connection = asyncpg.Connection[asyncpg.Record]

_TAG: Final = "$tp_jail$"

#: Settings as the session began, and nothing of the tenant's before PostgreSQL's own names.
RESTORED: Final = "RESET ALL; DISCARD TEMP;\n"

#: What may run when the transaction ends, as whoever ends it.  What waits for that is on tables that the
#: transaction has locked to write to them; PostgreSQL refuses to alter one with something waiting, which is
#: what is asked: what was altered is undone.  (Not only of what can be deferred: that is taken from a
#: partition by its parent's ALTER CONSTRAINT while something waits.)  Of a table that is not partitioned what
#: is altered is as it was mostly: else PostgreSQL reads all that it knows of the table anew, twice.  What can
#: be deferred is asked of all tables at once: the plan for one reads every tenant's constraints.
_WRITTEN: Final = """ DECLARE written pg_catalog.oid[]; altering pg_catalog.text; BEGIN
written := ARRAY(
    SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_trigger AS t
     WHERE t.tgconstraint OPERATOR(pg_catalog.<>) 0 AND t.tgrelid OPERATOR(pg_catalog.=) ANY (ARRAY(
            SELECT l.relation FROM pg_catalog.pg_locks AS l
             WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.relation IS NOT NULL
               AND l.mode OPERATOR(pg_catalog.<>) ALL ('{AccessShareLock,RowShareLock}'::pg_catalog.text[])))
     ORDER BY 1);
"""
_DEFERRABLE: Final = """\
IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 180000
    AND EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS c
         WHERE c.conrelid OPERATOR(pg_catalog.=) ANY (written) AND c.condeferrable
           AND c.contype OPERATOR(pg_catalog.=) ANY ('{t,x}'::pg_catalog."char"[]))
THEN
    RAISE EXCEPTION 'the tenant has triggers or exclusion constraints that can be deferred'
        USING ERRCODE = '0A000', DETAIL = 'They would run with more rights than the tenant''s.',
              HINT = 'Make them NOT DEFERRABLE meanwhile, or use PostgreSQL 18.';
END IF;
"""
_WAITING: Final = """\
BEGIN
    FOR altering IN
        SELECT pg_catalog.format('ALTER TABLE ONLY %s %s', c.oid::pg_catalog.regclass,
                                 CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'p'::pg_catalog."char"
                                      THEN 'RESET (tp_none)' ELSE 'SET WITHOUT CLUSTER' END)
          FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) ANY (written) ORDER BY c.oid
    LOOP
        EXECUTE altering;
    END LOOP;
    RAISE EXCEPTION USING ERRCODE = 'TP001';
EXCEPTION
    WHEN SQLSTATE 'TP001' THEN NULL;
    WHEN object_in_use THEN
        RAISE EXCEPTION 'the tenant has code that puts off what is to be done'
            USING ERRCODE = '0A000', DETAIL = 'It would run with more rights than the tenant''s.';
END;
END """
_ASKED: Final = _WRITTEN + _DEFERRABLE + _WAITING


def _done(block: str) -> str:
    return f"CLOSE ALL;\nDO $tp_put_off${block}$tp_put_off$;\n"


_PUT_OFF: Final = _done(_ASKED)
#: … where nothing will write to what can be deferred
MAKES_LATE: Final = _done(_WRITTEN + _WAITING)

#: The same as a function beside the ledger, where nobody but the admin gets: read and planned once a session.
#: The search_path is its own, as a plan is kept for one only.
_ASKING: Final = f"{ledger.SCHEMA}.put_off_{hashlib.sha256(_ASKED.encode()).hexdigest()[:12]}()"

#: As a session began, but for plans; at the end of a transaction.  (DISCARD ALL takes one of its own.)
SWEPT: Final = (
    "RESET ALL; DEALLOCATE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all();"
    " DISCARD TEMP; DISCARD SEQUENCES;\n"
)

#: beyond it what is kept in the catalog for the time of the run costs more than it saves
_SHORT: Final = 8_000


class CanNotRun(Exception):
    """A text that can't be put into a literal."""


def _quoted(text: str, tag: str) -> str:
    if tag in text:
        raise CanNotRun(f"it has {tag} in it")
    return f"{tag}{text}{tag}"


def _at_once(sql: str) -> str:
    """It, and what it puts off."""
    return _quoted(f"{sql}\n;SET CONSTRAINTS ALL IMMEDIATE", _TAG)


def jailed(sql: str, schema: str, owner: str, ending: str = _PUT_OFF) -> str:
    """Statements that run `sql` as the schema's owner; for one transaction, at its end.

    `ending`: `MAKES_LATE` where it makes what can be put off, and nothing will write to that any more.
    """
    function = f"{quote_name(schema)}.tp_jail"
    # Nobody else sees it.  Plans of functions that are gone stay in the session, where each makes all changes
    # of definitions dearer: so it has one statement.
    return (
        f"CREATE FUNCTION {function}(pg_catalog.text) RETURNS pg_catalog.void LANGUAGE plpgsql"
        " SECURITY DEFINER AS $tp_body$BEGIN EXECUTE $1; END$tp_body$;\n"
        f"ALTER FUNCTION {function}(pg_catalog.text) OWNER TO {quote_name(owner)};\n"
        f"SELECT {function}({_at_once(sql)}::pg_catalog.text);\n"
        f"{ending}"
        f"DROP FUNCTION IF EXISTS {function}(pg_catalog.text);\n"
    )


async def prepare(connection: Connection) -> None:
    """Makes what `jailed_often` calls, in a database that has a ledger."""
    if await connection.fetchval(f"SELECT pg_catalog.to_regprocedure('{_ASKING}') IS NOT NULL"):
        return
    async with connection.transaction():
        # two at once would make it twice
        await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1)", ledger.LOCK)
        await connection.execute(
            f"CREATE OR REPLACE FUNCTION {_ASKING} RETURNS pg_catalog.void LANGUAGE plpgsql"
            f" SET search_path = '' AS $tp_put_off${_ASKED}$tp_put_off$"
        )


_MAKERS: Final = """
SELECT n.nspname::pg_catalog.text
  FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[]) AS m(schema, owner)
  JOIN pg_catalog.pg_namespace n ON n.nspname = m.schema
  JOIN pg_catalog.pg_roles r ON r.rolname = m.owner
 WHERE pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_language l WHERE l.lanname IN ('sql', 'plpgsql')
                      AND NOT pg_catalog.has_language_privilege(r.oid, l.oid, 'USAGE'))
"""


async def makers(connection: Connection, estates: Sequence[Estate]) -> frozenset[str]:
    """Schemas whose owners may make functions in them, and blocks of code."""
    found = await connection.fetch(_MAKERS, [one.schema for one in estates], [one.owner for one in estates])
    return frozenset(row["nspname"] for row in found)


def jailed_often(sql: str, schema: str, owner: str, *, maker: bool) -> str:
    """`jailed`, where `prepare` was called; `maker`: whether the owner may make what it takes.

    Made by its owner, a function has to be given to nobody.  No plan of a block of code stays in the session.
    """
    ending = f"CLOSE ALL; SELECT {_ASKING};\n"
    if not maker or len(sql) > _SHORT:
        return jailed(sql, schema, owner, ending)
    block = _quoted(f"BEGIN EXECUTE {_at_once(sql)}; END", "$tp_block$")
    function = f"{quote_name(schema)}.tp_jail()"
    return (
        f"SET LOCAL ROLE {quote_name(owner)}; SET LOCAL check_function_bodies = off;\n"
        f"CREATE FUNCTION {function} RETURNS pg_catalog.void LANGUAGE sql SECURITY DEFINER"
        f" AS {_quoted(f'DO {block}', '$tp_body$')};\n"
        "RESET ROLE; RESET check_function_bodies;\n"
        f"SELECT {function};\n"
        f"{ending}"
        f"DROP FUNCTION IF EXISTS {function};\n"
    )


#: Of a table: its columns, as what they are copied first where its code may run; and whether it may.
_COLUMNS: Final = """
WITH RECURSIVE k AS (
    SELECT a.attnum, a.atttypid AS oid FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = $1::pg_catalog.text::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT k.attnum, x.oid FROM k JOIN pg_catalog.pg_type t ON t.oid = k.oid
      CROSS JOIN LATERAL (
        SELECT t.typelem UNION ALL SELECT t.typbasetype UNION ALL
        SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS x(oid)
     WHERE x.oid <> 0)
SELECT a.attname::pg_catalog.text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       NOT EXISTS (SELECT FROM k JOIN pg_catalog.pg_type t ON t.oid = k.oid
                    WHERE k.attnum = a.attnum AND t.typtype IN ('c', 'd')) AS plain,
       c.relkind <> 'r' OR c.relispartition OR c.relhasindex OR c.relhastriggers OR c.relhasrules
       OR c.relrowsecurity
       OR EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid AND o.contype = 'c')
       OR EXISTS (SELECT FROM pg_catalog.pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '')
          AS code
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
 WHERE a.attrelid = $1::pg_catalog.text::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
"""


class Confined:
    """For a tenant that is being restored in a transaction, by a role that has no rights but its roles'.

    It is not the owner itself, so that the owner's default privileges give nobody what was not given.
    """

    def __init__(
        self, connection: Connection, database: str, schema: str, roles: Sequence[str], settings: str
    ) -> None:
        """`roles`: of the tenant alone, its owner and those that may own what is in the schema; `settings`:
        statements that are to hold again after each that has run code.
        """
        self._connection = connection
        self._schema = schema
        self._roles = roles
        self._settings = settings
        # seen by nobody else, as it is gone when the transaction ends; a rehearsal shows the same
        self.role = f"tp_jail_{hashlib.sha256(f'{database} {schema}'.encode()).hexdigest()[:12]}"

    async def begin(self) -> None:
        major = self._connection.get_server_version().major
        await self._connection.execute(
            f"CREATE ROLE {self.role} NOLOGIN;\n"
            + "".join(f"{membership(role, self.role, major, inherit=True)};\n" for role in self._roles)
            + f"{membership(self.role, 'CURRENT_USER', major, inherit=True)};\n"
        )

    async def end(self) -> None:
        await self._connection.execute(f"DROP ROLE {self.role}")

    async def run(self, sql: str, ending: str = _PUT_OFF) -> None:
        confined = jailed(sql, self._schema, self.role, ending)
        await self._connection.execute(confined + RESTORED + self._settings)

    async def copies(self, table: str, columns: Sequence[str], rows: AsyncIterator[bytes]) -> bool:
        """Rows of a table, `table` as it is written.

        False: nothing was done, as no code can run when they are copied as they are.
        """
        found = {row["name"]: row for row in await self._connection.fetch(_COLUMNS, table)}
        # a column that is left out has its default
        defaults = columns and set(found) - set(columns)
        if not defaults and not any(row["code"] or not row["plain"] for row in found.values()):
            return False
        types = [found[name]["type"] if found[name]["plain"] else "pg_catalog.text" for name in columns]
        given = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
        await self._connection.execute(
            f"CREATE TEMPORARY TABLE tp_rows ({given}); GRANT SELECT ON pg_temp.tp_rows TO {self.role}"
        )
        await self._connection.copy_to_table("tp_rows", schema_name="pg_temp", source=rows, timeout=None)
        read = ", ".join(f"c{number}::{found[name]['type']}" for number, name in enumerate(columns))
        await self.run(
            f"INSERT INTO {table} ({idents(columns)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {read} FROM pg_temp.tp_rows"
        )
        return True


@asynccontextmanager
async def own_login(connection: Connection, database: Database, owner: str) -> AsyncIterator[Database]:
    """The database for a tool: its login may become the owner, and nobody else; it is gone behind it, and so
    are its sessions: the tenant's code may have given it another password.
    """
    name, password = f"tp_tool_{secrets.token_hex(6)}", secrets.token_urlsafe(24)
    major = connection.get_server_version().major
    ends = datetime.now(UTC) + timedelta(days=1)
    for left in await connection.fetch(_LEFT):
        with suppress(asyncpg.PostgresError):
            await _end_login(connection, database, left["name"], left["owner"])
    await connection.execute(
        f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD {literal(str(build_verifier(password)))}"
        f" VALID UNTIL '{ends:%Y-%m-%d %H:%M:%S+00}';\n"
        f"{membership(owner, name, major, inherit=False)};\n"
        f"{membership(name, 'CURRENT_USER', major, inherit=True)};\n"
    )
    try:
        if not await connection.fetchval(
            "SELECT pg_catalog.has_database_privilege($1, $2, 'CONNECT')", name, database.name
        ):
            await connection.execute(f"GRANT CONNECT ON DATABASE {ident(database.name)} TO {name}")
        yield replace(database, user=name, password=password)
    finally:
        if not connection.is_closed():
            await _end_login(connection, database, name, owner)


#: logins of tools whose time is over: whoever made them was killed
_LEFT: Final = """
SELECT r.rolname::text AS name, (
       SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
        WHERE m.member = r.oid LIMIT 1) AS owner
  FROM pg_catalog.pg_roles r WHERE r.rolname ~ '^tp_tool_[0-9a-f]{12}$' AND r.rolvaliduntil < now()
"""


async def _end_login(connection: Connection, database: Database, name: str, owner: str | None) -> None:
    await connection.execute(f"ALTER ROLE {name} NOLOGIN")
    await connection.execute(end_backends([name]))
    if owner is not None:
        await connection.execute(f"REASSIGN OWNED BY {name} TO {ident(owner)}")
    await erasing.drop_roles(connection, database, [name])
