"""Tenants and logins as the proxy uses them, made of the file's sections or of what the catalog says.

The catalog's rows come in the shape of the file's entries (`tenants[]` and `users[]`), with secrets as
values: so there is one set of rules for both.  A row that can't be used is left out, and nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, TypeVar

import orjson
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tenant_proxy.config.schema import (
    ADMIN_DATABASES,
    Cluster,
    Config,
    GuardMode,
    Isolation,
    PgName,
    Policy,
    Pool,
    PoolMode,
    SecretRef,
    Section,
    Tenant,
    TenantName,
    User,
    merged,
)
from tenant_proxy.settings_policy import SYSTEM_SCHEMAS, canonical_name, check_setting
from tenant_proxy.tenancy.space import space_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SectionT = TypeVar("SectionT", bound=Section)
RecordT = TypeVar("RecordT", "TenantInfo", "Login")

#: who it is: what those that are otherwise alike differ in
_WHO_TENANT = ("name", "schema", "space")
_WHO_LOGIN = ("name", "tenants", "roles", "server_user", "verifier")
_TENANT_NAMES: TypeAdapter[tuple[str, str, str | None]] = TypeAdapter(
    tuple[TenantName, PgName, str | None], config=ConfigDict(strict=True)
)
_LOGIN_NAMES: TypeAdapter[tuple[str, list[str], dict[str, str], str, dict[Literal["value"], str]]] = (
    TypeAdapter(
        tuple[PgName, list[TenantName], dict[TenantName, PgName], PgName, dict[Literal["value"], str]],
        config=ConfigDict(strict=True),
    )
)
#: records kept to make others from
_MAX_ALIKE = 1000


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
        self._merged: dict[tuple[type[Section], bytes], Section] = {}
        #: what makes those that differ in who they are alone; by all the rest of their rows
        self._alike_tenants: dict[bytes, Callable[..., TenantInfo]] = {}
        self._alike_logins: dict[bytes, Callable[..., Login]] = {}
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
        """Of the catalog; ValueError, fit to be logged, if it can't be used.

        Thousands that have the same plan differ in who they are alone, which is then all that is looked at.
        """
        key = _canonical({name: value for name, value in row.items() if name not in _WHO_TENANT})
        alike = self._alike_tenants.get(key)
        if alike is None:
            first = self._served_tenant(row)
            _keep_alike(self._alike_tenants, key, _but(first, _WHO_TENANT))
            return first
        try:
            name, schema, space = _TENANT_NAMES.validate_python(tuple(map(row.get, _WHO_TENANT)))
        except ValidationError:
            return self._served_tenant(row)  # it takes what is left out, and knows what to say
        if space is None:
            space = space_of(name, self._secret)
        info = alike(name=name, schema=schema, space=space)
        _check_names(info)
        _check_settings(info)
        return info

    def _served_tenant(self, row: Mapping[str, Any]) -> TenantInfo:
        # a default that is a list is copied anew for each, which takes longer than all the rest
        given: dict[str, Any] = {"logins": [], **row}
        space = given.pop("space", None)
        full = bool(given.pop("over_storage", False))
        tenant = _validate(Tenant, given)
        if tenant.cluster is not None and tenant.cluster not in self._clusters:
            raise ValueError(f'this proxy has no cluster "{tenant.cluster}"')
        try:
            info = self.tenant(tenant, space, full=full)
        except ValidationError as error:
            raise ValueError(_what_is_wrong(error)) from None
        _check_names(info)
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
        key = _canonical({name: value for name, value in row.items() if name not in _WHO_LOGIN})
        alike = self._alike_logins.get(key)
        if alike is None or "previous" in row or "tenant" in row:
            first = self._served_login(row)
            _keep_alike(self._alike_logins, key, _but(first, (*_WHO_LOGIN, "previous_user")))
            return first
        try:
            name, tenants, roles, server_user, verifier = _LOGIN_NAMES.validate_python(
                tuple(map(row.get, _WHO_LOGIN))
            )
        except ValidationError:
            return self._served_login(row)
        return alike(
            name=name,
            tenants=tuple(dict.fromkeys(tenants)),
            roles=roles,
            server_user=server_user,
            verifier=verifier["value"],
            previous_user=server_user,
        )

    def _served_login(self, row: Mapping[str, Any]) -> Login:
        user = _validate(User, {"locked_settings": {}, **row})
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
        key = type(base), _canonical(override)
        known = self._merged.get(key)
        if known is None:
            known = self._merged[key] = merged(base, override)
        assert isinstance(known, type(base))
        return known


def _but(found: RecordT, names: Iterable[str]) -> Callable[..., RecordT]:
    """Makes what is alike but for these fields: `replace` would look at each of the others every time."""
    return partial(
        type(found),
        **{one.name: getattr(found, one.name) for one in fields(found) if one.name not in names},
    )


def _keep_alike(kept: dict[bytes, Callable[..., RecordT]], key: bytes, make: Callable[..., RecordT]) -> None:
    if len(kept) >= _MAX_ALIKE:
        kept.clear()
    kept[key] = make


def _canonical(value: object) -> bytes:
    """Equal values, equal bytes; as json.dumps would take them."""
    return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def _check_names(tenant: TenantInfo) -> None:
    if tenant.name in ADMIN_DATABASES:
        raise ValueError("the name is that of the admin console")
    if tenant.schema in SYSTEM_SCHEMAS or tenant.schema.startswith("pg_"):
        raise ValueError(f'"{tenant.schema}" is a schema of PostgreSQL itself')


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
