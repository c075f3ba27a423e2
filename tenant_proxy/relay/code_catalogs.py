"""What the server says of tenants' code: of many tenants at once, as a question costs more than its answers.

Each question looks through whole catalogs, whoever is asked about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import asyncpg

from tenant_proxy.shims.names import CATALOG

FIRST_USER_OID: Final = 16384

#: found by all, whatever search_path says.  Functions there that are not PostgreSQL's, and those of operators
#: there and of casts between its types, are read as tenants' own
SYSTEM_SCHEMAS: Final = ("pg_catalog", "information_schema")

#: more source than this in a schema is not read
MAX_CODE_BYTES: Final = 8 * 1024 * 1024

_OPEN = """
SELECT a.usename::pg_catalog.text AS login, l.virtualtransaction AS transaction, l.pid
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid' AND l.granted AND a.usename = ANY ($1::pg_catalog.text[])
   AND a.datname = pg_catalog.current_database()
"""

#: logins that may change code of a schema: as a role that they are or may become, which may create there,
#: owns something or may put triggers on it; or by a function that runs as another
_ABLE = f"""
WITH spaces AS (
  SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace WHERE nspname = ANY ($2::pg_catalog.text[])),
owners (space, owner) AS (
  SELECT oid, nspowner FROM spaces
   UNION SELECT s.oid, c.relowner FROM pg_catalog.pg_class c JOIN spaces s ON s.oid = c.relnamespace
   UNION SELECT s.oid, p.proowner FROM pg_catalog.pg_proc p JOIN spaces s ON s.oid = p.pronamespace
   UNION SELECT s.oid, t.typowner FROM pg_catalog.pg_type t JOIN spaces s ON s.oid = t.typnamespace)
SELECT r.rolname::pg_catalog.text AS login, s.nspname::pg_catalog.text AS schema
  FROM pg_catalog.pg_roles r CROSS JOIN spaces s
 WHERE r.rolname = ANY ($1::pg_catalog.text[]) AND EXISTS (
   SELECT FROM pg_catalog.pg_roles m
    WHERE pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER') AND (
      m.rolsuper OR m.rolcreaterole OR pg_catalog.has_schema_privilege(m.oid, s.oid, 'CREATE')
      OR EXISTS (SELECT FROM owners o WHERE o.space = s.oid AND o.owner = m.oid)
      OR EXISTS (SELECT FROM pg_catalog.pg_class c
                  WHERE c.relnamespace = s.oid AND c.relkind IN ('r', 'v', 'p', 'f')
                    AND pg_catalog.has_table_privilege(m.oid, c.oid, 'TRIGGER'))
      OR EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                  WHERE p.prosecdef AND p.oid >= {FIRST_USER_OID} AND n.nspname <> '{CATALOG}'
                    AND pg_catalog.has_function_privilege(m.oid, p.oid, 'EXECUTE'))))
"""

#: why the service login must not be shared by tenants, if so
_UNFIT = """
SELECT CASE WHEN r.rolsuper THEN 'SUPERUSER' WHEN r.rolbypassrls THEN 'BYPASSRLS'
            WHEN r.rolcreaterole THEN 'CREATEROLE'
            WHEN coalesce(m.inherits, r.rolinherit) THEN 'INHERIT' END
  FROM pg_catalog.pg_roles r
 CROSS JOIN LATERAL (
   SELECT pg_catalog.bool_or((pg_catalog.to_jsonb(a) ->> 'inherit_option')::pg_catalog.bool)
     FROM pg_catalog.pg_auth_members a WHERE a.member = r.oid) AS m (inherits)
 WHERE r.rolname = SESSION_USER
"""

_FUNCTIONS = f"""
WITH everywhere AS (
  SELECT c.castfunc AS oid FROM pg_catalog.pg_cast c
   WHERE c.oid >= {FIRST_USER_OID} AND c.castsource < {FIRST_USER_OID} AND c.casttarget < {FIRST_USER_OID}
   UNION SELECT o.oprcode FROM pg_catalog.pg_operator o
   WHERE o.oid >= {FIRST_USER_OID} AND o.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace)
