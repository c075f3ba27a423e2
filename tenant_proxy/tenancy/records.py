"""Tenants and logins as the proxy uses them, made of the file's sections or of what the catalog says.

The catalog's rows come in the shape of the file's entries (`tenants[]` and `users[]`), with secrets as
values: so there is one set of rules for both.  A row that can't be used is left out, and nothing else.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from tenant_proxy.config.schema import (
    ADMIN_DATABASES,
    Cluster,
    Config,
    GuardMode,
    Isolation,
    Policy,
    Pool,
    PoolMode,
    SecretRef,
    Section,
    Tenant,
    User,
    merged,
)
from tenant_proxy.settings_policy import SYSTEM_SCHEMAS, canonical_name, check_setting
from tenant_proxy.tenancy.space import space_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class Login:
    """A user of the file or the catalog, its secrets resolved (and never shown by repr)."""

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
    #: a verifier that is being replaced, and the login on the server that has it
    previous: str | None = field(default=None, repr=False)
    previous_user: str = ""
    #: tenant -> role that its statements run as there
    roles: Mapping[str, str] = field(default_factory=dict)
    #: settings that it can't change, names as canonical_name() has them
    locked: Mapping[str, str] = field(default_factory=dict)
    #: seconds since 1970
    expires_at: float | None = None
    #: where it may come from; None: anywhere
    addresses: tuple[Network, ...] | None = None
    #: … and whether unix sockets are among that
    local: bool = True

    @property
    def server_users(self) -> tuple[str, ...]:
        """The logins on the server that its backends may have."""
        if self.previous is None or self.previous_user == self.server_user:
            return (self.server_user,)
        return self.server_user, self.previous_user

    def may_come_from(self, address: str) -> bool:
        """`address` is empty for a unix socket."""
        if not address:
            return self.local
        if self.addresses is None:
            return True
        # fe80::1%eth0: the interface is no part of the address
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip.version == network.version and ip in network for network in self.addresses)


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant with the configuration's defaults merged in; `cluster` with the tenant's own database."""

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
    #: why it is suspended; None if it isn't
    suspended: str | None = None
    #: how long clients may stay when it is
    grace_s: float = 0.0
    #: how much it may store; 0: no limit, or one that the catalog watches
    storage_bytes: int = 0
    #: the catalog says that it has more than it may
    full: bool = False

    @property
    def code(self) -> str:
        """Whose functions, views … its statements may run: the same for tenants that share a schema."""
        return code_name(self.cluster.name, self.schema)


def code_name(cluster: str, schema: str) -> str:
    """What a schema's code is counted under; `/` is in no cluster's or schema's counter otherwise."""
    return f"{cluster}/{schema}"


@dataclass(frozen=True, slots=True)
class Served:
    """What the catalog says: all of it, or what is new, other or gone since it was last asked."""

    tenants: list[dict[str, Any]] = field(default_factory=list)
    logins: list[dict[str, Any]] = field(default_factory=list)
    gone_tenants: list[str] = field(default_factory=list)
    gone_logins: list[str] = field(default_factory=list)
    #: there is nothing but this
    whole: bool = True


