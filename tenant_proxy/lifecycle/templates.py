"""A schema as SQL that makes another like it: what a new tenant begins with.

pg_dump reads the whole database's catalogs, which takes seconds among a thousand tenants.  So it is asked
once: the script is kept beside the template (`ledger`) together with a fingerprint of it, which takes a few
milliseconds to take again.  In the script names stand that nothing else has, so that putting a tenant's in
their place changes those and no other text.

A script is tried before it is kept: in a transaction that is rolled back it makes a schema, which must have
everything that the template has (`inventory`), defined alike (`definitions`).

What is in it is read by COPY, and its names are looked up before its schema is: PostgreSQL runs nothing of
the template's for that.  Statements that its code could have prepared nobody executes.

A process that makes one tenant after another looks at the template every two seconds.  Which migrations the
template has had is in the script too, so what is made is never another version than it says.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import asyncpg

from tenant_proxy.lifecycle import definitions, export, inventory, ledger, rehearsal, tools
from tenant_proxy.lifecycle.harmless import is_plain, late_last, runs_code
from tenant_proxy.lifecycle.inventory import Estate, Item
from tenant_proxy.lifecycle.jail import MAKES_LATE, RESTORED, CanNotRun, jailed
from tenant_proxy.lifecycle.rename import Finding, Renaming, quote_name, statements
from tenant_proxy.lifecycle.rights import schema_rights
from tenant_proxy.lifecycle.sql import literal
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


class TemplateError(Exception):
    """It can't be copied so that the copy is the same."""


@dataclass(frozen=True, slots=True)
class Roles:
    """A schema and the three roles that provisioning gives it."""

    schema: str
    owner: str
    #: None of a schema that was not provisioned: it has the standard rights
    readwrite: str | None = None
    readonly: str | None = None

    def estate(self) -> Estate:
        return Estate(self.schema, self.owner, tuple(filter(None, (self.readwrite, self.readonly))))

    def names(self) -> list[str]:
        return [self.schema, self.owner, self.readwrite or "", self.readonly or ""]


#: in scripts, in place of the tenant's names: 64 bits of chance, in nobody's text
PLACES: Final = Roles(
    "tp_schema_3f0b7c51d2a94e86",
    "tp_owner_3f0b7c51d2a94e86",
    "tp_readwrite_3f0b7c51d2a94e86",
    "tp_readonly_3f0b7c51d2a94e86",
)

#: bytes of a template's rows: they are in the script, which is read for each new tenant
_MAX_ROWS_BYTES: Final = 4 << 20