SELECT CASE WHEN p.oid IN (SELECT oid FROM everywhere) THEN 'pg_catalog'
            ELSE n.nspname::pg_catalog.text END AS schema, n.nspname::pg_catalog.text AS space,
       p.oid, n.nspname || '.' || p.proname AS name, l.lanname AS language, e.extname AS extension,
       p.prokind::text, CASE WHEN l.lanname = 'internal' THEN p.prosrc END AS source,
       CASE WHEN l.lanname IN ('sql', 'plpgsql') AND p.prokind IN ('f', 'p', 'w')
              AND s.bytes <= {MAX_CODE_BYTES}
            THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition,
       s.bytes > {MAX_CODE_BYTES} AS is_much
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  JOIN (SELECT o.pronamespace, pg_catalog.sum(pg_catalog.octet_length(o.prosrc)
          + coalesce(pg_catalog.octet_length(o.prosqlbody::pg_catalog.text), 0)) AS bytes
          FROM pg_catalog.pg_proc o GROUP BY o.pronamespace) AS s ON s.pronamespace = n.oid
 WHERE n.nspname = ANY ($1::pg_catalog.text[])
    OR p.oid IN (SELECT oid FROM everywhere)
    OR n.nspname = ANY (ARRAY{list(SYSTEM_SCHEMAS)}) AND p.oid >= {FIRST_USER_OID} AND EXISTS (
         SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
          WHERE a.grantee <> p.proowner)
"""

#: stands for session_user among the functions that are called
SESSION_USER: Final = (1 << 32) - 1
#: … and for an UPDATE of pg_settings, of which a rule of PostgreSQL's makes set_config()
SETTINGS: Final = (1 << 32) - 2

#: views and rules that such an UPDATE may come through, of others where they are granted
_UPDATES_SETTINGS = f"""
SELECT r.schema, {SETTINGS}::pg_catalog.oid
  FROM relations r
  JOIN pg_catalog.pg_class c ON c.oid = r.oid
  JOIN pg_catalog.pg_rewrite x ON x.ev_class = r.oid
 WHERE pg_catalog.strpos(x.ev_action::pg_catalog.text,
         ':relid ' || 'pg_catalog.pg_settings'::pg_catalog.regclass::pg_catalog.oid || ' ') > 0
   AND (NOT (SELECT o.rolsuper FROM pg_catalog.pg_roles o WHERE o.oid = c.relowner)
        OR EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a
                    WHERE a.grantee <> c.relowner AND a.privilege_type = 'UPDATE')
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL))
"""


def _called() -> str:
    """SQL for what stored expressions, triggers, operators, casts and aggregates call: (schema, function)."""
    trees = (
        ("pg_rewrite", "ev_class", ("ev_action", "ev_qual")),
        ("pg_attrdef", "adrelid", ("adbin",)),
        ("pg_policy", "polrelid", ("polqual", "polwithcheck")),
        ("pg_trigger", "tgrelid", ("tgqual",)),
        ("pg_index", "indrelid", ("indexprs", "indpred")),
        ("pg_partitioned_table", "partrelid", ("partexprs",)),
        ("pg_statistic_ext", "stxrelid", ("stxexprs",)),
    )
    parts = [
        f"SELECT r.schema, x.{column}::pg_catalog.text FROM pg_catalog.{table} x"
        f" JOIN relations r ON r.oid = x.{key} WHERE x.{column} IS NOT NULL"
        for table, key, columns in trees
        for column in columns
    ]
    parts += [
        f"SELECT s.schema, x.{column}::pg_catalog.text FROM pg_catalog.{table} x"
        f" JOIN spaces s ON s.oid = x.{key} WHERE x.{column} IS NOT NULL"
        for table, key, columns in (
            ("pg_constraint", "connamespace", ("conbin",)),
            ("pg_proc", "pronamespace", ("proargdefaults", "prosqlbody")),
            ("pg_type", "typnamespace", ("typdefaultbin",)),
        )
        for column in columns
    ]
    calls = [
        "SELECT t.schema, m[1]::pg_catalog.oid FROM trees t,"
        " pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m",
        f"SELECT t.schema, {SESSION_USER}::pg_catalog.oid FROM trees t"
        " WHERE t.tree ~ 'SQLVALUEFUNCTION :op 12 '",
        "SELECT r.schema, x.tgfoid FROM pg_catalog.pg_trigger x JOIN relations r ON r.oid = x.tgrelid",
        "SELECT s.schema, x.oprcode::pg_catalog.oid FROM pg_catalog.pg_operator x"
        " JOIN spaces s ON s.oid = x.oprnamespace",
        "SELECT s.schema, c.castfunc FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t"
        " ON t.oid IN (c.castsource, c.casttarget) JOIN spaces s ON s.oid = t.typnamespace",
    ]
    calls.append(_UPDATES_SETTINGS)
    calls += [
        f"SELECT s.schema, a.{column}::pg_catalog.oid FROM pg_catalog.pg_aggregate a"
        " JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid JOIN spaces s ON s.oid = p.pronamespace"
        for column in (
            *("aggtransfn", "aggfinalfn", "aggcombinefn", "aggserialfn", "aggdeserialfn"),
            *("aggmtransfn", "aggminvtransfn", "aggmfinalfn"),
        )
    ]
    return (
        "WITH spaces AS (SELECT oid, nspname::pg_catalog.text AS schema FROM pg_catalog.pg_namespace"
        " WHERE nspname = ANY ($1::pg_catalog.text[])),"
        " relations AS (SELECT c.oid, s.schema FROM pg_catalog.pg_class c"
        " JOIN spaces s ON s.oid = c.relnamespace),"
        f" trees (schema, tree) AS ({' UNION ALL '.join(parts)})"
        f" SELECT DISTINCT schema, f FROM ({' UNION ALL '.join(calls)}) AS calls (schema, f)"
    )


_CALLED = _called()

#: functions that stand in the place of PostgreSQL's, and one of those, if there is one of the name
_STANDING = """
SELECT p.oid, (SELECT pg_catalog.min(o.oid) FROM pg_catalog.pg_proc o
                WHERE o.proname = p.proname AND o.pronamespace = 'pg_catalog'::pg_catalog.regnamespace)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = $1
