"""What keeps an existing schema from being one tenant's alone, and the SQL that mends it.

    breaks   others reach what is in it, or what is in it reaches others
    doubt    it can't be told: SQL made at run time, code in another language
    note     as it should not be, and of no use to others by itself

The scan reads catalogs and changes nothing.  Bodies of functions are judged by the guard, as they would be if
the tenant sent them through the proxy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg
from pglast.parser import ParseError
from pglast.parser import scan as tokens_of

from tenant_proxy.config.schema import Policy
from tenant_proxy.guard.judge import Guard
from tenant_proxy.guard.policy import GuardScope
from tenant_proxy.lifecycle import erasing, inventory
from tenant_proxy.lifecycle.inventory import Estate
from tenant_proxy.lifecycle.records import Problem
from tenant_proxy.lifecycle.rename import quote_name
from tenant_proxy.model import Action

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


#: the kind of a problem that is mended before all others
OWNER_MISSING: Final = "owner_missing"


async def scan(
    connection: Connection,
    estate: Estate,
    *,
    policy: Policy | None = None,
    members: Collection[str] = (),
) -> list[Problem]:
    """The worst first.  `estate` has the roles that are to be the tenant's, logins that it has already too;
    its owner may not be there yet.  `members` may be members of these, whatever else they are.
    """
    found = [
        *await _grants(connection, estate),
        *await _owners(connection, estate),
        *await _functions(connection, estate, policy or Policy()),
        *await _references(connection, estate, policy or Policy()),
        *await _roles(connection, estate, members),
        *await _elsewhere(connection, estate),
    ]
    weights = ("breaks", "doubt", "note")
    return sorted(set(found), key=lambda one: (weights.index(one.weight), one.kind, one.object, one.what))


def script(found: Iterable[Problem]) -> str:
    """All that can be mended, for one transaction; first who it is given to."""
    ordered = sorted(found, key=lambda one: one.kind != OWNER_MISSING)
    return "".join(f"{line}\n" for line in dict.fromkeys(one.mend for one in ordered if one.mend))


# --- rights ------------------------------------------------------------------------------

_GRANTS: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
m AS MATERIALIZED ({inventory.members("ns")}),
acls AS (
    SELECT 'pg_catalog.pg_namespace'::regclass::oid AS classid, n.oid AS objid, 0 AS objsubid,
           n.nspacl AS acl, n.nspowner AS owner FROM pg_catalog.pg_namespace n JOIN ns USING (oid)
    UNION ALL SELECT m.classid, c.oid, 0, c.relacl, c.relowner
      FROM m JOIN pg_catalog.pg_class c ON c.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_class'::regclass
    UNION ALL SELECT m.classid, c.oid, a.attnum, a.attacl, c.relowner
      FROM m JOIN pg_catalog.pg_class c ON c.oid = m.objid
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
     WHERE m.classid = 'pg_catalog.pg_class'::regclass AND a.attacl IS NOT NULL
    UNION ALL SELECT m.classid, p.oid, 0, p.proacl, p.proowner
      FROM m JOIN pg_catalog.pg_proc p ON p.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_proc'::regclass
    UNION ALL SELECT m.classid, t.oid, 0, t.typacl, t.typowner
      FROM m JOIN pg_catalog.pg_type t ON t.oid = m.objid
     WHERE m.classid = 'pg_catalog.pg_type'::regclass)
SELECT i.type, i.identity, x.privilege_type AS privilege, g.rolname::text AS grantee, k.relkind::text AS kind,
       a.attname::text AS column, r.identity AS relation
  FROM acls CROSS JOIN LATERAL pg_catalog.aclexplode(acls.acl) x
  LEFT JOIN pg_catalog.pg_roles g ON g.oid = x.grantee
  LEFT JOIN pg_catalog.pg_class k ON k.oid = acls.objid AND acls.classid = 'pg_catalog.pg_class'::regclass
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attnum = acls.objsubid AND acls.objsubid > 0
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(acls.classid, acls.objid, acls.objsubid) i
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(acls.classid, acls.objid, 0) r
 WHERE x.grantee <> acls.owner AND coalesce(g.rolname <> ALL ($2::text[]), true)
   AND coalesce(NOT g.rolsuper, true)
"""


