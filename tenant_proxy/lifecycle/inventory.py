"""Everything that a tenant has in a database and on its cluster, by kind.

Export writes it into the manifest, erase takes it before and holds it against what is there after, clone and
move compare it.  PostgreSQL itself keeps book of what depends on a schema (its catalogs' columns and
`pg_depend`) and of what names a role, in any database of the cluster (`pg_shdepend`, which DROP ROLE asks);
that is what is read here, so that nothing is forgotten because nobody thought of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tenant_proxy.lifecycle.rename import quote_name

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class Estate:
    """What is a tenant's, as names."""

    schema: str
    #: who owns the schema and what is in it
    owner: str
    #: all roles that are this tenant's alone, the owner too: groups and logins
    roles: tuple[str, ...] = ()

    def all_roles(self) -> list[str]:
        return sorted({self.owner, *self.roles})


@dataclass(frozen=True, slots=True, order=True)
class Item:
    kind: str
    #: as SQL names it; what is in the schema has no schema in front
    name: str
    #: what tells two of a name apart: a definition's digest, a right, a number
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    items: tuple[Item, ...]

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(item.kind for item in self.items).items()))

    def of(self, *kinds: str) -> list[Item]:
        return [item for item in self.items if item.kind in kinds]

    def without(self, other: Inventory) -> tuple[Item, ...]:
        """What is here and not in the other, each as often as it is here more often."""
        return tuple(sorted((Counter(self.items) - Counter(other.items)).elements()))

    def as_list(self) -> list[dict[str, str]]:
        return [
            {"kind": item.kind, "name": item.name} | ({"detail": item.detail} if item.detail else {})
            for item in self.items
        ]


#: catalogs whose rows are in a schema by a column of theirs
_IN_SCHEMA: Final = {
    "pg_class": "relnamespace",
    "pg_proc": "pronamespace",
    "pg_type": "typnamespace",
    "pg_operator": "oprnamespace",
    "pg_opclass": "opcnamespace",
    "pg_opfamily": "opfnamespace",
    "pg_collation": "collnamespace",
    "pg_conversion": "connamespace",
    "pg_constraint": "connamespace",
    "pg_statistic_ext": "stxnamespace",
    "pg_ts_config": "cfgnamespace",
    "pg_ts_dict": "dictnamespace",
    "pg_ts_parser": "prsnamespace",
    "pg_ts_template": "tmplnamespace",
    "pg_extension": "extnamespace",
    "pg_default_acl": "defaclnamespace",
    "pg_publication_namespace": "pnnspid",
}

#: catalogs whose rows are a relation's, by a column of theirs
_ON_RELATION: Final = {
    "pg_trigger": "tgrelid",
    "pg_rewrite": "ev_class",
    "pg_policy": "polrelid",
    "pg_attrdef": "adrelid",
    "pg_publication_rel": "prrelid",
}

#: what would be drowned in: they come and go with what they are of
_IMPLIED: Final = """
   (m.classid = 'pg_catalog.pg_trigger'::regclass
      AND (SELECT t.tgisinternal FROM pg_catalog.pg_trigger t WHERE t.oid = m.objid))
OR (m.classid = 'pg_catalog.pg_rewrite'::regclass
      AND (SELECT w.rulename = '_RETURN' FROM pg_catalog.pg_rewrite w WHERE w.oid = m.objid))
OR (m.classid = 'pg_catalog.pg_type'::regclass AND (
      SELECT t.typtype IN ('c', 'm') AND (t.typrelid = 0 OR (
               SELECT c.relkind <> 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid))
             OR t.typelem <> 0 AND t.typcategory = 'A'
             OR t.typtype = 'm'
        FROM pg_catalog.pg_type t WHERE t.oid = m.objid))
OR (m.classid = 'pg_catalog.pg_class'::regclass AND (
      SELECT c.relkind = 'c' FROM pg_catalog.pg_class c WHERE c.oid = m.objid))
"""


