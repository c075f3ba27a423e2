"""What a tenant has on its cluster, and who may do what with it, as SQL: pure functions of a tenant and of
what is there already.

    roles     acme_owner owns the schema and all in it; acme_readwrite and acme_readonly have rights on what
              is there and, by default privileges of the owner, on what will be.  None of them logs in.
    logins    are members of one of them, do not inherit, and run as it (SET ROLE), so that what one of them
              makes another may change, and nothing of two tenants is ever reached in one go.
    PUBLIC    has nothing on the schema and on what is in it.

These hold by themselves: whoever logs in past the proxy has them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tenant_proxy.catalog.records import CustomRole, Spec, Tenant
from tenant_proxy.lifecycle.sql import ident, idents, literal

#: on tables, sequences, routines and types
_READWRITE: Final = ("SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT, UPDATE", "EXECUTE", "USAGE")
_READONLY: Final = ("SELECT", "SELECT", "EXECUTE", "USAGE")
_KINDS: Final = ("TABLES", "SEQUENCES", "ROUTINES", "TYPES")

#: what a custom role may be given on a table
TABLE_RIGHTS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there on the cluster, as its admin sees it."""

    major: int
    superuser: bool
    #: existing role -> its mark, "" for one that has none
    roles: dict[str, str] = field(default_factory=dict)
    #: the same of the tenant's schema; None: it does not exist
    schema: str | None = None
    #: everybody may connect to the database
    public_connects: bool = True


def mark(tenant: Tenant) -> str:
    """The comment on what was made for a tenant: that of another tenant, or another catalog, has another."""
    return f"tenant_proxy:{tenant.id}:{tenant.created_at:%Y%m%d%H%M%S%f}"


def roles_of(tenant: Tenant) -> tuple[str, str, str]:
    return tenant.owner_role, tenant.readwrite_role, tenant.readonly_role


# --- the tenant -----------------------------------------------------------------------------------


def create_database(name: str, tablespace: str | None) -> list[str]:
    where = f" TABLESPACE {ident(tablespace)}" if tablespace else ""
    return [f"CREATE DATABASE {ident(name)}{where}"]


def drop_database(name: str) -> list[str]:
    return [f"DROP DATABASE {ident(name)} WITH (FORCE)"]


def close_database(name: str) -> list[str]:
    """Of a tenant's own: nobody gets in who was not granted it."""
    return [f"REVOKE ALL ON DATABASE {ident(name)} FROM PUBLIC"]


def provision(tenant: Tenant, spec: Spec, facts: Facts, service: str | None) -> list[str]:
    """Makes what is missing and lays the rights anew; for one transaction in the tenant's database.

    `service` is the login of backends that tenants share.
    """
    owner, readwrite, readonly = roles_of(tenant)
    schema = ident(tenant.schema_)
    comment = literal(mark(tenant))
    statements: list[str] = []
    for role in roles_of(tenant):
        if role not in facts.roles:
            statements.append(f"CREATE ROLE {ident(role)} NOLOGIN")
            statements.append(f"COMMENT ON ROLE {ident(role)} IS {comment}")
    if not facts.superuser:
        statements.append(membership(owner, "CURRENT_USER", facts.major, inherit=True))
    statements += [
        f"CREATE EXTENSION IF NOT EXISTS {ident(name)}{_extension_schema(tenant)}"
        for name in spec.extensions or ()
    ]
    if facts.schema is None:
        statements.append(f"CREATE SCHEMA {schema} AUTHORIZATION {ident(owner)}")
        statements.append(f"COMMENT ON SCHEMA {schema} IS {comment}")
    statements += schema_rights(tenant.schema_, owner, readwrite, readonly, empty=facts.schema is None)
    if spec.tablespace:
        statements.append(f"GRANT CREATE ON TABLESPACE {ident(spec.tablespace)} TO {ident(owner)}")
    if tenant.database is not None:
        statements.append(
            f"GRANT TEMPORARY ON DATABASE {ident(tenant.database)} TO {idents(roles_of(tenant))}"
        )
        statements.append(f"GRANT USAGE ON SCHEMA public TO {idents(roles_of(tenant))}")
    if service is not None:
        statements += [
            membership(role, ident(service), facts.major, inherit=False) for role in roles_of(tenant)
        ]
    return statements


def _extension_schema(tenant: Tenant) -> str:
    return " SCHEMA public" if tenant.database is None else ""


