"""Writes the SQL of the schemas for one server, from its own catalogs and the judgements in data/.

    server = Server(major=17, columns={("pg_catalog", "pg_class"): [Column("oid", "oid"), …], …})
    text = script(server)

Columns differ between majors, so they come from the server; what is shown of which relation does not.
The text is the same for equal servers, so that it can be compared with what is installed.
"""

from __future__ import annotations

import functools
import hashlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

from tenant_proxy.shims import VERSION, dynamic
from tenant_proxy.shims.names import CATALOG, INFORMATION, LISTING, SYSTEM, SYSTEM_COLUMNS, load

SCHEMAS: Final = (CATALOG, SYSTEM, LISTING, INFORMATION)
MAJORS: Final = range(15, 19)

#: columns of these types are text that somebody wrote: shown only of rows that are shown
_MASKED_TYPES: Final = frozenset({"text", "text[]", "bytea", "pg_node_tree", "anyarray"})
#: and of these names, unless indexes find one object among all by the column
_MASKED_NAMES: Final = frozenset({"name", "name[]"})
_BY_INDEX: Final = frozenset(
    {"relname", "indexrelname", "tablename", "viewname", "matviewname", "indexname", "sequencename"}
    | {"funcname"}
)
#: of information_schema: columns that name a schema but not that of the row's object
_BESIDE: Final = frozenset(
    {"character_set_schema", "collation_schema", "domain_schema", "scope_schema", "udt_schema"}
    | {"result_cast_char_set_schema", "result_cast_character_set_schema", "result_cast_collation_schema"}
    | {"result_cast_scope_schema", "result_cast_type_udt_schema", "to_sql_specific_schema"}
    | {"type_udt_schema"}
)


class Column(NamedTuple):
    name: str
    #: as format_type says it
    type: str


@dataclass(frozen=True, slots=True)
class Server:
    """What the SQL depends on."""

    major: int
    #: (schema, relation) -> columns in order, of all tables and views of the two schemas
    columns: Mapping[tuple[str, str], Sequence[Column]]


#: what `Server.columns` is read with: schema, relation, column, type
COLUMNS_SQL: Final = """
SELECT n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, NULL)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'v')
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY n.nspname, c.relname, a.attnum
"""


class UnsupportedServer(ValueError):
    """Of a major that nobody has looked at."""


def script(server: Server) -> str:
    """Everything, to be run in one transaction; may be run again, and over an older version's."""
    if server.major not in MAJORS:
        raise UnsupportedServer(
            f"PostgreSQL {server.major} is not supported: catalogs of {MAJORS[0]} to {MAJORS[-1]} are known"
        )
    parts = [f"CREATE SCHEMA IF NOT EXISTS {schema};" for schema in SCHEMAS]
    parts += [_sql("helpers.sql").replace("{version}", VERSION)]
    parts += views(server)
    parts += [_for_major(_sql("functions.sql"), server.major), *_statistics(server.major), dynamic.script()]
    for schema in SCHEMAS:
        parts += [
            f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC;",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO PUBLIC;",
        ]
    parts.append(_drop_stale("\n".join(parts)))
    text = "\n\n".join(parts)
    return f"{text}\n\nCOMMENT ON SCHEMA {CATALOG} IS '{_label(server, text)}';\n"


def _drop_stale(text: str) -> str:
    """Takes away what an older version had and `text` does not make."""
    made = sorted(set(re.findall(r"CREATE OR REPLACE (?:VIEW|FUNCTION) (\w+\.\w+)", text)))
    names = textwrap.fill(
        ", ".join(f"'{name}'" for name in made), 110, initial_indent=" " * 8, subsequent_indent=" " * 8
    )
    schemas = ", ".join(f"'{schema}'" for schema in SCHEMAS)
    return f"""DO $$
DECLARE
    stale text;
BEGIN
    FOR stale IN
        SELECT o.kind || o.object || o.arguments FROM (
            SELECT 'DROP VIEW ', n.nspname || '.' || c.relname, ''
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname IN ({schemas})
            UNION ALL
            SELECT 'DROP FUNCTION ', n.nspname || '.' || p.proname,
                   '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')'
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname IN ({schemas})
        ) AS o (kind, object, arguments)
        WHERE o.object NOT IN (
{names}
        )
    LOOP
        EXECUTE stale;
    END LOOP;
END $$;"""