_FINGERPRINT: Final = """
WITH n AS (SELECT n.oid, n.xmin::text AS x FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
d AS MATERIALIZED (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
     WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = (SELECT oid FROM n)),
r AS MATERIALIZED (SELECT d.objid AS oid FROM d WHERE d.classid = 'pg_catalog.pg_class'::regclass),
t AS MATERIALIZED (SELECT d.objid AS oid FROM d WHERE d.classid = 'pg_catalog.pg_type'::regclass),
p AS MATERIALIZED (SELECT d.objid AS oid FROM d WHERE d.classid = 'pg_catalog.pg_proc'::regclass),
parts(kind, oid, part, x) AS (
    SELECT 'n', n.oid, 0::bigint, n.x FROM n
    UNION ALL SELECT 'd', d.objid, d.classid::bigint, '' FROM d
    UNION ALL SELECT 'c', c.oid, 0, c.xmin::text FROM pg_catalog.pg_class c JOIN r USING (oid)
    UNION ALL SELECT 'a', a.attrelid, a.attnum, a.xmin::text
      FROM pg_catalog.pg_attribute a JOIN r ON r.oid = a.attrelid WHERE a.attnum > 0
    UNION ALL SELECT 'i', i.indexrelid, 0, i.xmin::text
      FROM pg_catalog.pg_index i JOIN r ON r.oid = i.indrelid
    UNION ALL SELECT 'I', c.oid, 0, c.xmin::text FROM pg_catalog.pg_index i JOIN r ON r.oid = i.indrelid
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    UNION ALL SELECT 'k', k.oid, 0, k.xmin::text FROM pg_catalog.pg_constraint k JOIN r ON r.oid = k.conrelid
    UNION ALL SELECT 'K', k.oid, 0, k.xmin::text FROM pg_catalog.pg_constraint k JOIN t ON t.oid = k.contypid
    UNION ALL SELECT 'f', f.oid, 0, f.xmin::text FROM pg_catalog.pg_attrdef f JOIN r ON r.oid = f.adrelid
    UNION ALL SELECT 'g', g.oid, 0, g.xmin::text FROM pg_catalog.pg_trigger g JOIN r ON r.oid = g.tgrelid
    UNION ALL SELECT 'w', w.oid, 0, w.xmin::text FROM pg_catalog.pg_rewrite w JOIN r ON r.oid = w.ev_class
    UNION ALL SELECT 'y', y.oid, 0, y.xmin::text FROM pg_catalog.pg_policy y JOIN r ON r.oid = y.polrelid
    UNION ALL SELECT 'h', h.inhrelid, h.inhparent::bigint, h.xmin::text
      FROM pg_catalog.pg_inherits h JOIN r ON r.oid = h.inhrelid
    UNION ALL SELECT 's', s.seqrelid, pg_catalog.pg_sequence_last_value(s.seqrelid), s.xmin::text
      FROM pg_catalog.pg_sequence s JOIN r ON r.oid = s.seqrelid
    UNION ALL SELECT 'x', x.oid, 0, x.xmin::text
      FROM pg_catalog.pg_statistic_ext x JOIN r ON r.oid = x.stxrelid
    UNION ALL SELECT 'p', f.oid, 0, f.xmin::text FROM pg_catalog.pg_proc f JOIN p USING (oid)
    UNION ALL SELECT 't', f.oid, 0, f.xmin::text FROM pg_catalog.pg_type f JOIN t USING (oid)
    UNION ALL SELECT 'e', e.oid, 0, e.xmin::text FROM pg_catalog.pg_enum e JOIN t ON t.oid = e.enumtypid
    UNION ALL SELECT 'o', d.objid, o.objsubid, o.xmin::text
      FROM pg_catalog.pg_description o JOIN d ON o.classoid = d.classid AND o.objoid = d.objid)
SELECT (SELECT md5(string_agg(concat_ws(' ', kind, oid, part, x), ',' ORDER BY kind, oid, part, x))
          FROM parts) AS shape,
       (SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_catalog.pg_class c JOIN r USING (oid)
         WHERE c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0) AS filled,
       (SELECT coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint
          FROM pg_catalog.pg_class c JOIN r USING (oid) WHERE c.relkind = 'r') AS bytes,
       (SELECT oid FROM n) IS NOT NULL AS exists
"""


async def fingerprint(connection: Connection, schema: str) -> str:
    """Changes with every object of the schema, and with its rows."""
    row = await connection.fetchrow(_FINGERPRINT, schema)
    assert row is not None
    if not row["exists"]:
        raise TemplateError(f'there is no schema "{schema}"')
    if row["bytes"] > _MAX_ROWS_BYTES:
        raise TemplateError(
            f'the rows of template "{schema}" take {row["bytes"]} bytes, more than {_MAX_ROWS_BYTES}'
        )
    had = await ledger.as_list(connection, schema)
    # a script that was kept has in it how its code was confined when it was made
    confined = hashlib.sha256(_jailed("").encode()).hexdigest()[:16]
    found = f"6 {confined} {row['shape']} {','.join(str(one['version']) for one in had)}"
    own = rehearsal.itself(connection)
    async with own.transaction():
        await own.execute("SET LOCAL row_security = off")
        for name in row["filled"] or ():
            found += f" {await _digest(own, schema, name)}"
    return found


async def _digest(connection: Connection, schema: str, table: str) -> str:
    """Of a table's rows, in the order in which they are there.  A query would be planned, which runs what its
    indexes are made of."""
    known = hashlib.sha256()

    async def take(data: bytes) -> None:
        known.update(data)

    await connection.copy_from_table(table, schema_name=schema, output=take)
    return known.hexdigest()


