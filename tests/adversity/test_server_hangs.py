"""A server that hangs: it takes connections and bytes, and answers nothing.

Who waits is told within the time-outs, nobody of another cluster notices, and what was cut off is run once at
most.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide, shares_again
from tests.pg_server import Server, frozen
from tests.wire_client import ConnectionEnded, LoginFailed, query, sqlstates, wait_until

BACKENDS = 2
TIMEOUTS = {
    "connect_timeout_s": 1,
    "queue_timeout_s": 1,
    "query_timeout_s": 1,
    "retry_min_s": 0.05,
    "retry_max_s": 0.2,
}
#: time-outs are looked at a few times a second, and the machine is busy
MARGIN_S = 3.0


@pytest.fixture(params=["dedicated", "shared"])
def two_clusters(request, own_pg, pg, own_proxy) -> Proxy:
    """acme's cluster is `own_pg`, beta's is not."""
    shared = request.param == "shared"
    clusters = []
    for name, server in (("main", own_pg), ("other", pg)):
        if shared:
            provide(server)
        cluster = {"name": name, "host": server.host, "port": server.port, "database": "app"}
        clusters.append(cluster | ({"service": SERVICE | {"max_backends": BACKENDS}} if shared else {}))
    proxy = own_proxy(
        own_pg,
        clusters=clusters,
        tenants=[{"name": "acme", "cluster": "main"}, {"name": "beta", "cluster": "other"}],
        isolation=request.param,
        pool={"mode": "transaction", "max": BACKENDS, **TIMEOUTS},
    )
    if shared:
        with proxy.wire() as acme, proxy.wire("beta_app") as beta:
            shares_again(own_pg, acme)
            shares_again(pg, beta)
    return proxy


@contextlib.contextmanager
def unharmed(proxy: Proxy) -> Iterator[None]:
    """Another cluster's client is served all the time."""
    stop = threading.Event()
    waits: list[float] = []

    def ask() -> None:
        with proxy.wire("beta_app") as client:
            while not stop.wait(0.02):
                start = time.monotonic()
                assert client.value("SELECT item FROM orders WHERE id = 1") == "bolt"
                waits.append(time.monotonic() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert len(waits) > 20
    assert max(waits) < TIMEOUTS["query_timeout_s"]


def at_once(work: list[Callable[[], tuple[list[str], float]]]) -> list[tuple[list[str], float]]:
    with ThreadPoolExecutor(len(work)) as threads:
        return [one.result() for one in [threads.submit(each) for each in work]]


def test_clients_are_told_in_time(two_clusters, own_pg):
    proxy = two_clusters
    clients = [proxy.wire() for _ in range(6)]
    for number, client in enumerate(clients):
        assert client.value(f"SELECT {number}") == str(number)
    with unharmed(proxy):
        with frozen(own_pg):
            results = at_once(
                [
                    partial(client.told_after, f"INSERT INTO scratch VALUES ({number}, 'once')")
                    for number, client in enumerate(clients)
                ]
            )
            # on a backend, in the queue, or while a backend was made theirs
            assert {code for codes, _ in results for code in codes} <= {"57014", "57P03", "08006"}
            assert all(len(codes) == 1 for codes, _ in results)
            assert max(took for _, took in results) < TIMEOUTS["query_timeout_s"] * 2 + MARGIN_S
            start = time.monotonic()
            with contextlib.suppress(LoginFailed):
                with proxy.wire() as late:
                    assert late.told_after("SELECT 1")[0] in (["57P03"], ["08006"])
            assert time.monotonic() - start < TIMEOUTS["connect_timeout_s"] * 2 + MARGIN_S
        wait_until(lambda: works(proxy), "it is served again", 10)
    with own_pg.connect() as conn:
        # a row can't be there twice; nor does one come later
        before = conn.execute("SELECT count(*) FROM acme.scratch").fetchone()
        time.sleep(0.3)
        assert conn.execute("SELECT count(*) FROM acme.scratch").fetchone() == before
        conn.execute("DELETE FROM acme.scratch")
    for client in clients:
        client.close()
    whole = [proxy.wire() for _ in range(BACKENDS)]
    for client in whole:
        assert client.query("BEGIN; SELECT 1")
        assert client.xact_status == "T"
    for client in whole:
        client.close()


def works(proxy: Proxy) -> bool:
    with contextlib.suppress(LoginFailed, ConnectionEnded, AssertionError):
        with proxy.wire() as client:
            return client.value("SELECT item FROM orders WHERE id = 1") == "anvil"
    return False


def test_nobody_is_told_of_a_short_one(two_clusters, own_pg: Server):
    with two_clusters.wire() as client:
        with frozen(own_pg):
            client.send(query("SELECT 'late'"))
            time.sleep(TIMEOUTS["query_timeout_s"] / 3)
        assert sqlstates(client.until_ready()) == []
