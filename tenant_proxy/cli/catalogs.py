"""What a check needs to know of a server's roles and schemas, read once, then asked without further queries.

Thousands of tenants are a few queries: rights are worked out here from the ACLs and the memberships.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import asyncpg

PUBLIC = ""

_ROLES = """
SELECT r.rolname::text AS name, r.rolcanlogin, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolconnlimit,
       coalesce(r.rolvaliduntil < pg_catalog.now(), false) AS expired,
       pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE') AS makes_schemas
  FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::text[])
"""

#: inherit_option and set_option are new in PostgreSQL 16
_MEMBERSHIPS = """
SELECT m.rolname::text AS member, g.rolname::text AS role,
       coalesce((pg_catalog.to_jsonb(a) ->> 'inherit_option')::bool, m.rolinherit) AS inherits,
       coalesce((pg_catalog.to_jsonb(a) ->> 'set_option')::bool, true) AS sets
  FROM pg_catalog.pg_auth_members a
  JOIN pg_catalog.pg_roles m ON m.oid = a.member
  JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
"""

_SCHEMAS = """
SELECT n.nspname::text AS schema, coalesce(g.rolname::text, '') AS grantee, a.privilege_type AS privilege
  FROM pg_catalog.pg_namespace n
 CROSS JOIN LATERAL pg_catalog.aclexplode(
         coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
  LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
 WHERE n.nspname = ANY ($1::text[])
UNION ALL
SELECT n.nspname::text, '', '' FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY ($1::text[])
"""

_SETTINGS = """
SELECT s.name, s.setting FROM pg_catalog.pg_settings s
 WHERE s.name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections',
 'server_encoding')
"""


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    can_login: bool
    superuser: bool
    bypass_rls: bool
    create_role: bool
    #: -1: none
    connection_limit: int
    #: past VALID UNTIL
    expired: bool
    #: CREATE on the database
    makes_schemas: bool


class Catalogs:
    """Roles, memberships, and rights on schemas."""

    def __init__(
        self,
        roles: dict[str, Role],
        memberships: list[tuple[str, str, bool, bool]],
        rights: list[tuple[str, str, str]],
        settings: dict[str, str],
    ) -> None:
        #: those that were asked for and exist
        self.roles = roles
        self._inherited: dict[str, set[str]] = defaultdict(set)
        self._settable: dict[str, set[str]] = defaultdict(set)
        for member, role, inherits, sets in memberships:
            if inherits:
                self._inherited[member].add(role)
            if sets:
                self._settable[member].add(role)
        #: existing schema -> privilege -> grantees
        self.schemas: dict[str, dict[str, set[str]]] = {}
        self._granted_to: dict[str, set[str]] = defaultdict(set)
        for schema, grantee, privilege in rights:
            grantees = self.schemas.setdefault(schema, defaultdict(set))
            if privilege:
                grantees[privilege].add(grantee)
                self._granted_to[grantee].add(schema)
        self.max_connections = int(settings["max_connections"])
        self.reserved_connections = int(settings["superuser_reserved_connections"]) + int(
            settings.get("reserved_connections", 0)
        )
        self.encoding = settings["server_encoding"]

    def connection_limit(self, role: str) -> int:
        return self.roles[role].connection_limit if role in self.roles else -1

    def member_of(self, role: str) -> set[str]:
        """Every role that `role` is, inherits from or may become, itself included."""
        return _closure(role, self._inherited, self._settable)

    def inherits(self, role: str, other: str) -> bool:
        """Whether `role` has the rights of `other` without SET ROLE."""
        return other in _closure(role, self._inherited)

    def may_become(self, role: str, other: str) -> bool:
        """Whether SET ROLE works."""
        return self._is_superuser(role) or other in _closure(role, self._settable)

    def has_right(self, role: str, schema: str, privilege: str) -> bool:
        if self._is_superuser(role):
            return True
        grantees = self.schemas[schema][privilege]
        return PUBLIC in grantees or not grantees.isdisjoint(_closure(role, self._inherited))

    def public_has(self, schema: str, privilege: str) -> bool:
        return schema in self.schemas and PUBLIC in self.schemas[schema][privilege]

    def reachable(self, role: str, among: Collection[str]) -> Iterator[tuple[str, str]]:
        """(schema, role that has the rights) for schemas that `role` may use or own, by itself or as a
        member.
        """
        for way in sorted(self.member_of(role), key=lambda name: (name != role, name)):
            for schema in sorted(self._granted_to.get(way, ())):
                if schema in among:
                    yield schema, way

    def _is_superuser(self, role: str) -> bool:
        return role in self.roles and self.roles[role].superuser


def _closure(start: str, *edges: dict[str, set[str]]) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        name = todo.pop()
        for graph in edges:
            new = graph.get(name, set()) - found
            found |= new
            todo += new
    return found


async def read_catalogs(
    connection: asyncpg.Connection[asyncpg.Record], *, roles: Collection[str], schemas: Collection[str]
) -> Catalogs:
    """Of the roles and schemas asked for; any login may read this."""
    found = await connection.fetch(_ROLES, list(roles))
    memberships = await connection.fetch(_MEMBERSHIPS)
    rights = await connection.fetch(_SCHEMAS, list(schemas))
    settings = await connection.fetch(_SETTINGS)
    return Catalogs(
        {row["name"]: Role(*row.values()) for row in found},
        [(row["member"], row["role"], row["inherits"], row["sets"]) for row in memberships],
        [(row["schema"], row["grantee"], row["privilege"]) for row in rights],
        {row["name"]: row["setting"] for row in settings},
    )
