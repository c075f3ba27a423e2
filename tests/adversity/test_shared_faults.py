"""Shared backends over two workers, and something breaks: who is hit is told, and nothing is done twice."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import ConnectionEnded, LoginFailed, WireClient, query, sqlstates, wait_until

BACKENDS = 3
TENANTS = ("acme", "beta")
#: what those may be told whose connection or server has gone
LOST = {"57P01", "57P02", "57P03", "08006"}


class Writer:
    """A client that writes one row after the other, none of them twice, and comes back when it is ended."""

    def __init__(self, proxy: Proxy, tenant: str, ids: Iterator[int]) -> None:
        self.tenant = tenant
        self.told: set[int] = set()
        self.errors: list[str] = []
        self._proxy, self._ids = proxy, ids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError, LoginFailed):
                with self._proxy.wire(f"{self.tenant}_app") as client:
                    self._write(client)
            time.sleep(0.02)

    def _write(self, client: WireClient) -> None:
        while not self._stop.is_set():
            number = next(self._ids)
            # were it run twice, the second would be an error of its own
            client.send(query(f"INSERT INTO scratch VALUES ({number}, current_user)"))
            try:
                replies = client.until_ready()
            except ConnectionEnded as end:
                self.errors += sqlstates(end.replies)
                return
            self.errors += sqlstates(replies)
            if not sqlstates(replies):
                self.told.add(number)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def writers(proxy: Proxy, server: Server, first: int) -> Iterator[list[Writer]]:
    """Three a tenant; in the end each row that was told of is there, and nothing else was said."""
    ids = itertools.count(first)
    found = [Writer(proxy, tenant, ids) for tenant in TENANTS for _ in range(3)]
    try:
        yield found
    finally:
        for one in found:
            one.stop()
    for tenant in TENANTS:
        with server.connect() as conn:
            rows: dict[int, str] = dict(
                conn.execute(f"SELECT id, body FROM {tenant}.scratch WHERE id >= %s", [first]).fetchall()
            )
            conn.execute(f"DELETE FROM {tenant}.scratch WHERE id >= %s", [first])
        told = set().union(*(one.told for one in found if one.tenant == tenant))
        assert told <= set(rows)
        assert set(rows.values()) == {f"{tenant}_app"}
    assert {error for one in found for error in one.errors} <= LOST


def at_work(found: list[Writer], more: int = 20) -> None:
    """Every one of them writes."""
    before = [len(one.told) for one in found]
    wait_until(
        lambda: all(len(one.told) >= n + more for one, n in zip(found, before, strict=True)),
        "all are at work",
        20,
    )


def whole_budget(proxy: Proxy) -> None:
    """All backends of the budget are used again, and no more."""

    def used() -> int:
        return len([one for one in proxy.admin("SHOW SERVERS") if one["user"] == SERVICE["user"]])

    wait_until(lambda: used() == BACKENDS, "the whole budget is used", 20)
    for _ in range(10):
        # workers are asked one after the other, and a place may go from one to the other meanwhile
        assert min(used() for _ in range(3)) <= BACKENDS
        time.sleep(0.02)


@pytest.fixture
def two_workers(own_proxy, own_pg: Server) -> Proxy:
    provide(own_pg)
    quick = {"mode": "transaction", "retry_min_s": 0.05, "retry_max_s": 0.3}
    proxy = own_proxy(own_pg, workers=2, **shared_config(own_pg, BACKENDS) | {"pool": quick})
    for tenant in TENANTS:
        with proxy.wire(f"{tenant}_app") as client:
            shares_again(own_pg, client)
    return proxy


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_the_server_is_restarted(two_workers, own_pg, how):
    with writers(two_workers, own_pg, 1000) as found:
        at_work(found)
        own_pg.restart(how)
        at_work(found)
        whole_budget(two_workers)


def test_a_worker_is_killed_that_holds_the_budget(two_workers, own_pg):
    two_workers.expects_dead_workers = True
    with writers(two_workers, own_pg, 1000) as found:
        at_work(found)
        os.kill(two_workers.worker_pids()[0], signal.SIGKILL)
        at_work(found)
        whole_budget(two_workers)