#: (database, schema) -> when it was looked at, and the script
_seen: dict[tuple[Database, str], tuple[float, str]] = {}
_looking: WeakValueDictionary[tuple[object, Database, str], asyncio.Lock] = WeakValueDictionary()
_FRESH_S: Final = 2.0


async def current(
    connection: Connection,
    database: Database,
    schema: str,
    template: Callable[[Connection], Awaitable[Roles]],
    findings: list[Finding] | None = None,
) -> str:
    """The script of the template in `schema` as it is now, or was a moment ago; `findings` are added to."""
    key = database, schema
    async with _looking.setdefault((asyncio.get_running_loop(), *key), asyncio.Lock()):
        # one looks while others who want the same wait
        seen_at, script = _seen.get(key, (-_FRESH_S, ""))
        if time.monotonic() - seen_at > _FRESH_S:
            began = time.monotonic()
            script, found = await _current(connection, database, await template(connection))
            _seen[key] = began, script
            if findings is not None:
                findings += found
    return script


async def fill(connection: Connection, database: Database, template: Roles, target: Roles) -> list[Finding]:
    """Makes the template's objects in the target's empty schema; one transaction."""

    async def itself(_: Connection) -> Roles:
        return template

    findings: list[Finding] = []
    script = await current(connection, database, template.schema, itself, findings)
    # one message, and so one transaction
    await connection.execute(filled(script, target))
    return findings


async def _current(connection: Connection, database: Database, template: Roles) -> tuple[str, list[Finding]]:
    """The script that is kept, or a new one where the template is another now."""
    findings: list[Finding] = []
    await ledger.make(connection)
    now = await fingerprint(connection, template.schema)
    script = await connection.fetchval(
        f"SELECT script FROM {ledger.SCHEMA}.template WHERE schema = $1 AND fingerprint = $2",
        template.schema,
        now,
    )
    if script is None:
        script, findings = await build(connection, database, template)
        await connection.execute(
            f"INSERT INTO {ledger.SCHEMA}.template (schema, fingerprint, script) VALUES ($1, $2, $3)"
            " ON CONFLICT (schema) DO UPDATE SET fingerprint = $2, script = $3, made_at = now()",
            template.schema,
            now,
            script,
        )
    return str(script), findings


def filled(script: str, target: Roles) -> str:
    if any(char in name for name in target.names() for char in "'\\$"):
        raise TemplateError("names with quotes, backslashes or dollar signs can't stand in a script")
    # as a value rather than a name
    script = script.replace(f"'{PLACES.schema}'", literal(target.schema))
    for place, name in zip(PLACES.names(), target.names(), strict=True):
        script = script.replace(place, quote_name(name))
    return script


async def build(connection: Connection, database: Database, template: Roles) -> tuple[str, list[Finding]]:
    """The script of a template, tried."""
    mapping = dict(zip(template.names()[1:], PLACES.names()[1:], strict=True))
    mapping.pop("", None)
    renaming = Renaming(template.schema, PLACES.schema, mapping)
    tool = tools.find(connection.get_server_version().major * 10_000)
    with tempfile.TemporaryDirectory(prefix="tp-template-") as name:
        path = Path(name) / "dump"
        async with (
            replace(database, rehearsal=None).connected() as holding,
            holding.transaction(isolation="repeatable_read", readonly=True),
        ):
            snapshot = await export.held(holding, template.schema)
            await export.dump(tool, database, template.estate(), path, snapshot=snapshot)
        parts = {
            section: (
                await tools.run([tool.path("pg_restore"), f"--section={section}", "--file=-", str(path)])
            ).decode()
            for section in ("pre-data", "data", "post-data")
        }
    casts = await export.casts_sql(connection, template.schema)
    before = [renaming.statement(one) for one in statements(parts["pre-data"])]
    rows = [_row(one, renaming) for one in inserts(parts["data"])]
    after = [renaming.statement(one) for one in statements(parts["post-data"])]
    made = _with_casts(before, [renaming.statement(one.rstrip(";")) for one in casts])
    unsure = [finding for finding in renaming.findings if finding.kind == "unsure"]
    if unsure:
        raise TemplateError(
            f"{len(unsure)} places can't be renamed for certain: "
            + "; ".join(f"{one.where}: {one.what}" for one in unsure[:5])
        )
    parts_of_it = without_unused([*made, *rows, *after])
    try:
        script = _script(with_references(merged(parts_of_it)))
        script += await _tried(connection, template, script)
    except (TemplateError, asyncpg.PostgresError):
        script = _script(merged(parts_of_it))
        script += await _tried(connection, template, script)
    for one in await ledger.as_list(connection, template.schema):
        values = f"{one['version']}, {literal(one['name'])}, {literal(one['checksum'])}"
        script += (
            f"INSERT INTO {ledger.SCHEMA}.migration (schema, version, name, checksum)"
            f" VALUES ('{PLACES.schema}', {values}) ON CONFLICT DO NOTHING;\n"
        )
    return script, renaming.findings


