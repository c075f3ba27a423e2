"""What tenants use is written into the catalog, once, whoever dies meanwhile; limits of rate and storage."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.pg_server import Server
from tests.wire_client import wait_until

OwnProxy = Callable[..., Proxy]


@pytest.fixture
def counted(pg: Server, catalog_dsn: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Sums of acme's usage over hours and proxies."""
    with psycopg.connect(catalog_dsn, autocommit=True) as conn:

        def read() -> dict[str, Any]:
            cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
            cursor.execute(
                "SELECT coalesce(sum(transactions), 0)::int AS transactions,"
                " coalesce(sum(statements), 0)::int AS statements,"
                " coalesce(sum(bytes_in), 0)::int AS bytes_in,"
                " coalesce(sum(bytes_out), 0)::int AS bytes_out,"
                " coalesce(sum(backend_us), 0)::bigint AS backend_us,"
                " coalesce(max(peak_clients), 0) AS peak_clients"
                " FROM tenant_proxy.usage WHERE tenant = 'acme'"
            )
            row = cursor.fetchone()
            assert row is not None
            return row

        yield read


def run(proxy: Proxy, statements: int) -> None:
    """So many statements in half as many transactions, with nothing prepared."""
    with proxy.connect(autocommit=False) as conn:
        conn.prepare_threshold = None
        for _ in range(statements // 4):
            # BEGIN, two statements, COMMIT
            conn.execute("SELECT 1")
            conn.execute("SELECT repeat('x', 100)")
            conn.commit()


def control_pid(proxy: Proxy) -> int:
    for pid in proxy.process_tree():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"tenant_proxy.control" in file.read():
                return pid
    raise AssertionError("there is no control process")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_usage_is_what_was_done(
    own_proxy: OwnProxy, catalog_dsn: str, counted: Callable[[], dict[str, Any]], mode: str
):
    proxy = own_proxy(pool={"mode": mode}, catalog={"dsn": {"value": catalog_dsn}, "proxy": "a"})
    run(proxy, 40)
    conns = [proxy.connect() for _ in range(3)]
    conns[0].execute("SELECT pg_sleep(0.3)")
    for conn in conns:
        conn.close()
    proxy.stop()
    used = counted()
    # of the last one's own nothing but its statement
    assert (used["transactions"], used["statements"]) == (11, 41)
    assert 3_000 < used["bytes_out"] < 10_000
    assert 500 < used["bytes_in"] < 3_000
    assert used["backend_us"] > 300_000
    assert used["peak_clients"] == 3


def test_nothing_is_lost_or_counted_twice_when_processes_are_killed(
    own_proxy: OwnProxy, catalog_dsn: str, counted: Callable[[], dict[str, Any]]
):
    """Two proxies; one's workers and control process are killed again and again while statements run."""
    proxies = [
        own_proxy(
            workers=2, pool={"mode": "transaction"}, catalog={"dsn": {"value": catalog_dsn}, "proxy": name}
        )
        for name in "ab"
    ]
    proxies[0].expects_dead_workers = True
    done = 0
    for turn in range(4):
        for proxy in proxies:
            run(proxy, 40)
            done += 40
        victims = [*proxies[0].worker_pids()] if turn % 2 else [control_pid(proxies[0])]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(proxies[0].worker_pids()) == 2 and connects(proxies[0]), "it serves again", 20)
    for proxy in proxies:
        proxy.stop()
    used = counted()
    assert used["statements"] == done
    assert used["transactions"] == done // 4


def connects(proxy: Proxy) -> bool:
    try:
        proxy.connect().close()
    except psycopg.OperationalError:
        return False
    return proxy.is_ready()


