"""Who is who: the tenants and logins of one configuration, and which of them a connection is.

A `Registry` is built whole from a `Config` and never changes; a reload builds another and swaps it.
`route` is pure.  The relay calls it only after authentication, so that nobody can find out by trying which
tenants exist.

How a tenant is found
---------------------
The rules of `mapping` are asked in their order, and the first that yields a tenant decides:

    login        a login that belongs to exactly one tenant
    user_suffix  user.tenant
    options      options=-c tenant=NAME
    database     the database's name, when that is a tenant of the login
    sni          the TLS host name, when it is in the sni list of a tenant of the login
    certificate  CN or an alternative name of the client's certificate, equal to a tenant's name or in its
    sni list

user_suffix and options are explicit: whoever uses them gets that tenant or an error, never another one.
The rest only count when they name a tenant that the login is granted; a tenant that it isn't granted is
answered as one that does not exist.  A login with several tenants that names none gets its own (`tenant`),
if it has one and left the database at its default (the user's name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tenant_proxy import errors
from tenant_proxy.config.schema import (
    Cluster,
    Config,
    Isolation,
    MappingRule,
    Policy,
    Pool,
    PoolMode,
    SecretRef,
    Tenant,
    User,
    merged,
)
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import StartupRequest
from tenant_proxy.settings_policy import canonical_name
from tenant_proxy.tenancy.space import space_of

#: database names that mean the admin console
ADMIN_DATABASES = frozenset({"tenant_proxy", "pgbouncer"})

#: the startup setting that names a tenant (options=-c tenant=NAME); never sent on to a server
TENANT_SETTING = "tenant"


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the file, its secrets resolved (and never shown by repr)."""

    name: str
    password: str | None = field(repr=False)
    verifier: str | None = field(repr=False)
    server_user: str
    server_password: str | None = field(repr=False)
    admin: bool
    stats: bool
    max_clients: int
    #: every tenant this login may use, its own first
    tenants: tuple[str, ...]
    #: its own, which it gets when it names none
    tenant: str | None = None
    #: settings that it can't change, names as canonical_name() has them
    locked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant with the configuration's defaults merged in."""

    name: str
    cluster: Cluster
    schema: str
    role: str | None
    pool: Pool
    policy: Policy
    settings: dict[str, str]
    max_clients: int
    isolation: Isolation
    #: settings that clients can't change, names as canonical_name() has them; a login's own go over them
    locked: Mapping[str, str] = field(default_factory=dict)
    sni: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    #: see `tenancy.space`
    space: str = field(default="", repr=False)

    @property
    def code(self) -> str:
        """Whose functions, views … its statements may run: the same for tenants that share a schema."""
        return code_name(self.cluster.name, self.schema)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a connection goes, and by which rule."""

    tenant: TenantInfo
    login: Login | None
    #: the login's name, without the suffix of user.tenant
    user: str
    #: as the client asked
    database: str
    rule: str

    @property
    def locked(self) -> dict[str, str]:
        """Settings that the connection begins with and can't change."""
        return {**self.tenant.locked, **(self.login.locked if self.login is not None else {})}