_ROWS_PER_INSERT: Final = 200
_ESCAPED: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def inserts(data: str) -> Iterator[str]:
    """The data of a dump with its COPYs as INSERTs, which can stand in a script."""
    lines = iter(re.findall(r"[^\n]*\n|[^\n]+", data))
    between: list[str] = []
    statement: list[str] = []
    for line in lines:
        if not statement and (not line.strip() or line.startswith(("--", "\\"))):
            continue
        statement.append(line)
        if not line.endswith(";\n"):
            continue
        sql = "".join(statement).rstrip().rstrip(";")
        statement = []
        if not sql.startswith("COPY "):
            between.append(sql)
            continue
        yield from statements(";\n".join(between))
        between = []
        yield from _inserted(sql.removeprefix("COPY ").removesuffix(" FROM stdin"), lines)
    yield from statements(";\n".join([*between, "".join(statement)]))


def _inserted(table: str, lines: Iterator[str]) -> Iterator[str]:
    """`table` with its columns, as COPY names it; and its rows, as COPY writes them."""
    head = f"INSERT INTO {table} OVERRIDING SYSTEM VALUE VALUES\n"
    rows: list[str] = []
    for line in lines:
        if line == "\\.\n":
            break
        if table.endswith(" "):  # a table without columns
            yield f"INSERT INTO {table}DEFAULT VALUES"
            continue
        rows.append(f"({', '.join(map(_value, line[:-1].split(chr(9))))})")
        if len(rows) == _ROWS_PER_INSERT:
            yield head + ",\n".join(rows)
            rows = []
    if rows:
        yield head + ",\n".join(rows)


def _value(field: str) -> str:
    if field == "\\N":
        return "NULL"
    return literal(_ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), field)).strip()


def _row(sql: str, renaming: Renaming) -> str:
    """INSERT of a dump: its head names the table, the rest is data and none of ours."""
    head = f"INSERT INTO {quote_name(renaming.old_schema)}."
    if sql.startswith(head):
        return f"INSERT INTO {renaming.new_schema}." + sql[len(head) :]
    return renaming.statement(sql)


def _with_casts(before: list[str], casts: list[str]) -> list[str]:
    """Casts stand behind the last type or function, as none of these can need them, and views may."""
    if not casts:
        return before
    at = max(
        (number for number, sql in enumerate(before) if sql.startswith(("CREATE TYPE", "CREATE FUNCTION"))),
        default=-1,
    )
    return [*before[: at + 1], *casts, *before[at + 1 :]]


_TABLE: Final = re.compile(r"CREATE TABLE (?P<name>\S+) \(\n(?P<columns>.*)\n\)$", re.DOTALL)
_CONSTRAINT: Final = re.compile(
    r"ALTER TABLE ONLY (?P<name>\S+)\n    ADD (?P<constraint>CONSTRAINT \S+ (?:PRIMARY KEY|UNIQUE)"
    r" \([^()\n]+\))$"
)
_IDENTITY: Final = re.compile(
    r"ALTER TABLE (?P<name>\S+) ALTER COLUMN (?P<column>\S+) ADD (?P<identity>GENERATED [^;]*\n\))$"
)


