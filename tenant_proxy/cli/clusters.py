"""Looks at the servers of a configuration: what is missing there, and the SQL that mends it.

    findings = await examine(config)

Each login whose password is known is tried as the proxy would use it.  Whichever of them gets in
first then reads the catalogs for all (they can be read by everybody), so that the roles and
schemas of tenants whose passwords aren't known are looked at too.  Nothing is ever changed.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

import asyncpg

from tenant_proxy.cli import service, set_user, shared_code
from tenant_proxy.cli.catalogs import Catalogs, read_catalogs
from tenant_proxy.config.schema import Catalogs as CatalogPolicy
from tenant_proxy.config.schema import Cluster, Config, Isolation
from tenant_proxy.lifecycle.sql import ident
from tenant_proxy.net.tls import asyncpg_ssl
from tenant_proxy.settings_policy import CLIENT_ENCODINGS, client_encoding_codec
from tenant_proxy.shims import install as shims
from tenant_proxy.shims.generate import UnsupportedServer
from tenant_proxy.tenancy.registry import Login, Registry, TenantInfo

Severity = Literal["error", "warning", "info"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")

#: logins that are tried at the same time, per cluster
_AT_ONCE: Final = 8
_TIMEOUT_S: Final = 10.0

#: predefined roles whose members see or do more than a tenant should
_POWERFUL_ROLES: Final = frozenset(
    {
        "pg_read_all_data",
        "pg_write_all_data",
        "pg_read_server_files",
        "pg_write_server_files",
        "pg_execute_server_program",
        "pg_read_all_stats",
        "pg_read_all_settings",
        "pg_monitor",
        "pg_signal_backend",
        "pg_maintain",
        "pg_database_owner",
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the proxy needs it."""

    severity: Severity
    cluster: str
    #: empty when it is about the whole cluster
    tenant: str
    #: stable word, e.g. "schema_missing"
    code: str
    message: str
    #: what mends it, to be run in the cluster's database by a superuser or owner; may be empty
    sql: str = ""


@dataclass(slots=True)
class _Attempt:
    """A login on the server, and how trying it went."""

    login: Login
    tenants: list[TenantInfo]
    #: why it failed; None when it got in
    error: Exception | None = None
    tried: bool = False


@dataclass(slots=True)
class _Check:
    """One cluster while it is looked at."""

    cluster: Cluster
    tenants: list[TenantInfo]
    attempts: list[_Attempt]
    #: open backends that clusters with the same address may have together
    wanted_backends: int
    #: the configuration has a `secret`
    has_secret: bool
    #: of tenants that say nothing else; those of the catalog are not looked at one by one
    catalogs: CatalogPolicy
    #: stands for the tenants of the catalog that say nothing else, if these have shared backends
    of_catalog: TenantInfo | None
    findings: list[Finding] = field(default_factory=list)
    observer: asyncpg.Connection[asyncpg.Record] | None = None

    def found(self, severity: Severity, tenant: str, code: str, message: str, sql: str = "") -> None:
        finding = Finding(severity, self.cluster.name, tenant, code, message, sql)
        if finding not in self.findings:
            self.findings.append(finding)


async def examine(config: Config) -> list[Finding]:
    """What was found, by cluster and then by severity; never raises for what a server does."""
    registry = Registry.build(config)
    checks = [_check_of(cluster, config, registry) for cluster in config.clusters]
    await asyncio.gather(*(_run(check) for check in checks))
    for check in checks:
        check.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return [finding for check in checks for finding in check.findings]


def _check_of(cluster: Cluster, config: Config, registry: Registry) -> _Check:
    tenants = [tenant for tenant in registry.tenants.values() if tenant.cluster.name == cluster.name]
    names = {tenant.name for tenant in tenants}
    attempts = [
        _Attempt(login, [registry.tenants[name] for name in login.tenants if name in names])
        for login in registry.logins.values()
        if names.intersection(login.tenants)
    ]
    here = (cluster.host, cluster.port)
    wanted = sum(other.max_backends for other in config.clusters if (other.host, other.port) == here)
    in_catalog = config.catalog.dsn is not None and config.isolation is Isolation.SHARED
    return _Check(
        cluster,
        tenants,
        attempts,
        wanted,
        config.secret is not None,
        config.policy.catalogs,
        registry.group_of(cluster) if in_catalog else None,
    )


