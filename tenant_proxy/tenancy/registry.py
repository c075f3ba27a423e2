"""Who is who: the tenants and logins of one configuration, and which of them a connection is.

A `Registry` is built whole from a `Config`; a reload builds another and swaps it.  What the catalog holds
besides is laid under it by `serve`, by difference: the file wins where both have a name (tenancy.records).
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
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tenant_proxy import errors
from tenant_proxy.config.schema import (
    ADMIN_DATABASES,
    Cluster,
    Config,
    Isolation,
    MappingRule,
    PoolMode,
    merged,
)
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import StartupRequest
from tenant_proxy.tenancy.records import Builder, Served
from tenant_proxy.tenancy.records import Login as Login
from tenant_proxy.tenancy.records import TenantInfo as TenantInfo

#: the startup setting that names a tenant (options=-c tenant=NAME); never sent on to a server
TENANT_SETTING = "tenant"


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
    #: the startup packet alone decided: neither the TLS host name nor the client's certificate was looked at
    by_packet: bool

    @property
    def locked(self) -> dict[str, str]:
        """Settings that the connection begins with and can't change."""
        return {**self.tenant.locked, **(self.login.locked if self.login is not None else {})}


@dataclass(slots=True)
class Changed:
    """What `serve` has changed."""

    #: tenants that are new, other than before, or gone
    tenants: set[str] = field(default_factory=set)
    logins: set[str] = field(default_factory=set)
    #: tenants that these logins may or might use
    granted: set[str] = field(default_factory=set)
    #: tenants whose clients, or those of one of their logins, were let in with other locked settings
    unlocked: set[str] = field(default_factory=set)
    #: "tenant" or "login", its name, and why the catalog's is not used
    problems: list[tuple[str, str, str]] = field(default_factory=list)


