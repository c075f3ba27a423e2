"""A tenant written to an archive: all of one snapshot, while the tenant goes on.

`pg_dump` writes the schema; what it leaves out of one (roles, casts, large objects, rights elsewhere) is
written here as SQL, and what belongs to the database rather than to the tenant is noted in the manifest.
"""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy import __version__
from tenant_proxy.lifecycle import archive, inventory, ledger, tools
from tenant_proxy.lifecycle.archive import Manifest, Table
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.reading import Progress, read_tables, silent
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.lifecycle.sql import literal
from tenant_proxy.lifecycle.tools import Database

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


async def export(
    database: Database,
    estate: Estate,
    target: Path,
    *,
    tenant: str,
    cluster: str = "",
    settings: dict[str, Any] | None = None,
    access: list[dict[str, Any]] | None = None,
    custom_roles: list[dict[str, Any]] | None = None,
    standard: tuple[str | None, str | None] = (None, None),
    pass_phrase: str | None = None,
    progress: Progress = silent,
    witness: Connection | None = None,
) -> Manifest:
    """Writes `target` and returns what its manifest says.  `standard` are the readwrite and readonly role,
    `witness` is a connection that has locked the tables already.

    In a rehearsal it has the definitions alone, and the columns that rows would be copied by.
    """
    # beside the target, as /tmp may be small; closed to others, as it holds the data in plain
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as name:
        directory = Path(name)
        os.chmod(directory, 0o700)
        async with (
            database.connected() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute("SET LOCAL row_security = off; SET LOCAL statement_timeout = 0")
            version = connection.get_server_version()
            tool = tools.find(version.major * 10_000)
            snapshot = await held(connection, estate.schema)
            progress("dump", 0, 1)
            await dump(tool, database, estate, directory / archive.DUMP, snapshot=snapshot)
            progress("dump", 1, 1)
            columns: dict[str, list[str]] = {}
            if database.rehearsal is None:
                tables = await read_tables(database, estate, progress, snapshot=snapshot, witness=witness)
                await _write_large_objects(connection, estate, directory / archive.LARGE_OBJECTS, progress)
            else:
                columns = await _columns(connection, estate.schema)
                tables = [Table(name, 0, "") for name in columns]
                if large := len(await connection.fetch(_LARGE_OBJECTS, estate.all_roles())):
                    database.rehearsal.note(
                        f"{large} large objects come along, with their rights: lo_create, lo_put,"
                        " ALTER LARGE OBJECT … OWNER TO"
                    )
            found = await inventory.take(connection, estate)
            (directory / archive.ROLES).write_text(await roles_sql(connection, estate))
            (directory / archive.EXTRAS).write_text(await extras_sql(connection, estate))
            source = {
                "cluster": cluster,
                "database": database.name,
                "schema": estate.schema,
                "owner": estate.owner,
                "roles": estate.all_roles(),
                "readwrite": standard[0],
                "readonly": standard[1],
                **dict(await _server(connection)),
                **({"columns": columns} if columns else {}),
                "order": await _heirs(connection, estate.schema),
            }
            extensions = await needed_extensions(connection, estate.schema)
            migrations = await ledger.as_list(connection, estate.schema)
        (directory / archive.RESTORE).write_text(archive.RESTORE_TEXT)
        manifest = Manifest(
            tenant=tenant,
            made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            made_by=f"tenant_proxy {__version__}",
            source=source,
            tool=f"pg_dump {tool}",
            tables=tables,
            extensions=extensions,
            inventory=found.counts(),
            settings=settings or {},
            access=access or [],
            custom_roles=custom_roles or [],
            migrations=migrations,
            notes=_notes(found),
        )
        progress("pack", 0, 1)
        manifest = archive.pack(directory, manifest, target, pass_phrase)
        progress("pack", 1, 1)
    return manifest


#: Locks them, as nextval would, until the transaction ends.
_HELD: Final = """
SELECT pg_catalog.count(pg_catalog.pg_sequence_last_value(c.oid))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'S'
"""


async def held(connection: Connection, schema: str) -> str:
    """The snapshot of the connection's transaction, for pg_dump.

    It locks tables, but selects from sequences by their names: of a table that has come in the place of one
    it would have computed what is constant in its indexes.
    """
    await connection.fetchval(_HELD, schema)
    return str(await connection.fetchval("SELECT pg_catalog.pg_export_snapshot()"))


async def dump(
    tool: tools.Tools,
    database: Database,
    estate: Estate,
    target: Path | None,
    *,
    snapshot: str | None = None,
    options: tuple[str, ...] = (),
) -> bytes:
    """pg_dump of the schema, in the custom format to `target`, or as text."""
    pattern = '"' + estate.schema.replace('"', '""') + '"'
    arguments = [
        tool.path("pg_dump"),
        f"--schema={pattern}",
        "--no-password",
        "--encoding=UTF8",
        *options,
    ]
    if target is not None:
        arguments += ["--format=custom", f"--file={target}"]
    if snapshot is not None:
        arguments.append(f"--snapshot={snapshot}")
    if database.rehearsal is not None and target is not None:
        told = [one.replace(str(target), target.name) for one in arguments]
        database.rehearsal.command(told, database.shown())
        arguments.append("--schema-only")
    return await tools.run(arguments, database)


_COLUMNS: Final = """
SELECT c.relname::text AS name, array(
           SELECT a.attname::text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            ORDER BY a.attnum) AS columns
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY c.relname
"""


async def _columns(connection: Connection, schema: str) -> dict[str, list[str]]:
    return {row["name"]: row["columns"] for row in await connection.fetch(_COLUMNS, schema)}


async def _heirs(connection: Connection, schema: str) -> dict[str, list[str]]:
    """Tables that inherit, and their columns: a dump may put these in another order."""
    return {row["name"]: row["columns"] for row in await connection.fetch(_HEIRS, schema)}


_HEIRS: Final = """
SELECT c.relname::text AS name,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind = 'r' AND NOT c.relispartition
   AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
"""


async def _server(connection: Connection) -> asyncpg.Record:
    row = await connection.fetchrow(
        "SELECT pg_catalog.current_setting('server_version') AS server_version,"
        " pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding, d.datcollate::text AS collation"
        "  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    )
    assert row is not None
    return row


_EXTENSIONS: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
m AS ({inventory.members("ns")})
SELECT DISTINCT e.extname::text AS name, e.extversion AS version, n.nspname::text AS schema
  FROM pg_catalog.pg_depend d
  JOIN m ON m.classid = d.classid AND m.objid = d.objid
  JOIN pg_catalog.pg_depend x ON x.classid = d.refclassid AND x.objid = d.refobjid AND x.deptype = 'e'
  JOIN pg_catalog.pg_extension e ON e.oid = x.refobjid
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 ORDER BY 1
"""


async def needed_extensions(connection: Connection, schema: str) -> list[dict[str, str]]:
    """Those that objects of the schema are made with."""
    return [dict(row) for row in await connection.fetch(_EXTENSIONS, schema)]


def _notes(found: inventory.Inventory) -> list[str]:
    """What is the database's, not the schema's, and so stays behind."""
    left = {
        "event trigger": "an event trigger calls a function of the schema",
        "publication relation": "a publication has a table of the schema",
        "publication namespace": "a publication has the schema",
        "subscription": "a subscription is owned by a role of the tenant",
        "user mapping": "a user mapping for a role of the tenant holds a password",
        "transform": "a transform is made of a type or function of the schema",
        "extension": "an extension is installed in the schema",
    }
    return [f"{left[item.kind]}: {item.name}" for item in found.items if item.kind in left]


# --- what pg_dump leaves out of a schema ------------------------------------------------


_ROLES: Final = """
SELECT r.rolname::text AS name, r.rolcanlogin, r.rolinherit, r.rolconnlimit, r.rolvaliduntil::text AS until,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
  FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[]) ORDER BY r.rolcanlogin, r.rolname
"""
_ROLE_LABELS: Final = """
SELECT r.rolname::text AS name, l.provider, l.label FROM pg_catalog.pg_shseclabel l
  JOIN pg_catalog.pg_roles r ON r.oid = l.objoid
 WHERE l.classoid = 'pg_catalog.pg_authid'::regclass AND r.rolname = ANY ($1::text[]) ORDER BY 1, 2
"""
_MEMBERSHIPS: Final = """
SELECT g.rolname::text AS role, m.rolname::text AS member, a.admin_option,
       pg_catalog.to_jsonb(a) ->> 'inherit_option' AS inherits,
       pg_catalog.to_jsonb(a) ->> 'set_option' AS sets
  FROM pg_catalog.pg_auth_members a
  JOIN pg_catalog.pg_roles g ON g.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member
 WHERE g.rolname = ANY ($1::text[]) AND m.rolname = ANY ($1::text[]) ORDER BY 1, 2
"""
_SETTINGS: Final = """
SELECT r.rolname::text AS role, s.setdatabase <> 0 AS here, c.one
  FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
 CROSS JOIN LATERAL unnest(s.setconfig) AS c(one)
 WHERE r.rolname = ANY ($1::text[])
   AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                              WHERE d.datname = pg_catalog.current_database()))
 ORDER BY 1, 2, 3
