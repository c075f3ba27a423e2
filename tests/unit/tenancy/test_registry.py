"""Which tenant a connection is: each mapping rule, and what nobody may find out."""

from __future__ import annotations

import pytest

from tenant_proxy.config.load import load_text
from tenant_proxy.errors import ProxyError
from tenant_proxy.model import StartupRequest
from tenant_proxy.tenancy.registry import Registry, Route

FILE = """
clusters:
  - {name: main, host: one, database: app, auth_query: {enabled: true}}
  - {name: other, host: two, database: app}
pool: {mode: transaction, max: 7}
policy: {allowed_schemas: [shared]}
tenants:
  - {name: acme, cluster: main, sni: [acme.example.com], pool: {max: 3}}
  - {name: beta, cluster: main, schema: beta_schema, role: beta_rw, settings: {jit: off}, logins: ["beta_*"]}
  - {name: beta_two, cluster: other, logins: ["beta_two_*", carol]}
  - {name: gamma, cluster: other, policy: {mode: observe}}
users:
  - {name: app, tenant: acme, password: {value: secret}}
  - {name: multi, tenant: acme, tenants: [beta, gamma], password: {value: secret}}
  - {name: free, tenants: [beta, gamma], password: {value: secret}}
  - {name: dotted.acme, tenant: beta, password: {value: secret}}
  - {name: boss, admin: true, password: {value: secret}, server_user: x, server_password: {value: other}}
  - {name: watcher, stats: true, tenant: acme, password: {value: secret}}
"""


def registry(text: str = FILE) -> Registry:
    return Registry.build(load_text(text, environ={}).config)


@pytest.fixture
def reg() -> Registry:
    return registry()


def connect(reg: Registry, user: str, database: str = "anything", **more) -> Route:
    """What the relay does once `user` has proved who it is."""
    request = StartupRequest(user, database, **more)
    return reg.route(request, reg.logins.get(reg.login_name(request)))


def refusal(reg: Registry, user: str, database: str = "anything", **more) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        connect(reg, user, database, **more)
    assert caught.value.severity == "FATAL"
    return caught.value


# --- what is built -----------------------------------------------------------------


def test_a_tenant_has_the_defaults_merged_in(reg):
    acme, beta = reg.tenants["acme"], reg.tenants["beta"]
    assert (acme.schema, acme.role, acme.cluster.host) == ("acme", None, "one")
    assert (acme.pool.max, acme.pool.mode) == (3, "transaction")
    assert (beta.schema, beta.role, beta.pool.max, beta.settings) == (
        "beta_schema",
        "beta_rw",
        7,
        {"jit": "off"},
    )
    assert reg.tenants["gamma"].policy.mode == "observe"
    assert reg.tenants["gamma"].policy.allowed_schemas == ["shared"]


def test_a_login_has_its_secrets_but_does_not_show_them(reg):
    app, boss = reg.logins["app"], reg.logins["boss"]
    assert (app.password, app.server_user, app.server_password) == ("secret", "app", "secret")
    assert (boss.server_user, boss.server_password) == ("x", "other")
    assert "secret" not in repr(app)
    assert "other" not in repr(boss)


def test_granted_tenants_begin_with_the_logins_own(reg):
    assert reg.logins["multi"].tenants == ("acme", "beta", "gamma")
    assert reg.logins["multi"].tenant == "acme"
    assert reg.logins["free"].tenant is None


# --- login: a login of one tenant may write anything into its DSN -----------------------


@pytest.mark.parametrize("database", ["anything", "app", "beta", "acme", ""])
def test_a_login_of_one_tenant_gets_it_whatever_the_database(reg, database):
    route = connect(reg, "app", database)
    assert (route.tenant.name, route.rule, route.user, route.database) == ("acme", "login", "app", database)


def test_its_own_tenant_may_be_named(reg):
    assert connect(reg, "app.acme").tenant.name == "acme"
    assert connect(reg, "app", settings={"tenant": "acme"}).tenant.name == "acme"


@pytest.mark.parametrize("name", ["beta", "none"])
def test_a_tenant_that_is_not_granted_does_not_exist(reg, name):
    by_suffix = refusal(reg, f"app.{name}")
    by_option = refusal(reg, "app", settings={"tenant": name})
    for error in (by_suffix, by_option):
        assert (error.sqlstate, error.message) == ("3D000", f'tenant "{name}" does not exist')
    assert by_suffix.detail == "The name came from the mapping rule user_suffix."
    assert by_option.detail == "The name came from the mapping rule options."


# --- a login of several tenants picks one --------------------------------------------------


def test_by_suffix(reg):
    route = connect(reg, "multi.beta")
    assert (route.tenant.name, route.rule, route.user) == ("beta", "user_suffix", "multi")


def test_by_option(reg):
    route = connect(reg, "multi", settings={"tenant": "gamma"})
    assert (route.tenant.name, route.rule) == ("gamma", "options")


