"""An archive restored into a database, under its own names or others, in one transaction.

Whatever goes wrong, the process killed included, the database is as it was before.  Roles and an empty schema
that are there already (as provisioning makes them) are used; anything else of the names is an error.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson
from pglast.parser import parse_sql_json

from tenant_proxy.lifecycle import archive, ledger, tools
from tenant_proxy.lifecycle.archive import Manifest, Table
from tenant_proxy.lifecycle.dumped import is_leakproof, leakproof_apart, made_whole
from tenant_proxy.lifecycle.harmless import late_last, runs_code
from tenant_proxy.lifecycle.jail import MAKES_LATE, Confined
from tenant_proxy.lifecycle.reading import Progress, Reader, Unreadable, silent
from tenant_proxy.lifecycle.rename import Finding, NotRenamed, Renaming, quote_name, statements
from tenant_proxy.lifecycle.sql import qualified
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


class RestoreError(Exception):
    """It can't be restored here, or what came out is not what went in."""


class Unsure(RestoreError):
    """Under other names some of it might be wrong; it may be told to go on in spite of that."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        shown = "; ".join(f"{finding.where}: {finding.what}" for finding in findings[:5])
        more = f"; and {len(findings) - 5} more" if len(findings) > 5 else ""
        super().__init__(f"{len(findings)} places can't be renamed for certain: {shown}{more}")


@dataclass(slots=True)
class Restored:
    manifest: Manifest
    tables: list[Table]
    #: constants that have the old name in them, and what was gone on with though unsure
    findings: list[Finding] = field(default_factory=list)
    #: what could not be brought along
    notes: list[str] = field(default_factory=list)


def read_manifest(path: Path, pass_phrase: str | None = None) -> Manifest:
    """Of an archive whose files were checked."""
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".manifest-") as directory:
        return archive.unpack(path, Path(directory), pass_phrase)


async def restore(
    database: Database,
    path: Path,
    *,
    schema: str | None = None,
    roles: Mapping[str, str] | None = None,
    dropped: Iterable[str] = (),
    make_roles: bool = True,
    pass_phrase: str | None = None,
    accept: bool = False,
    progress: Progress = silent,
) -> Restored:
    """`roles` maps the archive's roles to those to use; one that is not in it keeps its name, and of those in
    `dropped` nothing comes along.  Without `make_roles` all of them are there already.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".import-") as name:
        directory = Path(name)
        progress("unpack", 0, 1)
        manifest = await asyncio.to_thread(archive.unpack, path, directory, pass_phrase)
        progress("unpack", 1, 1)
        renaming = Renaming(manifest.schema, schema or manifest.schema, dict(roles or {}), frozenset(dropped))
        async with database.connected() as connection:
            job = _Restore(database, connection, directory, manifest, renaming, accept, progress, make_roles)
            result = await job.run()
            # statistics are not in a dump
            for table in result.tables:
                await connection.execute(
                    f"ANALYZE {quote_name(renaming.new_schema)}.{quote_name(table.name)}"
                )
    return result