"""

#: settings whose value is a list of names
_LISTS: Final = frozenset({"search_path", "temp_tablespaces", "session_preload_libraries", "DateStyle"})


async def roles_sql(connection: Connection, estate: Estate) -> str:
    """The tenant's roles, without passwords and without rights beyond the tenant."""
    roles = estate.all_roles()
    lines = ["-- roles of the tenant; passwords are not exported"]
    for row in await connection.fetch(_ROLES, roles):
        options = ["LOGIN" if row["rolcanlogin"] else "NOLOGIN"]
        options += [] if row["rolinherit"] else ["NOINHERIT"]
        options += [f"CONNECTION LIMIT {row['rolconnlimit']}"] if row["rolconnlimit"] >= 0 else []
        options += [f"VALID UNTIL {literal(row['until'])}"] if row["until"] else []
        lines.append(f"CREATE ROLE {quote_name(row['name'])} {' '.join(options)};")
        if row["comment"] is not None:
            lines.append(f"COMMENT ON ROLE {quote_name(row['name'])} IS {literal(row['comment'])};")
    for row in await connection.fetch(_ROLE_LABELS, roles):
        label = f"SECURITY LABEL FOR {quote_name(row['provider'])} ON ROLE {quote_name(row['name'])}"
        lines.append(f"{label} IS {literal(row['label'])};")
    for row in await connection.fetch(_MEMBERSHIPS, roles):
        options = ["ADMIN TRUE"] if row["admin_option"] else []
        options += ["INHERIT FALSE"] if row["inherits"] == "false" else []
        options += ["SET FALSE"] if row["sets"] == "false" else []
        given = f" WITH {', '.join(options)}" if options else ""
        if given == " WITH ADMIN TRUE":
            given = " WITH ADMIN OPTION"
        lines.append(f"GRANT {quote_name(row['role'])} TO {quote_name(row['member'])}{given};")
    for row in await connection.fetch(_SETTINGS, roles):
        name, _, value = row["one"].partition("=")
        where = " IN DATABASE %DATABASE%" if row["here"] else ""
        setting = _setting(name, value)
        lines.append(f"ALTER ROLE {quote_name(row['role'])}{where} SET {quote_parts(name)} TO {setting};")
    quoted = quote_name(await connection.fetchval("SELECT pg_catalog.current_database()"))
    return "\n".join(line.replace("%DATABASE%", quoted) for line in lines) + "\n"