async def _run(check: _Check) -> None:
    try:
        await _try_auth_query(check)
        reachable = await _try_logins(check)
        if reachable and check.observer is None:
            await _try_admin(check)
        catalogs = None
        if check.observer is not None:
            catalogs = await read_catalogs(
                check.observer,
                roles={role for attempt in check.attempts for role in _roles_of(attempt)}
                | {tenant.role for tenant in check.tenants if tenant.role is not None}
                | {name for name in (check.cluster.service.user,) if name is not None},
                schemas={tenant.schema for tenant in check.tenants}
                | {name for tenant in check.tenants for name in tenant.policy.allowed_schemas},
            )
        if reachable:
            _judge_logins(check, catalogs)
        if catalogs is not None:
            _judge_server(check, catalogs)
            _judge_roles(check, catalogs)
            _judge_schemas(check, catalogs)
            _judge_reach(check, catalogs)
            await _judge_views(check)
            if check.observer is not None and service.is_wanted(check.tenants):
                await _judge_service(check, check.observer, catalogs)
            if check.observer is not None:
                await shared_code.judge(
                    check.observer, check.tenants, check.of_catalog, _runs_as(check), check.found
                )
                await set_user.judge(check.observer, catalogs, _runs_as(check), check.found)
        elif reachable:
            check.found(
                "info", "", "not_examined", "no login got in, so roles and schemas could not be looked at"
            )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        check.found(
            "error", "", "failed", f"the connection failed while the server was looked at: {_text(error)}"
        )
    finally:
        if check.observer is not None:
            check.observer.terminate()


# --- logging in --------------------------------------------------------------------


async def _connect(
    cluster: Cluster, user: str, password: str | None, database: str
) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        host=cluster.host,
        port=cluster.port,
        user=user,
        # not None: the checker's own PGPASSWORD and .pgpass are none of the proxy's
        password=password or "",
        passfile=os.devnull,
        database=database,
        ssl=asyncpg_ssl(cluster.tls),
        direct_tls=cluster.tls.negotiation == "direct",
        timeout=_TIMEOUT_S,
        command_timeout=3 * _TIMEOUT_S,
        statement_cache_size=0,
        server_settings={"search_path": "", "application_name": "tenant-proxy check"},
    )


async def _try_logins(check: _Check) -> bool:
    """Tries every login whose password is known; False when the server can't be reached at all."""
    to_try = [attempt for attempt in check.attempts if _can_be_tried(attempt.login)]
    if not to_try:
        return check.observer is not None or await _reach(check)
    places = asyncio.Semaphore(_AT_ONCE)
    await _try(check, to_try[0], places)
    error = to_try[0].error
    if isinstance(error, OSError) and check.observer is None:
        _unreachable(check, error)
        return False
    await asyncio.gather(*(_try(check, attempt, places) for attempt in to_try[1:]))
    return True


async def _try_admin(check: _Check) -> None:
    """Where all logins are the catalog's, none of which has a password here, the admin can look."""
    admin = check.cluster.admin
    if admin.user is None:
        return
    password = None if admin.password is None else admin.password.reveal()
    try:
        check.observer = await _connect(check.cluster, admin.user, password, check.cluster.database)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        check.found(
            "error", "", "admin_refused", f'the admin login "{admin.user}" did not get in: {_text(error)}'
        )


def _can_be_tried(login: Login) -> bool:
    """Not with a verifier alone: then the client's own proof opens the backend."""
    return login.server_password is not None or login.verifier is None