async def _grants(connection: Connection, estate: Estate) -> list[Problem]:
    found = []
    for row in await connection.fetch(_GRANTS, estate.schema, estate.all_roles()):
        grantee = "PUBLIC" if row["grantee"] is None else quote_name(row["grantee"])
        # what PUBLIC has on functions and types is of no use without the schema
        weight = "note" if row["grantee"] is None and row["type"] in ("function", "type") else "breaks"
        kind = _ON.get(row["type"], "TABLE")
        right = f"{row['privilege']} ({quote_name(row['column'])})" if row["column"] else row["privilege"]
        found.append(
            Problem(
                weight,
                "grant_to_public" if row["grantee"] is None else "grant_to_others",
                row["identity"],
                f"{grantee} has {row['privilege']} on this {row['type']}",
                f"REVOKE {right} ON {kind} {row['relation']} FROM {grantee};",
            )
        )
    return found


_ON: Final = {
    "schema": "SCHEMA",
    "sequence": "SEQUENCE",
    "function": "ROUTINE",
    "procedure": "ROUTINE",
    "aggregate": "ROUTINE",
    "type": "TYPE",
}


# --- owners ------------------------------------------------------------------------------

_OWNERS: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
m AS MATERIALIZED ({inventory.members("ns")})
SELECT i.type, i.identity, r.rolname::text AS owner, c.relkind::text AS kind
  FROM m JOIN pg_catalog.pg_shdepend d ON d.classid = m.classid AND d.objid = m.objid AND d.deptype = 'o'
   AND d.refclassid = 'pg_catalog.pg_authid'::regclass
   AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database())
  JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
  LEFT JOIN pg_catalog.pg_class c ON c.oid = m.objid AND m.classid = 'pg_catalog.pg_class'::regclass
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(m.classid, m.objid, 0) i
 WHERE r.rolname <> $2
   -- a column's sequence goes with its table
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = m.classid AND e.objid = m.objid
                      AND e.deptype IN ('e', 'i', 'a')
                      AND e.refclassid <> 'pg_catalog.pg_namespace'::regclass)
UNION ALL
-- the bootstrap superuser is pinned: what it owns is not in pg_shdepend
SELECT i.type, i.identity, r.rolname::text, c.relkind::text
  FROM m
  JOIN pg_catalog.pg_roles r ON r.oid = 10
  LEFT JOIN pg_catalog.pg_class c ON c.oid = m.objid AND m.classid = 'pg_catalog.pg_class'::regclass
  LEFT JOIN pg_catalog.pg_proc p ON p.oid = m.objid AND m.classid = 'pg_catalog.pg_proc'::regclass
  LEFT JOIN pg_catalog.pg_type t ON t.oid = m.objid AND m.classid = 'pg_catalog.pg_type'::regclass
   AND t.typrelid = 0 AND t.typelem = 0 AND t.typtype <> 'm'
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = m.objid AND m.classid = 'pg_catalog.pg_namespace'::regclass
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(m.classid, m.objid, 0) i
 WHERE r.oid IN (c.relowner, p.proowner, t.typowner, n.nspowner)
   AND coalesce(c.relkind NOT IN ('i', 'I', 'c'), true)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = m.classid AND e.objid = m.objid
                      AND e.deptype IN ('e', 'i', 'a'))
"""
_KINDS: Final = {
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "statistics object": "STATISTICS",
}


async def _owners(connection: Connection, estate: Estate) -> list[Problem]:
    found = []
    for row in await connection.fetch(_OWNERS, estate.schema, estate.owner):
        mine = row["owner"] in estate.all_roles()
        kind = _KINDS.get(row["type"], row["type"].upper())
        mend = f"ALTER {kind} {row['identity']} OWNER TO {quote_name(estate.owner)};"
        if row["type"] == "type" and row["identity"].endswith("[]"):
            continue
        found.append(
            Problem(
                "note" if mine else "breaks",
                "owned_by_others",
                row["identity"],
                f"this {row['type']} is owned by {quote_name(row['owner'])}",
                mend,
            )
        )
    return found


#: those of the owners whose rights who asks does not have
_OUT_OF_REACH: Final = """
SELECT r.rolname::text AS name, r.rolsuper FROM pg_catalog.pg_roles r
 WHERE r.rolname = ANY ($1::text[]) AND NOT pg_catalog.pg_has_role(r.oid, 'USAGE') ORDER BY 2, 1
