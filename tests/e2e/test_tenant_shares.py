"""A tenant's share of the shared backends, and its limits, are all its logins' together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.fix_proxy import Proxy, base_config
from tests.fix_shared import provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import WireClient, query, rows, sqlstates, wait_until

LOGINS = [f"acme_{n}" for n in range(10)]
SECRET = "login-secret"
AtBoth = tuple[Proxy, list[psycopg.Connection[Any]]]
TURN = "SELECT current_user FROM pg_sleep(0.005)"


@pytest.fixture
def with_logins(pg: Server, own_proxy: Callable[..., Proxy]) -> Callable[..., Proxy]:
    """Call with the number of shared backends: a proxy, and a tenant with ten logins beside its first."""
    provide(pg)
    with pg.connect() as conn:
        for login in LOGINS:
            if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [login]).fetchone():
                conn.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{SECRET}' IN ROLE acme_app")
                conn.execute(f"GRANT {login} TO tenant_proxy_service")

    def make(backends: int, **changes: Any) -> Proxy:
        users = [{"name": name, "tenant": "acme", "password": {"value": SECRET}} for name in LOGINS]
        changes["users"] = [*base_config(pg)["users"], *users]
        proxy = own_proxy(pg, **shared_config(pg, backends, **changes))
        for user in ("acme_app", "beta_app"):
            with proxy.wire(user) as client:
                shares_again(pg, client)
        return proxy

    return make


def login(proxy: Proxy, user: str, **options: Any) -> WireClient:
    if user in LOGINS:
        options["password"] = SECRET
    return proxy.wire(user, **options)


class Flood:
    """Clients that ask without pause until they are told to stop."""

    def __init__(self, clients: list[tuple[str, WireClient]]) -> None:
        self.turns: Counter[str] = Counter()
        self._clients = [client for _, client in clients]
        self.failures: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=one, daemon=True) for one in clients]
        for thread in self._threads:
            thread.start()

    def _run(self, user: str, client: WireClient) -> None:
        try:
            while not self._stop.is_set():
                assert client.value(TURN) == user
                self.turns[user] += 1
        except Exception as error:
            self.failures.append(error)

    @property
    def done(self) -> int:
        return self.turns.total()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for client in self._clients:
            client.close()
        assert not self.failures


def test_ten_logins_get_no_more_than_one(with_logins):
    """Both tenants ask with twenty clients: by ten logins, and by one."""
    proxy = with_logins(4)
    acme = Flood([(name, login(proxy, name)) for name in LOGINS for _ in range(2)])
    beta = Flood([("beta_app", login(proxy, "beta_app")) for _ in range(20)])
    try:
        wait_until(lambda: acme.done > 50 and beta.done > 50, "both are at work", 30)
        before = [acme.done, beta.done]
        wait_until(lambda: acme.done + beta.done > sum(before) + 1500, "they are served", 60)
        served = [one.done - was for one, was in zip((acme, beta), before, strict=True)]
    finally:
        acme.stop()
        beta.stop()
    assert 0.75 < served[0] / served[1] < 1.33, served
    assert min(acme.turns.values()) * 2 > max(acme.turns.values()), acme.turns


def active(proxy: Proxy, tenant: str) -> int:
    return sum(int(row["shared_active"]) for row in proxy.admin("SHOW LANES") if row["tenant"] == tenant)


def waiting(proxy: Proxy, tenant: str) -> int:
    return sum(int(row["shared_waiting"]) for row in proxy.admin("SHOW LANES") if row["tenant"] == tenant)


def test_the_maximum_and_the_queue_are_all_logins_together(with_logins):
    proxy = with_logins(6, pool={"max": 2, "queue_limit": 3, "queue_timeout_s": 20, "mode": "transaction"})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(login(proxy, name)) for name in LOGINS[:6]]
        for client in clients[:2]:
            client.query("BEGIN; SELECT 1")
        for client in clients[2:5]:
            client.send(query("SELECT current_user"))
        wait_until(lambda: waiting(proxy, "acme") == 3, "one of each of three logins waits")
        assert active(proxy, "acme") == 2, "though backends are free"
        clients[5].send(query("SELECT 1"))
        assert sqlstates(clients[5].until_end()) == ["53300"]
        with login(proxy, "beta_app") as beta:
            assert beta.value("SELECT current_user") == "beta_app"
        for client in clients[:2]:
            client.query("COMMIT")
        for name, client in zip(LOGINS[2:5], clients[2:5], strict=True):
            assert rows(client.until_ready()) == [(name,)]


@pytest.fixture
def at_both(with_logins, certificates) -> Iterator[Callable[..., AtBoth]]:
    """A proxy of two workers, and a connection of the tenant's at each: by TLS clients come to any."""
    tls = {"mode": "allow", "cert": str(certificates.proxy.cert), "key": str(certificates.proxy.key)}
    with contextlib.ExitStack() as stack:

        def make(backends: int, **changes: Any) -> AtBoth:
            proxy = with_logins(backends, workers=2, listen={"tls": tls}, **changes)
            at: dict[str, list[psycopg.Connection[Any]]] = {}
            opened: list[str] = []

            def come() -> bool:
                opened.append(f"w{len(opened)}")
                dsn = proxy.dsn(sslmode="require", application_name=opened[-1])
                conn = stack.enter_context(psycopg.connect(dsn, autocommit=True))
                (row,) = [row for row in proxy.admin("SHOW CLIENTS") if row["application_name"] == opened[-1]]
                at.setdefault(str(row["worker"]), []).append(conn)
                return len(at) == 2 and min(map(len, at.values())) >= 2

            wait_until(come, "both workers have two clients", 30)
            return proxy, [conn for conns in at.values() for conn in conns[:2]]

        yield make


