"""A backend ends, by whatever cause: who notices, and what they are told."""

from __future__ import annotations

import os
import signal

import pytest

from tests.wire_client import (
    SYNC,
    LoginFailed,
    bind,
    copy_data,
    errors,
    execute,
    fields,
    parse,
    query,
    rows,
    sqlstates,
    wait_until,
)

TERMINATE_ALL = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename IN ('acme_app', 'beta_app')"
)
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('acme_app', 'beta_app')"


def terminate(superuser, pid) -> None:
    superuser.execute("SELECT pg_terminate_backend(%s, 5000)", [int(pid)])


def test_idle_in_the_pool(tx_proxy, superuser):
    """Killed behind the proxy's back while no client has it: nobody is told."""
    with tx_proxy.wire() as c:
        for _ in range(5):
            pid = c.value("SELECT pg_backend_pid()")
            terminate(superuser, pid)
            assert c.value("SELECT pg_backend_pid()") != pid


def test_all_that_are_idle_at_once(proxies, superuser):
    proxy = proxies(pool={"mode": "transaction", "max": 4})
    clients = [proxy.wire() for _ in range(4)]
    for c in clients:
        c.query("BEGIN; SELECT 1")
    for c in clients:
        c.query("COMMIT")
    superuser.execute(TERMINATE_ALL)
    for c in clients:
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        c.terminate()


def test_statements_sent_the_moment_the_backend_dies(tx_proxy, superuser):
    """The proxy notices in time, or the client is told; never a hang, never a repetition."""
    superuser.execute("TRUNCATE acme.scratch")
    lost = 0
    for number in range(20):
        with tx_proxy.wire() as c:
            pid = c.value("SELECT pg_backend_pid()")
            superuser.execute("SELECT pg_terminate_backend(%s)", [int(pid or 0)])
            c.send(query(f"INSERT INTO scratch VALUES ({number})"))
            try:
                replies = c.until("ZE")
                lost += bool(sqlstates(replies))
            except Exception:
                lost += 1
    (count,) = superuser.execute("SELECT count(*) FROM acme.scratch").fetchone()
    assert count + lost >= 20
    assert count <= 20
    superuser.execute("TRUNCATE acme.scratch")


def test_prepared_statements_survive_their_backend(tx_proxy, superuser):
    with tx_proxy.wire() as c:
        c.ask(parse("SELECT 'made again'", "s"), SYNC)
        terminate(superuser, c.value("SELECT pg_backend_pid()"))
        assert rows(c.ask(bind(name="s"), execute(), SYNC)) == [("made again",)]


def test_settings_survive_their_backend(tx_proxy, superuser):
    with tx_proxy.wire(TimeZone="Asia/Tokyo") as c:
        c.query("SET my.flag = 'mine'")
        terminate(superuser, c.value("SELECT pg_backend_pid()"))
        assert c.value("SHOW my.flag") == "mine"
        assert c.value("SHOW TimeZone") == "Asia/Tokyo"


def test_during_a_statement(each_mode, superuser):
    """The backend's own FATAL reaches the client, then the connection ends."""
    with each_mode.wire() as c:
        pid = c.value("SELECT pg_backend_pid()")
        c.query("BEGIN; SELECT 1")
        pid = c.value("SELECT pg_backend_pid()")
        c.send(query("SELECT pg_sleep(15)"))
        wait_until(lambda: active(superuser, pid), "the statement runs")
        terminate(superuser, pid)
        (error,) = errors(c.until_end())
        assert (error["S"], error["C"]) == ("FATAL", "57P01")
        assert error["M"] == "terminating connection due to administrator command"
        # the server's own, not one like it
        assert error["R"] == "ProcessInterrupts"


def active(superuser, pid) -> bool:
    return superuser.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [int(pid)]).fetchone() == (
        "active",
    )


def test_in_a_transaction(each_mode, superuser):
    with each_mode.wire() as c:
        c.query("BEGIN; SELECT 1")
        terminate(superuser, c.value("SELECT pg_backend_pid()"))
        (error,) = errors(c.until_end())
        assert (error["S"], error["C"]) == ("FATAL", "57P01")
    with each_mode.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_in_session_mode_while_idle(proxy, superuser):
    """The session is the backend's: it ends as it would directly."""
    with proxy.wire() as c:
        terminate(superuser, c.pid)
        (error,) = errors(c.until_end())
        assert (error["S"], error["C"]) == ("FATAL", "57P01")


