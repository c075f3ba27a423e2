"""What no single key can tell: names that must exist, pairs that must differ, files that must be readable.

Every check records its findings in the document and goes on, so that one run shows all of them.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import stat
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path as FilePath
from typing import Final

from tenant_proxy.config.problems import Path, did_you_mean
from tenant_proxy.config.schema import (
    ADMIN_DATABASES,
    AuthRule,
    Cluster,
    Config,
    GuardMode,
    Isolation,
    Policy,
    Pool,
    PoolMode,
    SecretRef,
    Tenant,
    User,
    merged,
)
from tenant_proxy.config.yaml_nodes import Document
from tenant_proxy.settings_policy import MAX_IDENTIFIER_BYTES, SYSTEM_SCHEMAS, check_setting, is_setting_name

#: sun_path of a unix socket address on Linux, less its NUL
MAX_SOCKET_PATH_BYTES: Final = 107

SECRET_METHODS: Final = frozenset({"scram-sha-256", "md5", "password"})

_SCRAM_VERIFIER: Final = re.compile(
    r"SCRAM-SHA-256\$[1-9][0-9]*:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}="
)
_MD5_VERIFIER: Final = re.compile(r"md5[0-9a-f]{32}")


def check(document: Document, config: Config) -> None:
    """Records every problem of a configuration that is valid section by section, with its secrets
    resolved.
    """
    _listen(document, config)
    _catalog(document, config)
    _clusters(document, config)
    _tenants(document, config)
    _users(document, config)
    _rules(document, config)
    _repeated(document, ("mapping",), config.mapping, lambda rule: rule, "mapping rule", str)
    _pool(document, ("pool",), config.pool)
    _policy(document, ("policy",), config.policy, config.pool)


# --- lists -------------------------------------------------------------------


def _repeated(
    document: Document,
    path: Path,
    items: Iterable[object],
    key: Callable[..., Hashable],
    what: str,
    show: Callable[..., str],
    field: str | None = None,
) -> None:
    """Records items of a list whose key stood there before."""
    seen: dict[Hashable, int] = {}
    for index, item in enumerate(items):
        identity = key(item)
        if identity in seen:
            here: Path = (*path, index) if field is None else (*path, index, field)
            before: Path = (*path, seen[identity]) if field is None else (*path, seen[identity], field)
            line = document.place(before)[0]
            document.problem(here, f"{what} {show(item)} is given twice (first in line {line})")
        else:
            seen[identity] = index


def _quoted_name(item: object) -> str:
    return f'"{getattr(item, "name", item)}"'


def _identifier(document: Document, path: Path, name: str | None) -> None:
    """Names that PostgreSQL would cut, or that the protocol can't carry."""
    if name is None or (len(name) <= MAX_IDENTIFIER_BYTES and name.isascii() and "\0" not in name):
        return
    if len(name.encode()) > MAX_IDENTIFIER_BYTES:
        document.problem(
            path, f'"{name}" is longer than {MAX_IDENTIFIER_BYTES} bytes, PostgreSQL would cut it'
        )
    if "\0" in name:
        document.problem(path, "the name holds a NUL byte")


# --- listen, clusters ----------------------------------------------------------


def _listen(document: Document, config: Config) -> None:
    listen = config.listen
    if not listen.addresses and listen.unix_socket_dir is None:
        document.problem(
            ("listen",), "neither addresses nor unix_socket_dir is given, so nobody could connect"
        )
    for index, address in enumerate(listen.addresses):
        if not address:
            document.problem(("listen", "addresses", index), "must not be empty", hint="* is every address")
    _repeated(document, ("listen", "addresses"), listen.addresses, lambda a: a, "address", lambda a: f'"{a}"')
    if listen.unix_socket_dir is not None:
        path: Path = ("listen", "unix_socket_dir")
        socket = FilePath(listen.unix_socket_dir) / f".s.PGSQL.{listen.port}"
        if len(str(socket).encode()) > MAX_SOCKET_PATH_BYTES:
            document.problem(path, f'"{socket}" is longer than {MAX_SOCKET_PATH_BYTES} bytes')
        elif not FilePath(listen.unix_socket_dir).is_dir():
            document.problem(path, f'"{listen.unix_socket_dir}" is not a directory')
    taken = {(address, listen.port): "listen" for address in listen.addresses}
    for name, one in (("metrics", config.metrics), ("api", config.api)):
        if one.enabled:
            other = taken.setdefault((one.address, one.port), name)
            if other != name:
                document.problem(
                    (name, "port"), f"port {one.port} is also that of {other}, at the same address"
                )

    tls = listen.tls
    here: Path = ("listen", "tls")
    if tls.mode != "disable":
        for key in ("cert", "key"):
            if getattr(tls, key) is None:
                document.problem(here, f'mode {tls.mode} needs the key "{key}"')
    _certificate(document, here, tls.cert, tls.key)
    _ca(document, (*here, "client_ca"), tls.client_ca)


