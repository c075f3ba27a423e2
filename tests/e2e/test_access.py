"""Who may come in, and who may stay: suspended tenants, expiry, addresses, roles, passwords in rotation."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tenant_proxy.auth.scram import build_verifier, parse_verifier
from tests.fix_proxy import PASSWORDS, Proxy
from tests.pg_server import Server
from tests.wire_client import wait_until

OwnProxy = Callable[..., Proxy]


def refusal(proxy: Proxy, user: str = "acme_app", password: str | None = None) -> str:
    settings = {"password": password} if password is not None else {}
    with pytest.raises(psycopg.OperationalError) as error:
        psycopg.connect(proxy.dsn(user, **settings))
    return str(error.value)


def gone(conn: psycopg.Connection) -> str:
    """What the end of a connection says."""
    with pytest.raises(psycopg.Error) as error:
        while True:
            conn.execute("SELECT 1")
            time.sleep(0.05)
    return str(error.value)


def acme(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "acme", **more}, {"name": "beta"}]


def users(**more: Any) -> list[dict[str, Any]]:
    return [
        {"name": "acme_app", "tenant": "acme", "password": {"value": PASSWORDS["acme_app"]}, **more},
        {"name": "beta_app", "tenant": "beta", "password": {"value": PASSWORDS["beta_app"]}},
        {"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}},
    ]


# --- suspended -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_suspended_tenant_lets_nobody_in_and_those_there_go_after_a_while(own_proxy: OwnProxy, mode: str):
    proxy = own_proxy(pool={"mode": mode}, tenants=acme())
    with proxy.connect() as conn, proxy.connect("beta_app") as other:
        conn.execute("SELECT 1")
        # the second login of a kind is compiled
        proxy.connect().close()
        proxy.reload(proxy.config | {"tenants": acme(suspended="unpaid", suspend_grace_s=1.5)})
        assert conn.execute("SELECT 1").fetchone() == (1,)
        said = refusal(proxy)
        assert 'tenant "acme" is suspended' in said
        assert "unpaid" in said
        assert 'terminating connection because tenant "acme" is suspended' in gone(conn)
        assert other.execute("SELECT 1").fetchone() == (1,)
        proxy.reload(proxy.config | {"tenants": acme()})
        proxy.connect().close()


def test_a_tenant_resumed_in_time_keeps_its_clients(own_proxy: OwnProxy):
    proxy = own_proxy(tenants=acme())
    with proxy.connect() as conn:
        proxy.reload(proxy.config | {"tenants": acme(suspended="by mistake", suspend_grace_s=1)})
        proxy.reload(proxy.config | {"tenants": acme()})
        time.sleep(1.5)
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_statement_that_runs_when_the_grace_ends_is_stopped(own_proxy: OwnProxy, superuser: Any):
    proxy = own_proxy(tenants=acme())
    with proxy.connect() as conn:
        conn.execute("SELECT 1")
        pid = conn.info.backend_pid
        proxy.reload(proxy.config | {"tenants": acme(suspended="unpaid", suspend_grace_s=0.5)})
        with pytest.raises(psycopg.OperationalError, match="suspended"):
            conn.execute("SELECT pg_sleep(30)")

        def ended() -> bool:
            row = superuser.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'", [pid]
            ).fetchone()
            return bool(row == (0,))

        wait_until(ended, "the statement was cancelled", 5)


# --- logins --------------------------------------------------------------------------


def test_a_login_expires_while_its_clients_are_there(own_proxy: OwnProxy):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=6)
    proxy = own_proxy(
        pool={"mode": "transaction"},
        users=users(expires_at=soon.isoformat()),
        tenants=acme(suspend_grace_s=0.2),
    )
    with proxy.connect() as conn:
        proxy.connect().close()
        conn.execute("SELECT 1")
        assert 'login "acme_app" has expired' in gone(conn)
    assert 'login "acme_app" has expired' in refusal(proxy)
    # only those who know the password are told
    assert "expired" not in refusal(proxy, password="wrong")


def test_a_login_that_is_taken_away_ends_its_clients(own_proxy: OwnProxy):
    proxy = own_proxy()
    with proxy.connect() as conn, proxy.connect("beta_app") as other:
        conn.execute("SELECT 1")
        proxy.reload(proxy.config | {"users": users()[1:]})
        assert 'login "acme_app" was removed' in gone(conn)
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_addresses_are_looked_at_after_the_password(own_proxy: OwnProxy):
    proxy = own_proxy(pool={"mode": "transaction"}, users=users(addresses=["10.0.0.0/8", "fd00::/8"]))
    assert 'no authentication rule for host "127.0.0.1", user "acme_app"' in refusal(proxy)
    assert "password authentication failed" in refusal(proxy, password="wrong")
    proxy.reload(proxy.config | {"users": users(addresses=["127.0.0.0/8"])})
    for _ in range(3):
        proxy.connect().close()
    proxy.reload(proxy.config | {"users": users(addresses=["local"])})
    assert "no authentication rule" in refusal(proxy)


@pytest.fixture
def readers(pg: Server) -> Iterator[None]:
    with pg.connect() as conn:
        conn.execute(
            "CREATE ROLE acme_readers; GRANT USAGE ON SCHEMA acme TO acme_readers;"
            "GRANT SELECT ON ALL TABLES IN SCHEMA acme TO acme_readers;"
            "CREATE ROLE acme_viewer LOGIN PASSWORD 'viewer' IN ROLE acme_readers"
        )
        yield
        conn.execute("DROP OWNED BY acme_readers, acme_viewer; DROP ROLE acme_viewer, acme_readers")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_login_runs_as_its_role_in_the_tenant(own_proxy: OwnProxy, readers: None, mode: str):
    viewer = {
        "name": "acme_viewer",
        "tenants": ["acme"],
        "roles": {"acme": "acme_readers"},
        "password": {"value": "viewer"},
    }
    proxy = own_proxy(pool={"mode": mode}, users=[*users(), viewer])
    with proxy.connect("acme_viewer", password="viewer") as conn, proxy.connect() as app:
        assert conn.execute("SELECT current_user, session_user").fetchone() == ("acme_readers", "acme_viewer")
        assert conn.execute("SELECT count(*) FROM orders").fetchone() == (3,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM orders")
        assert app.execute("SELECT current_user").fetchone() == ("acme_app",)
        # other rights hold for who comes now, and nobody keeps the old ones
        proxy.reload(proxy.config | {"users": [*users(), viewer | {"roles": {}}]})
        assert "has other rights now" in gone(conn)
        with proxy.connect("acme_viewer", password="viewer") as conn:
            assert conn.execute("SELECT current_user").fetchone() == ("acme_viewer",)


# --- two passwords ---------------------------------------------------------------------


@pytest.fixture
def rotating(pg: Server) -> Iterator[tuple[str, str]]:
    """Verifiers of the passwords "new" and "old", with one salt, and a login on the server for each."""
    new = build_verifier("new")
    old = build_verifier("old", salt=new.salt, iterations=new.iterations)
    with pg.connect() as conn:
        for role, verifier in (("acme_1", new), ("acme_0", old)):
            conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{verifier}' IN ROLE acme_app")
        yield str(new), str(old)
        conn.execute("DROP ROLE acme_1, acme_0")


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("method", ["scram-sha-256", "password"])
def test_both_passwords_open_while_one_replaces_the_other(
    own_proxy: OwnProxy, rotating: tuple[str, str], mode: str, method: str
):
    new, old = rotating
    assert parse_verifier(new).challenge == parse_verifier(old).challenge
    app = {
        "name": "app",
        "tenant": "acme",
        "roles": {"acme": "acme_app"},
        "verifier": {"value": new},
        "server_user": "acme_1",
        "previous": {"verifier": {"value": old}, "server_user": "acme_0"},
    }
    rules = [{"type": "host", "method": method}]
    proxy = own_proxy(pool={"mode": mode}, users=[*users(), app], auth={"rules": rules})
    for _ in range(2):  # the second time compiled code knows the packet
        for password, role in (("new", "acme_1"), ("old", "acme_0"), ("new", "acme_1")):
            with proxy.connect("app", password=password) as conn:
                assert conn.execute("SELECT session_user, current_user").fetchone() == (role, "acme_app")
    assert "password authentication failed" in refusal(proxy, "app", password="neither")
    with proxy.connect("app", password="old") as conn, proxy.connect("app", password="new") as other:
        conn.execute("SELECT 1")
        other.execute("SELECT 1")
        del app["previous"]
        proxy.reload(proxy.config | {"users": [*users(), app]})
        assert "has other rights now" in gone(conn)
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert "password authentication failed" in refusal(proxy, "app", password="old")


# --- databases ---------------------------------------------------------------------------


@pytest.fixture
def own_database(pg: Server) -> Iterator[str]:
    with pg.connect(database="postgres") as conn:
        conn.execute("CREATE DATABASE acme_own OWNER acme_app")
        with pg.connect(database="acme_own") as inside:
            inside.execute("CREATE SCHEMA acme AUTHORIZATION acme_app")
        yield "acme_own"
        conn.execute("DROP DATABASE acme_own WITH (FORCE)")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_tenant_with_a_database_of_its_own(own_proxy: OwnProxy, own_database: str, mode: str):
    proxy = own_proxy(pool={"mode": mode}, tenants=acme(database=own_database))
    with proxy.connect() as conn, proxy.connect("beta_app") as other:
        shown = conn.execute("SELECT current_database(), current_schema()").fetchone()
        assert shown == ("acme_own", "acme")
        assert other.execute("SELECT current_database()").fetchone() == ("app",)