"""

#: what logins of the roles would have set (settings that only superusers may set are left out)
_DEFAULTS = """
SELECT o.rolname::pg_catalog.text AS role, s.setting FROM pg_catalog.pg_db_role_setting r
  JOIN pg_catalog.pg_roles o ON o.oid = r.setrole
 CROSS JOIN LATERAL pg_catalog.unnest(r.setconfig) AS s (setting)
  LEFT JOIN pg_catalog.pg_settings g
    ON pg_catalog.lower(g.name) = pg_catalog.lower(pg_catalog.split_part(s.setting, '=', 1))
 WHERE o.rolname = ANY ($1::pg_catalog.text[]) AND coalesce(g.context, 'user') = 'user'
   AND r.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                              WHERE d.datname = pg_catalog.current_database()))
 ORDER BY r.setdatabase
"""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(slots=True)
class Catalogs:
    """What was found in one moment."""

    #: why the service login must not be shared; then nothing else was read
    unfit: str
    #: schema -> its functions
    functions: dict[str, list[asyncpg.Record]]
    #: schema -> functions that are called where nobody names them
    called: dict[str, set[int]]
    #: role -> settings of its logins
    defaults: dict[str, dict[str, str]]


class Open(NamedTuple):
    """A transaction."""

    login: str
    transaction: str
    pid: int


async def open_transactions(
    connection: Connection, logins: Iterable[str], schemas: Iterable[str]
) -> dict[str, set[Open]]:
    """schema -> those that are open in this database, and whose login may change code of it."""
    found: dict[str, set[Open]] = defaultdict(set)
    is_open: dict[str, set[Open]] = defaultdict(set)
    for row in await connection.fetch(_OPEN, sorted(logins)):
        is_open[row["login"]].add(Open(*row))
    if is_open:
        for login, schema in await connection.fetch(_ABLE, sorted(is_open), sorted(schemas)):
            found[schema] |= is_open[login]
    return found


async def read_functions(connection: Connection, schemas: Iterable[str]) -> list[asyncpg.Record]:
    """The functions of these schemas and of SYSTEM_SCHEMAS, with what is needed to judge them."""
    return await connection.fetch(_FUNCTIONS, sorted(schemas))


async def read_catalogs(connection: Connection, schemas: Iterable[str], roles: Iterable[str]) -> Catalogs:
    """All that `relay.code` judges of these schemas and roles."""
    found = Catalogs("", defaultdict(list), defaultdict(set), defaultdict(dict))
    wanted = sorted(schemas)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found.unfit = await connection.fetchval(_UNFIT) or ""
        if found.unfit:
            return found
        for row in await read_functions(connection, wanted):
            found.functions[row["schema"]].append(row)
        standing = {row[0]: row[1] for row in await connection.fetch(_STANDING, CATALOG)}
        for schema, function in await connection.fetch(_CALLED, wanted):
            called = standing.get(function, function)
            if called is not None:
                found.called[schema].add(called)
        for role, setting in await connection.fetch(_DEFAULTS, sorted(roles)):
            name, _, value = setting.partition("=")
            found.defaults[role][name] = value
    return found