def members(alias_filter: str) -> str:
    """The rows (classid, objid) of all that is in the schemas `alias_filter` gives the OIDs of."""
    parts = [f"SELECT 'pg_catalog.pg_namespace'::regclass::oid AS classid, oid AS objid FROM {alias_filter}"]
    parts += [
        f"SELECT 'pg_catalog.{catalog}'::regclass, c.oid FROM pg_catalog.{catalog} c"
        f" WHERE c.{column} IN (SELECT oid FROM {alias_filter})"
        for catalog, column in _IN_SCHEMA.items()
    ]
    parts += [
        f"SELECT 'pg_catalog.{catalog}'::regclass, x.oid FROM pg_catalog.{catalog} x"
        f" JOIN pg_catalog.pg_class c ON c.oid = x.{column}"
        f" WHERE c.relnamespace IN (SELECT oid FROM {alias_filter})"
        for catalog, column in _ON_RELATION.items()
    ]
    # what is in no schema and is made of what is in this one
    parts.append(
        "SELECT d.classid, d.objid FROM pg_catalog.pg_depend d"
        " WHERE d.classid IN ('pg_catalog.pg_cast'::regclass, 'pg_catalog.pg_transform'::regclass,"
        " 'pg_catalog.pg_event_trigger'::regclass, 'pg_catalog.pg_am'::regclass,"
        " 'pg_catalog.pg_foreign_data_wrapper'::regclass, 'pg_catalog.pg_language'::regclass)"
        " AND (d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid IN (SELECT t.oid"
        f" FROM pg_catalog.pg_type t WHERE t.typnamespace IN (SELECT oid FROM {alias_filter}))"
        " OR d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid IN (SELECT p.oid"
        f" FROM pg_catalog.pg_proc p WHERE p.pronamespace IN (SELECT oid FROM {alias_filter})))"
    )
    return "\n UNION ".join(parts)


#: objects: those of the schema, and those of this database that name the roles
_OBJECTS: Final = f"""
WITH ns AS (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
r AS (SELECT a.oid FROM pg_catalog.pg_roles a WHERE a.rolname = ANY ($2::text[])),
members AS ({members("ns")}),
-- owned by the roles, wherever in this database
owned AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_shdepend d
     WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid IN (SELECT oid FROM r)
       AND d.deptype = 'o' AND d.objsubid = 0
       AND d.dbid = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = current_database())
       AND d.classid <> 'pg_catalog.pg_largeobject'::regclass),
m AS (SELECT * FROM members UNION SELECT * FROM owned)
SELECT m.classid, m.objid, i.type, coalesce(i.schema, '') AS schema, i.name, i.identity,
       a.object_names, a.object_args,
       EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = m.classid AND e.objid = m.objid
                  AND e.deptype = 'e') AS of_extension,
       CASE m.classid
            WHEN 'pg_catalog.pg_class'::regclass THEN (
                SELECT count(*)::text FROM pg_catalog.pg_attribute t
                 WHERE t.attrelid = m.objid AND t.attnum > 0 AND NOT t.attisdropped)
            ELSE '' END AS detail
  FROM m
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(m.classid, m.objid, 0) i
 CROSS JOIN LATERAL pg_catalog.pg_identify_object_as_address(m.classid, m.objid, 0) a
 WHERE coalesce({_IMPLIED}, false) IS FALSE
"""

#: what hangs on objects: comments and labels of $1 (classid) and $2 (objid), columns' too
_NOTES: Final = """
WITH m AS (SELECT * FROM unnest($1::oid[], $2::oid[]) AS u(classid, objid))
SELECT 'comment' AS kind, m.classid, m.objid, d.objsubid, md5(d.description) AS detail
  FROM m JOIN pg_catalog.pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
UNION ALL
SELECT 'security label', m.classid, m.objid, l.objsubid, l.provider || ' ' || l.label
  FROM m JOIN pg_catalog.pg_seclabel l ON l.classoid = m.classid AND l.objoid = m.objid
"""

_STATISTICS: Final = """
SELECT quote_ident(s.tablename) AS name, count(*)::text AS detail FROM pg_catalog.pg_stats s
 WHERE s.schemaname = $1 GROUP BY 1
"""

#: every column of rights in the catalogs: (catalog, column, name of the object by alias c)
_RIGHTS_OF: Final = (
    ("pg_namespace", "nspacl"),
    ("pg_class", "relacl"),
    ("pg_proc", "proacl"),
    ("pg_type", "typacl"),
    ("pg_database", "datacl"),
    ("pg_tablespace", "spcacl"),
    ("pg_language", "lanacl"),
    ("pg_foreign_data_wrapper", "fdwacl"),
    ("pg_foreign_server", "srvacl"),
    ("pg_largeobject_metadata", "lomacl"),
    ("pg_default_acl", "defaclacl"),
    ("pg_parameter_acl", "paracl"),
)