def _setting(name: str, value: str) -> str:
    if name not in _LISTS or not value:
        return literal(value)
    return ", ".join(literal(part) for part in _list(value))


def _list(value: str) -> Iterator[str]:
    """The names of a list as it is stored: `a, "B c"`."""
    at = 0
    while at < len(value):
        if value[at] == '"':
            end = at + 1
            while not (value[end] == '"' and value[end + 1 : end + 2] != '"'):
                end += 2 if value[end] == '"' else 1
            yield value[at + 1 : end].replace('""', '"')
            at = end + 1
        else:
            end = value.find(",", at)
            end = len(value) if end < 0 else end
            if value[at:end].strip():
                yield value[at:end].strip()
            at = end
        at += len(value[at:]) - len(value[at:].lstrip(", "))


_CASTS: Final = """
SELECT DISTINCT pg_catalog.format_type(c.castsource, NULL) AS source,
       pg_catalog.format_type(c.casttarget, NULL) AS target,
       CASE WHEN c.castfunc <> 0 THEN c.castfunc::regprocedure::text END AS function,
       c.castmethod::text AS method, c.castcontext::text AS context,
       pg_catalog.obj_description(c.oid, 'pg_cast') AS comment
  FROM pg_catalog.pg_cast c
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_cast'::regclass AND d.objid = c.oid
  LEFT JOIN pg_catalog.pg_type t ON d.refclassid = 'pg_catalog.pg_type'::regclass AND t.oid = d.refobjid
  LEFT JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.refobjid
  JOIN pg_catalog.pg_namespace n ON n.oid IN (t.typnamespace, p.pronamespace)
 -- casts of ranges to multiranges come with them
 WHERE n.nspname = $1 AND d.deptype = 'n'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_range r WHERE r.rngmultitypid = c.casttarget
                      AND r.rngtypid = c.castsource)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classid AND e.objid = c.oid
                      AND e.deptype = 'e')
 ORDER BY 1, 2
"""