def schema_rights(
    schema: str, owner: str, readwrite: str, readonly: str, *, empty: bool = False
) -> list[str]:
    """On what is in a schema and on what its owner will make there.

    `empty`: it has just been made.  Nothing is looked for in it then: for each GRANT on all tables of one
    schema PostgreSQL reads all of pg_class several times.
    """
    name = ident(schema)
    default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {ident(owner)}"
    statements = [
        f"REVOKE ALL ON SCHEMA {name} FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA {name} TO {idents((readwrite, readonly))}",
        # these are PUBLIC's unless they are taken from it everywhere, not in one schema
        f"{default} REVOKE EXECUTE ON ROUTINES FROM PUBLIC",
        f"{default} REVOKE USAGE ON TYPES FROM PUBLIC",
    ]
    if not empty:
        statements += [
            f"REVOKE ALL ON ALL {kind} IN SCHEMA {name} FROM PUBLIC"
            for kind in ("TABLES", "SEQUENCES", "ROUTINES")
        ]
    for role, rights in ((readwrite, _READWRITE), (readonly, _READONLY)):
        for kind, right in zip(_KINDS, rights, strict=True):
            if kind != "TYPES" and not empty:
                statements.append(f"GRANT {right} ON ALL {kind} IN SCHEMA {name} TO {ident(role)}")
            statements.append(f"{default} IN SCHEMA {name} GRANT {right} ON {kind} TO {ident(role)}")
    return statements


def membership(role: str, member: str, major: int, *, inherit: bool) -> str:
    """`member` is quoted, or a keyword.  Before PostgreSQL 16 whether it inherits is the member's own
    attribute.
    """
    options = f" WITH INHERIT {'TRUE' if inherit else 'FALSE'}, SET TRUE" if major >= 16 else ""
    return f"GRANT {ident(role)} TO {member}{options}"


def unprovision(tenant: Tenant, facts: Facts) -> list[str]:
    """Takes away what was made for this tenant, and nothing else."""
    statements: list[str] = []
    ours = [role for role in roles_of(tenant) if facts.roles.get(role) == mark(tenant)]
    if ours and not facts.superuser:
        statements += [membership(role, "CURRENT_USER", facts.major, inherit=True) for role in ours]
    if facts.schema == mark(tenant):
        statements.append(f"DROP SCHEMA {ident(tenant.schema_)} CASCADE")
    if ours:
        statements += drop_owned(ours, cascade=True)
        statements += [f"DROP ROLE {ident(role)}" for role in ours]
    return statements


def drop_owned(roles: Sequence[str], *, cascade: bool = False) -> list[str]:
    """One after the other: PostgreSQL fails ("could not find tuple for default ACL") where two are named of
    which one has default privileges for the other alone.
    """
    return [f"DROP OWNED BY {ident(role)}{' CASCADE' if cascade else ''}" for role in roles]


# --- logins ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """One tenant of a login, on one cluster."""

    database: str
    own_database: bool
    schema: str
    role: str


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """A login as it should be on a cluster: a role for each of its verifiers, with the same rights."""

    mark: str
    #: server user -> verifier
    verifiers: dict[str, str] = field(repr=False)
    places: list[Place]
    #: 0: any number
    connection_limit: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """How it is there."""

    major: int
    superuser: bool
    #: server user -> mark, of those that exist
    users: dict[str, str]
    #: (server user, role)
    memberships: set[tuple[str, str]]
    #: (server user, database) -> settings, each as name=value
    settings: dict[tuple[str, str], list[str]]
    #: (server user, database)
    connects: set[tuple[str, str]]
    #: databases in which everybody may connect
    public_connects: set[str]


def settle_login(wanted: ServerLogin, lost: Sequence[str], facts: LoginFacts) -> list[str]:
    """Makes it so.  What is so already is not touched, but for passwords, which nobody can read there.

    Those that go are only closed: what runs as them is ended (`end_backends`) before they are dropped.
    """
    statements: list[str] = []
    if not facts.superuser:  # who ends or drops what a role has must have its rights
        statements += [membership(user, "CURRENT_USER", facts.major, inherit=True) for user in lost]
    statements += [f"ALTER ROLE {ident(user)} NOLOGIN" for user in lost if user not in wanted.verifiers]
    valid = literal(wanted.expires_at.isoformat()) if wanted.expires_at else "'infinity'"
    for user, verifier in wanted.verifiers.items():
        exists = user in facts.users
        statements.append(
            f"{'ALTER' if exists else 'CREATE'} ROLE {ident(user)} LOGIN NOINHERIT"
            f" PASSWORD {literal(verifier)} VALID UNTIL {valid}"
            f" CONNECTION LIMIT {wanted.connection_limit or -1}"
        )
        if not exists:
            statements.append(f"COMMENT ON ROLE {ident(user)} IS {literal(wanted.mark)}")
        statements += _settle_places(user, wanted.places, facts)
    return statements


