"""Verbs that are only tried: what they would run is written down, and nothing is changed anywhere.

What clusters would be told stands in the order in which they would be told it, transactions included; what is
done by programs, or to no server, stands between as a comment.  A verb that changes the catalog alone would
tell clusters nothing: its changes of the catalog are kept too, to be shown then.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tenant_proxy.lifecycle.sql import idents, literal, qualified, script

if TYPE_CHECKING:
    from collections.abc import Mapping

#: what changes a row of the catalog; a job's own row is none of the change
_CHANGE: Final = re.compile(
    r"\s*(?:WITH changed AS \()?\s*(?:INSERT|UPDATE|DELETE)\b(?!\s+(?:INTO\s+)?job\b)"
)
_PLACE: Final = re.compile(r"\$(\d+)(?:::text)?")
#: what will have another number, and another time, when it is made
_MADE: Final = re.compile(r"\s*(?:WITH changed AS \()?\s*INSERT INTO (tenant|login)\b")
_NOT_BY_HAND: Final = """\
-- to be read, not to be run: the {} that this makes is in no catalog yet, and roles that are made by hand
-- with the marks below (COMMENT ON ROLE) are nobody's to the command, which refuses to take them over"""


class Rehearsal(list[str]):
    """Statements for clusters, each complete, and comments between them."""

    def __init__(self) -> None:
        super().__init__()
        #: what the catalog would be told
        self.catalog: list[str] = []
        self._where = ""

    def note(self, text: str) -> None:
        self.append("\n".join(f"-- {line}" for line in text.splitlines()))

    def command(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """A program that would be run."""
        given = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
        self.note(" ".join([*given, shlex.join(arguments)]))

    def told(self, where: str, sql: str) -> None:
        if where != self._where:
            self._where = where
            self.note(where)
        self.append(complete(sql))

    def changed(self, query: str, arguments: Sequence[object]) -> None:
        """In the catalog."""
        if _CHANGE.match(query):
            self.catalog.append(complete(bound(query, arguments)))

    def shown(self) -> list[str]:
        """All of it; of the catalog only where it is all that would change."""
        if not self:
            return ["-- the catalog", *self.catalog] if self.catalog else []
        made = {found[1] for one in self.catalog if (found := _MADE.match(one))}
        return [*([_NOT_BY_HAND.format(" and the ".join(sorted(made)))] if made else []), *self]


class Rehearsed:
    """A connection to a cluster that reads, and writes down what it would execute."""

    def __init__(self, connection: Any, rehearsal: Rehearsal, cluster: str, database: str) -> None:
        self._connection = connection
        self._rehearsal = rehearsal
        self._where = f"cluster {cluster}, database {database}"
        self._inside = False
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: str, *arguments: object, **_: object) -> str:
        self._told(bound(query, arguments))
        return ""

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        for row in rows:
            self._told(bound(query, row))

    async def copy_to_table(
        self,
        table: str,
        *,
        source: AsyncIterable[bytes],
        schema_name: str,
        columns: Sequence[str] = (),
        **_: object,
    ) -> str:
        given = f"({idents(columns)})" if columns else ""
        self._told(f"COPY {qualified(schema_name, table)}{given} FROM STDIN")
        async for _part in source:
            pass
        return ""

    @asynccontextmanager
    async def transaction(self, *, readonly: bool = False, **options: Any) -> AsyncIterator[None]:
        """One that only reads is begun; savepoints are not shown."""
        if readonly:
            async with self._connection.transaction(readonly=True, **options):
                reading, self.execute = self.execute, self._connection.execute  # type: ignore[method-assign]
                try:
                    yield
                finally:
                    self.execute = reading  # type: ignore[method-assign]
            return
        if self._inside:
            yield
            return
        self._inside, self._begun = True, False
        try:
            yield
            if self._begun:
                self._rehearsal.told(self._where, "COMMIT")
        finally:
            self._inside = False

    def _told(self, sql: str) -> None:
        if self._inside:
            if not self._begun:
                self._begun = True
                self._rehearsal.told(self._where, "BEGIN")
            self._rehearsal.told(self._where, sql)
            return
        # several statements are one message, and so one transaction
        whole = f"BEGIN;\n{complete(sql)}\nCOMMIT;" if _several(sql) else sql
        self._rehearsal.told(self._where, whole)


def itself(connection: Any) -> Any:
    """The connection, even of a rehearsal: for what is taken back at once, wherever it is done."""
    return connection._connection if isinstance(connection, Rehearsed) else connection


@asynccontextmanager
async def transaction_under(connection: Any, lock: str) -> AsyncIterator[list[str]]:
    """A transaction that begins with `lock`, and ends with the statements that are put into the list; both
    with a message less than it takes otherwise.
    """
    todo: list[str] = []
    if isinstance(connection, Rehearsed):
        async with connection.transaction():
            await itself(connection).execute(lock)
            yield todo
            if todo:
                await connection.execute(script(todo))
        return
    await connection.execute(f"BEGIN; {complete(lock)}")
    try:
        yield todo
        await connection.execute(script([*todo, "COMMIT"]))
    except BaseException:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        raise


def complete(sql: str) -> str:
    text = sql.strip()
    return text if text.endswith(";") else text + ";"


def _several(sql: str) -> bool:
    from pglast.parser import split

    return ";" in sql.strip()[:-1] and len(split(sql, with_parser=False)) > 1


def bound(query: str, arguments: Sequence[object]) -> str:
    """With its arguments as literals."""
    return _PLACE.sub(lambda found: _literal(arguments[int(found[1]) - 1]), query) if arguments else query


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"ARRAY[{', '.join(map(_literal, value))}]" if value else "'{}'"
    if isinstance(value, dict):
        return literal(json.dumps(value, ensure_ascii=False)).strip()
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return literal(value.isoformat() if isinstance(value, datetime) else str(value)).strip()
