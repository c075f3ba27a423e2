"""A shared backend that can't be made the tenant's: nothing of the client's has run, nobody else is hurt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.e2e.test_shared import SERVICE, backend_of, provide, shared_config
from tests.fix_proxy import Proxy
from tests.pg_server import Server
from tests.wire_client import WireClient, query, sqlstates, wait_until


@pytest.fixture
def shared(proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    provide(pg)
    return proxies(**shared_config(pg, 1))


@pytest.fixture
def revoked(pg: Server) -> Iterator[Callable[[], None]]:
    """Call to take acme's role from the service; it is given back in the end."""
    conn = pg.connect()

    def revoke() -> None:
        conn.execute("REVOKE acme_app FROM tenant_proxy_service")

    yield revoke
    conn.execute("GRANT acme_app TO tenant_proxy_service")
    conn.close()


def refusal(client: WireClient, sql: str) -> list[str]:
    """SQLSTATEs of what a statement brings that ends the connection."""
    client.send(query(sql))
    return sqlstates(client.until_end())


def count(server: Server) -> int:
    """Rows that a statement which must not run would have left."""
    with server.connect() as conn:
        found = conn.execute("SELECT count(*) FROM acme.scratch").fetchone()
    assert found is not None
    return found[0]


def test_a_membership_that_is_revoked(shared, pg, revoked):
    """Once while the backend is acme's already (PostgreSQL looks at SET ROLE only), then when it is not."""
    with shared.wire("acme_app") as acme, shared.wire("beta_app") as beta:
        assert acme.value("SELECT current_user") == "acme_app"
        revoked()
        assert beta.value("SELECT current_user") == "beta_app"
        assert refusal(acme, "INSERT INTO scratch VALUES (1, 'ran')") == ["08006"]
        assert count(pg) == 0
        assert beta.value("SELECT item FROM orders WHERE id = 1") == "bolt"
    with pytest.raises(psycopg.OperationalError, match="no backend could be made"):
        shared.connect("acme_app", options="-c extra_float_digits=2")


def kill_shared(server: Server) -> int:
    with server.connect() as conn:
        found = conn.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE usename = %s AND application_name <> 'tenant_proxy code'",
            [SERVICE["user"]],
        ).fetchone()
    assert found is not None
    return found[0]


def test_a_backend_that_is_killed_at_rest(shared, pg):
    with shared.wire("acme_app") as acme, shared.wire("beta_app") as beta:
        assert acme.value("SELECT 1") == "1"
        for client, name in ((acme, "acme_app"), (beta, "beta_app"), (acme, "acme_app")):
            assert kill_shared(pg) >= 1
            wait_until(lambda: not shared.admin("SHOW SERVERS"), "its end was noticed", 5)
            assert client.value("SELECT current_user") == name


def test_a_backend_that_is_killed_again_and_again(shared, pg):
    """Each statement has run as its tenant, or its client was told."""
    stop = threading.Event()

    def killer() -> None:
        while not stop.wait(0.05):
            kill_shared(pg)

    thread = threading.Thread(target=killer)
    thread.start()
    right = lost = 0
    try:
        for _ in range(60):
            for name in ("acme_app", "beta_app"):
                try:
                    with shared.connect(name) as conn:
                        row = conn.execute("SELECT current_user, current_schema()").fetchone()
                except psycopg.OperationalError:
                    lost += 1
                    continue
                assert row == (name, name.removesuffix("_app"))
                right += 1
    finally:
        stop.set()
        thread.join()
    assert right
    with shared.wire("acme_app") as acme:
        wait_until(lambda: acme.value("SELECT current_user") == "acme_app", "all is well again", 10)


def test_a_role_that_is_dropped(new_pg, own_proxy):
    server = new_pg()
    provide(server)
    with server.connect() as conn:
        conn.execute("CREATE ROLE acme_other NOLOGIN; GRANT acme_other TO tenant_proxy_service, acme_app")
        conn.execute("GRANT USAGE ON SCHEMA acme TO acme_other; GRANT SELECT ON acme.orders TO acme_other")
        config = shared_config(server)
        config["tenants"] = [{"name": "acme", "role": "acme_other"}, {"name": "beta"}]
        proxy = own_proxy(server, **config)
        with proxy.wire("acme_app") as acme, proxy.wire("beta_app") as beta:
            assert acme.value("SELECT current_user") == "acme_other"
            assert beta.value("SELECT 1") == "1"
            conn.execute("DROP OWNED BY acme_other; DROP ROLE acme_other")
            assert refusal(acme, "SELECT item FROM orders") == ["08006"]
            assert beta.value("SELECT current_user") == "beta_app"


def test_a_cancel_that_comes_with_the_switch(shared, pg):
    """It finds nothing to stop, or its own statement; the next tenant never feels it."""
    with shared.connect("acme_app") as acme, shared.wire("beta_app") as beta:
        for _ in range(40):
            acme.cancel()
            assert beta.value("SELECT current_user") == "beta_app"
            try:
                row = acme.execute("SELECT current_user").fetchone()
            except psycopg.errors.QueryCanceled:
                continue
            assert row == ("acme_app",)
        assert backend_of(beta)