"""


async def out_of_reach(connection: Connection, estate: Estate) -> dict[str, bool]:
    """Owners of what is there that the connection's login can't give away for -> whether a superuser."""
    rows = await connection.fetch(_OWNERS, estate.schema, estate.owner)
    owners = sorted({row["owner"] for row in rows})
    return {row["name"]: row["rolsuper"] for row in await connection.fetch(_OUT_OF_REACH, owners)}


# --- code ---------------------------------------------------------------------------------

_FUNCTIONS: Final = """
SELECT p.oid::regprocedure::text AS name, p.prokind::text AS kind, l.lanname::text AS language,
       l.lanpltrusted AS trusted, p.prosecdef, p.prosrc, r.rolname::text AS owner, r.rolsuper,
       p.proconfig, CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END AS definition
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
 WHERE n.nspname = $1
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_proc'::regclass
                      AND e.objid = p.oid AND e.deptype IN ('e', 'i'))
 ORDER BY 1
"""


async def _functions(connection: Connection, estate: Estate, policy: Policy) -> list[Problem]:
    scope = GuardScope.build(
        id=0,
        tenant=estate.schema,
        schema=estate.schema,
        policy=policy,
        role=estate.owner,
        roles=estate.all_roles(),
    )
    guard = Guard()
    found: list[Problem] = []
    for row in await connection.fetch(_FUNCTIONS, estate.schema):
        name = row["name"]
        if row["prosecdef"]:
            found += _definer(row, estate)
        if row["language"] in ("c", "internal") or (not row["trusted"] and row["language"] != "sql"):
            found.append(
                Problem("doubt", "other_language", name, f"code in {row['language']} may do what it likes")
            )
            continue
        if row["language"] not in ("sql", "plpgsql"):
            found.append(Problem("doubt", "other_language", name, f"code in {row['language']} is not read"))
            continue
        if row["language"] == "plpgsql" and _runs_text(row["prosrc"]):
            found.append(Problem("doubt", "dynamic_sql", name, "it runs SQL that is made at run time"))
        if row["definition"] is not None:
            verdict = guard.judge(scope, row["definition"])
            if verdict.action is Action.REJECT:
                weight = "breaks" if verdict.reason == "cross_schema" else "doubt"
                found.append(Problem(weight, f"code_{verdict.reason}", name, verdict.message))
    return found


def _definer(row: asyncpg.Record, estate: Estate) -> list[Problem]:
    kind = "PROCEDURE" if row["kind"] == "p" else "FUNCTION"
    if row["owner"] not in estate.all_roles():
        power = ", a superuser" if row["rolsuper"] else ""
        what = f"it runs with the rights of {quote_name(row['owner'])}{power} (SECURITY DEFINER)"
        return [
            Problem(
                "breaks",
                "security_definer",
                row["name"],
                what,
                f"ALTER {kind} {row['name']} SECURITY INVOKER;",
            )
        ]
    if not any(one.startswith("search_path=") for one in row["proconfig"] or ()):
        path = f"{quote_name(estate.schema)}, pg_temp"
        what = "SECURITY DEFINER without a search_path of its own: its callers say what its names mean"
        mend = f"ALTER {kind} {row['name']} SET search_path = {path};"
        return [Problem("note", "security_definer", row["name"], what, mend)]
    return []


def _runs_text(body: str) -> bool:
    """EXECUTE of anything but one constant, in PL/pgSQL; and of what can't be read."""
    try:
        found = [token for token in tokens_of(body) if "COMMENT" not in token.name]
    except ParseError:
        return "execute" in body.lower()
    for token, following, behind in zip(found, found[1:], [*found[2:], None], strict=False):
        if token.name != "EXECUTE":
            continue
        if following.name in ("FUNCTION", "PROCEDURE"):
            continue
        alone = behind is None or body[behind.start] == ";" or behind.name in ("INTO", "USING", "LOOP")
        if following.name != "SCONST" or not alone:
            return True
    return False


# --- what it is made of ------------------------------------------------------------------

_REFERENCES: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
m AS MATERIALIZED ({inventory.members("ns")})
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS ours, i.type, i.schema, i.identity
  FROM m JOIN pg_catalog.pg_depend d ON d.classid = m.classid AND d.objid = m.objid AND d.deptype = 'n'
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.refclassid, d.refobjid, 0) i
 WHERE i.schema IS NOT NULL AND i.schema <> $1 AND i.schema <> ALL ($2::text[])
   AND d.refclassid <> 'pg_catalog.pg_namespace'::regclass
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid
                      AND e.deptype = 'e')