#: rights that the roles hold or gave: on what names them, by PostgreSQL's own book
_RIGHTS: Final = (
    "WITH r AS (SELECT a.oid FROM pg_catalog.pg_roles a WHERE a.rolname = ANY ($1::text[])),"
    " d AS MATERIALIZED (SELECT DISTINCT s.classid, s.objid FROM pg_catalog.pg_shdepend s"
    "  WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid IN (SELECT oid FROM r)"
    "    AND s.dbid IN (0, (SELECT b.oid FROM pg_catalog.pg_database b"
    "                        WHERE b.datname = pg_catalog.current_database()))),"
    " acls AS ("
    + " UNION ALL ".join(
        f"SELECT d.classid, d.objid, 0 AS objsubid, c.{column} AS acl FROM d"
        f" JOIN pg_catalog.{catalog} c ON c.oid = d.objid WHERE d.classid = 'pg_catalog.{book}'::regclass"
        for catalog, column in _RIGHTS_OF
        for book in (catalog.replace("pg_largeobject_metadata", "pg_largeobject"),)
    )
    + " UNION ALL SELECT d.classid, d.objid, t.attnum::int, t.attacl FROM d"
    "  JOIN pg_catalog.pg_attribute t ON t.attrelid = d.objid"
    "  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND t.attacl IS NOT NULL AND NOT t.attisdropped)"
    " SELECT a.classid, a.objid, a.objsubid, i.type, i.identity,"
    " coalesce(g.rolname::text, CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE x.grantee::text END) AS grantee,"
    " coalesce(f.rolname::text, x.grantor::text) AS grantor,"
    " x.privilege_type AS privilege, x.is_grantable"
    " FROM acls a CROSS JOIN LATERAL pg_catalog.aclexplode(a.acl) x"
    " LEFT JOIN pg_catalog.pg_roles g ON g.oid = x.grantee"
    " LEFT JOIN pg_catalog.pg_roles f ON f.oid = x.grantor"
    " CROSS JOIN LATERAL pg_catalog.pg_identify_object(a.classid, a.objid, a.objsubid) i"
    " WHERE x.grantee IN (SELECT oid FROM r) OR x.grantor IN (SELECT oid FROM r)"
)

_ROLES: Final = """
SELECT 'role' AS kind, quote_ident(r.rolname) AS name,
       concat_ws(' ', CASE WHEN r.rolcanlogin THEN 'login' END, CASE WHEN r.rolinherit THEN 'inherit' END,
                 CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN r.rolcreaterole THEN 'createrole' END,
                 CASE WHEN r.rolcreatedb THEN 'createdb' END, CASE WHEN r.rolbypassrls THEN 'bypassrls' END,
                 CASE WHEN r.rolreplication THEN 'replication' END,
                 CASE WHEN r.rolconnlimit >= 0 THEN 'limit ' || r.rolconnlimit END) AS detail
  FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT 'membership', quote_ident(m.rolname) || ' in ' || quote_ident(g.rolname),
       CASE WHEN a.admin_option THEN 'admin' ELSE '' END
  FROM pg_catalog.pg_auth_members a
  JOIN pg_catalog.pg_roles m ON m.oid = a.member
  JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
 WHERE m.rolname = ANY ($1::text[]) OR g.rolname = ANY ($1::text[])
UNION ALL
SELECT 'setting', quote_ident(r.rolname) || coalesce(' in database ' || quote_ident(d.datname), ''), c.one
  FROM pg_catalog.pg_db_role_setting s
  JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
 CROSS JOIN LATERAL unnest(s.setconfig) AS c(one)
 WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT 'comment', 'role ' || quote_ident(r.rolname), md5(d.description)
  FROM pg_catalog.pg_shdescription d JOIN pg_catalog.pg_roles r ON r.oid = d.objoid
 WHERE d.classoid = 'pg_catalog.pg_authid'::regclass AND r.rolname = ANY ($1::text[])
UNION ALL
SELECT 'security label', 'role ' || quote_ident(r.rolname), l.provider || ' ' || l.label
  FROM pg_catalog.pg_shseclabel l JOIN pg_catalog.pg_roles r ON r.oid = l.objoid
 WHERE l.classoid = 'pg_catalog.pg_authid'::regclass AND r.rolname = ANY ($1::text[])
UNION ALL
SELECT 'user mapping', quote_ident(u.usename) || ' on ' || quote_ident(u.srvname), ''
  FROM pg_catalog.pg_user_mappings u WHERE u.usename = ANY ($1::text[])
UNION ALL
SELECT 'subscription', quote_ident(s.subname), ''
  FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_roles r ON r.oid = s.subowner
 WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT 'large object', l.oid::text, ''
  FROM pg_catalog.pg_largeobject_metadata l JOIN pg_catalog.pg_roles r ON r.oid = l.lomowner
 WHERE r.rolname = ANY ($1::text[])
UNION ALL
-- what names a role in another database, or is shared by all (0)
SELECT 'elsewhere', coalesce('database ' || quote_ident(d.datname), 'shared'), count(*)::text
  FROM pg_catalog.pg_shdepend p JOIN pg_catalog.pg_roles r ON r.oid = p.refobjid
  LEFT JOIN pg_catalog.pg_database d ON d.oid = p.dbid
 WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND r.rolname = ANY ($1::text[])
   AND d.datname IS DISTINCT FROM current_database() AND p.deptype = 'o'
 GROUP BY 2
"""

