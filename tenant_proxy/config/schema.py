"""The configuration's shape: frozen pydantic models, one per section of the file.

A built `Config` never changes; a reload builds another and swaps it.  Times end
in `_s`, sizes in `_bytes`.  0 switches a time-out or limit off unless its text
says otherwise.  Secrets are given as `SecretRef` (environment or file), and are
resolved by `config.load`, never printed.

The text under each key is its description: `texts` makes it the JSON schema's, and a row
of docs/configuration.md.

Annotations are objects here, not text, which pydantic would compile: a quarter of what importing this takes.
"""

from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    SecretStr,
    field_serializer,
    field_validator,
    model_validator,
)

Seconds = Annotated[float, Field(ge=0, le=31_536_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: a name of a role, schema or database: PostgreSQL cuts identifiers at 63 bytes
PgName = Annotated[str, Field(min_length=1, max_length=63)]
NAME_PATTERN: Final = r"^[a-z0-9_][a-z0-9_-]{0,62}$"
TenantName = Annotated[str, Field(pattern=NAME_PATTERN)]

#: the context of a dump that has secrets in it (`config.transport`)
REVEALED: Final = object()

#: database names that mean the admin console
ADMIN_DATABASES: Final = ("tenant_proxy", "pgbouncer")


def _empty(kind: type[dict[Any, Any] | list[Any]]) -> Any:
    """A default that is made, rather than copied deep, which takes a tenth of reading 10,000 tenants."""
    return Field(default_factory=kind, json_schema_extra={"default": kind()})


class Section(BaseModel):
    # of most sections nothing is made alone: their validators are parts of Config's, made when that is
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


SectionT = TypeVar("SectionT", bound=Section)


def _default(section: type[SectionT]) -> SectionT:
    """All its defaults, without the validator that `section()` would need made."""
    return section.model_construct()


class PoolMode(StrEnum):
    SESSION = "session"
    TRANSACTION = "transaction"


class Isolation(StrEnum):
    DEDICATED = "dedicated"
    SHARED = "shared"


class GuardMode(StrEnum):
    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class Catalogs(StrEnum):
    AUTO = "auto"
    HIDE = "hide"
    SHOW = "show"


class MappingRule(StrEnum):
    LOGIN = "login"
    USER_SUFFIX = "user_suffix"  # user.tenant
    DATABASE = "database"
    SNI = "sni"
    #: a subject CN or alternative name equal to the tenant's name or in its sni list
    CERTIFICATE = "certificate"
    OPTIONS = "options"  # options=-c tenant=NAME


class SecretRef(Section):
    """Where a secret is: exactly one of `env`, `file`, `value`."""

    env: str | None = None
    """Name of an environment variable that holds it."""
    file: str | None = None
    """Path of a file that holds it; one newline at its end is not part of it."""
    value: SecretStr | None = None
    """The secret itself; then nobody else should be able to read the configuration file."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.env is not None) + (self.file is not None) + (self.value is not None) != 1:
            raise ValueError("give exactly one of env, file, value")
        return self

    @field_serializer("value", when_used="unless-none")
    def _value(self, value: SecretStr, info: FieldSerializationInfo) -> Any:
        if info.context is REVEALED:
            return value.get_secret_value()
        return value if info.mode == "python" else str(value)

    def reveal(self) -> str:
        """The secret; only of a reference that `config.load` has resolved (then it is a value)."""
        if self.value is None:
            raise LookupError("this secret has not been resolved")
        return self.value.get_secret_value()


class ClientTls(Section):
    """TLS towards clients."""

    mode: Literal["disable", "allow", "require"] = "disable"
    """disable: no TLS; allow: who asks for it gets it; require: others are refused."""
    cert: str | None = None
    """PEM file with the proxy's certificate and what leads to its CA; needed unless disabled."""
    key: str | None = None
    """PEM file with the certificate's private key, without a pass phrase."""
    client_ca: str | None = None
    """PEM file of CAs that client certificates are verified against; needed by auth method cert."""
    min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    """Oldest TLS version that is taken."""


class Listen(Section):
    """Where clients connect."""

    addresses: list[str] = ["127.0.0.1"]
    """Host names or addresses to listen at; "*" is all of IPv4 and IPv6."""
    port: Port = 6432
    """TCP port, and the number in the unix socket's name."""
    backlog: Annotated[int, Field(ge=1, le=65535)] = 4096
    """Connections that the kernel keeps waiting until a worker takes them."""
    unix_socket_dir: str | None = None
    """Directory of a unix socket .s.PGSQL.PORT; none if null."""
    tls: ClientTls = _default(ClientTls)


class ServerTls(Section):
    """TLS towards a PostgreSQL server."""

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq's sslmode."""
    negotiation: Literal["postgres", "direct"] = "postgres"
    """postgres: asks first (SSLRequest); direct: TLS at once with ALPN (PostgreSQL 17 and later)."""
    ca: str | None = None
    """PEM file of CAs for verify-ca and verify-full; the system's if null."""
    cert: str | None = None
    """PEM file of the proxy's certificate as a client of the server."""
    key: str | None = None
    """PEM file of that certificate's private key."""


class AuthQuery(Section):
    """Looks logins that this file doesn't know up in the server."""

    enabled: bool = False
    """Whether to ask the server at all."""
    user: PgName = "tenant_proxy_auth"
    """Login that asks."""
    password: SecretRef | None = None
    """Its password."""
    database: PgName | None = None
    """Database to ask in; the cluster's if null."""
    query: str = (
        "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END"
        " FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
    )
    """One row (name, secret), the secret as in pg_authid; must honour VALID UNTIL and NOLOGIN, and be
    schema-qualified throughout."""
    cache_s: Seconds = 30
    """An answer is used again for this long."""


class Service(Section):
    """The login of backends that tenants share, for tenants with isolation shared."""

    user: PgName | None = None
    """A role without rights of its own: NOINHERIT, no superuser, owner of nothing, member of each such
    tenant's role; no shared backends if null."""
    password: SecretRef | None = None
    """Its password."""
    max_backends: Count = 0
    """Shared backends at most, over all workers; 0: as many as the cluster's max_backends."""
    max_tenants: Count = 100
    """A shared backend that has served more tenants than this is replaced when it is free, as it keeps what
    it has read of the catalogs for each of them (some 250 kB for 20 tables); 0: never."""
    narrows: bool = True
    """While several tenants use the shared backends, no more statements run at once than get more done, so
    that one tenant's flood takes the server's processors from nobody (docs/decisions/0019-width.md); false:
    as many as there are backends."""
    yields: bool = True
    """A tenant that begins most of all statements, short ones, and wants more at once than get more done, has
    an eighth of these while others ask now and then, so that they hardly notice it; false: it loses nothing,
    and they wait for a processor (docs/decisions/0019-width.md)."""


class Admin(Section):
    """The login by which tenants' schemas and roles are made and taken away; clients never get it."""

    user: PgName | None = None
    """May create roles and schemas in the cluster's databases; nothing is made on this cluster if null."""
    password: SecretRef | None = None
    """Its password."""


class Cluster(Section):
    """A PostgreSQL server."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """What tenants call it."""
    host: str
    """Host name, address, or the directory of a unix socket."""
    port: Port = 5432
    """TCP port, or the number in the unix socket's name."""
    database: PgName
    """Database on the server that all tenants of this cluster live in."""
    tls: ServerTls = _default(ServerTls)
    max_backends: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Open backends of all tenants together, over all workers."""
    dead_after_s: Seconds = 60
    """A server whose machine has not acknowledged anything for so long, probes neither, is taken for gone, as
    after a network cut that nobody tells of; 0: as long as the system waits, hours perhaps."""
    auth_query: AuthQuery = _default(AuthQuery)
    service: Service = _default(Service)
    admin: Admin = _default(Admin)
    labels: dict[str, str] = {}
    """What the cluster is, e.g. its region: a tenant with the label region is only placed where it is the
    same."""


class Pool(Section):
    """Backends of one login of one tenant, over all workers; a tenant's `pool` is merged over this."""

    mode: PoolMode = PoolMode.SESSION
    """When a backend is free for the next client: at the end of a session or of a transaction."""
    max: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Backends at most."""
    min: Count = 0
    """Backends kept open once there was a first client."""
    weight: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Share of the shared backends that all logins of the tenant have together when there are too few for all
    who wait (isolation shared)."""
    reserved: Count = 0
    """Shared backends that no other tenant may take, at any worker (isolation shared), from this tenant's
    first client on."""
    queue_limit: Count = 1000
    """Clients of the tenant that may wait for a backend; the next one gets 53300."""
    queue_timeout_s: Seconds = 30
    """A client waits at most this long for a backend, then gets 57P03."""
    statements_per_s: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    """Statements a second of a tenant, over all its pools and workers; further ones wait (outside
    transactions) for up to queue_timeout_s, then they get 53400."""
    statements_burst: Count = 0
    """So many statements may come at once; if 0 those of a second."""
    when_down: Literal["wait", "fail"] = "fail"
    """While the server can't be reached clients wait (until queue_timeout_s) or fail."""
    down_grace_s: Seconds = 3
    """With when_down fail: for so long clients wait for a server that has been there, so that its
    restart goes unnoticed by who has nothing running on it."""
    connect_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10
    """For a new backend until it is ready for a query."""
    retry_min_s: Annotated[float, Field(gt=0, le=3600)] = 0.25
    """First pause after a failed connect; doubles up to retry_max_s, with jitter."""
    retry_max_s: Annotated[float, Field(gt=0, le=3600)] = 15
    """Longest pause between two tries after the server has refused a login; one that can't be
    reached is tried once a second."""
    query_timeout_s: Seconds = 0
    """A query that takes longer is cancelled, and its client gets 57014."""
    idle_in_transaction_timeout_s: Seconds = 0
    """A client that is idle in a transaction for longer gets 25P03; so does one that lets its backend wait
    otherwise: for a Sync or Flush, for the rest of a message or data of a COPY, or by reading nothing."""
    client_idle_timeout_s: Seconds = 0
    """A client that is idle outside a transaction for longer gets 57P05."""
    server_idle_timeout_s: Seconds = 600
    """A backend that nobody used for this long is closed (down to min)."""
    server_lifetime_s: Seconds = 3600
    """A backend older than this is closed when it is free."""
    server_lifetime_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    """Each backend's lifetime is shortened by a random part of up to this, as a fraction."""
    max_pins: Count = 0
    """Clients of the tenant that may keep a backend between transactions, for temporary tables, session locks
    and the like (transaction mode); the next one's statement gets 53300."""
    defer_begin: bool = True
    """In transaction mode a BEGIN takes no backend: the first statement behind it does, and the transaction's
    times count from there."""
    max_prepared_statements: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Protocol-level prepared statements kept per backend (LRU) in transaction mode."""
    max_prepared_bytes: Annotated[int, Field(ge=1024 * 1024, le=1_000_000_000_000)] = 256 * 1024 * 1024
    """What the texts and names of prepared statements of all clients of a tenant take of a worker's memory at
    most; what would be more gets 53200."""
    reset_query: str = "DISCARD ALL"
    """Resets a backend at the end of a session that used it."""


class Policy(Section):
    """What the guard lets a tenant do; a tenant's `policy` is merged over this."""

    mode: GuardMode = GuardMode.ENFORCE
    """enforce: refuse; observe: count and log, let through; off: don't look."""
    allowed_schemas: list[PgName] = ["public"]
    """Schemas besides its own that a tenant may name (grants still decide); they follow its own in the
    default search_path."""
    denied_functions: list[str] = []
    """Functions refused although they are in pg_catalog, beside the built-in list."""
    allowed_functions: list[str] = []
    """Functions let through although the built-in list refuses them."""
    denied_settings: list[str] = []
    """Settings that clients may not change, beside the built-in list; a name that ends in * stands for
    all that begin so."""
    catalogs: Catalogs = Catalogs.AUTO
    """What is seen of other tenants in the catalogs, and met of their channels and advisory locks.  auto:
    nothing where the schemas of `catalog install` are in the database, else all; hide: nothing, and without
    these schemas what needs them is refused; show: all."""
    public_is_own: bool = False
    """The tenant's schema goes by the name public, for applications and dumps that write it; the schema that
    really is named public can then not be named."""
    allow_replication: bool = False
    """Lets replication connections through, in session mode; nothing they send is parsed."""
    cache_entries: Annotated[int, Field(ge=16, le=10_000_000)] = 20_000
    """Verdicts kept, over all tenants of a worker; not per tenant."""


class Tenant(Section):
    """A schema of a cluster, and who runs in it how."""

    model_config = ConfigDict(populate_by_name=True)

    name: TenantName
    """Lower case letters, digits, _ and -."""
    cluster: str | None = None
    """A cluster's name; may be left out when there is only one."""
    database: PgName | None = None
    """Its own database on the cluster, if not the one that the cluster's tenants live in."""
    schema_: Annotated[PgName | None, Field(alias="schema")] = None
    """The schema on the server; if null the tenant's name, or one made up where opaque_names is on."""
    role: PgName | None = None
    """Role that statements run as, if other than the backend's login; set when a backend is opened."""
    isolation: Isolation | None = None
    """dedicated: backends log in as the tenant's own roles; shared: transactions that are proven harmless
    run on backends that tenants share, all others as with dedicated; the top's `isolation` if null."""
    pool: dict[str, object] = _empty(dict)
    """Any keys of pool, for this tenant."""
    policy_file: str | None = None
    """File with keys of policy for this tenant; `policy` is merged over them."""
    policy: dict[str, object] = _empty(dict)
    """Any keys of policy but cache_entries, for this tenant."""
    settings: dict[str, str] = _empty(dict)
    """PostgreSQL settings that every backend of this tenant starts with; clients may change them."""
    locked_settings: dict[str, str] = _empty(dict)
    """PostgreSQL settings that hold before the first statement, and that clients can't change: what policies
    of row-level security ask for.  Tenants that all have some may have the same schema."""
    max_clients: Count = 0
    """Client connections at most."""
    storage_bytes: Annotated[int, Field(ge=0, le=1 << 62)] = 0
    """Tables, indexes and sequences of its schema together; above it statements that grow get 53100."""
    suspended: Annotated[str | None, Field(min_length=1, max_length=500)] = None
    """Why it is suspended: new logins get 57P03 with this reason; not suspended if null."""
    suspend_grace_s: Seconds = 30
    """Clients that are there when it is suspended may go on for this long; then they get 57P01."""
    sni: list[str] = _empty(list)
    """TLS host names (SNI) that mean this tenant."""
    logins: list[str] = _empty(list)
    """Roles that auth_query may let in to this tenant, beside the users of this file; a name that ends
    in * stands for all that begin so, the longest entry that fits decides; without any the role of the
    tenant's name."""
    labels: dict[str, str] = _empty(dict)
    """Free words for reports."""


class Previous(Section):
    """A password that is being replaced: it goes on opening its own login on the server, too."""

    verifier: SecretRef | None = None
    """SCRAM-SHA-256$… with the salt and iterations of the login's verifier; none if null."""
    server_user: PgName | None = None
    """The login on the server that has this verifier; if null the same as with the new one."""


class User(Section):
    """A login that clients use."""

    name: PgName
    """What clients log in with."""
    tenant: TenantName | None = None
    """The tenant it belongs to."""
    tenants: list[TenantName] = _empty(list)
    """Further tenants that it may pick by user.tenant, options, database, SNI or certificate."""
    password: SecretRef | None = None
    """Its password; this or verifier, or neither where only cert or trust let it in."""
    verifier: SecretRef | None = None
    """SCRAM-SHA-256$… (from hash-password or pg_authid) or md5…; then the password is not stored."""
    server_user: PgName | None = None
    """Login on the server; if null this login's own name, or one made up where opaque_names is on."""
    server_password: SecretRef | None = None
    """Password for the server; if null `password`, or with a verifier SCRAM pass-through."""
    previous: Previous = _default(Previous)
    roles: dict[TenantName, PgName] = _empty(dict)
    """Role that its statements run as in a tenant, by the tenant's name; else the tenant's `role`."""
    expires_at: AwareDatetime | None = None
    """From then on (2026-12-31T23:59:59Z) it is refused, and its clients have their tenant's suspend_grace_s
    left."""
    addresses: list[str] = _empty(list)
    """Addresses and ranges such as 10.0.0.0/8 that it may come from, local for unix sockets; any if empty."""
    admin: bool = False
    """May use the admin console, its commands too."""
    stats: bool = False
    """May use the admin console to look."""
    locked_settings: dict[str, str] = _empty(dict)
    """As a tenant's `locked_settings`, over which they are merged, for this login."""
    max_clients: Count = 0
    """Client connections at most."""


class AuthRule(Section):
    """One of the ordered rules; the first that matches decides, as in pg_hba.conf."""

    type: Literal["local", "host", "hostssl", "hostnossl"] = "host"
    """By unix socket, by TCP, by TCP with TLS, by TCP without TLS."""
    database: list[str] = ["all"]
    """Database names as the client asks, sameuser, or all."""
    user: list[str] = ["all"]
    """Logins, or all."""
    address: str = "all"
    """An address, a range such as 10.0.0.0/8, samehost, or all; not for local."""
    method: Literal["scram-sha-256", "md5", "password", "jwt", "cert", "trust", "reject"]
    """How the client proves who it is."""


class LoginJwt(Section):
    """Logins by method jwt: service accounts, whose password is a JSON Web Token of an identity provider."""

    keys: str | None = None
    """File with the provider's public keys, a JSON Web Key Set; needed by the method jwt."""
    issuer: str | None = None
    """What `iss` must be; needed with keys."""
    audience: str | None = None
    """What `aud` must have; needed with keys."""
    login_claim: str = "sub"
    """The claim that holds the login, which must be the one that the client names."""
    tenant_claim: str | None = None
    """The claim that holds the tenant, or a list of them, that the token is good for; if null it is good for
    all that the login has."""


class Auth(Section):
    """How clients log in."""

    rules: list[AuthRule] = [
        AuthRule.model_construct(type="local", method="scram-sha-256"),
        AuthRule.model_construct(method="scram-sha-256"),
    ]
    """In their order; by default scram-sha-256 for everybody."""
    scram_iterations: Annotated[int, Field(ge=4096, le=10_000_000)] = 4096
    """Iterations of verifiers that the proxy makes itself, of plain passwords."""
    jwt: LoginJwt = _default(LoginJwt)


class Limits(Section):
    """What a worker puts up with."""

    max_clients: Count = 20_000
    """Client connections at most, over all workers."""
    max_logins_in_progress: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Connections that are not authenticated yet, per worker."""
    max_startup_bytes: Annotated[int, Field(ge=512, le=65536)] = 10_000
    """Longest startup packet."""
    max_statement_bytes: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 64 * 1024 * 1024
    """Query and Parse messages above this get 54000."""
    max_gathered_bytes: Annotated[int, Field(ge=1024 * 1024, le=1_000_000_000_000)] = 256 * 1024 * 1024
    """Statements above a megabyte that clients of a tenant send at once have so many bytes together at most,
    in a worker; others get 53400.  One alone may be of any size."""
    send_buffer_bytes: Annotated[int, Field(ge=4096, le=1_073_741_824)] = 256 * 1024
    """A peer that does not read holds its writer back above this much waiting."""


class Timeouts(Section):
    """Of the proxy itself; those of queries and backends are in pool."""

    login_s: Annotated[float, Field(gt=0, le=3600)] = 60
    """From connecting to authenticated."""
    drain_s: Seconds = 30
    """On SIGTERM clients may finish what they do for this long; then they get 57P01."""


class Metrics(Section):
    """The HTTP endpoint of /metrics, /healthz and /readyz."""

    enabled: bool = True
    """Whether there is one."""
    address: str = "127.0.0.1"
    """Where it listens."""
    port: Port = 9127
    """Its TCP port."""
    max_tenants: Count = 50
    """Tenants with series of their own; the rest are summed under tenant="other"."""


class Jwt(Section):
    """Who else may call the API: those with a JSON Web Token that an identity provider has signed."""

    keys: str | None = None
    """File with the provider's public keys, a JSON Web Key Set; no such tokens are taken if null."""
    issuer: str | None = None
    """What `iss` must be; needed with keys."""
    audience: str | None = None
    """What `aud` must have; needed with keys."""
    role_claim: str = "tenant_proxy_role"
    """The claim that holds the role: admin, tenant_admin, auditor or reader."""
    tenant_claim: str = "tenant_proxy_tenant"
    """The claim that holds the tenant of a tenant_admin."""


class Api(Section):
    """The REST API of the tenants' life; it needs a catalog."""

    enabled: bool = False
    """Whether this proxy has one; `tenant-proxy api serve` has it without a proxy."""
    address: str = "127.0.0.1"
    """Where it listens."""
    port: Port = 9128
    """Its TCP port."""
    cert: str | None = None
    """PEM file with its certificate and what leads to the CA; without one it speaks HTTP, not HTTPS."""
    key: str | None = None
    """PEM file with the certificate's private key, without a pass phrase."""
    failures_per_minute: Count = 30
    """Requests of one address without a good token, before it is told 429 for the rest of the minute."""
    jwt: Jwt = _default(Jwt)


class Webhooks(Section):
    """Where requests may go that webhooks and services of plans ask for."""

    allowed_networks: list[str] = []
    """Addresses and ranges such as 10.0.0.0/8 beside the public ones; there http will do, elsewhere it must
    be https."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10
    """For a request."""

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, given: list[str]) -> list[str]:
        for one in given:
            ip_network(one, strict=False)
        return given


class Catalog(Section):
    """The database that holds tenants and logins beside those of this file, and that this proxy follows."""

    dsn: SecretRef | None = None
    """Its address, postgresql://USER:PASSWORD@HOST:PORT/DATABASE as libpq takes it; no catalog if null."""
    endpoint: str | None = None
    """HOST:PORT that the DSNs given to tenants name, such as a balancer's; listen's if null."""
    proxy: Annotated[str | None, Field(max_length=100)] = None
    """What this proxy's usage is counted under, different for each; the host's name and listen.port if
    null."""


class Lifecycle(Section):
    """The tenants' life."""

    signing_key: SecretRef | None = None
    """Ed25519 key in PEM that records of erasures are signed with (`tenant signing-key` makes one); they are
    not signed if null."""
    directory: str | None = None
    """Where the API keeps archives of tenants, and migrations that it was sent; it takes none if null.  They
    hold tenants' data, and stay until they are deleted."""
    archive_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 100 * 1024 * 1024 * 1024
    """Bytes that an archive which is sent to the API may have."""


class Log(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    format: Literal["text", "json"] = "text"
    """For people or for machines."""
    connections: bool = True
    """Whether logins are written."""
    disconnections: bool = True
    """Whether the ends of sessions are written."""


class Config(Section):
    """The configuration file."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that serve clients; about one per core."""
    listen: Listen = _default(Listen)
    clusters: Annotated[list[Cluster], Field(min_length=1)]
    """The PostgreSQL servers."""
    tenants: list[Tenant] = []
    """The tenants."""
    users: list[User] = []
    """The logins."""
    auth: Auth = _default(Auth)
    mapping: list[MappingRule] = [
        MappingRule.LOGIN,
        MappingRule.USER_SUFFIX,
        MappingRule.OPTIONS,
        MappingRule.DATABASE,
        MappingRule.SNI,
        MappingRule.CERTIFICATE,
    ]
    """How a connection's tenant is found; the first rule that yields one decides.  login: the login
    belongs to one tenant; user_suffix: user.tenant; options: options=-c tenant=NAME; database: its name;
    sni: the TLS host name; certificate: the CN or an alternative name of the client's certificate."""
    pool: Pool = _default(Pool)
    isolation: Isolation = Isolation.DEDICATED
    """Of tenants that say nothing else."""
    policy_file: str | None = None
    """File with keys of policy, so that they can be kept apart; `policy` is merged over them."""
    policy: Policy = _default(Policy)
    secret: SecretRef | None = None
    """Random text, the same for all proxies of a cluster; keeps tenants' channels and advisory locks apart
    so that nobody can guess another's.  Without it tenants' names alone do."""
    opaque_names: bool = False
    """Schemas and server logins that are not given have names made of `secret`, which say nothing of whose
    they are; `check` prints the SQL that makes them.  Changing `secret` then changes the names."""
    limits: Limits = _default(Limits)
    timeouts: Timeouts = _default(Timeouts)
    metrics: Metrics = _default(Metrics)
    catalog: Catalog = _default(Catalog)
    api: Api = _default(Api)
    lifecycle: Lifecycle = _default(Lifecycle)
    webhooks: Webhooks = _default(Webhooks)
    log: Log = _default(Log)


def merged(base: SectionT, override: Mapping[str, object]) -> SectionT:
    """`base` with the keys of `override` over it, e.g. a tenant's pool; raises pydantic's ValidationError."""
    if not override:
        return base
    return type(base).model_validate(base.model_dump() | dict(override))