class Registry:
    """Tenants and logins of one configuration, and of the catalog."""

    def __init__(self, config: Config, tenants: dict[str, TenantInfo], logins: dict[str, Login]) -> None:
        self.config = config
        self._builder = Builder(config)
        self._tenants = tenants
        self._logins = logins
        self.tenants: Mapping[str, TenantInfo] = MappingProxyType(tenants)
        self.logins: Mapping[str, Login] = MappingProxyType(logins)
        #: names that are the file's, whatever the catalog says
        self._own_tenants = frozenset(tenants)
        self._own_logins = frozenset(logins)
        self._hosts: dict[str, str] = {}
        #: tenant -> logins that may use it
        self._logins_of: dict[str, set[str]] = {}
        #: (cluster, database, schema) -> the tenants whose it is: one, or some with locked settings
        self._places: dict[tuple[str, str, str], set[str]] = {}
        for one in tenants.values():
            self._places.setdefault(_place(one), set()).add(one.name)
        #: (tenant, role) -> the tenant with that role in place of its own
        self._with_role: dict[tuple[str, str], TenantInfo] = {}
        for tenant in tenants.values():
            self._note_hosts(tenant)
        for login in logins.values():
            self._note_grants(login)
        self._exact_roles: dict[str, str] = {}
        self._role_prefixes: list[tuple[str, str]] = []
        for section in config.tenants:
            for entry in section.logins:
                if entry.endswith("*"):
                    self._role_prefixes.append((entry[:-1], section.name))
                else:
                    self._exact_roles[entry] = section.name
        self._role_prefixes.sort(key=lambda entry: -len(entry[0]))

    @classmethod
    def build(cls, config: Config) -> Registry:
        """Of a configuration that `config.load` has checked: its secrets resolved, its names known."""
        builder = Builder(config)
        tenants = {tenant.name: builder.tenant(tenant) for tenant in config.tenants}
        return cls(config, tenants, {user.name: builder.login(user) for user in config.users})

    # --- the catalog's part ------------------------------------------------------

    def serve(self, served: Served) -> Changed:
        """Takes what the catalog has to say: all of it (`served.whole`), or what is new, other or gone."""
        changed = Changed()
        gone_tenants, gone_logins = list(served.gone_tenants), list(served.gone_logins)
        if served.whole:
            names = {row.get("name") for row in served.tenants}
            gone_tenants = [name for name in self._tenants if name not in names]
            names = {row.get("name") for row in served.logins}
            gone_logins = [name for name in self._logins if name not in names]
        for name in gone_tenants:
            if name not in self._own_tenants:
                self._set_tenant(name, None, changed)
        for row in served.tenants:
            name = str(row.get("name"))
            if name in self._own_tenants:
                changed.problems.append(("tenant", name, "the file has one of this name"))
                continue
            tenant = None
            try:
                tenant = self._builder.served_tenant(row)
                for other in self.neighbours(tenant):
                    if other.name != name and not (other.locked and tenant.locked):
                        tenant = None
                        raise ValueError(f'its schema is that of tenant "{other.name}"')
            except ValueError as error:
                changed.problems.append(("tenant", name, str(error)))
            self._set_tenant(name, tenant, changed)
        for name in gone_logins:
            if name not in self._own_logins:
                self._set_login(name, None, changed)
        for row in served.logins:
            name = str(row.get("name"))
            if name in self._own_logins:
                changed.problems.append(("login", name, "the file has one of this name"))
                continue
            login = None
            try:
                login = self._builder.served_login(row)
            except ValueError as error:
                changed.problems.append(("login", name, str(error)))
            self._set_login(name, login, changed)
        return changed

    def _set_tenant(self, name: str, tenant: TenantInfo | None, changed: Changed) -> None:
        before = self._tenants.get(name)
        if before == tenant:
            return
        changed.tenants.add(name)
        if before is not None and tenant is not None and before.locked != tenant.locked:
            changed.unlocked.add(name)
        if before is not None:
            del self._tenants[name]
            self._places[_place(before)].discard(name)
            for host in before.sni:
                if self._hosts.get(host.lower()) == name:
                    del self._hosts[host.lower()]
            for key in [key for key in self._with_role if key[0] == name]:
                del self._with_role[key]
        if tenant is not None:
            self._tenants[name] = tenant
            self._places.setdefault(_place(tenant), set()).add(name)
            self._note_hosts(tenant)

    def _set_login(self, name: str, login: Login | None, changed: Changed) -> None:
        before = self._logins.get(name)
        if before == login:
            return
        changed.logins.add(name)
        if before is not None and login is not None and before.locked != login.locked:
            changed.unlocked.update(login.tenants)
        changed.granted.update(*(one.tenants for one in (before, login) if one is not None))
        if before is not None:
            del self._logins[name]
            for tenant in before.tenants:
                self._logins_of[tenant].discard(name)
        if login is not None:
            self._logins[name] = login
            self._note_grants(login)

    def _note_hosts(self, tenant: TenantInfo) -> None:
        for host in tenant.sni:
            self._hosts.setdefault(host.lower(), tenant.name)

    def _note_grants(self, login: Login) -> None:
        for tenant in login.tenants:
            self._logins_of.setdefault(tenant, set()).add(login.name)

    def neighbours(self, tenant: TenantInfo) -> list[TenantInfo]:
        """The tenants in its schema: itself, and others where they share one."""
        return [self._tenants[name] for name in self._places.get(_place(tenant), ())]

    # --- who may what ----------------------------------------------------------------

    def logins_of(self, tenant: str) -> list[Login]:
        """The logins that may use a tenant."""
        return [self._logins[name] for name in self._logins_of.get(tenant, ())]

    def roles_of(self, tenant: TenantInfo) -> frozenset[str]:
        """Logins on the server of those who may use a tenant."""
        return frozenset(user for login in self.logins_of(tenant.name) for user in login.server_users)

    def tenant_as(self, name: str, role: str | None) -> TenantInfo | None:
        """A tenant as it is for those whose statements run as `role`; None if there is none."""
        tenant = self._tenants.get(name)
        if tenant is None or role is None or role == tenant.role:
            return tenant
        known = self._with_role.get((name, role))
        if known is None:
            known = self._with_role[name, role] = replace(tenant, role=role)
        return known

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
        mapping = self.config.mapping
        looked_at = mapping if found is None else mapping[: mapping.index(found[1]) + 1]
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
        tenant = self.tenant_as(name, login.roles.get(name) if login is not None else None)
        assert tenant is not None
        by_packet = MappingRule.SNI not in looked_at and MappingRule.CERTIFICATE not in looked_at
        return Route(tenant, login, user, request.database, rule.value, by_packet)

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


def group_name(cluster: str) -> str:
    """Of a cluster's shared backends; no tenant can be called so."""
    return f"*{cluster}"


def _place(tenant: TenantInfo) -> tuple[str, str, str]:
    return tenant.cluster.name, tenant.cluster.database, tenant.schema
