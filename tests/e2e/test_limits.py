"""Limits and time-outs of the pool."""

from __future__ import annotations

import struct
import threading
import time
from functools import partial

import pytest

from tests.fix_proxy import Proxy
from tests.wire_client import (
    FLUSH,
    SYNC,
    ConnectionEnded,
    LoginFailed,
    bind,
    close_statement,
    columns,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
    wait_until,
)


def backends(pg, user: str = "acme_app") -> int:
    with pg.connect() as conn:
        return conn.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [user]).fetchone()[0]


def final_error(client) -> dict[str, str]:
    """The FATAL error with which a connection ends."""
    replies = client.until_end()
    said = errors(replies)[-1]
    assert said["S"] == "FATAL"
    return said


def waiting(proxy: Proxy) -> int:
    return sum(int(pool["cl_waiting"]) for pool in proxy.admin("SHOW POOLS"))


def test_queue_timeout_in_transaction_mode(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 0.5})
    with proxy.wire() as holder, proxy.wire() as waiter:
        holder.query("BEGIN; SELECT 1")
        start = time.monotonic()
        waiter.send(query("SELECT 1"))
        said = final_error(waiter)
        assert said["C"] == "57P03"
        assert "acme" in said["D"]
        assert 0.4 < time.monotonic() - start < 5
        assert holder.value("SELECT 'unharmed'") == "unharmed"
        holder.query("COMMIT")


def test_who_waits_for_a_backend_keeps_nobody_from_logging_in(proxies):
    proxy = proxies(pool={"mode": "session", "max": 1}, limits={"max_logins_in_progress": 3})
    crowd = [threading.Thread(target=lambda: proxy.wire().close()) for _ in range(6)]
    with proxy.wire(), proxy.wire("admin", database="tenant_proxy") as console:

        def are_waiting(count: int) -> bool:
            said = console.query("SHOW POOLS")
            names = [column.name for column in columns(said[0])]
            return sum(int(row[names.index("cl_waiting")] or 0) for row in rows(said)) == count

        for number, one in enumerate(crowd, 1):
            one.start()
            wait_until(partial(are_waiting, number), "it is authenticated, and waits")
        with proxy.wire("beta_app") as other:
            assert other.value("SELECT 1") == "1"
    for one in crowd:
        one.join()


def test_queue_timeout_in_session_mode(proxies):
    proxy = proxies(pool={"mode": "session", "max": 1, "queue_timeout_s": 0.5})
    with proxy.wire() as holder:
        with pytest.raises((LoginFailed, ConnectionEnded)) as failed:
            with proxy.wire() as waiter:
                waiter.send(query("SELECT 1"))
                raise ConnectionEnded(waiter.until_end())
        told = failed.value.replies  # type: ignore[attr-defined]
        assert sqlstates(told)[-1] == "57P03"
        assert holder.value("SELECT 1") == "1"


