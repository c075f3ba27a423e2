"""The configuration's shape: frozen pydantic models, one per section of the file.

A built `Config` never changes; a reload builds another and swaps it.  Times end
in `_s`, sizes in `_bytes`.  0 switches a time-out or limit off unless its text
says otherwise.  Secrets are given as `SecretRef` (environment or file), and are
resolved by `config.load`, never printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Seconds = Annotated[float, Field(ge=0, le=31_536_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: a name of a role, schema or database: PostgreSQL cuts identifiers at 63 bytes
PgName = Annotated[str, Field(min_length=1, max_length=63)]
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9_-]{0,62}$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolMode(StrEnum):
    SESSION = "session"
    TRANSACTION = "transaction"


class Isolation(StrEnum):
    DEDICATED = "dedicated"
    SHARED = "shared"  # refused by the loader until shared backends are built


class GuardMode(StrEnum):
    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class SecretRef(Section):
    """Exactly one of: `env` (a variable's name), `file` (a path), `value` (in the file itself)."""

    env: str | None = None
    file: str | None = None
    value: SecretStr | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(given is not None for given in (self.env, self.file, self.value)) != 1:
            raise ValueError("give exactly one of env, file, value")
        return self

    def reveal(self) -> str:
        """The secret; only of a reference that `config.load` has resolved (then it is a value)."""
        if self.value is None:
            raise LookupError("this secret has not been resolved")
        return self.value.get_secret_value()


class ClientTls(Section):
    """TLS towards clients."""

    mode: Literal["disable", "allow", "require"] = "disable"
    cert: str | None = None
    key: str | None = None
    #: CA that client certificates are verified against; needed by method `cert`
    client_ca: str | None = None
    min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"


class Listen(Section):
    addresses: list[str] = ["127.0.0.1"]
    port: Port = 6432
    backlog: Annotated[int, Field(ge=1, le=65535)] = 4096
    #: directory of a unix socket .s.PGSQL.<port>; none if null
    unix_socket_dir: str | None = None
    tls: ClientTls = ClientTls()


class ServerTls(Section):
    """TLS towards a PostgreSQL server; modes as libpq's sslmode."""

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    #: postgres: SSLRequest first; direct: TLS at once with ALPN (PostgreSQL 17 and later)
    negotiation: Literal["postgres", "direct"] = "postgres"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class AuthQuery(Section):
    """Looks unknown users up in the server: one row (name, secret), secret as in pg_authid."""

    enabled: bool = False
    user: PgName = "tenant_proxy_auth"
    password: SecretRef | None = None
    database: PgName | None = None
    #: must honour VALID UNTIL and NOLOGIN, and be schema-qualified throughout
    query: str = (
        "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END"
        " FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
    )
    #: an answer is kept this long
    cache_s: Seconds = 30


class Cluster(Section):
    name: Annotated[str, Field(min_length=1, max_length=63)]
    host: str
    port: Port = 5432
    #: database on the server that all tenants of this cluster live in
    database: PgName
    tls: ServerTls = ServerTls()
    #: open backends of all tenants together, over all workers
    max_backends: Annotated[int, Field(ge=1, le=100_000)] = 100
    auth_query: AuthQuery = AuthQuery()


class Pool(Section):
    """Of one login of one tenant, over all workers; per tenant overrides are merged over `pool`."""

    mode: PoolMode = PoolMode.SESSION
    max: Annotated[int, Field(ge=1, le=100_000)] = 20
    min: Count = 0
    #: clients that may wait; the next one gets 53300
    queue_limit: Count = 1000
    queue_timeout_s: Seconds = 30
    #: what clients get while the server can't be reached: wait (until queue_timeout_s) or fail at once
    when_down: Literal["wait", "fail"] = "fail"
    connect_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10
    #: first pause after a failed connect; doubles up to retry_max_s, with jitter
    retry_min_s: Annotated[float, Field(gt=0, le=3600)] = 0.25
    retry_max_s: Annotated[float, Field(gt=0, le=3600)] = 15
    query_timeout_s: Seconds = 0
    idle_in_transaction_timeout_s: Seconds = 0
    client_idle_timeout_s: Seconds = 0
    server_idle_timeout_s: Seconds = 600
    server_lifetime_s: Seconds = 3600
    #: each server's lifetime is shortened by a random part of up to this
    server_lifetime_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    #: protocol-level prepared statements kept per backend (LRU) in transaction mode
    max_prepared_statements: Annotated[int, Field(ge=1, le=100_000)] = 200
    #: resets a backend at the end of a session that used it
    reset_query: str = "DISCARD ALL"


class Policy(Section):
    """What the guard lets a tenant do; per tenant overrides are merged over `policy`."""

    mode: GuardMode = GuardMode.ENFORCE
    #: schemas besides its own that a tenant may name (reads and calls; grants still decide)
    allowed_schemas: list[PgName] = ["public"]
    #: functions refused although they are in pg_catalog, beside the built-in list
    denied_functions: list[str] = []
    #: functions let through although the built-in list refuses them
    allowed_functions: list[str] = []
    #: settings that clients may not change, beside role, session_authorization,
    #: search_path outside the tenant …
    denied_settings: list[str] = []
    allow_replication: bool = False
    #: verdicts kept, over all tenants of a worker
    cache_entries: Annotated[int, Field(ge=16, le=10_000_000)] = 20_000


class Tenant(Section):
    name: TenantName
    #: cluster's name; may be left out when there is only one
    cluster: str | None = None
    #: default: the tenant's name
    schema_: Annotated[PgName | None, Field(alias="schema")] = None
    #: role that statements run as, if other than the backend's login; set by the startup packet
    role: PgName | None = None
    isolation: Isolation = Isolation.DEDICATED
    #: any of Pool's keys
    pool: dict[str, object] = {}
    #: any of Policy's keys
    policy: dict[str, object] = {}
    #: GUCs that every backend of this tenant starts with
    settings: dict[str, str] = {}
    max_clients: Count = 0
    #: TLS SNI host names that mean this tenant
    sni: list[str] = []
    #: roles on the server that auth_query may let in to this tenant (beside the users of this file); a name
    #: that ends in * stands for all that begin so, and the longest entry that fits decides which tenant it is
    logins: list[str] = []
    labels: dict[str, str] = {}
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class User(Section):
    """A login that clients use.  Belongs to `tenant`, or to none or several (`tenants`)."""

    name: PgName
    tenant: TenantName | None = None
    #: further tenants that this login may pick by user.tenant, database, SNI or options
    tenants: list[TenantName] = []
    #: exactly one of password (plain) or verifier (SCRAM-SHA-256$… or md5…); none for cert and trust
    password: SecretRef | None = None
    verifier: SecretRef | None = None
    #: login on the server; default: this login's own name
    server_user: PgName | None = None
    #: password for the server; default: `password`, or SCRAM pass-through with `verifier`
    server_password: SecretRef | None = None
    #: may use the admin console (and reload); `stats` may only SHOW
    admin: bool = False
    stats: bool = False
    max_clients: Count = 0


class AuthRule(Section):
    """One line of the ordered rules; the first that matches decides (as pg_hba.conf)."""

    type: Literal["local", "host", "hostssl", "hostnossl"] = "host"
    database: list[str] = ["all"]
    user: list[str] = ["all"]
    #: CIDR, "all" or "samehost"; not for local
    address: str = "all"
    method: Literal["scram-sha-256", "md5", "password", "cert", "trust", "reject"]


class Auth(Section):
    #: default when the file has none: scram-sha-256 for everybody
    rules: list[AuthRule] = [AuthRule(type="local", method="scram-sha-256"), AuthRule(method="scram-sha-256")]
    #: iterations of verifiers that the proxy makes itself
    scram_iterations: Annotated[int, Field(ge=4096, le=10_000_000)] = 4096


class MappingRule(StrEnum):
    LOGIN = "login"
    USER_SUFFIX = "user_suffix"  # user.tenant
    DATABASE = "database"
    SNI = "sni"
    #: a subject CN or alternative name equal to the tenant's name or in its sni list
    CERTIFICATE = "certificate"
    OPTIONS = "options"  # options=-c tenant=NAME


class Limits(Section):
    max_clients: Count = 20_000
    max_logins_in_progress: Annotated[int, Field(ge=1, le=100_000)] = 500
    max_startup_bytes: Annotated[int, Field(ge=512, le=65536)] = 10_000
    #: Query and Parse messages above this get 54000
    max_statement_bytes: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 64 * 1024 * 1024
    #: a peer that does not read holds its writer back above this much waiting
    send_buffer_bytes: Annotated[int, Field(ge=4096, le=1_073_741_824)] = 256 * 1024


class Timeouts(Section):
    login_s: Annotated[float, Field(gt=0, le=3600)] = 60
    #: on SIGTERM clients may finish what they do for this long; then they get 57P01
    drain_s: Seconds = 30


class Metrics(Section):
    enabled: bool = True
    address: str = "127.0.0.1"
    port: Port = 9127
    #: tenants with series of their own; the rest are summed under tenant="other"
    max_tenants: Count = 50


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    connections: bool = True
    disconnections: bool = True


class Config(Section):
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    listen: Listen = Listen()
    clusters: Annotated[list[Cluster], Field(min_length=1)]
    tenants: list[Tenant] = []
    users: list[User] = []
    auth: Auth = Auth()
    mapping: list[MappingRule] = [
        MappingRule.LOGIN,
        MappingRule.USER_SUFFIX,
        MappingRule.OPTIONS,
        MappingRule.DATABASE,
        MappingRule.SNI,
        MappingRule.CERTIFICATE,
    ]
    pool: Pool = Pool()
    policy: Policy = Policy()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    metrics: Metrics = Metrics()
    log: Log = Log()


SectionT = TypeVar("SectionT", bound=Section)


def merged(base: SectionT, override: Mapping[str, object]) -> SectionT:
    """`base` with the keys of `override` over it, e.g. a tenant's pool; raises pydantic's ValidationError."""
    if not override:
        return base
    return type(base).model_validate(base.model_dump() | dict(override))