def _settle_places(user: str, places: Sequence[Place], facts: LoginFacts) -> list[str]:
    name = ident(user)
    roles = {place.role for place in places}
    have = {role for member, role in facts.memberships if member == user}
    statements = [f"REVOKE {ident(role)} FROM {name}" for role in sorted(have - roles)]
    statements += [membership(role, name, facts.major, inherit=False) for role in sorted(roles - have)]
    connects = {
        place.database
        for place in places
        if place.own_database or place.database not in facts.public_connects
    }
    had = {database for member, database in facts.connects if member == user}
    statements += [f"REVOKE CONNECT ON DATABASE {ident(one)} FROM {name}" for one in sorted(had - connects)]
    statements += [f"GRANT CONNECT ON DATABASE {ident(one)} TO {name}" for one in sorted(connects - had)]
    # alone in its database it is that tenant as soon as it is logged in
    by_database: dict[str, list[Place]] = {}
    for place in places:
        by_database.setdefault(place.database, []).append(place)
    starts = {
        database: [f"role={ones[0].role}", f"search_path={search_path(ones[0].schema)}"]
        for database, ones in by_database.items()
        if len(ones) == 1
    }
    set_before = {database: found for (member, database), found in facts.settings.items() if member == user}
    for database in sorted(set_before.keys() | starts.keys()):
        now, then = set_before.get(database, []), starts.get(database, [])
        where = f"ALTER ROLE {name} IN DATABASE {ident(database)}"
        # quotes: the server writes them only where they are needed
        if sorted(one.replace('"', "") for one in now) != sorted(one.replace('"', "") for one in then):
            statements += [f"{where} RESET ALL"] if now else []
            if database in starts:
                place = by_database[database][0]
                statements.append(f"{where} SET role = {literal(place.role)}")
                statements.append(f"{where} SET search_path = {search_path(place.schema)}")
    return statements


def lost(user: str, wanted: ServerLogin, facts: LoginFacts) -> bool:
    """It is no longer, or may no longer be somebody that it was: what runs as them has to end."""
    if user not in wanted.verifiers:
        return facts.users[user] == wanted.mark
    roles = {place.role for place in wanted.places}
    return any(member == user and role not in roles for member, role in facts.memberships)


def search_path(schema: str) -> str:
    return idents((schema, "public"))


def end_backends(server_users: Sequence[str]) -> str:
    names = ", ".join(literal(name) for name in server_users)
    return (
        "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity"
        f" WHERE usename IN ({names}) AND pid <> pg_catalog.pg_backend_pid();\n"
    )


def drop_logins(server_users: Sequence[str]) -> list[str]:
    """Rights on databases and memberships go with them; they own next to nothing, as they run as others."""
    if not server_users:
        return []
    return [*drop_owned(server_users), f"DROP ROLE {idents(server_users)}"]


# --- custom roles ---------------------------------------------------------------------------------


def put_custom_role(tenant: Tenant, role: CustomRole, facts: Facts, service: str | None) -> list[str]:
    """Exactly these rights on these tables: all others are taken from it."""
    name, schema = ident(role.server_role), ident(tenant.schema_)
    statements: list[str] = []
    if role.server_role not in facts.roles:
        statements.append(f"CREATE ROLE {name} NOLOGIN")
        statements.append(f"COMMENT ON ROLE {name} IS {literal(mark(tenant))}")
    statements.append(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}")
    statements.append(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    for table, rights in sorted(role.grants.items()):
        statements.append(f"GRANT {', '.join(sorted(rights))} ON {schema}.{ident(table)} TO {name}")
    if service is not None:
        statements.append(membership(role.server_role, ident(service), facts.major, inherit=False))
    return statements


def drop_custom_role(role: str, facts: Facts) -> list[str]:
    # who drops what a role has must have its rights
    own = [] if facts.superuser else [membership(role, "CURRENT_USER", facts.major, inherit=True)]
    return [*own, f"DROP OWNED BY {ident(role)}", f"DROP ROLE {ident(role)}"]