def test_during_copy_in(each_mode, superuser):
    with each_mode.wire() as c:
        c.query("BEGIN; SELECT 1")
        pid = c.value("SELECT pg_backend_pid()")
        c.send(query("COPY scratch FROM STDIN"), copy_data(b"1\tone\n"))
        c.until("G")
        terminate(superuser, pid)
        c.send(copy_data(b"2\ttwo\n"))
        said = [fields(m) for m in c.until_end() if m.type == "E"]
        assert said
        assert said[-1]["S"] == "FATAL"


def test_during_a_large_result(each_mode, superuser):
    with each_mode.wire() as c:
        c.query("BEGIN; SELECT 1")
        pid = c.value("SELECT pg_backend_pid()")
        # slower than we read: a server that is ended while it waits to send says nothing more
        c.send(query("SELECT repeat('x', 1000), pg_sleep(0.001) FROM generate_series(1, 10000000)"))
        c.until("D")
        superuser.execute("SELECT pg_terminate_backend(%s)", [int(pid or 0)])
        replies = c.until_end()
        assert errors(replies)[-1]["C"] == "57P01"


def test_in_a_pipeline(each_mode, superuser):
    """What was answered is answered; the rest gets the error, and nothing runs twice."""
    superuser.execute("TRUNCATE acme.scratch")
    with each_mode.wire() as c:
        c.query("BEGIN; SELECT 1")
        pid = c.value("SELECT pg_backend_pid()")
        c.send(
            parse("SELECT pg_sleep(15)"), bind(), execute(), SYNC,
            parse("INSERT INTO scratch VALUES (1)"), bind(), execute(), SYNC,
            query("COMMIT"),
        )  # fmt: skip
        wait_until(lambda: active(superuser, pid), "the first statement runs")
        terminate(superuser, pid)
        assert sqlstates(c.until_end()) == ["57P01"]
    assert superuser.execute("SELECT count(*) FROM acme.scratch").fetchone() == (0,)


def test_while_pinned(proxies, superuser):
    """What the session had on its backend is lost, so the client must be told."""
    proxy = proxies(pool={"mode": "transaction", "max": 2})
    with proxy.wire() as c:
        c.query("CREATE TEMP TABLE mine (a int)")
        terminate(superuser, c.value("SELECT pg_backend_pid()"))
        assert sqlstates(c.until_end()) == ["57P01"]


def test_a_crash_of_one_backend_restarts_the_server(own_pg, own_proxy):
    """kill -9 of a backend makes PostgreSQL end all others, and recover; then all is well again."""
    proxy = own_proxy(
        own_pg, pool={"mode": "transaction", "when_down": "wait", "retry_min_s": 0.05, "retry_max_s": 0.2}
    )
    with proxy.wire() as c, proxy.wire() as busy:
        busy.query("BEGIN; SELECT 1")
        os.kill(int(busy.value("SELECT pg_backend_pid()") or 0), signal.SIGKILL)
        said = errors(busy.until_end())
        assert [error["S"] for error in said] == ["FATAL"]
        assert said[0]["C"] in ("57P02", "08006")

        def again() -> bool:
            try:
                with proxy.wire() as fresh:
                    return fresh.value("SELECT 1") == "1"
            except (LoginFailed, AssertionError):
                return False

        wait_until(again, "the server has recovered")
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_the_pool_refills(own_pg, own_proxy, mode):
    """Backends that died are not counted as if they were there."""
    proxy = own_proxy(own_pg, pool={"mode": mode, "max": 2, "queue_timeout_s": 5})
    with own_pg.connect() as superuser:
        for _ in range(5):
            for _ in range(2):
                with proxy.wire() as c:
                    c.query("BEGIN; SELECT 1")
                    terminate(superuser, c.value("SELECT pg_backend_pid()"))
                    c.until_end()
        clients = [proxy.wire(), proxy.wire()]
        for c in clients:
            c.query("BEGIN; SELECT 1")
            assert c.value("SELECT 1") == "1"
            c.terminate()
        wait_until(lambda: superuser.execute(COUNT).fetchone()[0] <= 2, "no more backends than may be")