def label(server: Server) -> str:
    """The comment on the schema that is installed by `script`: equal if and only if all of it is."""
    found = re.search(rf"COMMENT ON SCHEMA {CATALOG} IS '([^']*)'", script(server))
    assert found is not None
    return found[1]


def _label(server: Server, text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"tenant_proxy {VERSION} for PostgreSQL {server.major}, {digest}"


def _statistics(major: int) -> Iterator[str]:
    """The functions that say what was done with a relation or function, by its OID."""
    data = _data()
    later = {name for since, names in data["since"].items() if since > major for name in names}
    for catalog, kinds in data["statistics"].items():
        for kind, names in kinds.items():
            for name in names:
                if name not in later:
                    changes = "VOLATILE" if name.startswith("pg_stat_get_xact_") else "STABLE"
                    yield f"""CREATE OR REPLACE FUNCTION {CATALOG}.{name}(oid) RETURNS {kind}
    LANGUAGE sql {changes} STRICT PARALLEL RESTRICTED
RETURN CASE WHEN {CATALOG}.sees({catalog}, $1) THEN pg_catalog.{name}($1) END;"""


def views(server: Server) -> Iterator[str]:
    data = _data()
    for name, rule in data["tables"].items():
        if ("pg_catalog", name) in server.columns:
            yield _view(server, "pg_catalog", name, rule, CATALOG)
            yield _view(server, "pg_catalog", name, rule, SYSTEM)
            if "listing" in rule:
                yield _view(server, "pg_catalog", name, rule, LISTING)
    for name, rule in data["views"].items():
        if ("pg_catalog", name) in server.columns:
            yield _view(server, "pg_catalog", name, rule, CATALOG)
    information = data["information_schema"]
    for name, rule in information["views"].items():
        yield _view(server, "information_schema", name, rule, INFORMATION)
    for name in information["by_schemas"]:
        yield _view(server, "information_schema", name, "schemas", INFORMATION)


def _view(server: Server, schema: str, name: str, rule: Any, into: str) -> str:
    columns = server.columns[schema, name]
    if rule == "false":
        # nothing is read, so that nobody needs rights for columns that ordinary roles can't read
        shown = [f"NULL::{_type(column)} AS {column.name}" for column in columns]
        if into == SYSTEM:
            shown += [f"NULL::{_SYSTEM_TYPES[name]} AS {name}" for name in sorted(SYSTEM_COLUMNS)]
        body = f"SELECT {_list(shown)}\nWHERE false"
    else:
        joined, condition = _rule(rule, schema, columns, into)
        # a join's condition too, or the planner could ask of a row beside one that it does not belong to
        masked = " AND ".join(filter(None, (joined.partition(" ON ")[2], condition)))
        shown = [_column(schema, name, column, masked) for column in columns]
        if into == SYSTEM:
            shown += [f"t.{column}" for column in sorted(SYSTEM_COLUMNS)]
        body = f"SELECT {_list(shown)}\nFROM {schema}.{name} t{joined}"
        if condition:
            body += f"\nWHERE {condition}"
    # with the rights of who reads: the installer's are lent to nobody
    barrier = ", security_barrier = true" if name in _data()["barriers"] else ""
    return f"CREATE OR REPLACE VIEW {into}.{name} WITH (security_invoker = true{barrier}) AS\n{body};"


_SYSTEM_TYPES: Final = {
    "tableoid": "oid", "ctid": "tid", "xmin": "xid", "xmax": "xid", "cmin": "cid", "cmax": "cid"
}  # fmt: skip


def _rule(rule: Any, schema: str, columns: Sequence[Column], into: str) -> tuple[str, str]:
    """(what is joined, the condition; "" shows every row)."""
    if rule == "true":
        return "", ""
    if rule == "schemas":
        # shown are rows in which each schema is the tenant's, or there is none
        first, *others = [c.name for c in columns if c.name.endswith("_schema")]
        tests = [f"t.{first} = {_macro('names')}"]
        tests += [
            f"(t.{other} IS NULL OR t.{other} = {_macro('names')})"
            for other in others
            if other not in _BESIDE
        ]
        return "", "\n  AND ".join(tests)
    if isinstance(rule, str):
        return "", _expand(rule)
    if "condition" in rule:
        key = {SYSTEM: "system", LISTING: "listing"}.get(into, "condition")
        condition = rule.get(key, rule["condition"])
        return "", _expand(condition)
    (kind, of), = rule.items()  # fmt: skip
    return _kind(kind, of)


def _kind(kind: str, of: Any) -> tuple[str, str]:
    match kind:
        case "relation":
            return (
                f"\nJOIN pg_catalog.pg_class o ON o.oid = t.{of}",
                _expand("o.relnamespace = {schemas}"),
            )
        case "type":
            return f"\nJOIN pg_catalog.pg_type o ON o.oid = t.{of}", _expand("o.typnamespace = {types}")
        case "object":
            return "", f"(t.{of[1]} < 16384 OR {CATALOG}.sees(t.{of[0]}, t.{of[1]}))"
        case "schema":
            return "", f"t.{of} = {_macro('names')}"
        case "values":
            return "", (
                f"t.{of} = {_macro('names')}"
                f" AND t.{of} <> ALL ('{{pg_catalog,information_schema}}'::pg_catalog.name[])"
            )
        case "role_names":
            names = "ANY (ARRAY(SELECT r.rolname FROM tp_catalog.pg_roles r))"
            return "", "\n  AND ".join(f"t.{one} = {names}" for one in of)
    raise ValueError(f"unknown rule {kind}")


def _column(schema: str, name: str, column: Column, condition: str) -> str:
    """The column as it is shown, under its name."""
    rules = _data()["columns"]
    full = f"{name}.{column.name}"
    plain = f"t.{column.name}"
    shown = plain
    if schema == "pg_catalog" and full in rules["instead"]:
        shown = _of_column(_expand(rules["instead"][full]), plain)
    elif full in rules["shown"][schema]:
        shown = f"{CATALOG}.shown({plain})"
        if full in rules["by_rule"]:
            shown = f"(CASE WHEN {CATALOG}.equality_is_plain() THEN {shown} END)"
        if schema == "information_schema":
            shown += f"::{_type(column)}"
    elif (schema == "pg_catalog" and column.name == "schemaname") or (
        schema == "information_schema" and (column.name.endswith("_schema") or full == "schemata.schema_name")
    ):
        shown = f"({_of_column(_macro('schema_name'), plain)})::{_type(column)}"
    elif column.type == "aclitem[]":
        shown = f"{CATALOG}.rights({plain})"
    elif column.type == "anyarray":
        # a view can't have a column of this type; as text it looks the same
        shown = f"{plain}::text"
    if schema == "pg_catalog" and condition and _is_masked(full, column):
        shown = f"CASE WHEN {condition} THEN {shown} END"
    return shown if shown == plain else f"{shown} AS {column.name}"


def _is_masked(full: str, column: Column) -> bool:
    """Whether a condition of the statement that is evaluated before the view's must not see it."""
    if column.name in _BY_INDEX or full in _data()["columns"]["not_masked"]:
        return False
    return column.type in _MASKED_TYPES or column.type in _MASKED_NAMES


def _of_column(expression: str, column: str) -> str:
    return re.sub(r"\bc\b", column, expression)


def _type(column: Column) -> str:
    if column.type == "anyarray":
        return "text"
    return column.type if "." in column.type or " " in column.type else f"{column.type}"


def _list(items: Sequence[str]) -> str:
    return ",\n    ".join(items)


def _expand(text: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: _macro(found[1]), text.strip())


@functools.cache
def _macro(name: str) -> str:
    return _expand(_data()["macros"][name])


@functools.cache
def _data() -> Any:
    return load()


def _sql(name: str) -> str:
    text = resources.files("tenant_proxy.shims").joinpath("data", name).read_text("utf-8")
    return text.strip()


def _for_major(text: str, major: int) -> str:
    """Without what is marked as being for later majors."""
    kept = []
    for part in text.split("\n\n"):
        since = re.match(r"-- since (\d+)\n", part)
        if since is None or int(since[1]) <= major:
            kept.append(part)
    return "\n\n".join(kept)