def _catalog(document: Document, config: Config) -> None:
    dsn = config.catalog.dsn
    if dsn is not None and not dsn.reveal().startswith(("postgresql://", "postgres://")):
        text = "the catalog's address must begin with postgresql://"
        document.problem(("catalog", "dsn"), text, hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    if config.api.enabled and dsn is None:
        document.problem(("api", "enabled"), 'the API needs the key "catalog.dsn"')


def _clusters(document: Document, config: Config) -> None:
    _repeated(document, ("clusters",), config.clusters, lambda c: c.name, "cluster", _quoted_name, "name")
    for index, cluster in enumerate(config.clusters):
        here: Path = ("clusters", index)
        _identifier(document, (*here, "database"), cluster.database)
        for login in ("service", "admin"):
            _identifier(document, (*here, login, "user"), getattr(cluster, login).user)
        if cluster.service.max_backends > cluster.max_backends:
            text = f"it is more than max_backends of the cluster ({cluster.max_backends})"
            document.problem((*here, "service", "max_backends"), text)
        if not cluster.host:
            document.problem((*here, "host"), "must not be empty")
        tls = cluster.tls
        if (tls.cert is None) != (tls.key is None):
            document.problem((*here, "tls"), "cert and key are needed together")
        if tls.negotiation == "direct" and tls.mode in ("disable", "prefer"):
            allowed = ("require", "verify-ca", "verify-full")
            text = f"mode {tls.mode} doesn't go with negotiation direct, which can't fall back to plain text"
            document.problem((*here, "tls", "mode"), text, allowed=allowed)
        _certificate(document, (*here, "tls"), tls.cert, tls.key)
        _ca(document, (*here, "tls", "ca"), tls.ca)
        query = cluster.auth_query
        if query.enabled and "$1" not in query.query:
            document.problem((*here, "auth_query", "query"), "the query must use the user's name as $1")


def _certificate(document: Document, path: Path, cert: str | None, key: str | None) -> None:
    """A certificate and its key: both must be readable PEM, and belong together."""
    readable = [_readable(document, (*path, name), file) for name, file in (("cert", cert), ("key", key))]
    if cert is None or key is None or not all(readable):
        return
    mode = stat.S_IMODE(FilePath(key).stat().st_mode)
    if mode & stat.S_IROTH:
        text = f'the key "{key}" can be read by everybody (mode {mode:04o})'
        document.problem((*path, "key"), text, hint="chmod o-r it", severity="warning")
    try:
        # the empty pass phrase keeps OpenSSL from asking at the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            document.problem((*path, "key"), f'the key "{key}" does not belong to the certificate "{cert}"')
        else:
            reason = (error.reason or "not PEM").lower().replace("_", " ")
            document.problem(
                (*path, "cert"), f'cannot use the certificate "{cert}" with key "{key}": {reason}'
            )


def _ca(document: Document, path: Path, file: str | None) -> None:
    if file is None or not _readable(document, path, file):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        document.problem(path, f'"{file}" holds no certificate in PEM form')


def _readable(document: Document, path: Path, file: str | None) -> bool:
    if file is None:
        return True
    try:
        with FilePath(file).open("rb"):
            return True
    except OSError as error:
        document.problem(path, f'cannot read "{file}": {error.strerror}')
        return False


# --- tenants ---------------------------------------------------------------------


def _tenants(document: Document, config: Config) -> None:
    tenants = config.tenants
    clusters = {cluster.name: cluster for cluster in config.clusters}
    _repeated(document, ("tenants",), tenants, lambda t: t.name, "tenant", _quoted_name, "name")
    schemas: dict[tuple[str, str, str], int] = {}
    hosts: dict[str, int] = {}
    for index, tenant in enumerate(tenants):
        here: Path = ("tenants", index)
        cluster_name = _tenant_cluster(document, here, tenant, list(clusters))
        schema = tenant.schema_ or tenant.name
        if tenant.name in ADMIN_DATABASES:
            document.problem((*here, "name"), f'"{tenant.name}" is a database name of the admin console')
        if schema in SYSTEM_SCHEMAS or schema.startswith("pg_"):
            document.problem((*here, "schema"), f'"{schema}" is a schema of PostgreSQL itself')
        _identifier(document, (*here, "schema"), schema)
        _identifier(document, (*here, "role"), tenant.role)
        _identifier(document, (*here, "database"), tenant.database)
        if cluster_name is not None:
            database = tenant.database or clusters[cluster_name].database
            first = schemas.setdefault((cluster_name, database, schema), index)
            if first != index and not (tenant.locked_settings and tenants[first].locked_settings):
                other = tenants[first].name
                text = f'tenant "{other}" (line {document.place(("tenants", first))[0]}) has the same schema '
                document.problem(
                    (*here, "schema"),
                    text + f'"{schema}" of cluster "{cluster_name}"',
                    hint="Tenants can share one where all have locked_settings, for row-level security.",
                )
        for number, host in enumerate(tenant.sni):
            first = hosts.setdefault(host.lower(), index)
            if first != index:
                text = f'host name "{host}" already means tenant "{tenants[first].name}"'
                document.problem((*here, "sni", number), text)
        if (tenant.isolation or config.isolation) is Isolation.SHARED:
            cluster = clusters[cluster_name] if cluster_name is not None else None
            _shared(document, here, tenant, config, cluster)
        _tenant_overrides(document, here, tenant, config, schema)
    _open_schemas(document, config, schemas)
    _same_logins(document, config)
    _locked_of_users(document, config)


def _tenant_cluster(document: Document, here: Path, tenant: Tenant, clusters: list[str]) -> str | None:
    if tenant.cluster is None:
        if len(clusters) == 1:
            return clusters[0]
        text = 'the key "cluster" is missing: there are several'
        document.problem(here, text, allowed=tuple(clusters))
        return None
    if tenant.cluster not in clusters:
        hint = did_you_mean(tenant.cluster, clusters)
        text = f'there is no cluster "{tenant.cluster}"'
        document.problem((*here, "cluster"), text, allowed=tuple(clusters), hint=hint)
        return None
    return tenant.cluster


def _shared(document: Document, here: Path, tenant: Tenant, config: Config, cluster: Cluster | None) -> None:
    """What backends that tenants share can't do without."""
    where: Path = (*here, "isolation") if tenant.isolation is not None else here
    pool, policy = merged(config.pool, tenant.pool), merged(config.policy, tenant.policy)
    if cluster is not None and cluster.service.user is None:
        document.problem(where, f'isolation shared needs the key "service.user" of cluster "{cluster.name}"')
    if cluster is not None and tenant.database not in (None, cluster.database):
        text = "isolation shared doesn't go with a database of its own: shared backends are the cluster's"
        document.problem(where, text)
    if pool.mode is not PoolMode.TRANSACTION:
        text = f"isolation shared needs pool mode transaction, here it is {pool.mode.value}"
        document.problem(where, text)
    if policy.mode is not GuardMode.ENFORCE:
        text = f"isolation shared needs policy mode enforce, here it is {policy.mode.value}"
        document.problem(where, text, hint="On shared backends the guard is what keeps tenants apart.")
    if policy.allowed_functions:
        text = "isolation shared doesn't go with policy.allowed_functions, which nobody has proven harmless"
        document.problem(where, text)


def _tenant_overrides(document: Document, here: Path, tenant: Tenant, config: Config, schema: str) -> None:
    pool, policy = merged(config.pool, tenant.pool), merged(config.policy, tenant.policy)
    if tenant.pool:
        _pool(document, (*here, "pool"), pool)
    if tenant.policy or tenant.pool:
        _policy(document, (*here, "policy"), policy, pool)
    if "cache_entries" in tenant.policy:
        text = "the cache is one for all tenants of a worker, so this belongs into the top section policy"
        document.problem((*here, "policy", "cache_entries"), text, at_key=True)
    _settings(document, (*here, "settings"), tenant.settings, schema, policy)
    _locked(document, (*here, "locked_settings"), tenant.locked_settings, schema, policy)


def _settings(
    document: Document, path: Path, settings: Mapping[str, str], schema: str, policy: Policy
) -> None:
    for name, value in settings.items():
        refusal = check_setting(name, value, schema=schema, allowed_schemas=policy.allowed_schemas, denied=())
        if refusal is not None:
            hint = refusal.hint or refusal.detail or ""
            document.problem((*path, name), refusal.message, at_key=True, hint=hint)
        elif "\0" in value:
            document.problem((*path, name), "the value holds a NUL byte")


def _locked(document: Document, path: Path, settings: Mapping[str, str], schema: str, policy: Policy) -> None:
    _settings(document, path, settings, schema, policy)
    if settings and policy.mode is not GuardMode.ENFORCE:
        text = f"locked_settings need policy mode enforce, here it is {policy.mode.value}"
        document.problem(path, text, hint="The guard is what keeps clients from changing them.")


def _locked_of_users(document: Document, config: Config) -> None:
    tenants = {tenant.name: tenant for tenant in config.tenants}
    for index, user in enumerate(config.users):
        for name in {*([user.tenant] if user.tenant else []), *user.tenants} if user.locked_settings else ():
            tenant = tenants.get(name)
            if tenant is not None:
                policy = merged(config.policy, tenant.policy)
                path: Path = ("users", index, "locked_settings")
                _locked(document, path, user.locked_settings, tenant.schema_ or tenant.name, policy)


def _open_schemas(document: Document, config: Config, owners: Mapping[tuple[str, str, str], int]) -> None:
    """Warns where a policy opens the schema of another tenant."""
    databases = {cluster.name: cluster.database for cluster in config.clusters}
    default = config.clusters[0].name
    for index, tenant in enumerate(config.tenants):
        cluster = tenant.cluster or default
        database = tenant.database or databases.get(cluster, "")
        for schema in merged(config.policy, tenant.policy).allowed_schemas:
            owner = owners.get((cluster, database, schema), index)
            if owner != index:
                other = config.tenants[owner].name
                shares = (tenant.isolation or config.isolation) is Isolation.SHARED
                document.problem(
                    ("tenants", index, "policy", "allowed_schemas"),
                    f'the policy lets tenant "{tenant.name}" name the schema "{schema}" of tenant "{other}"',
                    # who changes functions there changes what runs on shared backends, uncounted
                    severity="error" if shares else "warning",
                    hint="Isolation shared doesn't go with that." if shares else "",
                )


def _same_logins(document: Document, config: Config) -> None:
    """Warns where the logins of two tenants share a login on the server, so that PostgreSQL can't tell
    them apart.
    """
    default = config.clusters[0].name if len(config.clusters) == 1 else None
    clusters = {tenant.name: tenant.cluster or default for tenant in config.tenants}
    roles = {tenant.name: tenant.role for tenant in config.tenants}
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for index, user in enumerate(config.users):
        if user.tenant is None or user.tenant not in clusters or user.tenants:
            continue
        login = (clusters[user.tenant] or "", user.server_user or user.name)
        other_tenant, other_user = seen.setdefault(login, (user.tenant, user.name))
        if other_tenant != user.tenant:
            document.problem(
                ("users", index, "server_user"),
                f'tenants "{other_tenant}" and "{user.tenant}" log in to the server as the same role '
                f'"{login[1]}", by users "{other_user}" and "{user.name}"',
                hint="PostgreSQL's own rights then don't keep them apart"
                + ("" if roles[user.tenant] else "; give each tenant a login of its own"),
                severity="warning",
            )


# --- pool and policy -------------------------------------------------------------


def _pool(document: Document, path: Path, pool: Pool) -> None:
    for low, high in (("min", "max"), ("retry_min_s", "retry_max_s")):
        if getattr(pool, low) > getattr(pool, high):
            text = f"{low} ({getattr(pool, low):g}) is more than {high} ({getattr(pool, high):g})"
            where: Path = (*path, low) if document.has((*path, low)) else (*path, high)
            document.problem(where, text)


def _policy(document: Document, path: Path, policy: Policy, pool: Pool) -> None:
    if policy.allow_replication and pool.mode is not PoolMode.SESSION:
        text = f"replication needs pool mode session, here it is {pool.mode.value}"
        document.problem((*path, "allow_replication"), text)
    for index, name in enumerate(policy.allowed_schemas):
        _identifier(document, (*path, "allowed_schemas", index), name)
    for index, name in enumerate(policy.denied_settings):
        if not is_setting_name(name.removesuffix("*").removesuffix(".")) and name != "*":
            text = f'"{name}" is neither the name of a setting nor the beginning of one with * behind it'
            document.problem((*path, "denied_settings", index), text)


# --- users and rules -------------------------------------------------------------


def _users(document: Document, config: Config) -> None:
    _repeated(document, ("users",), config.users, lambda u: u.name, "user", _quoted_name, "name")
    names = tuple(tenant.name for tenant in config.tenants)
    tenants = frozenset(names)
    rules = config.auth.rules
    #: of all, where no rule names any
    methods = None if any("all" not in rule.user for rule in rules) else _methods_of("", rules)
    for index, user in enumerate(config.users):
        here: Path = ("users", index)
        _identifier(document, (*here, "name"), user.name)
        _identifier(document, (*here, "server_user"), user.server_user)
        named: list[tuple[Path, str]] = [((*here, "tenants", n), name) for n, name in enumerate(user.tenants)]
        if user.tenant is not None:
            named.insert(0, ((*here, "tenant"), user.tenant))
        for path, name in named:
            if name not in tenants:
                hint = did_you_mean(name, tenants)
                document.problem(
                    path, f'there is no tenant "{name}"', allowed=_few(tuple(tenants)), hint=hint
                )
        granted = {name for _, name in named}
        for name, role in user.roles.items():
            if name not in granted:
                text = f'tenant "{name}" is not one of login "{user.name}"'
                document.problem((*here, "roles", name), text, at_key=True, hint="name it in tenants, too")
            _identifier(document, (*here, "roles", name), role)
        for number, address in enumerate(user.addresses):
            if address != "local":
                _network(document, (*here, "addresses", number), address, ("local",))
        _identifier(document, (*here, "previous", "server_user"), user.previous.server_user)
        if not named and not user.admin and not user.stats:
            text = f'login "{user.name}" belongs to no tenant and is neither admin nor stats'
            document.problem(here, text, severity="warning")
        _user_secrets(document, here, user, _methods_of(user.name, rules) if methods is None else methods)


def _few(names: tuple[str, ...], most: int = 20) -> tuple[str, ...]:
    return names if len(names) <= most else (*names[:most], f"… {len(names) - most} more")


def _user_secrets(document: Document, here: Path, user: User, methods: list[tuple[int, AuthRule]]) -> None:
    if user.password is not None and user.verifier is not None:
        document.problem((*here, "verifier"), "give password or verifier, not both")
        return
    needs = [(index, rule) for index, rule in methods if rule.method in SECRET_METHODS]
    if user.password is None and user.verifier is None:
        if needs:
            rule, line = needs[0][1], document.place(("auth", "rules", needs[0][0]))[0]
            written = document.has(("auth", "rules"))
            where = f"the rule in line {line}" if written else "the default rule"
            text = f'login "{user.name}" has neither password nor verifier, but {where} asks for one '
            text += f"({rule.method})"
            document.problem(here, text)
    elif user.verifier is not None:
        _verifier(document, here, user, [rule for _, rule in needs])
    if user.previous.verifier is not None:
        _previous(document, here, user.verifier, user.previous.verifier)
    if user.admin and any(rule.method == "trust" and rule.type != "local" for _, rule in methods):
        text = f'admin "{user.name}" is let in by method trust, so anybody can call himself so'
        document.problem(here, text, severity="warning")
    has_tenant = user.tenant is not None or bool(user.tenants)
    if has_tenant and user.password is None and user.server_password is None:
        silent = sorted({rule.method for _, rule in methods} & {"cert", "jwt", "trust"})
        if silent:
            text = f'the proxy has no password for the server when "{user.name}" comes by method {silent[0]}'
            hint = "give server_password, unless the server lets the proxy in without one"
            document.problem(here, text, hint=hint, severity="warning")


def _verifier(document: Document, here: Path, user: User, rules: list[AuthRule]) -> None:
    assert user.verifier is not None
    secret = user.verifier.reveal()
    if _MD5_VERIFIER.fullmatch(secret):
        strict = [rule for rule in rules if rule.method == "scram-sha-256"]
        if strict:
            text = f'login "{user.name}" has an md5 verifier, which the method scram-sha-256 can\'t check'
            document.problem((*here, "verifier"), text, hint="make one with: tenant-proxy hash-password")
    elif not _SCRAM_VERIFIER.fullmatch(secret):
        document.problem(
            (*here, "verifier"),
            "not a verifier (a plain password belongs into the key password)",
            allowed=("SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY", "md5 and 32 hexadecimal digits"),
            hint="make one with: tenant-proxy hash-password",
        )


def _previous(document: Document, here: Path, now: SecretRef | None, before: SecretRef) -> None:
    """The exchange must be the same with both until the proof."""
    path: Path = (*here, "previous", "verifier")
    text = "" if now is None else now.reveal()
    if not _SCRAM_VERIFIER.fullmatch(before.reveal()):
        document.problem(path, "not a SCRAM verifier", hint="make one with: tenant-proxy hash-password")
    elif not _SCRAM_VERIFIER.fullmatch(text):
        document.problem(path, "it needs a SCRAM verifier of the new password beside it, in the key verifier")
    elif text.split("$")[1] != before.reveal().split("$")[1]:
        document.problem(path, "its salt and iterations are not those of the login's verifier")


def _methods_of(user: str, rules: list[AuthRule]) -> list[tuple[int, AuthRule]]:
    """The rules that a connection of this user can meet, in order, less those that an earlier one hides."""
    found: list[tuple[int, AuthRule]] = []
    open_kinds = {"local", "tls", "plain"}
    for index, rule in enumerate(rules):
        if "all" not in rule.user and user not in rule.user:
            continue
        kinds = _kinds(rule) & open_kinds
        if not kinds:
            continue
        found.append((index, rule))
        if "all" in rule.database and (rule.type == "local" or rule.address == "all"):
            open_kinds -= kinds
    return found


def _kinds(rule: AuthRule) -> set[str]:
    return {"local": {"local"}, "hostssl": {"tls"}, "hostnossl": {"plain"}, "host": {"tls", "plain"}}[
        rule.type
    ]


def _rules(document: Document, config: Config) -> None:
    rules = config.auth.rules
    if not rules:
        document.problem(("auth", "rules"), "there is no rule, so nobody could log in", severity="warning")
    given = config.auth.jwt
    if given.keys is not None and (given.issuer is None or given.audience is None):
        document.problem(("auth", "jwt", "keys"), "it needs issuer and audience beside it")
    tls = config.listen.tls
    covered: set[str] = set()
    for index, rule in enumerate(rules):
        here: Path = ("auth", "rules", index)
        if rule.type == "local" and rule.address != "all":
            document.problem((*here, "address"), "a rule of type local has no address", hint="leave it out")
        elif rule.address not in ("all", "samehost"):
            _network(document, (*here, "address"), rule.address)
        if rule.method == "cert":
            if rule.type != "hostssl":
                text = f"method cert needs TLS, so it doesn't go with type {rule.type}"
                document.problem((*here, "type"), text, allowed=("hostssl",))
            if tls.mode == "disable" or tls.client_ca is None:
                text = "method cert needs listen.tls.mode (allow or require) and listen.tls.client_ca"
                document.problem((*here, "method"), text)
        if rule.method == "jwt" and config.auth.jwt.keys is None:
            document.problem((*here, "method"), "method jwt needs auth.jwt.keys")
        if rule.type == "hostssl" and tls.mode == "disable":
            text = "listen.tls.mode is disable, so no connection is ever hostssl"
            document.problem((*here, "type"), text, severity="warning")
        kinds = _kinds(rule)
        if kinds <= covered:
            document.problem(here, "no connection gets as far as this rule", severity="warning")
        if "all" in rule.user and "all" in rule.database and (rule.type == "local" or rule.address == "all"):
            covered |= kinds


def _network(
    document: Document, path: Path, address: str, words: tuple[str, ...] = ("all", "samehost")
) -> None:
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        allowed = (*words, "an address", "a range such as 10.0.0.0/8 or fd00::/8")
        document.problem(path, f'"{address}" is not an address or range', allowed=allowed)