class Registry:
    """Tenants and logins of one configuration."""

    def __init__(self, config: Config, tenants: dict[str, TenantInfo], logins: dict[str, Login]) -> None:
        self.config = config
        self.tenants: Mapping[str, TenantInfo] = MappingProxyType(tenants)
        self.logins: Mapping[str, Login] = MappingProxyType(logins)
        self._hosts = {host.lower(): tenant.name for tenant in tenants.values() for host in tenant.sni}
        self._exact_roles: dict[str, str] = {}
        self._role_prefixes: list[tuple[str, str]] = []
        for tenant in config.tenants:
            for entry in tenant.logins:
                if entry.endswith("*"):
                    self._role_prefixes.append((entry[:-1], tenant.name))
                else:
                    self._exact_roles[entry] = tenant.name
        self._role_prefixes.sort(key=lambda entry: -len(entry[0]))

    @classmethod
    def build(cls, config: Config) -> Registry:
        """Of a configuration that `config.load` has checked: its secrets resolved, its names known."""
        clusters = {cluster.name: cluster for cluster in config.clusters}
        tenants = {tenant.name: _tenant(tenant, config, clusters) for tenant in config.tenants}
        return cls(config, tenants, {user.name: _login(user) for user in config.users})

    def group_of(self, cluster: Cluster) -> TenantInfo:
        """What stands for a tenant where backends that tenants share are opened and counted."""
        most = cluster.service.max_backends or cluster.max_backends
        return TenantInfo(
            name=group_name(cluster.name),
            cluster=cluster,
            schema="",
            role=None,
            pool=merged(self.config.pool, {"mode": PoolMode.TRANSACTION, "max": most, "min": 0}),
            policy=self.config.policy,
            settings={},
            max_clients=0,
            isolation=Isolation.SHARED,
        )

    def is_admin_database(self, database: str) -> bool:
        return database in ADMIN_DATABASES

    def login_name(self, request: StartupRequest) -> str:
        """The name to authenticate: the user without .tenant, where that is one.

        The exact name of a login wins.  Otherwise the part behind the last dot is taken off when the rest
        is a login or the part is a tenant; any other name is left whole.
        """
        return self._split_user(request.user)[0]

    def _split_user(self, user: str) -> tuple[str, str | None]:
        """(login's name, tenant's name or None)"""
        if MappingRule.USER_SUFFIX not in self.config.mapping or user in self.logins:
            return user, None
        name, dot, tenant = user.rpartition(".")
        if dot and name and tenant and (name in self.logins or tenant in self.tenants):
            return name, tenant
        return user, None

    def auth_query_cluster(self, request: StartupRequest) -> Cluster | None:
        """The cluster to ask for a login that this file doesn't know, or None when there is none to ask."""
        try:
            return self.route(request, None).tenant.cluster
        except ProxyError:
            return None

    def granted(self, login: Login | None, user: str) -> tuple[str, ...]:
        """The tenants that an authenticated login may use; without `login` it is a role that auth_query
        found.

        Such a role belongs to the tenant with the longest entry in `logins` that fits, else to the one of its
        name; to none where the tenant's cluster has no auth_query.
        """
        if login is not None:
            return login.tenants
        name = self._owner(user)
        known = name in self.tenants and self.tenants[name].cluster.auth_query.enabled
        return (name,) if known else ()

    def _owner(self, role: str) -> str:
        if role in self._exact_roles:
            return self._exact_roles[role]
        return next((tenant for prefix, tenant in self._role_prefixes if role.startswith(prefix)), role)

    def route(self, request: StartupRequest, login: Login | None) -> Route:
        """The tenant of an authenticated connection; `login` is None for a role that auth_query found.

        Raises ProxyError (FATAL): no_such_tenant, also for a tenant that isn't granted; no_tenant when no
        rule yields one; admin_refused for the console's database without the right to use it.
        """
        user, suffix = self._split_user(request.user)
        if self.is_admin_database(request.database) and not (login and (login.admin or login.stats)):
            raise errors.admin_refused(user, request.database)
        granted = self.granted(login, user)
        option = request.settings.get(TENANT_SETTING)
        if option is not None and MappingRule.OPTIONS not in self.config.mapping:
            raise errors.no_tenant(MappingRule.OPTIONS, "the operator has not enabled this mapping rule")
        explicit = {MappingRule.USER_SUFFIX: suffix, MappingRule.OPTIONS: option}

        found = self._first_match(request, granted, explicit)
        unnamed = request.database in ("", request.user, user)  # libpq's default for the database
        if found is None and unnamed and login is not None and login.tenant is not None:
            found = login.tenant, MappingRule.LOGIN
        if found is None:
            raise self._nothing_found(request, user, granted)
        name, rule = found
        for explicit_rule, wanted in explicit.items():
            if wanted is not None and wanted != name:
                raise errors.no_such_tenant(wanted, explicit_rule)
        if name not in granted or name not in self.tenants:
            raise errors.no_such_tenant(name, rule)
        return Route(self.tenants[name], login, user, request.database, rule.value)

    def _first_match(
        self,
        request: StartupRequest,
        granted: tuple[str, ...],
        explicit: Mapping[MappingRule, str | None],
    ) -> tuple[str, MappingRule] | None:
        for rule in self.config.mapping:
            name: str | None
            match rule:
                case MappingRule.LOGIN:
                    name = granted[0] if len(granted) == 1 else None
                case MappingRule.USER_SUFFIX | MappingRule.OPTIONS:
                    name = explicit[rule]
                case MappingRule.DATABASE:
                    name = request.database if request.database in granted else None
                case MappingRule.SNI:
                    name = self._of_host(request.sni, granted)
                case MappingRule.CERTIFICATE:
                    name = self._of_certificate(request, granted)
            if name is not None:
                return name, rule
        return None

    def _of_host(self, host: str | None, granted: tuple[str, ...]) -> str | None:
        # a trailing dot makes a host name absolute, and means the same
        name = self._hosts.get(host.lower().removesuffix(".")) if host else None
        return name if name in granted else None

    def _of_certificate(self, request: StartupRequest, granted: tuple[str, ...]) -> str | None:
        for name in filter(None, (request.cert_cn, *request.cert_names)):
            if name in granted:
                return name
            by_host = self._of_host(name, granted)
            if by_host is not None:
                return by_host
        return None

    def _nothing_found(self, request: StartupRequest, user: str, granted: tuple[str, ...]) -> ProxyError:
        if not granted:
            return errors.no_tenant(MappingRule.LOGIN, f'login "{user}" belongs to no tenant')
        if MappingRule.DATABASE in self.config.mapping and request.database:
            return errors.no_such_tenant(request.database, MappingRule.DATABASE)
        tried = ", ".join(self.config.mapping)
        return errors.no_tenant(tried, f'login "{user}" belongs to several tenants, and none was named')