#: kinds that say something of the cluster's state rather than of what the tenant has
VOLATILE: Final = frozenset({"statistics", "elsewhere"})


async def take(connection: Connection, estate: Estate) -> Inventory:
    """What there is of the tenant; nothing at all of what does not exist.

    The connection needs no more rights than to read the catalogs.
    """
    roles = estate.all_roles()
    items: list[Item] = []
    rows = await connection.fetch(_OBJECTS, estate.schema, roles)
    named: dict[tuple[int, int], tuple[str, str]] = {}
    for row in rows:
        name = _bare(row["identity"], estate.schema)
        named[row["classid"], row["objid"]] = row["type"], name
        kind = f"{row['type']} of an extension" if row["of_extension"] else row["type"]
        items.append(Item(kind, name, row["detail"]))
    if named:
        classes, objects = zip(*named, strict=True)
        for row in await connection.fetch(_NOTES, list(classes), list(objects)):
            kind, name = named[row["classid"], row["objid"]]
            column = f" column {row['objsubid']}" if row["objsubid"] else ""
            items.append(Item(row["kind"], f"{kind} {name}{column}", row["detail"]))
    rows = await connection.fetch(_STATISTICS, estate.schema)
    items += [Item("statistics", row["name"], row["detail"]) for row in rows]
    for row in await connection.fetch(_RIGHTS, roles):
        option = " with grant option" if row["is_grantable"] else ""
        name = f"{row['type']} {_bare(row['identity'], estate.schema)}"
        detail = f"{row['privilege']} to {row['grantee']}{option} by {row['grantor']}"
        items.append(Item("grant", name, detail))
    rows = await connection.fetch(_ROLES, roles)
    items += [Item(row["kind"], row["name"], row["detail"]) for row in rows]
    return Inventory(tuple(sorted(items)))


def _bare(identity: str, schema: str) -> str:
    """An identity without the tenant's schema in front of names, so that two tenants' can be compared."""
    quoted = quote_name(schema)
    return identity if identity == quoted else _without(identity, f"{quoted}.")


def _without(identity: str, prefix: str) -> str:
    """Takes `prefix` from where a name begins; quoted names are passed over whole."""
    pieces: list[str] = []
    at, fresh = 0, True
    while at < len(identity):
        if fresh and identity.startswith(prefix, at):
            at += len(prefix)
            fresh = False
            continue
        char = identity[at]
        end = at + 1
        if char == '"':
            end = identity.index('"', at + 1) + 1
        pieces.append(identity[at:end])
        fresh = not (char.isalnum() or char in '_"$.')
        at = end
    return "".join(pieces)


# --- what is left of somebody who is gone -------------------------------------------

#: taken before the roles and the schema go, as only OIDs can tell afterwards
_OIDS: Final = """
SELECT 'schema' AS what, n.oid, n.nspname::text AS name FROM pg_catalog.pg_namespace n WHERE n.nspname = $1
UNION ALL
SELECT 'role', r.oid, r.rolname::text FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($2::text[])
"""