_STARTS: Final = re.compile(
    r"(?:CREATE SEQUENCE|ALTER TABLE \S+ ALTER COLUMN \S+ ADD GENERATED (?:ALWAYS|BY DEFAULT) AS IDENTITY"
    r" \(\n    SEQUENCE NAME) (?P<name>\S+)\n(?:    AS \w+\n)?    START WITH (?P<start>-?\d+)\n"
)
_UNUSED: Final = re.compile(r"SELECT pg_catalog\.setval\('(?P<name>[^']+)', (?P<start>-?\d+), false\)$")


def without_unused(found: list[str]) -> list[str]:
    """Without what sets sequences to where they start anyway."""
    starts = {match["name"]: match["start"] for sql in found if (match := _STARTS.match(sql))}
    return [
        sql
        for sql in found
        if not (match := _UNUSED.match(sql)) or starts.get(match["name"]) != match["start"]
    ]


def merged(found: list[str]) -> list[str]:
    """Identity columns and keys of tables, which pg_dump adds later, in CREATE TABLE: 40 % of the statements
    less.  Only what is written in the one way that is looked for; all else stays as it is.
    """
    tables = {match["name"]: match["columns"] for sql in found if (match := _TABLE.match(sql))}
    kept: list[str] = []
    for sql in found:
        identity, constraint = _IDENTITY.match(sql), _CONSTRAINT.match(sql)
        if identity is not None and identity["name"] in tables:
            line = re.compile(rf"^    {re.escape(identity['column'])} (\w+) NOT NULL(?=,?$)", re.MULTILINE)
            written = f"    {identity['column']} \\1 {identity['identity']} NOT NULL".replace("\n", " ")
            columns, count = line.subn(lambda m, w=written: w.replace("\\1", m[1]), tables[identity["name"]])
            if count == 1:
                tables[identity["name"]] = columns
                continue
        elif constraint is not None and constraint["name"] in tables:
            tables[constraint["name"]] += f",\n    {constraint['constraint']}"
            continue
        kept.append(sql)
    return [
        f"CREATE TABLE {match['name']} (\n{tables[match['name']]}\n)" if (match := _TABLE.match(sql)) else sql
        for sql in kept
    ]


_REFERENCE: Final = re.compile(
    r"ALTER TABLE ONLY (?P<name>\S+)\n    ADD (?P<constraint>CONSTRAINT \S+ FOREIGN KEY \([^()\n]+\)"
    r" REFERENCES (?P<other>[^\s()]+)\([^()\n]+\)(?! *NOT )[^()\n]*)$"
)


def with_references(found: list[str]) -> list[str]:
    """Foreign keys in CREATE TABLE, too, of tables without rows: added later, each has the server look for
    rows that break it.  Tables of one run are made in the order that this takes.
    """
    filled = {sql.split(" ", 3)[2] for sql in found if sql.startswith("INSERT INTO ")}
    references = [
        match
        for sql in found
        if (match := _REFERENCE.match(sql)) and match["name"] not in filled and "NOT VALID" not in sql
    ]
    ordered = _ordered(found, references)
    places = {match["name"]: place for place, sql in enumerate(ordered) if (match := _TABLE.match(sql))}
    added: dict[str, str] = {}
    inside = set()
    for match in references:
        name, other = match["name"], match["other"]
        if name in places and places.get(other, len(ordered)) <= places[name]:
            added[name] = added.get(name, "") + f",\n    {match['constraint']}"
            inside.add(match[0])
    return [
        f"{sql[:-2]}{added[match['name']]}\n)"
        if (match := _TABLE.match(sql)) and match["name"] in added
        else sql
        for sql in ordered
        if sql not in inside
    ]


