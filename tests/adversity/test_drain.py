"""SIGTERM drains, SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.fix_proxy import Proxy
from tests.wire_client import ConnectionEnded, LoginFailed, query, rows, sqlstates, wait_until


@pytest.fixture(params=[1, 2], ids=["1-worker", "2-workers"])
def draining(request, own_proxy):
    """A proxy in transaction mode that gives clients two seconds."""
    return own_proxy(workers=request.param, pool={"mode": "transaction"}, timeouts={"drain_s": 2})


def ended(proxy: Proxy) -> int:
    """Exit status of a proxy that was told to end."""
    status = proxy.wait()
    assert "Traceback" not in proxy.log()
    return status


def test_without_clients_it_ends_at_once(own_proxy):
    proxy = own_proxy(timeouts={"drain_s": 30})
    start = time.monotonic()
    proxy.terminate()
    assert ended(proxy) == 0
    assert time.monotonic() - start < 5


def test_a_running_statement_finishes(draining):
    with draining.wire() as c:
        c.send(query("SELECT 'finished', pg_sleep(0.8)"))
        wait_until(lambda: draining.admin("SHOW POOLS"), "the console answers")
        draining.terminate()
        assert rows(c.until("Z"))[0][0] == "finished"
        assert sqlstates(c.until_end()) in (["57P01"], [])
    assert ended(draining) == 0


def test_a_transaction_may_finish(draining):
    with draining.wire() as c:
        c.query("BEGIN; SELECT 1")
        c.query("SELECT 1")
        draining.terminate()
        assert c.value("SELECT 'still in it'") == "still in it"
        assert sqlstates(c.query("COMMIT")) == []
        assert sqlstates(c.until_end()) in (["57P01"], [])
    assert ended(draining) == 0


def test_idle_clients_are_told(draining):
    clients = [draining.wire() for _ in range(5)]
    draining.terminate()
    for c in clients:
        assert sqlstates(c.until_end()) == ["57P01"]
        c.close()
    assert ended(draining) == 0


def test_who_does_not_finish_in_time_is_told(draining):
    with draining.wire() as c:
        c.query("BEGIN; SELECT 1")
        start = time.monotonic()
        draining.terminate()
        assert sqlstates(c.until_end()) == ["57P01"]
        assert 1 < time.monotonic() - start < 8
    assert ended(draining) == 0


def test_a_statement_that_does_not_finish_in_time_is_cancelled(own_proxy, own_pg):
    proxy = own_proxy(own_pg, timeouts={"drain_s": 1})
    with proxy.wire() as c:
        c.send(query("SELECT pg_sleep(60)"))
        proxy.terminate()
        assert sqlstates(c.until_end())[-1] == "57P01"
    assert ended(proxy) == 0
    with own_pg.connect() as superuser:
        active = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'acme_app'"
        wait_until(lambda: superuser.execute(active).fetchone() == (0,), "the server is left alone")


def test_new_clients_are_refused(draining):
    with draining.wire() as c:
        c.query("BEGIN; SELECT 1")
        draining.terminate()
        wait_until(lambda: refused(draining), "nobody comes in any more", 5)
        c.query("COMMIT")
    assert ended(draining) == 0


def refused(proxy: Proxy) -> bool:
    try:
        proxy.wire().close()
    except LoginFailed as failed:
        return failed.fields["C"] in ("57P03", "57P01")
    except (ConnectionError, ConnectionEnded):
        return True
    return False


def test_session_mode_clients_may_go_on_until_the_time_is_up(own_proxy):
    proxy = own_proxy(timeouts={"drain_s": 3})
    with proxy.wire() as c:
        c.query("BEGIN; SELECT 1")
        proxy.terminate()
        assert c.value("SELECT 1") == "1"
        c.query("COMMIT")
        c.until_end()
    assert ended(proxy) == 0


def test_sigint_stops_at_once(own_proxy, own_pg):
    proxy = own_proxy(own_pg, timeouts={"drain_s": 60})
    with proxy.wire() as c:
        c.query("BEGIN; SELECT 1")
        start = time.monotonic()
        assert proxy.process is not None
        proxy.process.send_signal(signal.SIGINT)
        assert sqlstates(c.until_end()) in (["57P01"], [])
        assert ended(proxy) == 0
        assert time.monotonic() - start < 8


def test_a_second_sigterm_does_not_wait(own_proxy):
    proxy = own_proxy(timeouts={"drain_s": 60})
    with proxy.wire() as c:
        c.query("BEGIN; SELECT 1")
        start = time.monotonic()
        proxy.terminate()
        time.sleep(0.3)
        proxy.terminate()
        c.until_end()
        proxy.wait()
        assert time.monotonic() - start < 8


def test_nothing_committed_is_lost(own_proxy, own_pg):
    """Every answer that reached a client is in the database after the drain, and nothing is there twice."""
    proxy = own_proxy(own_pg, workers=2, pool={"mode": "transaction"}, timeouts={"drain_s": 3})
    answered: list[int] = []

    def work(first: int) -> None:
        with proxy.wire() as c:
            for number in range(first, first + 10_000):
                try:
                    if not sqlstates(c.query(f"INSERT INTO scratch VALUES ({number})")):
                        answered.append(number)
                    else:
                        return
                except (ConnectionEnded, OSError):
                    return

    threads = [threading.Thread(target=work, args=[n * 10_000]) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 50, "work is under way")
    proxy.terminate()
    for thread in threads:
        thread.join()
    assert ended(proxy) == 0
    with own_pg.connect() as superuser:
        stored = {row[0] for row in superuser.execute("SELECT id FROM acme.scratch")}
    assert set(answered) <= stored
    assert len(stored - set(answered)) <= 4