#: default privileges in any schema: what differs from what PostgreSQL would give
_DEFAULTS: Final = """
WITH a AS (
    SELECT r.rolname::text AS role, d.defaclobjtype::text AS type, d.defaclacl AS now,
           pg_catalog.acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END,
                                 d.defaclrole) AS before
      FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles r ON r.oid = d.defaclrole
     WHERE r.rolname = ANY ($1::text[]) AND d.defaclnamespace = 0)
SELECT a.role, a.type, 'GRANT' AS what, x.privilege_type AS privilege, x.is_grantable,
       CASE x.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(x.grantee)::text END AS grantee
  FROM a CROSS JOIN LATERAL pg_catalog.aclexplode(a.now) x
 WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(a.before) y WHERE y = x)
UNION ALL
SELECT a.role, a.type, 'REVOKE', x.privilege_type, false,
       CASE x.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(x.grantee)::text END
  FROM a CROSS JOIN LATERAL pg_catalog.aclexplode(a.before) x
 WHERE NOT EXISTS (SELECT FROM pg_catalog.aclexplode(a.now) y
                    WHERE (y.grantee, y.privilege_type) = (x.grantee, x.privilege_type))
 ORDER BY 3 DESC, 1, 2, 4
"""
_TYPES: Final = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "FUNCTIONS",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}

#: Rights of the roles on what is not in the schema; what they have given each other is on what is their own
#: there, which does not come along.
_ELSEWHERE: Final = """
WITH r AS (SELECT a.oid FROM pg_catalog.pg_roles a WHERE a.rolname = ANY ($2::text[])),
a AS (
    SELECT 'SCHEMA' AS kind, quote_ident(n.nspname) AS name, n.nspacl AS acl FROM pg_catalog.pg_namespace n
     WHERE n.nspname <> $1
    UNION ALL SELECT 'DATABASE', quote_ident(d.datname), d.datacl FROM pg_catalog.pg_database d
     WHERE d.datname = pg_catalog.current_database()
    UNION ALL SELECT 'FOREIGN SERVER', quote_ident(s.srvname), s.srvacl FROM pg_catalog.pg_foreign_server s
    UNION ALL SELECT 'FOREIGN DATA WRAPPER', quote_ident(w.fdwname), w.fdwacl
      FROM pg_catalog.pg_foreign_data_wrapper w
    UNION ALL SELECT 'LANGUAGE', quote_ident(l.lanname), l.lanacl FROM pg_catalog.pg_language l
    UNION ALL SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relacl
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname <> $1 AND c.relacl IS NOT NULL
    UNION ALL SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure::text,
           p.proacl
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname <> $1 AND p.proacl IS NOT NULL)
SELECT a.kind, a.name, x.privilege_type AS privilege, x.is_grantable, g.rolname::text AS grantee
  FROM a CROSS JOIN LATERAL pg_catalog.aclexplode(a.acl) x JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
 WHERE x.grantee IN (SELECT oid FROM r) AND x.grantor NOT IN (SELECT oid FROM r) ORDER BY 1, 2, 3, 5
"""


async def casts_sql(connection: Connection, schema: str) -> list[str]:
    lines = []
    for row in await connection.fetch(_CASTS, schema):
        how = {"f": f"WITH FUNCTION {row['function']}", "i": "WITH INOUT"}.get(
            row["method"], "WITHOUT FUNCTION"
        )
        context = {"a": " AS ASSIGNMENT", "i": " AS IMPLICIT"}.get(row["context"], "")
        cast = f"CAST ({row['source']} AS {row['target']})"
        lines.append(f"CREATE {cast} {how}{context};")
        if row["comment"] is not None:
            lines.append(f"COMMENT ON {cast} IS {literal(row['comment'])};")
    return lines


