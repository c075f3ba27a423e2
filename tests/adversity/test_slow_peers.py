"""Peers that do not read, or hardly write: bounded memory, and nobody else is held up."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from tests.step_relay import Passage, StepRelay
from tests.wire_client import (
    SYNC,
    WireClient,
    bind,
    copy_data,
    execute,
    parse,
    query,
    sqlstates,
    startup,
    types,
    wait_until,
)

MB = 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_slow_reader_holds_its_server_back(own_proxy, own_pg, mode):
    """A result of a gigabyte that nobody reads costs the proxy no more than its buffers."""
    proxy = own_proxy(own_pg, pool={"mode": mode})
    (worker,) = proxy.worker_pids()
    with proxy.wire() as slow, proxy.wire() as other, own_pg.connect() as observer:
        other.query("SELECT 1")
        before = proxy.rss_bytes(worker)
        slow.send(query("SELECT repeat('x', 100000) FROM generate_series(1, 10000)"))
        stuck = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND usename = 'acme_app'"
        )
        wait_until(lambda: observer.execute(stuck).fetchone() == (1,), "the server is held back")
        assert proxy.rss_bytes(worker) - before < 16 * MB
        assert other.value("SELECT 'not held up'") == "not held up"
        # what is read in the end is whole
        replies = slow.until_ready()
        assert types(replies) == "T" + "D" * 10_000 + "CZ"
        assert proxy.rss_bytes(worker) - before < 24 * MB


@pytest.mark.slow
def test_many_slow_readers(own_proxy, own_pg):
    proxy = own_proxy(own_pg)
    (worker,) = proxy.worker_pids()
    with proxy.wire() as c:
        c.query("SELECT 1")
    before = proxy.rss_bytes(worker)
    readers = [proxy.wire() for _ in range(15)]
    for reader in readers:
        reader.send(query("SELECT repeat('x', 100000) FROM generate_series(1, 1000)"))
    with own_pg.connect() as observer:
        stuck = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND usename = 'acme_app'"
        )
        wait_until(lambda: observer.execute(stuck).fetchone() == (15,), "the servers are held back")
    assert proxy.rss_bytes(worker) - before < 15 * 2 * MB
    for reader in readers:
        reader.close()


@pytest.mark.slow
def test_a_slow_server_holds_its_client_back(own_proxy, own_pg):
    """COPY data for a server that is locked out waits at the client, not in the proxy."""
    proxy = own_proxy(own_pg)
    (worker,) = proxy.worker_pids()
    with proxy.wire() as holder, proxy.wire() as writer:
        holder.query("BEGIN; LOCK TABLE scratch")
        before = proxy.rss_bytes(worker)
        writer.sock.settimeout(2)
        writer.send(query("COPY scratch FROM STDIN"))
        sent = 0
        try:
            while sent < 300 * MB:
                writer.send(copy_data(b"x" * 100_000))
                sent += 100_000
        except TimeoutError:
            pass
        assert sent < 100 * MB
        assert proxy.rss_bytes(worker) - before < 16 * MB
        assert holder.value("SELECT 1") == "1"


def test_what_is_answered_before_the_end_reaches_the_client(own_proxy, pg):
    """The connection is reset while bytes wait for the server: that and an answer are found together."""
    relay = StepRelay(pg.host, pg.port)
    cluster = {"name": "main", "host": relay.host, "port": relay.port, "database": "app"}
    proxy = own_proxy(pg, clusters=[cluster])
    (worker,) = proxy.worker_pids()
    insert = "INSERT INTO scratch VALUES (78, 'answered')"

    def cut(passage: Passage) -> None:
        time.sleep(0.2)  # so much comes that the relay's buffers are full
        os.kill(worker, signal.SIGSTOP)
        passage.ask(insert)
        passage.cut()
        os.kill(worker, signal.SIGCONT)

    with proxy.wire() as client:
        client.query("SELECT 1")
        relay.expect(insert, cut)
        large = [parse("SELECT length($1::bytea)"), bind(bytes(32 * MB), formats=[1]), execute(), SYNC]
        sender = threading.Thread(target=try_to_send, args=[client, query(insert), *large])
        sender.start()
        replies = client.until_end()
        sender.join()
    assert types(replies) == "CZE"
    assert sqlstates(replies) == ["08006"]
    relay.close()
    with pg.connect() as conn:
        conn.execute("DELETE FROM acme.scratch WHERE id = 78")


def try_to_send(client: WireClient, *messages: bytes) -> None:
    with contextlib.suppress(OSError):
        client.send(*messages)


@pytest.mark.slow
def test_a_large_parameter_streams(own_proxy, own_pg):
    """Not gathered in memory: 200 MB pass through in pieces."""
    proxy = own_proxy(own_pg)
    (worker,) = proxy.worker_pids()
    with proxy.wire() as c:
        c.ask(parse("SELECT length($1::bytea)", "s"), SYNC)
        before, most = proxy.rss_bytes(worker), 0
        data = bytes(200 * MB)
        sender = threading.Thread(target=c.send, args=[bind(data, name="s", formats=[1]), execute(), SYNC])
        sender.start()
        while sender.is_alive():
            most = max(most, proxy.rss_bytes(worker))
            sender.join(0.01)
        assert types(c.until_ready()) == "2DCZ"
        assert most - before < 32 * MB


@pytest.mark.slow
def test_a_large_row_streams(own_proxy, own_pg):
    proxy = own_proxy(own_pg)
    (worker,) = proxy.worker_pids()
    with proxy.wire() as c:
        c.query("SELECT 1")
        before = proxy.rss_bytes(worker)
        c.send(query(f"SELECT repeat('x', {200 * MB})"))
        replies = c.until_ready()
        assert types(replies) == "TDCZ"
        assert proxy.rss_bytes(worker) - before < 32 * MB


def test_slowloris(proxies):
    """Connections that drip bytes end at login_s; others log in meanwhile."""
    proxy = proxies(timeouts={"login_s": 1.5})
    packet = startup({"user": "acme_app", "database": "app"})
    drips = [WireClient(proxy.host, proxy.port) for _ in range(20)]
    start = time.monotonic()
    for position in range(4):
        for drip in drips:
            drip.send(packet[position : position + 1])
        with proxy.wire() as c:
            assert c.value("SELECT 1") == "1"
    for drip in drips:
        drip.until_end()
        drip.close()
    assert time.monotonic() - start < 8


def test_a_client_that_drips_its_statement(each_mode):
    """Slow is allowed once it is logged in, and holds nobody up."""
    with each_mode.wire() as slow, each_mode.wire() as other:
        for byte in query("SELECT 'slow'"):
            slow.send(bytes([byte]))
            assert other.value("SELECT 1") == "1"
        assert types(slow.until_ready()) == "TDCZ"


def test_a_client_that_half_closes(each_mode):
    """shutdown(SHUT_WR) after a statement: its answer still comes, as from the server, or a clean end."""
    with each_mode.wire() as c:
        c.send(query("SELECT 'last'"))
        c.sock.shutdown(socket.SHUT_WR)
        replies = c.until_end()
        assert types(replies) in ("TDCZ", "")


def test_silent_connections_cost_little(own_proxy):
    proxy = own_proxy()
    (worker,) = proxy.worker_pids()
    with proxy.wire() as c:
        c.query("SELECT 1")
        before = proxy.rss_bytes(worker)
        silent = [WireClient(proxy.host, proxy.port) for _ in range(300)]
        assert c.value("SELECT 1") == "1"
        assert proxy.rss_bytes(worker) - before < 10 * MB
        for client in silent:
            client.close()


def test_idle_clients_in_transaction_mode_cost_little(own_proxy, own_pg):
    """Buffers go back when they are idle."""
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "max": 2})
    (worker,) = proxy.worker_pids()
    warm = [proxy.wire() for _ in range(20)]
    before = proxy.rss_bytes(worker)
    clients = [proxy.wire() for _ in range(150)]
    for c in clients:
        c.query("SELECT repeat('x', 100000)")
    assert proxy.rss_bytes(worker) - before < 150 * 24 * 1024 + 4 * MB
    for c in clients + warm:
        c.terminate()