def test_by_database(reg):
    assert connect(reg, "multi", "beta").rule == "database"


def test_by_host_name(reg):
    assert connect(reg, "multi", sni="ACME.example.com.").rule == "sni"
    assert connect(reg, "multi", "x", sni="acme.example.com").tenant.name == "acme"


def test_by_certificate(reg):
    assert connect(reg, "multi", cert_cn="gamma").rule == "certificate"
    assert connect(reg, "multi", cert_cn="x", cert_names=("y", "beta")).tenant.name == "beta"
    assert connect(reg, "multi", cert_names=("acme.example.com",)).tenant.name == "acme"


def test_suffix_and_option_that_disagree(reg):
    assert refusal(reg, "multi.beta", settings={"tenant": "gamma"}).sqlstate == "3D000"


def test_its_own_tenant_when_it_names_no_database(reg):
    """libpq names the user as the database when a DSN has none."""
    assert connect(reg, "multi", "multi").tenant.name == "acme"
    assert connect(reg, "multi", "").rule == "login"


@pytest.mark.parametrize("database", ["bta", "beta_two"])
def test_a_database_that_is_no_tenant_of_it_is_not_replaced_by_its_own(reg, database):
    error = refusal(reg, "multi", database)
    assert (error.sqlstate, error.message) == ("3D000", f'tenant "{database}" does not exist')


def test_a_host_of_a_tenant_that_is_not_granted_counts_like_any_host(reg):
    mine, other = (refusal(reg, "free", sni=host) for host in ("acme.example.com", "none.example.com"))
    assert (mine.message, mine.detail) == (other.message, other.detail)


def test_rules_are_asked_in_the_configured_order():
    hosts_first = registry(FILE + "mapping: [sni, database]")
    assert connect(hosts_first, "multi", "beta", sni="acme.example.com").tenant.name == "acme"
    assert (
        connect(registry(FILE + "mapping: [database, sni]"), "multi", "beta", sni="acme.example.com").rule
        == "database"
    )


def test_rules_that_are_left_out_do_not_count():
    only_login = registry(FILE + "mapping: [login]")
    assert only_login.login_name(StartupRequest("app.acme", "x")) == "app.acme"
    assert refusal(only_login, "app", settings={"tenant": "acme"}).message == "no tenant for this connection"
    assert "several tenants" in (refusal(only_login, "multi", "beta").detail or "")


# --- names with dots --------------------------------------------------------------------------


def test_the_exact_name_of_a_login_wins(reg):
    route = connect(reg, "dotted.acme")
    assert (route.user, route.tenant.name) == ("dotted.acme", "beta")
    assert reg.login_name(StartupRequest("dotted.acme.beta", "")) == "dotted.acme"


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("app.none", "app"),
        ("role.acme", "role"),
        ("first.last", "first.last"),
        (".acme", ".acme"),
        ("app.", "app."),
    ],
)
def test_what_is_a_suffix(reg, user, name):
    assert reg.login_name(StartupRequest(user, "")) == name


# --- roles that auth_query found -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "tenant"),
    [
        ("acme", "acme"),
        ("beta_app", "beta"),
        ("beta_two_app", "beta_two"),
        ("carol", "beta_two"),
        ("x.beta", None),
    ],
)
def test_a_role_belongs_to_one_tenant(user, tenant):
    everywhere = registry(FILE.replace("host: two,", "host: two, auth_query: {enabled: true},"))
    assert everywhere.granted(None, user) == ((tenant,) if tenant else ())


@pytest.mark.parametrize("user", ["carol", "beta_two_app", "gamma"])
def test_a_role_of_a_cluster_without_auth_query_belongs_to_none(reg, user):
    """Else a rule with trust would let in whoever calls himself like a tenant."""
    assert reg.granted(None, user) == ()
    assert refusal(reg, user).sqlstate == "28000"


def test_a_role_of_no_tenant_is_let_into_none(reg):
    for database in ("anything", "acme"):
        error = refusal(reg, "stranger", database)
        assert (error.sqlstate, error.message) == ("28000", "no tenant for this connection")
    assert refusal(reg, "stranger.acme").sqlstate == "3D000"


def test_the_cluster_that_is_asked_for_it(reg):
    def asked(user: str) -> str | None:
        cluster = reg.auth_query_cluster(StartupRequest(user, "anything"))
        return cluster and cluster.name

    assert asked("beta_app") == "main"
    assert asked("carol") is None  # the cluster of its tenant has no auth_query
    assert asked("stranger") is None


# --- the console ---------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["tenant_proxy", "pgbouncer"])
def test_databases_of_the_console(reg, database):
    assert reg.is_admin_database(database)
    error = refusal(reg, "app", database)
    assert (error.sqlstate, error.message) == ("42501", f'permission denied for database "{database}"')


def test_an_admin_without_a_tenant_has_only_the_console(reg):
    assert refusal(reg, "boss", "app").sqlstate == "28000"
    assert connect(reg, "watcher", "app").tenant.name == "acme"
