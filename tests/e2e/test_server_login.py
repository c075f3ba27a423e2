"""The proxy logs in to PostgreSQL: its methods, TLS up to verify-full, auth_query."""

from __future__ import annotations

import pytest

from tenant_proxy.devel.postgres import TlsFiles
from tests.fix_proxy import PASSWORDS
from tests.pg_server import Server
from tests.wire_client import LoginFailed, query, sqlstates, wait_until

# --- methods ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scram-sha-256", "md5", "password", "trust"])
def test_methods_of_the_server(new_pg, own_proxy, method):
    server = new_pg(
        hba=[f"host all acme_app all {method}"], settings={"password_encryption": "scram-sha-256"}
    )
    if method == "md5":
        server.settings["password_encryption"] = "md5"
        with server.connect() as conn:
            conn.execute("SET password_encryption = 'md5'; ALTER ROLE acme_app PASSWORD 'acme-secret'")
    proxy = own_proxy(server)
    with proxy.wire() as c:
        assert c.value("SELECT current_user") == "acme_app"


def test_a_wrong_password_for_the_server(own_proxy):
    """The client did nothing wrong: it is told that the proxy could not log in, not that it could not."""
    users = [
        {
            "name": "acme_app",
            "tenant": "acme",
            "password": {"value": "acme-secret"},
            "server_password": {"value": "wrong"},
        },
        {"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}},
    ]
    proxy = own_proxy(users=users)
    with pytest.raises(LoginFailed) as failed:
        proxy.wire()
    assert failed.value.fields["S"] == "FATAL"
    assert failed.value.fields["C"] in ("08006", "28P01")
    assert "wrong" not in str(failed.value.fields)


def test_a_role_that_may_not_log_in(new_pg, own_proxy):
    server = new_pg()
    with server.connect() as conn:
        conn.execute("ALTER ROLE acme_app NOLOGIN")
    proxy = own_proxy(server)
    with pytest.raises(LoginFailed) as failed:
        proxy.wire()
    assert failed.value.fields["S"] == "FATAL"
    with proxy.wire("beta_app") as c:
        assert c.value("SELECT current_user") == "beta_app"


def test_a_database_that_does_not_exist(pg, own_proxy):
    proxy = own_proxy(
        clusters=[{"name": "main", "host": pg.host, "port": pg.port, "database": "nothing_such"}]
    )
    with pytest.raises(LoginFailed) as failed:
        proxy.wire()
    assert failed.value.fields["S"] == "FATAL"
    assert failed.value.fields["C"] in ("08006", "3D000")


def test_a_servers_unix_socket(new_pg, own_proxy):
    server = new_pg()
    proxy = own_proxy(
        server,
        clusters=[{"name": "main", "host": str(server.socket_dir), "port": server.port, "database": "app"}],
    )
    with proxy.wire() as c:
        assert c.value("SELECT inet_client_addr()") is None


# --- TLS --------------------------------------------------------------------------


@pytest.fixture
def tls_server(new_pg, certificates):
    """A server that takes TLS only, and for beta_app only with a certificate."""

    def make(wrong_host: bool = False, **options) -> Server:
        identity = certificates.wrong_host if wrong_host else certificates.server
        return new_pg(
            tls=TlsFiles(identity.cert, identity.key, certificates.ca),
            hba=[
                "hostssl all acme_app all scram-sha-256",
                "hostssl all beta_app all cert",
                "hostnossl all acme_app all reject",
            ],
            **options,
        )

    return make


def clusters(server: Server, **tls: str) -> list[dict]:
    return [{"name": "main", "host": "localhost", "port": server.port, "database": "app", "tls": tls}]


SSL_IN_USE = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_modes_of_tls(tls_server, own_proxy, certificates, mode):
    server = tls_server()
    proxy = own_proxy(server, clusters=clusters(server, mode=mode, ca=str(certificates.ca)))
    with proxy.wire() as c:
        assert c.value(SSL_IN_USE) == "true"


def test_direct_tls_to_the_server(tls_server, own_proxy, certificates):
    server = tls_server()
    if server.major < 17:
        pytest.skip(f"PostgreSQL {server.major} takes no direct TLS")
    tls = {"mode": "verify-full", "negotiation": "direct", "ca": str(certificates.ca)}
    proxy = own_proxy(server, clusters=clusters(server, **tls))
    with proxy.wire() as c:
        assert c.value(SSL_IN_USE) == "true"


@pytest.mark.parametrize(
    ("mode", "wrong_host", "wrong_ca", "works"),
    [
        ("require", True, True, True),
        ("verify-ca", True, False, True),
        ("verify-ca", False, True, False),
        ("verify-full", True, False, False),
        ("verify-full", False, True, False),
        ("disable", False, False, False),
    ],
)
def test_what_each_mode_verifies(tls_server, own_proxy, certificates, mode, wrong_host, wrong_ca, works):
    server = tls_server(wrong_host=wrong_host)
    ca = certificates.other_ca if wrong_ca else certificates.ca
    # libpq's require verifies too as soon as there is a root certificate, so none is given to it
    tls = {"mode": mode} | ({"ca": str(ca)} if mode.startswith("verify") else {})
    proxy = own_proxy(server, clusters=clusters(server, **tls))
    if works:
        with proxy.wire() as c:
            assert c.value(SSL_IN_USE) == "true"
    else:
        with pytest.raises(LoginFailed) as failed:
            proxy.wire()
        assert failed.value.fields["S"] == "FATAL"


def test_required_tls_of_a_server_that_has_none(pg, own_proxy):
    proxy = own_proxy(clusters=clusters(pg, mode="require"))
    with pytest.raises(LoginFailed) as failed:
        proxy.wire()
    assert failed.value.fields["C"] == "08006"


def test_preferred_tls_of_a_server_that_has_none(pg, own_proxy):
    proxy = own_proxy(clusters=clusters(pg, mode="prefer"))
    with proxy.wire() as c:
        assert c.value(SSL_IN_USE) == "false"


def test_a_certificate_of_the_proxy(tls_server, own_proxy, certificates):
    server = tls_server()
    identity = certificates.beta_app
    tls = {
        "mode": "verify-full",
        "ca": str(certificates.ca),
        "cert": str(identity.cert),
        "key": str(identity.key),
    }
    proxy = own_proxy(server, clusters=clusters(server, **tls))
    with proxy.wire("beta_app") as c:
        assert c.value("SELECT current_user") == "beta_app"


def test_large_data_over_tls_to_the_server(tls_server, own_proxy, certificates):
    server = tls_server()
    proxy = own_proxy(server, clusters=clusters(server, mode="require"))
    with proxy.wire() as c:
        assert len(c.value("SELECT repeat('x', 20000000)") or "") == 20_000_000


def test_cancel_of_a_statement_behind_tls(tls_server, own_proxy, certificates):
    """The CancelRequest goes through TLS too, as the server's rules would not take it otherwise."""
    server = tls_server()
    proxy = own_proxy(server, clusters=clusters(server, mode="require"))
    with proxy.wire() as c, server.connect() as observer:
        c.send(query("SELECT pg_sleep(15)"))
        wait_for_statement(observer, "pg_sleep")
        c.cancel()
        assert sqlstates(c.until_ready()) == ["57014"]


def wait_for_statement(observer, pattern: str) -> None:
    def runs() -> bool:
        found = observer.execute(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE state = 'active' AND pid <> pg_backend_pid() AND query ~ %s",
            [pattern],
        )
        return found.fetchone() is not None

    wait_until(runs, f"a statement like {pattern} runs")


# --- auth_query ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def looked_up():
    """A server where roles of acme are known only to PostgreSQL."""
    server = Server()
    server.start()
    server.populate()
    with server.connect() as conn:
        conn.execute(
            """
            CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asker-secret';
            CREATE ROLE acme_web LOGIN PASSWORD 'web-secret' IN ROLE acme_app;
            CREATE ROLE acme_old LOGIN PASSWORD 'old-secret' VALID UNTIL '2020-01-01' IN ROLE acme_app;
            CREATE ROLE acme_closed NOLOGIN PASSWORD 'closed-secret' IN ROLE acme_app;
            CREATE ROLE acme_bare LOGIN IN ROLE acme_app;
            CREATE ROLE stranger LOGIN PASSWORD 'stranger-secret';
            GRANT USAGE ON SCHEMA acme TO acme_web;
            GRANT SELECT ON ALL TABLES IN SCHEMA acme TO acme_web;
            """
        )
    yield server
    server.stop("immediate")
    server.close()


@pytest.fixture
def asking_proxy(looked_up, own_proxy):
    def make(**auth_query: object):
        cluster = {
            "name": "main",
            "host": looked_up.host,
            "port": looked_up.port,
            "database": "app",
            "auth_query": {
                "enabled": True,
                "user": "asker",
                "password": {"value": "asker-secret"},
                **auth_query,
            },
        }
        return own_proxy(
            looked_up, clusters=[cluster], tenants=[{"name": "acme", "logins": ["acme_*"]}, {"name": "beta"}]
        )

    return make


def test_a_role_that_only_the_server_knows(asking_proxy):
    """Its verifier comes from the server, and its own proof opens the backend: no password is stored."""
    proxy = asking_proxy()
    for _ in range(2):
        with proxy.wire("acme_web", password="web-secret") as c:
            assert c.value("SELECT current_user") == "acme_web"
            assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("acme_web", "wrong"),
        ("acme_old", "old-secret"),
        ("acme_closed", "closed-secret"),
        ("acme_bare", ""),
        ("acme_nobody", "x"),
        ("acme_web'; DROP TABLE x; --", "x"),
    ],
)
def test_roles_that_may_not_come_in(asking_proxy, user, password):
    """Wrong password, expired, NOLOGIN, without a password, unknown: one answer for all."""
    with pytest.raises(LoginFailed) as failed:
        asking_proxy().wire(user, password=password)
    assert (failed.value.fields["S"], failed.value.fields["C"]) == ("FATAL", "28P01")