"""

_OUTSIDE: Final = {
    "event trigger": "an event trigger of the database calls a function of the schema",
    "publication relation": "a publication sends its rows elsewhere",
    "publication namespace": "a publication sends its rows elsewhere",
    "foreign table": "its rows are on another server",
    "extension": "an extension is installed in the schema, and is every tenant's of the database",
}


async def _references(connection: Connection, estate: Estate, policy: Policy) -> list[Problem]:
    known = ["pg_catalog", "information_schema", "pg_toast", *policy.allowed_schemas]
    found = [
        Problem("breaks", "reference_out", row["ours"], f"it is made of {row['type']} {row['identity']}")
        for row in await connection.fetch(_REFERENCES, estate.schema, known)
    ]
    found += [
        Problem("breaks", "reference_in", one, "it is made of objects of this schema")
        for one in await erasing.dependents(connection, estate.schema)
    ]
    taken = await inventory.take(connection, estate)
    found += [
        Problem("doubt", item.kind.replace(" ", "_"), item.name, _OUTSIDE[item.kind])
        for item in taken.items
        if item.kind in _OUTSIDE
    ]
    return found


# --- the roles ----------------------------------------------------------------------------

_MEMBERSHIPS: Final = """
SELECT g.rolname::text AS role, m.rolname::text AS member
  FROM pg_catalog.pg_auth_members a
  JOIN pg_catalog.pg_roles g ON g.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member
 WHERE (g.rolname = ANY ($1::text[])) <> (m.rolname = ANY ($1::text[]))
   AND NOT m.rolsuper AND m.rolname <> current_user
"""
_POWERS: Final = """
SELECT r.rolname::text AS name, p.power FROM pg_catalog.pg_roles r
 CROSS JOIN LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('BYPASSRLS', r.rolbypassrls),
    ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb), ('REPLICATION', r.rolreplication))
       AS p(power, has)
 WHERE p.has AND r.rolname = ANY ($1::text[])
"""


async def _roles(connection: Connection, estate: Estate, members: Collection[str]) -> list[Problem]:
    roles = estate.all_roles()
    found = [
        Problem(
            "breaks",
            "role_power",
            quote_name(row["name"]),
            f"this role has {row['power']}",
            f"ALTER ROLE {quote_name(row['name'])} NO{row['power']};",
        )
        for row in await connection.fetch(_POWERS, roles)
    ]
    for row in await connection.fetch(_MEMBERSHIPS, roles):
        if row["member"] in members:
            continue
        role, member = quote_name(row["role"]), quote_name(row["member"])
        found.append(
            Problem(
                "breaks", "membership", member, f"it is a member of {role}", f"REVOKE {role} FROM {member};"
            )
        )
    return found


async def _elsewhere(connection: Connection, estate: Estate) -> list[Problem]:
    """What the tenant's roles have outside of the schema."""
    taken = await inventory.take(connection, estate)
    found = []
    for item in taken.of("grant"):
        kind, _, name = item.name.partition(" ")
        right, _, rest = item.detail.partition(" to ")
        grantee = rest.rpartition(" by ")[0].removesuffix(" with grant option")
        if grantee not in estate.all_roles():
            continue
        if kind in ("table", "view", "sequence") and "." in name and _foreign(name):
            found.append(
                Problem(
                    "breaks",
                    "right_elsewhere",
                    name,
                    f"{quote_name(grantee)} has {right} on this {kind}",
                    f"REVOKE {right} ON {_ON.get(kind, 'TABLE')} {name} FROM {quote_name(grantee)};",
                )
            )
        elif kind == "database" and right == "CREATE":
            found.append(
                Problem(
                    "breaks",
                    "right_elsewhere",
                    name,
                    f"{quote_name(grantee)} may make schemas in it, also in place of others' and of ours",
                    f"REVOKE CREATE ON DATABASE {name} FROM {quote_name(grantee)};",
                )
            )
        elif kind == "schema" and name != quote_name(estate.schema):
            found.append(Problem("note", "right_elsewhere", name, f"{quote_name(grantee)} has {right} on it"))
    return found


def _foreign(name: str) -> bool:
    """A name that kept its schema is not one of the tenant's (`inventory` takes that away)."""
    return not name.startswith('"') or '".' in name


def weights(found: Sequence[Problem]) -> dict[str, int]:
    return {weight: sum(one.weight == weight for one in found) for weight in ("breaks", "doubt", "note")}
