"""Rows of a tenant's tables, counted and compared.

Who reads a table runs its owner's code: PostgreSQL computes what is constant in indexes and statistics when
it plans, and what is a table when its name is looked up may be a view when it is read.  So a table is read by
its owner, in a function that is SECURITY DEFINER, where it can't become anybody else; and then all of that is
taken back, with whatever was put off to the end of the transaction.  The function is made anew for each
table, as the owner's code could have replaced it, with a name that nobody waits for.

What the owner has kept itself from reading is read by us, if its plan has nothing of the tenant's in it and
while a lock keeps it so.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from tenant_proxy.lifecycle.archive import Table
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.sql import ident, literal, qualified
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: told what is being done, how much of it is done, and of how much
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    pass


class Unreadable(Exception):
    """A table that its owner has kept itself from reading, and that has code of the owner's."""


#: of a table that could not be read
UNKNOWN: Final = -1
#: Where it need not be read: for how long others may hold it, and for how long its owner's code may run.
#: That may catch what cancels it, so its session is ended.
LOCK_TIMEOUT: Final = "10s"
PATIENCE_S = 600.0

#: A row of `t` as text.  A cast may be the tenant's own, and `t` alone would be a column of that name.
_AS_TEXT: Final = "pg_catalog.textin(pg_catalog.record_out(t.*))"

_TABLES: Final = """
SELECT c.relname::text AS name FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'r'
 ORDER BY c.relname
"""
_SETTINGS: Final = (
    "SELECT pg_catalog.set_config(name, value, true) FROM (VALUES ('search_path', ''),"
    " ('row_security', 'off'), ('datestyle', 'ISO'), ('intervalstyle', 'postgres'),"
    " ('extra_float_digits', '3'), ('bytea_output', 'hex'), ('timezone', 'UTC'),"
    " ('statement_timeout', '0')) AS s(name, value)"
)

#: A table of which nothing that a plan is made of depends on what somebody has defined.
_PLAIN: Final = """
SELECT c.relkind = 'r' AND NOT EXISTS (
       SELECT FROM pg_catalog.pg_depend d
        WHERE (d.classid = 'pg_catalog.pg_class'::regclass
               AND d.objid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)
               OR d.classid = 'pg_catalog.pg_statistic_ext'::regclass
               AND d.objid IN (SELECT s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid))
          AND d.refclassid NOT IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_constraint'::regclass,
                                   'pg_catalog.pg_namespace'::regclass))
  FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass
"""


class Reader:
    """Reads in a transaction of the connection, which has settings of its own from then on."""

    def __init__(
        self, connection: Connection, schema: str, role: str, witness: Callable[[], Connection]
    ) -> None:
        """`witness`: in a transaction of its own, sees what the others have made by now, and locks it."""
        self._connection = connection
        self._schema = schema
        self._role = role
        self._witness = witness
        self._patience_s: float | None = None
        #: by us, as it took too long
        self._ended = False

    async def tables(
        self,
        progress: Progress = silent,
        *,
        lenient: bool = False,
        order: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Table]:
        """Rows and a digest of each table (of a partitioned one's partitions), in the connection's snapshot.

        The digest is a sum over rows, so their order does not matter; it is of the rows' text, in settings
        that are fixed here.  `order` is that of the columns of some tables, where it is not theirs.
        """
        await self._connection.execute(_SETTINGS)
        if lenient:
            await self._connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            self._patience_s = PATIENCE_S
        names = [row["name"] for row in await self._connection.fetch(_TABLES, self._schema)]
        result = []
        for number, name in enumerate(names):
            progress("count", number, len(names))
            try:
                result.append(await self._table(name, (order or {}).get(name, ())))
            except (Unreadable, asyncpg.PostgresError):
                if not lenient or (self._connection.is_closed() and not self._ended):
                    raise
                result.append(Table(name, UNKNOWN, ""))
        progress("count", len(names), len(names))
        return result

    async def _table(self, name: str, columns: Sequence[str]) -> Table:
        table = qualified(self._schema, name)
        listed = ", ".join(f"t.{ident(column)}" for column in columns)
        text = f"pg_catalog.textin(pg_catalog.record_out(ROW({listed})))" if columns else _AS_TEXT
        query = (
            "SELECT pg_catalog.count(*) AS n, coalesce(pg_catalog.sum(pg_catalog.hashtextextended("
            f"{text}, 20)::pg_catalog.numeric), 0)::pg_catalog.text AS digest FROM ONLY {table} AS t"
        )
        if self._ended:
            raise Unreadable("another takes too long")
        try:
            row = await self._confined(query)
        except asyncpg.PostgresError as error:
            if self._connection.is_closed():
                raise
            row = await self._by_us(table, query, error)
        assert row is not None
        return Table(name, row["n"], row["digest"])

    async def _confined(self, query: str) -> asyncpg.Record | None:
        function = f"{ident(self._schema)}.tp_read_{secrets.token_hex(6)}"
        await self._connection.execute("SAVEPOINT tp_read")
        try:
            await self._connection.execute(
                f"CREATE FUNCTION {function}(pg_catalog.text)"
                " RETURNS TABLE (n pg_catalog.int8, digest pg_catalog.text) LANGUAGE plpgsql"
                " SECURITY DEFINER AS $tp_body$BEGIN RETURN QUERY EXECUTE $1; END$tp_body$;\n"
                f"ALTER FUNCTION {function}(pg_catalog.text) OWNER TO {ident(self._role)}"
            )
            asked = asyncio.ensure_future(
                self._connection.fetchrow(f"SELECT n, digest FROM {function}($1::pg_catalog.text)", query)
            )
            try:
                if not (await asyncio.wait({asked}, timeout=self._patience_s))[0]:
                    self._ended = True
                    pid = self._connection.get_server_pid()
                    await self._witness().execute(f"SELECT pg_catalog.pg_terminate_backend({pid})")
                return await asked
            finally:
                asked.cancel()
        finally:
            if not self._connection.is_closed():
                await self._connection.execute("ROLLBACK TO SAVEPOINT tp_read; RELEASE SAVEPOINT tp_read")

    async def _by_us(self, table: str, query: str, refused: asyncpg.PostgresError) -> asyncpg.Record | None:
        witness = self._witness()
        async with witness.transaction():
            if self._patience_s is not None:
                await witness.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # neither an index nor statistics are made meanwhile, nor is it another table
            await witness.execute(f"LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE")
            if not await witness.fetchval(_PLAIN, table):
                raise Unreadable(
                    f"{table} has code of its owner's, and can't be read as its owner: {refused}"
                ) from refused
            return await self._connection.fetchrow(query)


async def read_tables(
    database: Database,
    estate: Estate,
    progress: Progress = silent,
    *,
    snapshot: str | None = None,
    witness: Connection | None = None,
    lenient: bool = False,
) -> list[Table]:
    """`witness` has locked the tables already, against all that write."""
    async with database.connected() as connection, _witness(database, witness) as seen:
        # never committed: it ends with the connection
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        if snapshot is not None:
            await connection.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        reader = Reader(connection, estate.schema, estate.owner, lambda: seen)
        return await reader.tables(progress, lenient=lenient)


@asynccontextmanager
async def _witness(database: Database, known: Connection | None) -> AsyncIterator[Connection]:
    if known is not None:
        yield known
        return
    async with database.connected() as connection:
        yield connection