class _Restore:
    def __init__(
        self,
        database: Database,
        connection: Connection,
        directory: Path,
        manifest: Manifest,
        renaming: Renaming,
        accept: bool,
        progress: Progress,
        make_roles: bool,
    ) -> None:
        self.database = database
        self.connection = connection
        self.directory = directory
        self.manifest = manifest
        self.renaming = renaming
        self.accept = accept
        self.progress = progress
        self.make_roles = make_roles
        self.notes = list(manifest.notes)
        self.tool = tools.newest()
        self.dump = str(directory / archive.DUMP)
        #: large objects that had to get another number
        self.moved: dict[int, int] = {}
        #: for what may run code of the tenant's, while there is something of the kind
        self.confined: Confined | None = None

    async def run(self) -> Restored:
        before = list(leakproof_apart(self._script(await self._section("pre-data"))))
        after = made_whole(self._script(await self._section("post-data")))
        extras = self._script((self.directory / archive.EXTRAS).read_text())
        self._check_findings()
        async with self.connection.transaction():
            await self._check_place()
            if self.make_roles:
                await self._roles()
            await self._settle()
            self.confined = await self._confined()
            # who runs the tenant's code needs them by then
            await self._extras([sql for sql in extras if sql.startswith("GRANT ")])
            extras = [sql for sql in extras if not sql.startswith("GRANT ")]
            casts = [sql for sql in extras if _CAST.match(sql)]
            await self._definitions([sql for sql in before if not _RIGHTS.match(sql)], casts)
            await self._check_columns()
            await self._data()
            await self._large_objects()
            # with rights and policies its owner might not see all of it
            tables = await self._verify()
            await self._extras([sql for sql in extras if not _CAST.match(sql)])
            await self._behind(after, [sql for sql in before if _RIGHTS.match(sql)])
            await ledger.note(self.connection, self.renaming.new_schema, self.manifest.migrations)
        return Restored(self.manifest, tables, self.renaming.findings, self.notes)

    async def _confined(self) -> Confined:
        source = self.manifest.source
        known = (source["owner"], source.get("readwrite"), source.get("readonly"), *self.renaming.roles)
        roles = dict.fromkeys(self.renaming.roles.get(role, role) for role in known if role is not None)
        confined = Confined(
            self.connection, self.database.name, self.renaming.new_schema, list(roles), _QUIET
        )
        await confined.begin()
        return confined

    async def _behind(self, after: list[str], rights: list[str]) -> None:
        """What comes after the rows; last what could put code off, when nothing is left that writes.

        Rights are given when all is made, as an owner may have kept itself from writing, or from making a
        trigger; materialized views read with them, and can put nothing off.
        """
        rest, late = late_last(after)
        made = [sql for sql in rest if not sql.startswith(_REFRESH)]
        read = [sql for sql in rest if sql.startswith(_REFRESH)]
        ordered = [*((sql, False) for sql in made), *((sql, True) for sql in late)]
        ordered += [(sql, False) for sql in (*rights, *read)]
        self.progress("indexes", 0, len(ordered))
        for number, (sql, is_late) in enumerate(ordered):
            await self._execute(sql, is_late=is_late)
            self.progress("indexes", number + 1, len(ordered))
        assert self.confined is not None
        await self.confined.end()
        self.confined = None

    async def _section(self, section: str) -> str:
        """The part of the dump, as text."""
        return (await tools.run(self._command(section))).decode()

    def _command(self, section: str) -> list[str]:
        arguments = [self.tool.path("pg_restore"), f"--section={section}", "--file=-", self.dump]
        if self.database.rehearsal is not None:
            self.database.rehearsal.command([*arguments[:-1], archive.DUMP])
        return arguments

    def _script(self, text: str) -> list[str]:
        found: list[str] = []
        grantor: str | None = None
        for one in statements(text):
            if one.startswith(_GRANTED_BY):
                grantor = _name(one.removeprefix(_GRANTED_BY))
            elif one == _GRANTED:
                grantor = None
            elif not _SETTING.match(one) and grantor not in self.renaming.dropped:
                sql = self.renaming.statement(one) if self.renaming.is_needed() else one
                # whose it is the comment of a provisioned schema says: not whose it was
                if sql and not _MARK.match(sql):
                    if grantor is not None:
                        role = quote_name(self.renaming.roles.get(grantor, grantor))
                        sql = f"{_GRANTED_BY}{role};\n{sql};\n{_GRANTED}"
                    found.append(sql)
        return found

    def _surely(self, sql: str) -> str:
        """A statement that is done to an object of the tenant: never to one of where it came from."""
        known = len(self.renaming.findings)
        sql = self.renaming.statement(sql)
        if any(finding.kind == "unsure" for finding in self.renaming.findings[known:]):
            raise NotRenamed(f"a name can't be told from a text: {sql[:80]}")
        return sql

    def _check_findings(self) -> None:
        unsure = [finding for finding in self.renaming.findings if finding.kind == "unsure"]
        if unsure and not self.accept:
            raise Unsure(unsure)

    async def _execute(self, sql: str, *, is_late: bool = False) -> None:
        try:
            if sql.startswith(_GRANTED_BY):
                await self._grant_on(sql)
            elif self.confined is not None and runs_code(sql) and not is_leakproof(sql):
                await (self.confined.run(sql, MAKES_LATE) if is_late else self.confined.run(sql))
            else:
                await self.connection.execute(sql)
        except asyncpg.PostgresError as error:
            first = " ".join(sql.split())[:100]
            raise RestoreError(f"{error} (SQLSTATE {error.sqlstate}) at: {first}") from error

    async def _grant_on(self, sql: str) -> None:
        """A right that somebody gave who had it with grant option: again by the same, and so runs no code."""
        role, grant, _ = sql.removeprefix(_GRANTED_BY).split(";\n")
        name = _name(role)
        is_member = self.database.rehearsal is not None or await self.connection.fetchval(
            "SELECT pg_catalog.pg_has_role(pg_catalog.current_user(), $1, 'MEMBER')", name
        )
        if not is_member:
            await self.connection.execute(f"GRANT {role} TO CURRENT_USER")
        await self.connection.execute(f"SET LOCAL ROLE {role};\n{grant};\nRESET ROLE;\n")
        if not is_member:
            await self.connection.execute(f"REVOKE {role} FROM CURRENT_USER")

    async def _check_place(self) -> None:
        """The schema may be there if nothing is in it; extensions must be."""
        await self.connection.execute(_QUIET)
        taken = await self.connection.fetchval(
            "SELECT count(*) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid"
            " WHERE n.nspname = $1 AND d.refclassid = 'pg_catalog.pg_namespace'::regclass"
            " AND d.classid <> 'pg_catalog.pg_default_acl'::regclass",
            self.renaming.new_schema,
        )
        if taken:
            raise RestoreError(f'schema "{self.renaming.new_schema}" is there already, with {taken} objects')
        rows = await self.connection.fetch(
            "SELECT e.extname::text AS name, n.nspname::text AS schema FROM pg_catalog.pg_extension e"
            "  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace"
        )
        there = {row["name"]: row["schema"] for row in rows}
        missing = [
            f"CREATE EXTENSION {quote_name(one['name'])} SCHEMA {quote_name(one['schema'])};"
            for one in self.manifest.extensions
            if there.get(one["name"]) != one["schema"]
        ]
        if missing:
            raise RestoreError("extensions are missing in the database: " + " ".join(missing))

    async def _roles(self) -> None:
        known = {
            row["rolname"] for row in await self.connection.fetch("SELECT rolname FROM pg_catalog.pg_roles")
        }
        for sql in self._script((self.directory / archive.ROLES).read_text()):
            tree = orjson.loads(parse_sql_json(sql))["stmts"][0]["stmt"]
            if tree.get("CreateRoleStmt", {}).get("role") in known:
                continue
            if said := _OF_ROLE.match(sql):
                # a name that is no role's to the parser: it would be said of the role where it came from
                old = _name(said["role"])
                role = self.renaming.roles.get(old, old)
                if role in known:
                    continue
                sql = f"{said['what']} ON ROLE {quote_name(role)} IS {said['text']}"
            # ALTER ROLE … IN DATABASE: this one
            sql = re.sub(r" IN DATABASE (?:\"(?:[^\"]|\"\")*\"|\S+) SET ", self._in_database(), sql, count=1)
            await self._execute(sql)

    def _in_database(self) -> str:
        return f" IN DATABASE {quote_name(self.database.name)} SET ".replace("\\", r"\\")

    async def _settle(self) -> None:
        """Whoever is no superuser must be able to give objects to the owner."""
        if await self.connection.fetchval("SELECT pg_catalog.current_setting('is_superuser') = 'on'"):
            return
        if self.database.rehearsal is not None:  # roles that were provisioned can be given to
            return
        owner = self.renaming.roles.get(self.manifest.source["owner"], self.manifest.source["owner"])
        if not await self.connection.fetchval(
            "SELECT pg_catalog.pg_has_role(pg_catalog.current_user(), $1, 'MEMBER')", owner
        ):
            await self._execute(f"GRANT {quote_name(owner)} TO CURRENT_USER")

    async def _definitions(self, before: list[str], casts: list[str]) -> None:
        schema = quote_name(self.renaming.new_schema)
        # provisioned before it: what is rehearsed is not there
        exists = self.database.rehearsal is not None or await self.connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)", self.renaming.new_schema
        )
        for number, sql in enumerate(before):
            self.progress("definitions", number, len(before))
            if exists and re.match(rf"CREATE SCHEMA {re.escape(schema)}$", sql):
                continue
            # a view may be made with a cast, and a cast needs its types and function before
            if casts and sql.startswith(("CREATE VIEW", "CREATE TABLE", "CREATE MATERIALIZED")):
                casts = await self._casts(casts)
            await self._execute(sql)
        for sql in await self._casts(casts):
            await self._execute(sql)
        self.progress("definitions", len(before), len(before))

    async def _casts(self, casts: list[str]) -> list[str]:
        """Makes those that can be made already."""
        left = []
        for sql in casts:
            try:
                async with self.connection.transaction():
                    await self.connection.execute(sql)
            except (asyncpg.UndefinedObjectError, asyncpg.UndefinedFunctionError):
                left.append(sql)
        return left

    async def _check_columns(self) -> None:
        """Rows of columns that hold objects' names can't be renamed with them."""
        if not self.renaming.is_needed():
            return
        rows = await self.connection.fetch(_NAMES_IN_ROWS, self.renaming.new_schema)
        self.renaming.findings += [
            Finding("unsure", row["name"], "its rows hold names of objects") for row in rows
        ]
        self._check_findings()

    async def _data(self) -> None:
        rows = {table.name: table.rows for table in self.manifest.tables}
        total, done = sum(rows.values()), 0
        self.progress("rows", 0, total)
        async with tools.lines_of(self._command("data")) as lines:
            statement: list[bytes] = []
            async for line in lines:
                if not statement and (not line.strip() or line.startswith((b"--", b"\\", b"SET "))):
                    continue
                statement.append(line)
                if not line.endswith(b";\n"):
                    continue
                sql = b"".join(statement).decode().rstrip().rstrip(";")
                statement = []
                if _SETTING.match(sql):
                    continue
                sql = self._surely(sql)
                if sql.startswith("COPY "):
                    done += await self._copy(sql, lines, done, total)
                else:
                    await self._execute(sql)
        for table, columns in self.manifest.source.get("columns", {}).items():
            # of a rehearsal, whose archive has no rows
            await self.connection.copy_to_table(
                table,
                schema_name=self.renaming.new_schema,
                columns=columns or None,
                source=_each([]),
            )
        self.progress("rows", total, total)

    async def _copy(self, sql: str, lines: AsyncIterator[bytes], done: int, total: int) -> int:
        """One table's rows."""
        body = orjson.loads(parse_sql_json(sql))["stmts"][0]["stmt"]["CopyStmt"]
        count = 0

        async def rows() -> AsyncIterator[bytes]:
            nonlocal count
            pieces: list[bytes] = []
            size = 0
            async for line in lines:
                if line == b"\\.\n":
                    break
                count += 1
                pieces.append(line)
                size += len(line)
                if size > _BATCH:
                    self.progress("rows", done + count, total)
                    yield b"".join(pieces)
                    pieces, size = [], 0
            if pieces:
                yield b"".join(pieces)

        columns = [one["String"]["sval"] for one in body.get("attlist", ())]
        # of a rehearsal no table is there to look at
        if self.confined is not None and self.database.rehearsal is None:
            table = qualified(body["relation"]["schemaname"], body["relation"]["relname"])
            try:
                if await self.confined.copies(table, columns, rows()):
                    return count
            except asyncpg.PostgresError as error:
                raise RestoreError(f"{error} (SQLSTATE {error.sqlstate}) at: {sql}") from error
        if not columns:  # a table without columns
            source = [line async for line in rows()]
            await self.connection.copy_to_table(
                body["relation"]["relname"], schema_name=body["relation"]["schemaname"], source=_each(source)
            )
            return count
        try:
            await self.connection.copy_to_table(
                body["relation"]["relname"],
                schema_name=body["relation"]["schemaname"],
                columns=columns,
                source=rows(),
                timeout=None,
            )
        except asyncpg.PostgresError as error:
            raise RestoreError(f"{error} (SQLSTATE {error.sqlstate}) at: {sql}") from error
        return count

    async def _large_objects(self) -> None:
        path = self.directory / archive.LARGE_OBJECTS
        if not path.exists():
            return
        with open(path, encoding="utf-8", newline="\n") as file:  # noqa: ASYNC230
            for line in _whole(file):
                created = _CREATED.match(line)
                if created:
                    await self._create(int(created[1]))
                    continue
                sql = _NUMBERED.sub(
                    lambda found: found[1] + str(self._now(int(found[2]))), line.rstrip("\n"), count=1
                )
                if not sql.startswith("SELECT pg_catalog.lo_put"):
                    sql = self.renaming.statement(sql.rstrip(";"))
                if sql:
                    await self._execute(sql)
        if self.moved:
            await self._point_to_moved()

    def _now(self, number: int) -> int:
        return self.moved.get(number, number)

    async def _create(self, number: int) -> None:
        taken = await self.connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = $1)", number
        )
        if self.database.rehearsal is not None:
            await self.connection.execute(f"SELECT pg_catalog.lo_create({0 if taken else number})")
            return
        made = await self.connection.fetchval("SELECT pg_catalog.lo_create($1)", 0 if taken else number)
        if taken:
            self.moved[number] = made

    async def _point_to_moved(self) -> None:
        """Columns that may hold a large object's number (those that vacuumlo looks at) get the new one."""
        olds, news = (",".join(map(str, numbers)) for numbers in (self.moved, self.moved.values()))
        for row in await self.connection.fetch(_NUMBERS_IN_ROWS, self.renaming.new_schema):
            table = f"{quote_name(self.renaming.new_schema)}.{quote_name(row['relname'])}"
            column = quote_name(row["attname"])
            sql = (
                f"UPDATE ONLY {table} AS t SET {column} = m.new FROM unnest('{{{olds}}}'::pg_catalog.oid[],"
                f" '{{{news}}}'::pg_catalog.oid[]) AS m(old, new) WHERE t.{column} = m.old"
            )
            if self.confined is not None:
                await self.confined.run(sql)
            else:
                await self.connection.execute(sql)
            self.notes.append(f"large objects were numbered anew: {row['relname']}.{row['attname']}")

    async def _extras(self, extras: list[str]) -> None:
        neighbours = await self.connection.fetchval(_NEIGHBOURS, self.renaming.new_schema)
        for sql in extras:
            if (schema := _granted_in(sql)) in neighbours:
                self.notes.append(f'"{schema}" is another tenant\'s here: {sql}')
                continue
            if sql.startswith("GRANT") and " ON DATABASE " in sql:
                privilege, _, rest = sql.partition(" ON DATABASE ")
                sql = (
                    f"{privilege} ON DATABASE {quote_name(self.database.name)} TO{rest.rpartition(' TO')[2]}"
                )
            try:
                async with self.connection.transaction():
                    await self.connection.execute(sql)
            except asyncpg.PostgresError as error:
                self.notes.append(f"{error}: {sql}")

    async def _verify(self) -> list[Table]:
        """The rows are those of the manifest."""
        if self.database.rehearsal is not None:
            return self.manifest.tables
        assert self.confined is not None
        reader = Reader(
            self.connection, self.renaming.new_schema, self.confined.role, lambda: self.connection
        )
        try:
            tables = await reader.tables(self.progress, order=self.manifest.source.get("order", {}))
        except Unreadable as error:
            raise RestoreError(str(error)) from error
        await self.connection.execute(_QUIET)
        wanted = {(table.name, table.rows): table.digest for table in self.manifest.tables}
        found = {(table.name, table.rows): table.digest for table in tables}
        old, new = self.renaming.old_schema, self.renaming.new_schema
        differing = {name if name != old else new for name, _ in wanted.keys() ^ found.keys()}
        if not self.moved and not (self.accept and self.renaming.findings):
            differing |= {key[0] for key, digest in wanted.items() if found.get(key) != digest}
        if differing:
            raise RestoreError("these tables do not have the archive's rows: " + ", ".join(sorted(differing)))
        return tables