async def extras_sql(connection: Connection, estate: Estate) -> str:
    lines = ["-- what pg_dump leaves out of a schema", *await casts_sql(connection, estate.schema)]
    for row in await connection.fetch(_DEFAULTS, estate.all_roles()):
        grantee = "PUBLIC" if row["grantee"] is None else quote_name(row["grantee"])
        option = " WITH GRANT OPTION" if row["is_grantable"] else ""
        way = f"TO {grantee}{option}" if row["what"] == "GRANT" else f"FROM {grantee}"
        lines.append(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote_name(row['role'])}"
            f" {row['what']} {row['privilege']} ON {_TYPES[row['type']]} {way};"
        )
    for row in await connection.fetch(_ELSEWHERE, estate.schema, estate.all_roles()):
        option = " WITH GRANT OPTION" if row["is_grantable"] else ""
        lines.append(
            f"GRANT {row['privilege']} ON {row['kind']} {row['name']}"
            f" TO {quote_name(row['grantee'])}{option};"
        )
    return "\n".join(lines) + "\n"


_LARGE_OBJECTS: Final = """
SELECT l.oid, r.rolname::text AS owner, pg_catalog.obj_description(l.oid, 'pg_largeobject') AS comment,
       ARRAY(SELECT ARRAY[s.provider, s.label] FROM pg_catalog.pg_seclabel s
              WHERE s.classoid = 'pg_catalog.pg_largeobject'::regclass AND s.objoid = l.oid
              ORDER BY s.provider) AS labels
  FROM pg_catalog.pg_largeobject_metadata l JOIN pg_catalog.pg_roles r ON r.oid = l.lomowner
 WHERE r.rolname = ANY ($1::text[]) ORDER BY l.oid
"""
_LARGE_OBJECT_RIGHTS: Final = """
SELECT x.privilege_type AS privilege, x.is_grantable,
       CASE x.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(x.grantee)::text END AS grantee
  FROM pg_catalog.pg_largeobject_metadata l CROSS JOIN LATERAL pg_catalog.aclexplode(l.lomacl) x
 WHERE l.oid = $1 AND x.grantee <> l.lomowner ORDER BY 3, 1
"""
_PIECE: Final = 1 << 18


async def _write_large_objects(
    connection: Connection, estate: Estate, target: Path, progress: Progress
) -> None:
    rows = await connection.fetch(_LARGE_OBJECTS, estate.all_roles())
    if not rows:
        return
    with open(target, "w", encoding="utf-8") as out:  # noqa: ASYNC230
        for number, row in enumerate(rows):
            progress("large objects", number, len(rows))
            oid = row["oid"]
            out.write(f"SELECT pg_catalog.lo_create({oid});\n")
            offset = 0
            while piece := await connection.fetchval("SELECT lo_get($1, $2, $3)", oid, offset, _PIECE):
                out.write(f"SELECT pg_catalog.lo_put({oid}, {offset}, '\\x{piece.hex()}');\n")
                offset += len(piece)
            out.write(f"ALTER LARGE OBJECT {oid} OWNER TO {quote_name(row['owner'])};\n")
            for right in await connection.fetch(_LARGE_OBJECT_RIGHTS, oid):
                grantee = "PUBLIC" if right["grantee"] is None else quote_name(right["grantee"])
                option = " WITH GRANT OPTION" if right["is_grantable"] else ""
                out.write(f"GRANT {right['privilege']} ON LARGE OBJECT {oid} TO {grantee}{option};\n")
            if row["comment"] is not None:
                out.write(f"COMMENT ON LARGE OBJECT {oid} IS {literal(row['comment'])};\n")
            for provider, label in row["labels"]:
                said = f"SECURITY LABEL FOR {quote_name(provider)} ON LARGE OBJECT {oid}"
                out.write(f"{said} IS {literal(label)};\n")
        progress("large objects", len(rows), len(rows))


def quote_parts(name: str) -> str:
    """A setting's name, which may have a dot in it."""
    return ".".join(quote_name(part) for part in name.split("."))