# --- statements a second -------------------------------------------------------------


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_statements_above_the_rate_wait(own_proxy: OwnProxy, mode: str):
    proxy = own_proxy(workers=2, pool={"mode": mode, "statements_per_s": 50, "statements_burst": 5})
    lasted: list[float] = []

    def client() -> None:
        with proxy.connect() as conn:
            began = time.monotonic()
            for _ in range(25):
                conn.execute("SELECT 1")
            lasted.append(time.monotonic() - began)

    threads = [threading.Thread(target=client) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    with proxy.connect("beta_app") as other:
        # nobody else waits for that
        for _ in range(60):
            other.execute("SELECT 1")
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert len(lasted) == 4
    # 100 statements, 5 of them at once
    assert 1.8 < took < 8


def test_a_statement_that_would_wait_too_long_is_refused(own_proxy: OwnProxy):
    proxy = own_proxy(
        pool={"mode": "transaction", "statements_per_s": 2, "statements_burst": 1, "queue_timeout_s": 0.7}
    )
    with proxy.connect() as conn:
        conn.execute("SELECT 1")
        conn.execute("SELECT 1")
        waits = [proxy.connect() for _ in range(3)]
        threads = [threading.Thread(target=lambda c=c: attempt(c)) for c in waits]
        outcomes.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["53400", "53400", "ok"]
        for one in waits:
            one.close()
        # the session goes on
        time.sleep(1)
        assert conn.execute("SELECT 1").fetchone() == (1,)


outcomes: list[str] = []


def attempt(conn: psycopg.Connection) -> None:
    try:
        conn.execute("SELECT 1")
        outcomes.append("ok")
    except psycopg.Error as error:
        outcomes.append(error.sqlstate or "")


# --- storage ---------------------------------------------------------------------------


@pytest.fixture
def own_server(new_pg: Callable[..., Server]) -> Server:
    server = new_pg()
    with server.connect() as conn:
        conn.execute("CREATE ROLE platform SUPERUSER LOGIN PASSWORD 'platform'")
    return server


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_tenant_over_its_storage_reads_and_deletes(own_proxy: OwnProxy, own_server: Server, mode: str):
    admin = {"user": "platform", "password": {"value": "platform"}}
    clusters = [
        {"name": "main", "host": own_server.host, "port": own_server.port, "database": "app", "admin": admin}
    ]
    tenants = [{"name": "acme", "storage_bytes": 2_000_000}, {"name": "beta"}]
    proxy = own_proxy(own_server, pool={"mode": mode}, clusters=clusters, tenants=tenants)
    with proxy.connect() as conn, proxy.connect("beta_app") as other:
        conn.prepare_threshold = 0
        conn.execute("INSERT INTO scratch SELECT n, repeat('x', 500) FROM generate_series(1, 6000) n")
        # measured anew at once, not after a minute
        os.kill(control_pid(proxy), signal.SIGKILL)

        def is_full() -> bool:
            try:
                conn.execute("CREATE TABLE more (id int)")
            except psycopg.errors.DiskFull:
                return True
            conn.execute("DROP TABLE more")
            return False

        wait_until(is_full, "it is over its storage", 20)
        for growing in (
            "INSERT INTO scratch VALUES (0, 'x')",
            "UPDATE scratch SET body = 'x' WHERE id = 1",
            "WITH new AS (INSERT INTO scratch VALUES (0, 'x') RETURNING id) SELECT * FROM new",
            "COPY scratch FROM STDIN",
            "SELECT 1 AS one INTO more",
            "CREATE TABLE more AS SELECT 1 AS one",
            "CREATE INDEX ON scratch (body)",
            "CREATE VIEW more AS SELECT 1 AS one",
        ):
            with pytest.raises(psycopg.errors.DiskFull):
                conn.execute(growing)
        assert conn.execute("SELECT count(*) FROM scratch").fetchone() == (6000,)
        conn.execute("CREATE TEMP TABLE aside AS SELECT 1 AS one")
        conn.execute("DELETE FROM scratch WHERE id = 1")
        other.execute("INSERT INTO scratch VALUES (1, 'x')")
        conn.execute("TRUNCATE scratch")
        os.kill(control_pid(proxy), signal.SIGKILL)
        wait_until(lambda: not is_full(), "it has room again", 20)
        conn.execute("INSERT INTO scratch VALUES (0, 'x')")
    assert PASSWORDS["acme_app"] not in proxy.log()
