"""/metrics, /healthz and /readyz."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import pytest

from tests.wire_client import LoginFailed, query, wait_until


def test_health(proxy):
    assert proxy.get("/healthz")[0] == 200
    assert proxy.get("/readyz")[0] == 200
    assert proxy.get("/nothing_such")[0] == 404


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_of_all_workers(own_proxy, workers):
    """One endpoint sums them, whoever of the workers served."""
    proxy = own_proxy(workers=workers)
    for _ in range(10):
        with proxy.wire() as c:
            c.query("SELECT 1")
            c.query("BEGIN; SELECT 2; COMMIT")
            c.query("SELECT 1/0")
            c.terminate()
    with proxy.wire("beta_app") as c:
        c.query("SELECT 1")
    assert proxy.metric("tenant_proxy_queries_total", tenant="acme") == 30
    assert proxy.metric("tenant_proxy_transactions_total", tenant="acme") == 30
    assert proxy.metric("tenant_proxy_queries_total", tenant="beta") == 1
    assert proxy.metric("tenant_proxy_logins_total") >= 11
    assert proxy.metric("tenant_proxy_errors_total", tenant="acme", sqlstate_class="22") == 10
    assert proxy.metric("tenant_proxy_query_seconds_count", tenant="acme") == 30
    assert proxy.metric("tenant_proxy_received_bytes_total", tenant="acme") > 300
    assert proxy.metric("tenant_proxy_sent_bytes_total", tenant="acme") > 300


def test_what_is_there_now(own_proxy):
    proxy = own_proxy(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 20})
    holder, waiter = proxy.wire(), proxy.wire()
    holder.query("BEGIN; SELECT 1")
    waiter.send(query("SELECT 1"))
    wait_until(lambda: proxy.metric("tenant_proxy_clients_waiting", tenant="acme") == 1, "one waits")
    assert proxy.metric("tenant_proxy_clients", tenant="acme") == 2
    assert proxy.metric("tenant_proxy_servers", tenant="acme", state="active") == 1
    holder.query("COMMIT")
    waiter.until_ready()
    assert proxy.metric("tenant_proxy_wait_seconds_count", tenant="acme") >= 1
    for c in (holder, waiter):
        c.terminate()
    wait_until(lambda: proxy.metric("tenant_proxy_clients", tenant="acme") == 0, "both are gone")


def test_guard_and_logins(own_proxy):
    proxy = own_proxy()
    with proxy.wire() as c:
        c.query("SELECT * FROM beta.orders")
        c.query("SET ROLE beta_app")
    with pytest.raises(LoginFailed):
        proxy.wire(password="wrong")
    assert proxy.metric("tenant_proxy_guard_verdicts_total", tenant="acme") == 2
    reasons = {dict(labels)["reason"] for labels in proxy.metrics()["tenant_proxy_guard_verdicts_total"]}
    assert len(reasons) == 2
    assert proxy.metric("tenant_proxy_login_failures_total") == 1


def test_cancels(own_proxy):
    proxy = own_proxy()
    with proxy.wire() as c:
        c.cancel()
        assert proxy.metric("tenant_proxy_cancels_total") >= 1


def test_tenants_with_series_of_their_own_are_bounded(own_proxy):
    proxy = own_proxy(metrics={"max_tenants": 1})
    for user in ("acme_app", "acme_app", "beta_app"):
        with proxy.wire(user) as c:
            c.query("SELECT 1")
    series = proxy.metrics()["tenant_proxy_queries_total"]
    assert len(series) <= 2
    assert sum(series.values()) == 3


def test_strange_names_do_not_break_the_format(own_proxy):
    """What a stranger sends never becomes a label."""
    proxy = own_proxy()
    for user in ('a"b', "a\nb", "a\\b", "żółć"):
        with pytest.raises(LoginFailed):
            proxy.wire(user, password="x")
    assert "tenant_proxy_login_failures_total" in proxy.metrics()
    assert "żółć" not in proxy.get("/metrics")[1]


def test_restarts_are_counted(own_proxy):
    proxy = own_proxy(workers=2)
    first, second = proxy.worker_pids()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: proxy.metric("tenant_proxy_worker_restarts_total") == 1, "the restart is counted")
    wait_until(lambda: len(proxy.worker_pids()) == 2, "two workers again")
    assert second in proxy.worker_pids()


def test_connections_that_ask_for_nothing_keep_nobody_out(own_proxy):
    proxy = own_proxy()
    with contextlib.ExitStack() as stack:
        for number in range(150):
            sock = stack.enter_context(socket.create_connection((proxy.host, proxy.metrics_port)))
            sock.sendall(b"GET /readyz HTTP/1.1\r\nX: "[: number % 20])
        wait_until(proxy.is_ready, "others are answered again", 6)
        # who asks meanwhile is not taken for one of them
        for _ in range(3):
            assert proxy.get("/metrics")[0] == 200
            time.sleep(0.5)