@pytest.mark.parametrize("reserved", [0, 1])
def test_the_maximum_holds_over_all_workers(reserved: int, at_both):
    """What is reserved is within the maximum, and who waits for that in another worker is not forgotten."""
    pool = {"max": 1, "reserved": reserved, "queue_timeout_s": 20, "mode": "transaction"}
    proxy, (first, second, third, fourth) = at_both(4, pool=pool)
    first.execute("BEGIN; SELECT 1")
    answers: list[str] = []

    def ask(conn: psycopg.Connection[Any]) -> None:
        answers.append(conn.execute("SELECT current_user").fetchall()[0][0])

    threads = [threading.Thread(target=ask, args=[conn], daemon=True) for conn in (second, third, fourth)]
    for thread in threads:
        thread.start()
    wait_until(lambda: waiting(proxy, "acme") == 3, "the others wait, at both workers")
    time.sleep(0.1)
    assert active(proxy, "acme") == 1
    first.execute("COMMIT")
    for thread in threads:
        thread.join(10)
    assert answers == ["acme_app"] * 3


def test_the_queue_is_one_over_all_workers(at_both):
    pool = {"max": 1, "queue_limit": 1, "queue_timeout_s": 20, "mode": "transaction"}
    proxy, (first, second, third, _) = at_both(4, pool=pool)
    first.execute("BEGIN; SELECT 1")
    waiter = threading.Thread(target=second.execute, args=["SELECT 1"], daemon=True)
    waiter.start()
    wait_until(lambda: waiting(proxy, "acme") == 1, "one waits")
    with pytest.raises(psycopg.errors.TooManyConnections):
        third.execute("SELECT 1")
    first.execute("COMMIT")
    waiter.join(10)
    assert first.execute("SELECT 1").fetchall() == [(1,)]


def test_what_a_tenant_has_reserved_no_other_worker_takes(with_logins):
    """Another tenant's transactions may hold all shared backends of the cluster but that."""
    tenants = [
        {"name": "acme", "pool": {"queue_timeout_s": 20}},
        {"name": "beta", "pool": {"queue_timeout_s": 20, "reserved": 1}},
    ]
    proxy = with_logins(3, workers=2, tenants=tenants)
    with login(proxy, "beta_app") as beta, contextlib.ExitStack() as stack:
        acme = [stack.enter_context(login(proxy, name)) for name in LOGINS[:3]]
        at = {str(row["tenant"]): row["worker"] for row in proxy.admin("SHOW CLIENTS") if row["tenant"]}
        assert at["acme"] != at["beta"], "each tenant has another home"
        for client in acme[:2]:
            client.query("BEGIN; SELECT 1")
        acme[2].send(query("BEGIN; SELECT 1"))
        wait_until(lambda: waiting(proxy, "acme") == 1, "the third waits")
        # workers out of budget ask each other more than once meanwhile
        time.sleep(0.5)
        assert active(proxy, "acme") == 2
        assert beta.value("SELECT current_user") == "beta_app"
        assert waiting(proxy, "acme") == 1
        acme[0].query("COMMIT")
        acme[2].until_ready()