def _ordered(found: list[str], references: list[re.Match[str]]) -> list[str]:
    """Tables behind those that they refer to, as far as nothing else is made between them."""
    wanted: dict[str, set[str]] = {}
    for match in references:
        if match["name"] != match["other"]:
            wanted.setdefault(match["name"], set()).add(match["other"])
    result: list[str] = []
    run: dict[str, str] = {}
    owners: list[str] = []
    for sql in [*found, ""]:
        table = _TABLE.match(sql)
        if table is not None:
            run[table["name"]] = sql
        elif run and _OWNER.match(sql):
            owners.append(sql)
        else:
            result += [*_sorted(run, wanted), *owners, sql]
            run, owners = {}, []
    return result[:-1]


def _sorted(run: dict[str, str], wanted: dict[str, set[str]]) -> list[str]:
    """The first that lacks nothing, and again; as they are where one may be made of another's row type."""
    for name, sql in run.items():
        columns = sql.partition("(")[2]
        if any(re.search(rf"{re.escape(other)}(?![\w$\"])", columns) for other in run if other != name):
            return list(run.values())
    left, made = dict(run), []
    while left:
        name = next((one for one in left if not wanted.get(one, set()) & left.keys()), next(iter(left)))
        made.append(left.pop(name))
    return made


#: what provisioning has made already, or what the session has
_LEFT_OUT: Final = re.compile(
    rf"(?:SET (?!SESSION)|SELECT pg_catalog\.set_config\('search_path'|CREATE SCHEMA {PLACES.schema}"
    rf"|COMMENT ON SCHEMA {PLACES.schema} |ALTER SCHEMA {PLACES.schema} OWNER"
    rf"|(?:GRANT|REVOKE) \w+ ON SCHEMA {PLACES.schema} (?:TO|FROM)"
    rf" (?:PUBLIC|{PLACES.owner}|{PLACES.readwrite}|{PLACES.readonly})$)"
)
_OWNER: Final = re.compile(rf"ALTER [^\n]* OWNER TO {PLACES.owner}$")
#: only a superuser makes these
_PRIVILEGED: Final = re.compile(
    r"CREATE (?:OPERATOR (?:CLASS|FAMILY)|TEXT SEARCH (?:PARSER|TEMPLATE)|EVENT|FOREIGN DATA|EXTENSION"
    r"|FUNCTION[^$]*LANGUAGE (?:c|internal)\b)|ALTER [^\n]* OWNER TO |SET SESSION",
)
_QUIET: Final = (
    "SET LOCAL search_path = ''; SET LOCAL check_function_bodies = false; SET LOCAL row_security = off;"
    " SET LOCAL client_min_messages = warning; SET LOCAL xmloption = content;\n"
)


def _script(found: list[str]) -> str:
    """Made as the owner, as whom alone its code may run, and so that no object has to be given away; but for
    what only a superuser makes.
    """
    kept = [sql for sql in found if sql and not _LEFT_OUT.match(sql)]
    by_admin: Callable[[str], bool] = _is_by_admin
    if not any(_PRIVILEGED.match(sql) for sql in kept if not _OWNER.match(sql)):
        kept = [sql for sql in kept if not _OWNER.match(sql)]
        by_admin = _never
    rest, late = late_last(kept)
    script = _QUIET
    if by_admin is _never:
        # a table without rows, of PostgreSQL's own types: to confine it takes longer than to make it
        plain = list(takewhile(is_plain, rest))
        if plain:
            text = "".join(f"{sql};\n" for sql in plain)
            script += f"SET LOCAL ROLE {PLACES.owner};\n{text}RESET ROLE;\n"
            rest = rest[len(plain) :]
    for is_by_admin, some in groupby(rest, by_admin):
        text = "".join(f"{sql};\n" for sql in some)
        script += text if is_by_admin else _jailed(text)
    if late:
        script += _jailed("".join(f"{sql};\n" for sql in late), MAKES_LATE)
    return script


def _is_by_admin(sql: str) -> bool:
    return not runs_code(sql)


def _never(sql: str) -> bool:
    return False


def _jailed(text: str, *ending: str) -> str:
    try:
        return jailed(text, PLACES.schema, PLACES.owner, *ending) + RESTORED + _QUIET
    except CanNotRun as problem:
        raise TemplateError(str(problem)) from None