_LEFT: Final = (
    """
SELECT 'schema' AS kind, n.nspname::text AS name, '' AS detail
  FROM pg_catalog.pg_namespace n WHERE n.nspname = $1 OR n.oid = ANY ($3::oid[])
UNION ALL
SELECT 'role', r.rolname::text, '' FROM pg_catalog.pg_roles r
 WHERE r.rolname = ANY ($2::text[]) OR r.oid = ANY ($4::oid[])
UNION ALL
SELECT 'dependency', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), 'on the schema'
  FROM pg_catalog.pg_depend d
 WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = ANY ($3::oid[])
UNION ALL
SELECT 'dependency', coalesce(b.datname::text, 'shared'), d.classid::regclass::text || ' ' || d.objid
  FROM pg_catalog.pg_shdepend d LEFT JOIN pg_catalog.pg_database b ON b.oid = d.dbid
 WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = ANY ($4::oid[])
UNION ALL
SELECT 'membership', m.roleid::text, m.member::text FROM pg_catalog.pg_auth_members m
 WHERE m.roleid = ANY ($4::oid[]) OR m.member = ANY ($4::oid[])
UNION ALL
SELECT 'setting', s.setrole::text, '' FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = ANY ($4::oid[])
UNION ALL
-- others' settings that name it, in what is read as a list of names
SELECT 'setting', coalesce(r.rolname::text, 'all roles') || coalesce(' in database ' || b.datname, ''), c.one
  FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c(one)
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
  LEFT JOIN pg_catalog.pg_database b ON b.oid = s.setdatabase
 CROSS JOIN LATERAL (
    SELECT split_part(c.one, '=', 1) AS name,
           ARRAY(SELECT btrim(x.one, ' "') FROM unnest(string_to_array(
                    substr(c.one, strpos(c.one, '=') + 1), ',')) AS x(one)) AS names) AS v
 -- of the whole cluster, so that they are looked at where the schema is
 WHERE $1 <> '' AND (
       v.name = 'search_path' AND $1 = ANY (v.names) AND coalesce(b.datname = current_database(), true)
       OR v.name IN ('role', 'session_authorization') AND v.names && $2::text[])
UNION ALL
SELECT 'large object', l.oid::text, '' FROM pg_catalog.pg_largeobject_metadata l
 WHERE l.lomowner = ANY ($4::oid[])
UNION ALL
SELECT 'comment', 'role', d.objoid::text FROM pg_catalog.pg_shdescription d
 WHERE d.classoid = 'pg_catalog.pg_authid'::regclass AND d.objoid = ANY ($4::oid[])
UNION ALL
SELECT 'comment', 'schema', d.objoid::text FROM pg_catalog.pg_description d
 WHERE d.classoid = 'pg_catalog.pg_namespace'::regclass AND d.objoid = ANY ($3::oid[])
UNION ALL
SELECT 'security label', 'role', l.objoid::text FROM pg_catalog.pg_shseclabel l
 WHERE l.classoid = 'pg_catalog.pg_authid'::regclass AND l.objoid = ANY ($4::oid[])
UNION ALL
SELECT 'replication slot', s.slot_name::text, '' FROM pg_catalog.pg_replication_slots s
 WHERE s.slot_name = ANY ($5::text[])
"""
    + "".join(
        f"""
UNION ALL
SELECT 'grant', '{catalog} ' || c.oid, x.privilege_type
  FROM pg_catalog.{catalog} c CROSS JOIN LATERAL pg_catalog.aclexplode(c.{column}) x
 WHERE x.grantee = ANY ($4::oid[]) OR x.grantor = ANY ($4::oid[])"""
        for catalog, column in _RIGHTS_OF
    )
    + """
UNION ALL
SELECT 'grant', 'column of ' || a.attrelid::regclass::text, x.privilege_type
  FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) x
 WHERE x.grantee = ANY ($4::oid[]) OR x.grantor = ANY ($4::oid[])
UNION ALL
SELECT 'grant', 'initial rights', x.privilege_type
  FROM pg_catalog.pg_init_privs i CROSS JOIN LATERAL pg_catalog.aclexplode(i.initprivs) x
 WHERE x.grantee = ANY ($4::oid[]) OR x.grantor = ANY ($4::oid[])
UNION ALL
SELECT 'default privileges', 'of role ' || a.defaclrole, '' FROM pg_catalog.pg_default_acl a
 WHERE a.defaclrole = ANY ($4::oid[]) OR a.defaclnamespace = ANY ($3::oid[])
UNION ALL
SELECT 'policy', p.polrelid::regclass::text, p.polname::text FROM pg_catalog.pg_policy p
 WHERE p.polroles && $4::oid[]
"""
)


@dataclass(frozen=True, slots=True)
class Oids:
    """Who a tenant was to the cluster; kept from before it is erased."""

    schemas: tuple[int, ...]
    roles: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"schemas": list(self.schemas), "roles": list(self.roles)}

    @classmethod
    def from_dict(cls, known: dict[str, Any]) -> Oids:
        return cls(tuple(known["schemas"]), tuple(known["roles"]))


async def oids(connection: Connection, estate: Estate) -> Oids:
    rows = await connection.fetch(_OIDS, estate.schema, estate.all_roles())
    return Oids(
        tuple(row["oid"] for row in rows if row["what"] == "schema"),
        tuple(row["oid"] for row in rows if row["what"] == "role"),
    )


async def left_of(
    connection: Connection, estate: Estate, was: Oids, *, slots: Iterable[str] = ()
) -> tuple[Item, ...]:
    """What still names the tenant, its schema or its roles, by name or by what their OIDs were; nothing if
    it is erased."""
    rows = await connection.fetch(
        _LEFT, estate.schema, estate.all_roles(), list(was.schemas), list(was.roles), list(slots)
    )
    return tuple(sorted(Item(row["kind"], row["name"] or "", row["detail"] or "") for row in rows))