class Builder:
    """Makes records of one configuration; what many tenants have in common is made once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clusters = {cluster.name: cluster for cluster in config.clusters}
        self._databases: dict[tuple[str, str], Cluster] = {}
        self._merged: dict[tuple[type[Section], str], Section] = {}
        self._secret = _reveal(config.secret)

    def tenant(self, tenant: Tenant, space: str | None = None, *, full: bool = False) -> TenantInfo:
        return TenantInfo(
            name=tenant.name,
            cluster=self._cluster(tenant),
            schema=tenant.schema_ or tenant.name,
            role=tenant.role,
            pool=self._override(self._config.pool, tenant.pool),
            policy=self._override(self._config.policy, tenant.policy),
            settings=dict(tenant.settings),
            max_clients=tenant.max_clients,
            isolation=tenant.isolation or self._config.isolation,
            locked=_locked(tenant),
            sni=tuple(tenant.sni),
            labels=dict(tenant.labels),
            space=space_of(tenant.name, self._secret) if space is None else space,
            suspended=tenant.suspended,
            grace_s=tenant.suspend_grace_s,
            storage_bytes=tenant.storage_bytes,
            full=full,
        )

    def login(self, user: User) -> Login:
        password = _reveal(user.password)
        own = (user.tenant,) if user.tenant is not None else ()
        server_user = user.server_user or user.name
        return Login(
            name=user.name,
            password=password,
            verifier=_reveal(user.verifier),
            server_user=server_user,
            server_password=_reveal(user.server_password) or password,
            admin=user.admin,
            stats=user.stats,
            max_clients=user.max_clients,
            tenants=tuple(dict.fromkeys((*own, *user.tenants))),
            tenant=user.tenant,
            previous=_reveal(user.previous.verifier),
            previous_user=user.previous.server_user or server_user,
            roles=dict(user.roles),
            locked=_locked(user),
            expires_at=user.expires_at.timestamp() if user.expires_at is not None else None,
            addresses=_networks(user.addresses) if user.addresses else None,
            local=not user.addresses or "local" in user.addresses,
        )

    def served_tenant(self, row: Mapping[str, Any]) -> TenantInfo:
        """Of the catalog; ValueError, fit to be logged, if it can't be used."""
        given = dict(row)
        space = given.pop("space", None)
        full = bool(given.pop("over_storage", False))
        tenant = _validate(Tenant, given)
        schema = tenant.schema_ or tenant.name
        if tenant.name in ADMIN_DATABASES:
            raise ValueError("the name is that of the admin console")
        if schema in SYSTEM_SCHEMAS or schema.startswith("pg_"):
            raise ValueError(f'"{schema}" is a schema of PostgreSQL itself')
        if tenant.cluster is not None and tenant.cluster not in self._clusters:
            raise ValueError(f'this proxy has no cluster "{tenant.cluster}"')
        try:
            info = self.tenant(tenant, space, full=full)
        except ValidationError as error:
            raise ValueError(_what_is_wrong(error)) from None
        _check_settings(info)
        if info.isolation is Isolation.SHARED:
            if info.cluster.service.user is None:
                raise ValueError(f'isolation shared needs service.user of cluster "{info.cluster.name}"')
            if info.pool.mode is not PoolMode.TRANSACTION:
                raise ValueError("isolation shared needs pool mode transaction")
            if info.cluster.database != self._clusters[info.cluster.name].database:
                raise ValueError("isolation shared doesn't go with a database of its own")
        return info

    def served_login(self, row: Mapping[str, Any]) -> Login:
        """Of the catalog; it is never an admin of the proxy.  ValueError as above."""
        user = _validate(User, row)
        if user.admin or user.stats or user.password is not None:
            raise ValueError("logins of the catalog have verifiers, and no rights on the console")
        return self.login(user)

    def _cluster(self, tenant: Tenant) -> Cluster:
        name = tenant.cluster if tenant.cluster is not None else self._config.clusters[0].name
        cluster = self._clusters[name]
        if tenant.database in (None, cluster.database):
            return cluster
        assert tenant.database is not None
        key = name, tenant.database
        if key not in self._databases:
            self._databases[key] = cluster.model_copy(update={"database": tenant.database})
        return self._databases[key]

    def _override(self, base: SectionT, override: Mapping[str, object]) -> SectionT:
        """`merged`, once for all who give the same."""
        if not override:
            return base
        key = type(base), json.dumps(override, sort_keys=True, default=str)
        known = self._merged.get(key)
        if known is None:
            known = self._merged[key] = merged(base, override)
        assert isinstance(known, type(base))
        return known


def _check_settings(tenant: TenantInfo) -> None:
    for name, value in {**tenant.settings, **tenant.locked}.items():
        schemas = tenant.policy.allowed_schemas
        refusal = check_setting(name, value, schema=tenant.schema, allowed_schemas=schemas, denied=())
        if refusal is not None or "\0" in value:
            raise ValueError(f'the setting "{name}" is refused')
    if tenant.locked and tenant.policy.mode is not GuardMode.ENFORCE:
        raise ValueError("locked_settings need policy mode enforce")


def _networks(addresses: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(one, strict=False) for one in addresses if one != "local")


def _locked(section: Tenant | User) -> dict[str, str]:
    return {canonical_name(name): value for name, value in section.locked_settings.items()}


def _validate(model: type[SectionT], row: Mapping[str, Any]) -> SectionT:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise ValueError(_what_is_wrong(error)) from None


def _what_is_wrong(error: ValidationError) -> str:
    """Keys and what they lack, without values, which may be secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:5])


def _reveal(ref: SecretRef | None) -> str | None:
    return None if ref is None else ref.reveal()