def test_a_role_that_belongs_to_no_tenant(asking_proxy):
    with pytest.raises(LoginFailed) as failed:
        asking_proxy().wire("stranger", password="stranger-secret")
    assert failed.value.fields["S"] == "FATAL"


def test_a_changed_password(asking_proxy, looked_up):
    """After cache_s, or at once when the known one does not fit."""
    proxy = asking_proxy(cache_s=0)
    with looked_up.connect() as conn:
        try:
            proxy.wire("acme_web", password="web-secret").terminate()
            conn.execute("ALTER ROLE acme_web PASSWORD 'changed'")
            with proxy.wire("acme_web", password="changed") as c:
                assert c.value("SELECT 1") == "1"
        finally:
            conn.execute("ALTER ROLE acme_web PASSWORD 'web-secret'")


def test_users_of_the_file_are_not_asked_for(asking_proxy):
    with asking_proxy(query="SELECT 1/0 WHERE $1 = ''").wire() as c:
        assert c.value("SELECT current_user") == "acme_app"


def test_a_query_that_fails(asking_proxy):
    """A fault of the operator's: the client learns nothing but that it failed."""
    with pytest.raises(LoginFailed) as failed:
        asking_proxy(query="SELECT nothing_such WHERE $1 = ''").wire("acme_web", password="web-secret")
    assert failed.value.fields["S"] == "FATAL"
    assert "nothing_such" not in str(failed.value.fields)


def test_the_search_path_of_a_client_does_not_reach_the_query(asking_proxy, looked_up):
    """CVE-2025-12819 of PgBouncer: a function in the client's schema would run as the asker."""
    proxy = asking_proxy(
        query="SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND lower(rolname) = rolname"
    )
    with looked_up.connect() as conn:
        conn.execute("CREATE TABLE acme.pg_authid (rolname name, rolpassword text)")
        try:
            with pytest.raises(LoginFailed):
                proxy.wire("acme_web", password="wrong", search_path="acme")
            with proxy.wire("acme_web", password="web-secret", search_path="acme") as c:
                assert c.value("SELECT 1") == "1"
        finally:
            conn.execute("DROP TABLE acme.pg_authid")
