"""Backends that tenants share, over several workers: one budget, used whole, and fair."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import WireClient, wait_until

BACKENDS = 3


@pytest.fixture
def two_workers(own_proxy, pg: Server) -> Proxy:
    """Each tenant at home with another worker, or both with the same: the loads below do not depend on it."""
    provide(pg)
    proxy = own_proxy(pg, workers=2, **shared_config(pg, BACKENDS))
    for user in ("acme_app", "beta_app"):
        with proxy.wire(user) as client:
            shares_again(pg, client)
    return proxy


def shared_backends(proxy: Proxy) -> int:
    """Those of this proxy; others may have some on the same server."""
    return len([one for one in proxy.admin("SHOW SERVERS") if one["user"] == SERVICE["user"]])


class Load:
    """Clients of a tenant that ask without pause until they are told to stop."""

    def __init__(self, proxy: Proxy, user: str, clients: int, sql: str) -> None:
        self.done = 0
        self.failures: Counter[str] = Counter()
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._user, self._sql = user, sql
        self._threads = [
            threading.Thread(target=self._run, args=[proxy.wire(user)], daemon=True) for _ in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, client: WireClient) -> None:
        try:
            while not self._stop.is_set():
                before = time.monotonic()
                answer = client.value(self._sql)
                self.longest_s = max(self.longest_s, time.monotonic() - before)
                assert answer == self._user
                self.done += 1
        except Exception as error:
            self.failures[type(error).__name__] += 1
        finally:
            client.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


SLOW = "SELECT current_user FROM pg_sleep(0.01)"


def test_the_budget_is_never_exceeded_kept_used_and_shared(two_workers, pg):
    loads = [Load(two_workers, user, 6, SLOW) for user in ("acme_app", "beta_app")]
    most = 0
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            most = max(most, shared_backends(two_workers))
            assert most <= BACKENDS
            time.sleep(0.1)
    finally:
        for load in loads:
            load.stop()
    assert most == BACKENDS
    assert not any(load.failures for load in loads)
    acme, beta = (load.done for load in loads)
    # neither worker holds all; with three backends for two tenants one of them has more
    assert min(acme, beta) * 3 > max(acme, beta), (acme, beta)
    assert max(load.longest_s for load in loads) < 2


def test_who_comes_late_is_not_starved(two_workers, pg):
    """One tenant's flood has all backends; another's single client gets one at once all the same."""
    flood = Load(two_workers, "acme_app", 12, SLOW)
    try:
        wait_until(lambda: flood.done > 50, "the flood has begun", 10)
        with two_workers.wire("beta_app") as beta:
            waits = []
            for _ in range(20):
                before = time.monotonic()
                assert beta.value("SELECT current_user") == "beta_app"
                waits.append(time.monotonic() - before)
        assert sorted(waits)[10] < 0.2, waits
    finally:
        flood.stop()
    assert not flood.failures


@pytest.mark.parametrize("slot", [0, 1])
def test_a_killed_workers_share_is_free_again(two_workers, pg, slot):
    loads = [Load(two_workers, user, 4, SLOW) for user in ("acme_app", "beta_app")]
    victim = two_workers.worker_pids()[slot]
    wait_until(lambda: all(load.done > 10 for load in loads), "both are at work", 10)
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: victim not in two_workers.worker_pids() and two_workers.is_ready(), "it is replaced", 10
    )
    for load in loads:
        load.stop()
    again = [Load(two_workers, user, 6, SLOW) for user in ("acme_app", "beta_app")]
    try:
        wait_until(lambda: shared_backends(two_workers) == BACKENDS, "the whole budget is used again", 10)
        wait_until(lambda: all(load.done > 20 for load in again), "by both", 10)
    finally:
        for load in again:
            load.stop()
    assert not any(load.failures for load in again)
