"""Which tenant a connection is: by login, user.tenant, options, database, SNI, certificate."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.fix_proxy import PASSWORDS
from tests.fix_tls import Authority
from tests.wire_client import LoginFailed, WireClient

#: a login of the proxy for both tenants; on the server it is a member of both roles
BOTH = "both_app"

USERS: list[dict[str, Any]] = [
    {"name": "acme_app", "tenant": "acme", "password": {"value": "acme-secret"}},
    {"name": "beta_app", "tenant": "beta", "password": {"value": "beta-secret"}},
    {"name": BOTH, "tenants": ["acme", "beta"], "password": {"value": "both-secret"}},
    {
        "name": "own_app",
        "tenant": "beta",
        "tenants": ["acme"],
        "password": {"value": "both-secret"},
        "server_user": BOTH,
    },
    {"name": "lonely", "password": {"value": "both-secret"}},
    {"name": "dotted.name", "tenant": "acme", "password": {"value": "both-secret"}, "server_user": BOTH},
    {"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}},
    {"name": "viewer", "stats": True, "password": {"value": PASSWORDS["viewer"]}},
]
TENANTS = [
    {"name": "acme", "sni": ["acme.tenants.test"]},
    {"name": "beta", "sni": ["beta.tenants.test"]},
    {"name": "gamma"},
]


@pytest.fixture(scope="module")
def both_role(pg):
    with pg.connect() as conn:
        conn.execute(f"CREATE ROLE {BOTH} LOGIN PASSWORD 'both-secret' IN ROLE acme_app, beta_app")
    yield
    with pg.connect() as conn:
        conn.execute(f"DROP ROLE {BOTH}")


@pytest.fixture
def mapping_proxy(both_role, proxies, certificates):
    def make(**changes):
        tls = {"mode": "allow", "cert": str(certificates.proxy.cert), "key": str(certificates.proxy.key)}
        tls["client_ca"] = str(certificates.ca)
        config = {"users": USERS, "tenants": TENANTS, "listen": {"tls": tls}, **changes}
        return proxies(**config)

    return make


def tenant_of(client: WireClient) -> str:
    with client:
        schema = client.value("SELECT current_schema()")
        item = client.value("SELECT item FROM orders WHERE id = 1")
        assert {"anvil": "acme", "bolt": "beta"}[item or ""] == schema
        return schema or ""


def test_by_login(mapping_proxy):
    proxy = mapping_proxy()
    assert tenant_of(proxy.wire("acme_app")) == "acme"
    assert tenant_of(proxy.wire("beta_app")) == "beta"


@pytest.mark.parametrize("database", ["app", "anything", "", "postgres", "template1", "żółć", "x" * 500])
def test_a_login_of_one_tenant_may_name_any_database(mapping_proxy, database):
    """The DSN's database is whatever the application had; the server's is the cluster's."""
    with mapping_proxy().wire("acme_app", database=database) as c:
        assert c.value("SELECT current_database()") == "app"
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"


@pytest.mark.parametrize("tenant", ["acme", "beta"])
@pytest.mark.parametrize(
    "login",
    [
        lambda tenant: {"user": f"{BOTH}.{tenant}"},
        lambda tenant: {"user": BOTH, "database": tenant},
        lambda tenant: {"user": BOTH, "options": f"-c tenant={tenant}"},
        lambda tenant: {"user": BOTH, "tenant": tenant},
        lambda tenant: {"user": f"own_app.{tenant}"},
        lambda tenant: {"user": "own_app", "database": tenant},
    ],
    ids=["suffix", "database", "options", "startup", "own-suffix", "own-database"],
)
def test_a_login_of_several_tenants_names_one(mapping_proxy, tenant, login):
    assert tenant_of(mapping_proxy().wire(password="both-secret", **login(tenant))) == tenant


@pytest.mark.parametrize("tenant", ["acme", "beta"])
@pytest.mark.parametrize("direct", [False, True], ids=["after-request", "direct"])
def test_by_sni(mapping_proxy, certificates, tenant, direct):
    context = ssl.create_default_context(cafile=str(certificates.ca))
    client = mapping_proxy().wire(
        BOTH, password="both-secret", tls=context, server_name=f"{tenant}.tenants.test", direct=direct
    )
    assert tenant_of(client) == tenant


@pytest.mark.parametrize("tenant", ["acme", "beta"])
def test_by_certificate(mapping_proxy, certificates, tmp_path_factory, tenant):
    """A certificate whose alternative name is in the tenant's sni list."""
    authority = Authority(tmp_path_factory.mktemp("own-ca"), "own-ca")
    identity = authority.issue(BOTH, [f"{tenant}.tenants.test"])
    tls = {
        "mode": "allow",
        "cert": str(certificates.proxy.cert),
        "key": str(certificates.proxy.key),
        "client_ca": str(authority.cert),
    }
    rules = [{"user": ["admin"], "method": "scram-sha-256"}, {"type": "hostssl", "method": "cert"}]
    users = [
        user | {"server_password": {"value": "both-secret"}} if user["name"] == BOTH else user
        for user in USERS
    ]
    proxy = mapping_proxy(listen={"tls": tls}, auth={"rules": rules}, users=users)
    context = ssl.create_default_context(cafile=str(certificates.ca))
    context.load_cert_chain(identity.cert, identity.key)
    assert tenant_of(proxy.wire(BOTH, password="", tls=context, server_name="localhost")) == tenant