async def _try(check: _Check, attempt: _Attempt, places: asyncio.Semaphore) -> None:
    attempt.tried = True
    async with places:
        login = attempt.login
        try:
            connection = await _connect(
                check.cluster, login.server_user, login.server_password, check.cluster.database
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            attempt.error = error
            return
        if check.observer is None:
            check.observer = connection
        else:
            connection.terminate()


async def _reach(check: _Check) -> bool:
    """Whether a connection can be made at all, where no login can be tried."""
    try:
        connection = await _connect(check.cluster, "tenant_proxy_check", None, check.cluster.database)
        connection.terminate()
    except OSError as error:
        _unreachable(check, error)
        return False
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        pass  # it answered
    return True


def _unreachable(check: _Check, error: Exception) -> None:
    where = f"{check.cluster.host}:{check.cluster.port}"
    tls = isinstance(error, ssl.SSLError) or "SSL" in str(error)
    what = f"TLS with the server at {where} failed" if tls else f"the server at {where} can't be reached"
    check.found("error", "", "tls_failed" if tls else "unreachable", f"{what}: {_text(error)}")


async def _try_auth_query(check: _Check) -> None:
    auth = check.cluster.auth_query
    if not auth.enabled:
        return
    user = ident(auth.user)
    password = auth.password.reveal() if auth.password is not None else None
    try:
        connection = await _connect(
            check.cluster, auth.user, password, auth.database or check.cluster.database
        )
    except OSError as error:
        _unreachable(check, error)
        return
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        text = f'the login "{auth.user}" of auth_query is refused: {_text(error)}'
        check.found("error", "", "auth_query_login", text, f"CREATE ROLE {user} LOGIN PASSWORD '…';")
        return
    try:
        await connection.fetch(auth.query, "tenant_proxy_check")
    except asyncpg.InsufficientPrivilegeError as error:
        sql = f"GRANT SELECT ON pg_catalog.pg_authid TO {user};"
        check.found("error", "", "auth_query_denied", f"auth_query may not run: {_text(error)}", sql)
    except asyncpg.PostgresError as error:
        check.found("error", "", "auth_query_failed", f"auth_query fails: {_text(error)}")
    finally:
        if auth.database in (None, check.cluster.database):
            check.observer = connection
        else:
            connection.terminate()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


# --- judging -----------------------------------------------------------------------


def _judge_logins(check: _Check, catalogs: Catalogs | None) -> None:
    for attempt in check.attempts:
        login, error = attempt.login, attempt.error
        name, role = login.server_user, ident(login.server_user)
        tenant = ", ".join(tenant.name for tenant in attempt.tenants)
        if not attempt.tried:
            text = f'login "{login.name}" has only a verifier, so logging in as "{name}" was not tried'
            check.found("info", tenant, "not_tried", text)
        known = catalogs.roles.get(name) if catalogs is not None else None
        if catalogs is not None and known is None:
            text = f'the role "{name}" of login "{login.name}" does not exist'
            check.found("error", tenant, "role_missing", text, f"CREATE ROLE {role} LOGIN PASSWORD '…';")
        elif known is not None and not known.can_login:
            check.found(
                "error", tenant, "nologin", f'the role "{name}" may not log in', f"ALTER ROLE {role} LOGIN;"
            )
        elif known is not None and known.expired:
            text = f'the password of role "{name}" is past its VALID UNTIL'
            check.found("error", tenant, "expired", text, f"ALTER ROLE {role} VALID UNTIL 'infinity';")
        elif error is not None:
            _judge_refusal(check, tenant, name, error)


def _judge_refusal(check: _Check, tenant: str, name: str, error: Exception) -> None:
    """A login that failed although, as far as is known, its role is there."""
    role, database = ident(name), ident(check.cluster.database)
    text = _text(error)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        sql = f"CREATE DATABASE {database};"
        check.found(
            "error", "", "database_missing", f'the database "{check.cluster.database}" does not exist', sql
        )
    elif isinstance(error, asyncpg.InvalidPasswordError):
        sql = f"ALTER ROLE {role} PASSWORD '…';"
        check.found("error", tenant, "login_refused", f'logging in as "{name}" is refused: {text}', sql)
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        sql = f"GRANT CONNECT ON DATABASE {database} TO {role};"
        check.found("error", tenant, "no_connect", f'"{name}" may not connect to the database: {text}', sql)
    else:
        check.found("error", tenant, "login_failed", f'logging in as "{name}" fails: {text}')


async def _judge_service(
    check: _Check, observer: asyncpg.Connection[asyncpg.Record], catalogs: Catalogs
) -> None:
    user, password = check.cluster.service.user, check.cluster.service.password
    if user is not None and user in catalogs.roles:
        try:
            connection = await _connect(
                check.cluster,
                user,
                password.reveal() if password is not None else None,
                check.cluster.database,
            )
            connection.terminate()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            text = f'the service login "{user}" is refused: {_text(error)}'
            check.found("error", "", "service_login", text, f"ALTER ROLE {ident(user)} PASSWORD '…';")
    await service.judge(observer, catalogs, check.cluster, _runs_as(check), check.found)


def _runs_as(check: _Check) -> list[tuple[TenantInfo, str]]:
    """The roles that each tenant's statements run as."""
    found = {
        (tenant.name, tenant.role or attempt.login.server_user): tenant
        for attempt in check.attempts
        for tenant in attempt.tenants
    }
    return [(tenant, role) for (_, role), tenant in found.items()]


def _judge_server(check: _Check, catalogs: Catalogs) -> None:
    room = catalogs.max_connections - catalogs.reserved_connections
    wanted = check.wanted_backends
    if wanted > room:
        text = (
            f"max_backends is {wanted}, but the server takes {room} ordinary connections"
            f" (max_connections {catalogs.max_connections}, {catalogs.reserved_connections} reserved)"
        )
        need = wanted + catalogs.reserved_connections
        check.found(
            "warning",
            "",
            "max_connections",
            text,
            f"ALTER SYSTEM SET max_connections = {need};  -- then restart",
        )
    if client_encoding_codec(catalogs.encoding) is None:
        text = f"the database's encoding is {catalogs.encoding}, in which the guard can't read statements"
        check.found("error", "", "encoding", f"{text} (it can: {', '.join(sorted(CLIENT_ENCODINGS))})")


async def _judge_views(check: _Check) -> None:
    """Whether what hides tenants from each other in the catalogs is installed."""
    policies = {tenant.policy.catalogs for tenant in check.tenants} or {check.catalogs}
    if check.observer is None or policies <= {CatalogPolicy.SHOW}:
        return
    severity: Severity = "error" if CatalogPolicy.HIDE in policies else "warning"
    command = f"tenant-proxy catalog install --cluster {check.cluster.name}"
    try:
        state = await shims.read_state(check.observer)
    except UnsupportedServer as problem:
        check.found(severity, "", "catalogs_unsupported", f"the catalogs can't be hidden: {problem}")
        return
    if state.installed is None:
        text = f"tenants see each other's names in the catalogs; `{command}` installs what hides them"
        check.found(severity, "", "catalogs_missing", text)
    elif not state.is_current:
        text = (
            f"what hides tenants in the catalogs is {state.installed}, where this version has"
            f" {state.current}; `{command}` brings it up to date"
        )
        check.found("warning", "", "catalogs_outdated", text)
    if state.installed is not None and not check.has_secret:
        text = (
            "without a `secret` in the configuration tenants' names alone decide what keeps their channels"
            " and advisory locks apart, so that one that runs SQL made at run time can work out another's"
        )
        check.found("warning", "", "secret_missing", text)


def _judge_roles(check: _Check, catalogs: Catalogs) -> None:
    for attempt in check.attempts:
        for tenant in attempt.tenants:
            for name in _roles_of(attempt):
                _judge_power(check, catalogs, tenant, name)
            if tenant.role is not None:
                _judge_membership(check, catalogs, tenant, attempt.login.server_user)
            limit = catalogs.connection_limit(attempt.login.server_user)
            if 0 <= limit < tenant.pool.max:
                name, wanted = attempt.login.server_user, tenant.pool.max
                text = f'role "{name}" may have {limit} connections, pool.max is {wanted}'
                sql = f"ALTER ROLE {ident(name)} CONNECTION LIMIT {wanted};"
                check.found("warning", tenant.name, "connection_limit", text, sql)


def _judge_power(check: _Check, catalogs: Catalogs, tenant: TenantInfo, name: str) -> None:
    """Roles that PostgreSQL's own rights don't bind."""
    role = catalogs.roles.get(name)
    if role is None:
        return
    for word, has in (
        ("SUPERUSER", role.superuser),
        ("BYPASSRLS", role.bypass_rls),
        ("CREATEROLE", role.create_role),
    ):
        if has:
            text = f'DANGEROUS: the role "{name}" is {word}: PostgreSQL keeps nothing from it'
            check.found("warning", tenant.name, word.lower(), text, f"ALTER ROLE {ident(name)} NO{word};")
    if role.makes_schemas and not role.superuser:
        text = (
            f'the role "{name}" may make schemas, and so put one in another\'s place, also of those that'
            " tenant-proxy has, while the operator works in it"
        )
        sql = f"REVOKE CREATE ON DATABASE {ident(check.cluster.database)} FROM {ident(name)};"
        check.found("warning", tenant.name, "makes_schemas", text, sql)
    for powerful in sorted(catalogs.member_of(name) & _POWERFUL_ROLES):
        text = f'DANGEROUS: the role "{name}" is a member of "{powerful}", which reaches beyond a tenant'
        check.found("warning", tenant.name, "powerful_role", text, f"REVOKE {powerful} FROM {ident(name)};")


def _judge_membership(check: _Check, catalogs: Catalogs, tenant: TenantInfo, login: str) -> None:
    assert tenant.role is not None
    if tenant.role not in catalogs.roles:
        text = f'the role "{tenant.role}" does not exist'
        check.found("error", tenant.name, "role_missing", text, f"CREATE ROLE {ident(tenant.role)} NOLOGIN;")
    elif login in catalogs.roles and not catalogs.may_become(login, tenant.role):
        text = f'"{login}" is not a member of the role "{tenant.role}", so it can\'t set it'
        sql = f"GRANT {ident(tenant.role)} TO {ident(login)};"
        check.found("error", tenant.name, "not_a_member", text, sql)


def _judge_schemas(check: _Check, catalogs: Catalogs) -> None:
    logins = defaultdict(list)
    for attempt in check.attempts:
        for tenant in attempt.tenants:
            logins[tenant.name].append(attempt.login.server_user)
    for tenant in check.tenants:
        schema = ident(tenant.schema)
        roles = [tenant.role] if tenant.role is not None else list(dict.fromkeys(logins[tenant.name]))
        if tenant.schema not in catalogs.schemas:
            owner = f" AUTHORIZATION {ident(roles[0])}" if roles else ""
            text = f'the schema "{tenant.schema}" does not exist'
            check.found("error", tenant.name, "schema_missing", text, f"CREATE SCHEMA {schema}{owner};")
            continue
        for name in roles:
            if name not in catalogs.roles:
                continue
            if not catalogs.has_right(name, tenant.schema, "USAGE"):
                text = f'role "{name}" has no USAGE on schema "{tenant.schema}"'
                sql = f"GRANT USAGE ON SCHEMA {schema} TO {ident(name)};"
                check.found("error", tenant.name, "no_usage", text, sql)
            if not catalogs.has_right(name, tenant.schema, "CREATE"):
                text = f'role "{name}" has no CREATE on schema "{tenant.schema}", so it can\'t make tables'
                sql = f"GRANT CREATE ON SCHEMA {schema} TO {ident(name)};"
                check.found("warning", tenant.name, "no_create", text, sql)


def _judge_reach(check: _Check, catalogs: Catalogs) -> None:
    """Who can get at a tenant's schema besides the tenant, and who may put things where all look."""
    owners = {tenant.schema: tenant.name for tenant in check.tenants}
    tenants_of = defaultdict(set)
    for attempt in check.attempts:
        for tenant in attempt.tenants:
            for name in _roles_of(attempt, tenant):
                tenants_of[name].add(tenant.name)
    for schema, tenant_name in owners.items():
        if catalogs.public_has(schema, "USAGE"):
            text = (
                f'everybody (PUBLIC) has rights on schema "{schema}", so other tenants\' roles have them too'
            )
            sql = f"REVOKE ALL ON SCHEMA {ident(schema)} FROM PUBLIC;"
            check.found("warning", tenant_name, "public_rights", text, sql)
    for name, own in sorted(tenants_of.items()):
        role = catalogs.roles.get(name)
        if role is None or role.superuser:
            continue
        for schema, way in catalogs.reachable(name, owners):
            if owners[schema] in own:
                continue
            text = f'role "{name}" of {", ".join(sorted(own))} has rights on "{schema}" of {owners[schema]}'
            if way == name:
                sql = f"REVOKE ALL ON SCHEMA {ident(schema)} FROM {ident(name)};"
            else:
                text += f', as a member of "{way}"'
                sql = f"REVOKE {ident(way)} FROM {ident(name)};"
            check.found("warning", owners[schema], "foreign_rights", text, sql)
    allowed = {name for tenant in check.tenants for name in tenant.policy.allowed_schemas} - owners.keys()
    for schema in sorted(allowed):
        if catalogs.public_has(schema, "CREATE"):
            text = f'everybody (PUBLIC) may create objects in "{schema}", which all tenants share'
            sql = f"REVOKE CREATE ON SCHEMA {ident(schema)} FROM PUBLIC;"
            check.found("warning", "", "public_create", text, sql)


def _roles_of(attempt: _Attempt, tenant: TenantInfo | None = None) -> Iterable[str]:
    """Roles that a login's statements run as, the login itself included."""
    tenants = attempt.tenants if tenant is None else [tenant]
    return {attempt.login.server_user, *(t.role for t in tenants if t.role is not None)}