def test_queue_limit(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_limit": 2, "queue_timeout_s": 20})
    with proxy.wire() as holder:
        holder.query("BEGIN; SELECT 1")
        waiters = [proxy.wire() for _ in range(2)]
        for waiter in waiters:
            waiter.send(query("SELECT 1"))
        wait_until(lambda: waiting(proxy) == 2, "two clients wait")
        with proxy.wire() as one_more:
            one_more.send(query("SELECT 1"))
            assert final_error(one_more)["C"] == "53300"
        holder.query("COMMIT")
        for waiter in waiters:
            assert rows(waiter.until_ready()) == [("1",)]
            waiter.terminate()


def test_prepared_statements_of_all_clients(proxies):
    proxy = proxies(pool={"mode": "transaction", "max_prepared_bytes": 1 << 20})
    with proxy.wire() as one, proxy.wire() as other:
        for client, name in ((one, "a"), (one, "b"), (other, "a")):
            client.ask(parse(f"SELECT '{name}{client.pid}{'x' * 300_000}'", name), SYNC)
        large = parse(f"SELECT '{'y' * 300_000}'", "b")
        (said,) = errors(other.ask(large, SYNC))
        assert said["C"] == "53200"
        assert "pool.max_prepared_bytes" in said["H"]
        assert other.value("SELECT 1") == "1"
        one.ask(close_statement("a"), SYNC)
        assert not errors(other.ask(large, SYNC))


def test_a_client_that_leaves_the_queue(proxies, superuser):
    """Its statement never runs, and its place is free."""
    superuser.execute("TRUNCATE acme.scratch")
    proxy = proxies(pool={"mode": "transaction", "max": 1})
    with proxy.wire() as holder:
        holder.query("BEGIN; SELECT 1")
        waiter = proxy.wire()
        waiter.send(query("INSERT INTO scratch VALUES (1)"))
        wait_until(lambda: waiting(proxy) == 1, "it waits")
        waiter.close()
        wait_until(lambda: waiting(proxy) == 0, "it is let go")
        holder.query("COMMIT")
        assert holder.value("SELECT count(*) FROM scratch") == "0"


def test_tenants_have_pools_of_their_own(proxies):
    """A tenant that takes all it may have leaves the other's untouched."""
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 20})
    with proxy.wire("acme_app") as greedy, proxy.wire("beta_app") as other:
        greedy.query("BEGIN; SELECT 1")
        assert other.value("SELECT item FROM orders WHERE id = 1") == "bolt"
        greedy.query("COMMIT")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_maximum_holds_over_all_workers(own_proxy, own_pg, workers):
    proxy = own_proxy(own_pg, workers=workers, pool={"mode": "transaction", "max": 3, "queue_timeout_s": 20})
    clients = [proxy.wire() for _ in range(12)]
    for number, c in enumerate(clients):
        c.send(query(f"SELECT {number}, pg_sleep(0.05)"))
    most = 0
    for c in clients:
        most = max(most, backends(own_pg))
        assert types(c.until_ready()) == "TDCZ"
        c.terminate()
    assert 1 <= most <= 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_maximum_of_the_cluster(own_proxy, own_pg, workers):
    """Both tenants together; a tenant that needs one takes it over from one that does not."""
    clusters = [
        {"name": "main", "host": own_pg.host, "port": own_pg.port, "database": "app", "max_backends": 2}
    ]
    proxy = own_proxy(
        own_pg, workers=workers, clusters=clusters, pool={"mode": "transaction", "queue_timeout_s": 20}
    )
    for _ in range(3):
        clients = [proxy.wire(user) for user in ("acme_app", "beta_app", "acme_app", "beta_app")]
        for c in clients:
            c.send(query("SELECT item FROM orders WHERE id = 1"))
        assert [rows(c.until_ready())[0][0] for c in clients] == ["anvil", "bolt", "anvil", "bolt"]
        assert backends(own_pg, "acme_app") + backends(own_pg, "beta_app") <= 2
        for c in clients:
            c.terminate()


def test_minimum(own_proxy, own_pg):
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "min": 3, "server_idle_timeout_s": 1})
    with proxy.wire() as c:
        c.value("SELECT 1")
    wait_until(lambda: backends(own_pg) == 3, "three backends are kept")


def test_idle_backends_are_closed(own_proxy, own_pg):
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "server_idle_timeout_s": 0.5})
    with proxy.wire() as c:
        c.value("SELECT 1")
        wait_until(lambda: backends(own_pg) == 0, "the idle backend is closed")
        assert c.value("SELECT 1") == "1"


def test_old_backends_are_closed_when_they_are_free(own_proxy, own_pg):
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "max": 1, "server_lifetime_s": 1})
    with proxy.wire() as c:
        c.query("BEGIN; SELECT 1")
        first = c.value("SELECT pg_backend_pid()")
        c.query("SELECT pg_sleep(1.2)")
        assert c.value("SELECT pg_backend_pid()") == first
        c.query("COMMIT")
        wait_until(lambda: c.value("SELECT pg_backend_pid()") != first, "another backend has taken over", 10)


def test_query_timeout(proxies):
    """The statement is cancelled on the server, and its client told; others go on."""
    proxy = proxies(pool={"query_timeout_s": 0.5})
    with proxy.wire() as slow, proxy.wire() as other:
        slow.send(query("SELECT pg_sleep(15)"))
        assert other.value("SELECT 1") == "1"
        said = final_error(slow)
        assert said["C"] == "57014"
        assert other.value("SELECT 1") == "1"


def test_query_timeout_ends_the_statement_on_the_server(own_proxy, own_pg):
    proxy = own_proxy(own_pg, pool={"query_timeout_s": 0.5})
    with proxy.wire() as slow, own_pg.connect() as observer:
        slow.send(query("SELECT pg_sleep(60)"))
        slow.until_end()
        sleeping = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE query ~ 'sleep' AND state = 'active' AND pid <> pg_backend_pid()"
        )
        wait_until(lambda: observer.execute(sleeping).fetchone() == (0,), "nothing sleeps on the server")


def test_idle_in_transaction_timeout(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 1, "idle_in_transaction_timeout_s": 0.5})
    with proxy.wire() as idler, proxy.wire() as other:
        idler.query("BEGIN; LOCK TABLE scratch")
        assert final_error(idler)["C"] == "25P03"
        assert other.value("SELECT count(*) FROM scratch") is not None


HALF_A_BIND = b"B" + struct.pack("!I", 5_000_000) + b"\0\0\0\0\0\1" + struct.pack("!I", 4_999_980) + b"x"
HALF_A_CALL = b"F" + struct.pack("!III", 5_000_000, 952, 0)
COPY = query("COPY scratch FROM STDIN")
MUCH = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"