async def _tried(connection: Connection, template: Roles, script: str) -> str:
    """Makes a schema by the script and takes it back; what else it takes to give it the template's rights."""
    trial = Roles(*(f"tp_trial_{secrets.token_hex(6)}_{kind}" for kind in "sowr"))
    assert trial.readwrite is not None
    assert trial.readonly is not None
    connection = rehearsal.itself(connection)
    had = await inventory.take(connection, template.estate())
    transaction = connection.transaction()
    await transaction.start()
    try:
        roles = "".join(f"CREATE ROLE {name} NOLOGIN;" for name in trial.names()[1:])
        member = "" if await _is_superuser(connection) else f"GRANT {trial.owner} TO CURRENT_USER;"
        rights = ";".join(
            schema_rights(trial.schema, trial.owner, trial.readwrite, trial.readonly, empty=True)
        )
        await connection.execute(
            f"{roles}{member}CREATE SCHEMA {trial.schema} AUTHORIZATION {trial.owner};{rights}"
        )
        await connection.execute(filled(script, trial))
        await connection.execute("SET LOCAL search_path = ''")
        made = await inventory.take(connection, trial.estate())
        different = await definitions.read(connection, template.schema)
        different.subtract(await definitions.read(connection, trial.schema))
    finally:
        await transaction.rollback()
    words = sorted({f"{kind} {name} is another" for (kind, name, _), count in different.items() if count})
    if words:
        raise TemplateError(f"the copy would differ: {'; '.join(words[:5])}")
    missing = Counter(_things(had)) - Counter(_things(made))
    extra = Counter(_things(made)) - Counter(_things(had))
    if missing or extra:
        shown = [f"{one.kind} {one.name} is missing" for one in missing]
        shown += [f"{one.kind} {one.name} is too many" for one in extra]
        raise TemplateError(f"the copy would differ: {'; '.join(sorted(shown)[:5])}")
    if template.readwrite is None:
        return ""
    return _revoked(_rights(made, trial) - _rights(had, template))


#: kinds that say something of the schema's objects, not of roles, rights and the database
_OTHERS: Final = frozenset(
    {"grant", "role", "membership", "setting", "schema", "default acl", "large object", "statistics"}
    | {"elsewhere", "user mapping", "subscription", "publication relation", "publication namespace"}
)


def _things(found: inventory.Inventory) -> list[Item]:
    return [
        Item(one.kind, "" if one.kind == "comment" else one.name, one.detail)
        for one in found.items
        if one.kind not in _OTHERS
        and not (one.kind == "comment" and one.name.split()[0] in ("role", "schema"))
    ]


def _rights(found: inventory.Inventory, of: Roles) -> set[tuple[str, str, str]]:
    """(object, right, place of the role) of the readwrite and the readonly role."""
    places = {of.readwrite: PLACES.readwrite, of.readonly: PLACES.readonly}
    result = set()
    for item in found.of("grant"):
        right, _, rest = item.detail.partition(" to ")
        place = places.get(rest.rpartition(" by ")[0].removesuffix(" with grant option"))
        if place is not None and not item.name.startswith(("schema ", "default acl ")):
            result.add((item.name, right, place))
    return result


_GRANTED_ON: Final[Mapping[str, str]] = {
    "table": "TABLE",
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "sequence": "SEQUENCE",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
    "type": "TYPE",
}


def _revoked(extra: set[tuple[str, str, str]]) -> str:
    """Rights that default privileges give and the template does not."""
    lines = []
    for thing, right, role in sorted(extra):
        for kind in sorted(_GRANTED_ON, key=len, reverse=True):
            if thing.startswith(f"{kind} "):
                name = f"{PLACES.schema}.{thing.removeprefix(kind).strip()}"
                lines.append(f"REVOKE {right} ON {_GRANTED_ON[kind]} {name} FROM {role};\n")
                break
    if not lines:
        return ""
    # its own types stand without a schema in the arguments of functions
    return "".join([f"SET LOCAL search_path = {PLACES.schema};\n", *lines, "SET LOCAL search_path = '';\n"])


async def _is_superuser(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT pg_catalog.current_setting('is_superuser') = 'on'"))