def code_name(cluster: str, schema: str) -> str:
    """What a schema's code is counted under; `/` is in no cluster's or schema's counter otherwise."""
    return f"{cluster}/{schema}"


def group_name(cluster: str) -> str:
    """Of a cluster's shared backends; no tenant can be called so."""
    return f"*{cluster}"


def _tenant(tenant: Tenant, config: Config, clusters: Mapping[str, Cluster]) -> TenantInfo:
    return TenantInfo(
        name=tenant.name,
        cluster=clusters[tenant.cluster] if tenant.cluster is not None else config.clusters[0],
        schema=tenant.schema_ or tenant.name,
        role=tenant.role,
        pool=merged(config.pool, tenant.pool),
        policy=merged(config.policy, tenant.policy),
        settings=dict(tenant.settings),
        max_clients=tenant.max_clients,
        isolation=tenant.isolation or config.isolation,
        locked=_locked(tenant),
        sni=tuple(tenant.sni),
        labels=dict(tenant.labels),
        space=space_of(tenant.name, _reveal(config.secret)),
    )


def _login(user: User) -> Login:
    password = _reveal(user.password)
    own = (user.tenant,) if user.tenant is not None else ()
    return Login(
        name=user.name,
        password=password,
        verifier=_reveal(user.verifier),
        server_user=user.server_user or user.name,
        server_password=_reveal(user.server_password) or password,
        admin=user.admin,
        stats=user.stats,
        max_clients=user.max_clients,
        tenants=tuple(dict.fromkeys((*own, *user.tenants))),
        tenant=user.tenant,
        locked=_locked(user),
    )


def _locked(section: Tenant | User) -> dict[str, str]:
    return {canonical_name(name): value for name, value in section.locked_settings.items()}


def _reveal(ref: SecretRef | None) -> str | None:
    return None if ref is None else ref.reveal()