def _name(quoted: str) -> str:
    """As an identifier of a dump is called."""
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted


def _granted_in(sql: str) -> str | None:
    """The schema on which, or in which, a right is given."""
    grant = orjson.loads(parse_sql_json(sql))["stmts"][0]["stmt"].get("GrantStmt")
    if grant is None or grant["objtype"] == "OBJECT_DATABASE":
        return None
    (thing,) = grant["objects"]
    if "RangeVar" in thing:
        return str(thing["RangeVar"].get("schemaname", ""))
    if "ObjectWithArgs" in thing:
        *schema, _ = (part["String"]["sval"] for part in thing["ObjectWithArgs"]["objname"])
        return schema[0] if schema else None
    return str(thing["String"]["sval"]) if grant["objtype"] == "OBJECT_SCHEMA" else None


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Statements; a comment may have lines in it."""
    statement = ""
    for line in lines:
        statement += line
        # a quote in a text is written twice
        if statement.count("'") % 2 == 0:
            yield statement
            statement = ""


async def _each(items: list[bytes]) -> AsyncIterator[bytes]:
    for item in items:
        yield item


_BATCH: Final = 1 << 18

#: settings that a dump begins with; ours are `_QUIET`, and older servers lack some of the dump's
_SETTING: Final = re.compile(
    r"(?:SET |SELECT pg_catalog\.set_config\('search_path'"
    # what some minor versions keep for themselves, and only their own pg_dump leaves out
    r"|ALTER TABLE ONLY \S+ ALTER COLUMN \S+ SET \(pg_attver=\d+\)$)"
)
_RIGHTS: Final = re.compile(r"(?:GRANT|REVOKE|SET SESSION AUTHORIZATION) ")
#: around what is not of the owner's giving
_GRANTED_BY: Final = "SET SESSION AUTHORIZATION "
_GRANTED: Final = "RESET SESSION AUTHORIZATION"
_OF_ROLE: Final = re.compile(
    r"(?P<what>COMMENT|SECURITY LABEL FOR .+?) ON ROLE (?P<role>\"(?:[^\"]|\"\")*\"|\S+) IS (?P<text>.*)$",
    re.DOTALL,
)
_REFRESH: Final = "REFRESH MATERIALIZED VIEW "
_MARK: Final = re.compile(r"COMMENT ON (?:SCHEMA|ROLE) \S+ IS 'tenant_proxy:")
_QUIET: Final = """
SET LOCAL search_path = ''; SET LOCAL check_function_bodies = false; SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL row_security = off;
SET LOCAL client_min_messages = warning; SET LOCAL xmloption = content; SET LOCAL datestyle = ISO;
SET LOCAL default_transaction_read_only = off;
"""
_CAST: Final = re.compile(r"(?:CREATE|COMMENT ON) CAST ")
_CREATED: Final = re.compile(r"SELECT pg_catalog\.lo_create\((\d+)\);")
_NUMBERED: Final = re.compile(r"(LARGE OBJECT |pg_catalog\.lo_put\()(\d+)")

_NEIGHBOURS: Final = """
SELECT ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_namespace n
              WHERE pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'tenant\\_proxy:%'
                AND n.nspname <> $1)
"""

_NAMES_IN_ROWS: Final = """
SELECT quote_ident(c.relname) || '.' || quote_ident(a.attname) AS name
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
   AND a.atttypid = ANY (ARRAY['regclass', 'regproc', 'regprocedure', 'regoper', 'regoperator', 'regtype',
                               'regconfig', 'regdictionary', 'regnamespace', 'regrole',
                               'regcollation']::regtype[])
"""

_NUMBERS_IN_ROWS: Final = """
SELECT c.relname::text, a.attname::text
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
   AND (t.oid = 'pg_catalog.oid'::regtype OR t.typname = 'lo' AND t.typbasetype = 'pg_catalog.oid'::regtype)
"""