@pytest.mark.parametrize(
    "sent",
    [
        parse("SELECT 1") + bind() + execute(),
        parse("SELECT $1") + HALF_A_BIND,
        HALF_A_CALL,
        COPY,
        COPY + b"d" + struct.pack("!I", 5_000_000) + b"1",
        query(MUCH),
    ],
    ids=["no Sync", "half a Bind", "half a FunctionCall", "no data", "half of the data", "not reading"],
)
def test_who_lets_its_backend_wait_is_idle_as_well(proxies, sent: bytes):
    proxy = proxies(
        pool={"mode": "transaction", "max": 1, "idle_in_transaction_timeout_s": 0.5},
        limits={"send_buffer_bytes": 65536},
    )
    with proxy.wire() as idler, proxy.wire() as other:
        idler.send(sent)
        time.sleep(0.2)
        assert other.value("SELECT 'served'") == "served"
        assert final_error(idler)["C"] == "25P03" if sent != query(MUCH) else True


def test_who_waits_for_its_backend_is_not_idle(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 1, "idle_in_transaction_timeout_s": 0.3})
    with proxy.wire() as client:
        slow = parse("SELECT pg_sleep(1)") + bind() + execute()
        assert sqlstates(client.ask(slow, SYNC)) == []
        client.send(slow + FLUSH)
        time.sleep(0.6)
        assert types(client.ask(SYNC))[-1] == "Z"
        client.send(slow + SYNC)
        time.sleep(0.1)
        client.send(parse("SELECT 1") + bind() + execute())
        time.sleep(0.1)
        assert sqlstates(client.ask(SYNC) + client.until_ready()) == []
        client.send(COPY)
        for _ in range(5):
            time.sleep(0.15)
            client.send(b"d" + struct.pack("!I", 8) + b"1\tx\n")
        client.send(b"f" + struct.pack("!I", 8) + b"end\0")
        assert sqlstates(client.until_ready()) == ["57014"]


def test_client_idle_timeout(proxies):
    proxy = proxies(pool={"client_idle_timeout_s": 0.5})
    with proxy.wire() as idler:
        assert final_error(idler)["C"] == "57P05"
    with proxy.wire() as in_transaction:
        in_transaction.query("BEGIN; SELECT 1")
        in_transaction.query("SELECT pg_sleep(0.8)")
        assert in_transaction.value("SELECT 'a statement is not idleness'")


@pytest.mark.parametrize("guard", ["enforce", "observe", "off"])
def test_session_mode_resets_a_backend_for_the_next(proxies, guard):
    """Whatever the guard knows, or does not, of what the first client did."""
    proxy = proxies(pool={"mode": "session", "max": 1}, policy={"mode": guard})
    with proxy.wire() as first:
        pid = first.value("SELECT pg_backend_pid()")
        first.query("SET my.flag = 'x'; CREATE TEMP TABLE mine (a int); LISTEN news; PREPARE p AS SELECT 1")
        first.query("SELECT pg_advisory_lock(5)")
        first.terminate()
    # each alone, as one thing that is noticed may hide another that is not
    for statement in (
        "SELECT nextval('numbers')",
        "SELECT set_config('my.flag', 'y', false)",
        "DO $$ BEGIN PERFORM set_config('my.flag', 'z', false); END $$",
        "LISTEN news",
    ):
        with proxy.wire() as first:
            assert sqlstates(first.query(statement)) == []
            first.terminate()
        with proxy.wire() as second:
            assert sqlstates(second.query("SELECT currval('numbers')")) == ["55000"], statement
            assert second.value("SELECT current_setting('my.flag', true)") in ("", None), statement
            assert second.value("SELECT count(*) FROM pg_listening_channels()") == "0", statement
            second.terminate()
    with proxy.wire() as second:
        assert second.value("SELECT pg_backend_pid()") == pid
        assert second.value("SELECT current_setting('my.flag', true)") in ("", None)
        assert sqlstates(second.query("SELECT * FROM mine")) == ["42P01"]
        assert sqlstates(second.query("EXECUTE p")) == ["26000"]
        assert second.value("SELECT count(*) FROM pg_listening_channels()") == "0"
        assert second.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0"


def test_session_mode_gives_the_next_client_its_own_settings(proxies):
    proxy = proxies(pool={"mode": "session", "max": 1})
    for zone in ("Asia/Tokyo", "Europe/Paris", None):
        settings = {"TimeZone": zone} if zone else {}
        with proxy.wire(**settings) as c:
            assert c.value("SHOW TimeZone") == (zone or "UTC")
            assert c.parameters["TimeZone"] == (zone or "UTC")
            c.query("SET TimeZone = 'America/Lima'")
            c.query("RESET TimeZone")
            assert c.value("SHOW TimeZone") == (zone or "UTC")
            c.terminate()