def test_its_own_tenant_when_none_is_named(mapping_proxy):
    """libpq's default database is the user's name: then the login's own tenant is meant."""
    assert tenant_of(mapping_proxy().wire("own_app", password="both-secret", database="own_app")) == "beta"


def test_a_login_with_a_dot_in_its_name(mapping_proxy):
    assert tenant_of(mapping_proxy().wire("dotted.name", password="both-secret")) == "acme"


@pytest.mark.parametrize(
    ("login", "sqlstates"),
    [
        ({"user": "acme_app.beta", "password": "acme-secret"}, {"3D000"}),
        ({"user": "acme_app", "options": "-c tenant=beta"}, {"3D000"}),
        ({"user": "acme_app.nothing_such", "password": "acme-secret"}, {"3D000"}),
        ({"user": BOTH, "database": "nothing_such", "password": "both-secret"}, {"3D000", "28000"}),
        ({"user": BOTH, "database": "gamma", "password": "both-secret"}, {"3D000", "28000"}),
        ({"user": f"{BOTH}.gamma", "password": "both-secret"}, {"3D000"}),
        ({"user": f"{BOTH}.acme", "options": "-c tenant=beta", "password": "both-secret"}, {"3D000"}),
        ({"user": "lonely", "password": "both-secret"}, {"28000"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_tenants_that_are_not_granted_are_as_tenants_that_do_not_exist(mapping_proxy, login, sqlstates):
    with pytest.raises(LoginFailed) as failed:
        mapping_proxy().wire(**login)
    assert failed.value.fields["S"] == "FATAL"
    assert failed.value.fields["C"] in sqlstates
    assert failed.value.fields["D"]


def test_tenants_cannot_be_probed_without_a_password(mapping_proxy):
    said = []
    for tenant in ("acme", "gamma", "nothing_such"):
        with pytest.raises(LoginFailed) as failed:
            mapping_proxy().wire(f"{BOTH}.{tenant}", password="wrong")
        said.append({k: v.replace(f".{tenant}", "") for k, v in failed.value.fields.items()})
    assert said[0]["C"] == "28P01"
    assert said[0] == said[1] == said[2]


def test_a_rule_that_the_operator_has_left_out(mapping_proxy):
    proxy = mapping_proxy(mapping=["login", "database"])
    with pytest.raises(LoginFailed):
        proxy.wire(BOTH, password="both-secret", options="-c tenant=acme")
    with pytest.raises(LoginFailed):
        proxy.wire(f"{BOTH}.acme", password="both-secret")
    assert tenant_of(proxy.wire(BOTH, password="both-secret", database="acme")) == "acme"


def test_two_tenants_at_once_with_two_workers(mapping_proxy):
    """One login, two tenants: a pool each, whoever of the workers serves it."""
    proxy = mapping_proxy(workers=2, pool={"mode": "transaction"})
    clients = [(t, proxy.wire(f"{BOTH}.{t}", password="both-secret")) for t in ("acme", "beta") * 4]
    for _ in range(5):
        for tenant, client in clients:
            assert client.value("SELECT current_schema()") == tenant
    for _, client in clients:
        client.terminate()


def test_a_schema_and_role_of_another_name(both_role, proxies, superuser):
    superuser.execute('CREATE SCHEMA "Odd Name" AUTHORIZATION acme_app')
    try:
        tenants = [{"name": "acme", "schema": "Odd Name", "role": "acme_app"}, {"name": "beta"}]
        on_server = {"server_user": BOTH, "server_password": {"value": "both-secret"}}
        users = [USERS[0] | on_server, USERS[-2], USERS[-1]]
        with proxies(tenants=tenants, users=users).wire() as c:
            assert c.value("SELECT current_schema()") == "Odd Name"
            assert c.value("SELECT current_user") == "acme_app"
            c.query("CREATE TABLE inside (a int)")
            assert c.value("SELECT schemaname FROM pg_tables WHERE tablename = 'inside'") == "Odd Name"
    finally:
        superuser.execute('DROP SCHEMA "Odd Name" CASCADE')


def test_settings_of_a_tenant(proxies):
    tenants = [
        {"name": "acme", "settings": {"work_mem": "7MB", "my.plan": "free", "TimeZone": "Asia/Tokyo"}},
        {"name": "beta"},
    ]
    proxy = proxies(tenants=tenants)
    with proxy.wire() as c:
        assert c.value("SHOW work_mem") == "7MB"
        assert c.value("SHOW my.plan") == "free"
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
        c.query("SET work_mem = '9MB'")
        c.query("RESET work_mem")
        assert c.value("SHOW work_mem") == "7MB"
    with proxy.wire(work_mem="8MB") as c:
        assert c.value("SHOW work_mem") == "8MB"
