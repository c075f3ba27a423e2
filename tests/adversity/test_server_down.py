"""The database server restarts, is down at start, refuses, or does not answer."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fix_proxy import Proxy
from tests.pg_server import free_port
from tests.wire_client import (
    ConnectionEnded,
    LoginFailed,
    Message,
    errors,
    query,
    sqlstates,
    wait_until,
)

QUICK = {"retry_min_s": 0.05, "retry_max_s": 0.3, "connect_timeout_s": 2, "down_grace_s": 0}


def failure(proxy: Proxy) -> dict[str, str]:
    """What a client is told, at login or at its first statement."""
    replies: list[Message]
    try:
        with proxy.wire() as c:
            c.send(query("SELECT 1"))
            replies = c.until_end()
    except LoginFailed as failed:
        replies = failed.replies
    except ConnectionEnded as ended:
        replies = ended.replies
    said = errors(replies)
    assert len(said) == 1, replies
    assert said[0]["S"] == "FATAL"
    return said[0]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_down_at_start(own_pg, own_proxy, mode):
    """The proxy starts all the same, tells clients what is wrong, and works when the server is there."""
    own_pg.stop()
    proxy = own_proxy(own_pg, pool={"mode": mode, **QUICK})
    said = failure(proxy)
    assert said["C"] in ("08006", "57P03")
    assert "main" in said["M"] + said.get("D", "")
    assert said["H"]
    own_pg.start()
    wait_until(lambda: works(proxy), "the proxy has found the server")


def works(proxy: Proxy) -> bool:
    with contextlib.suppress(LoginFailed, ConnectionEnded, AssertionError):
        with proxy.wire() as c:
            return c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
    return False


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_clients_may_wait_for_it(own_pg, own_proxy, mode):
    own_pg.stop()
    proxy = own_proxy(own_pg, pool={"mode": mode, "when_down": "wait", "queue_timeout_s": 20, **QUICK})
    answers: list[str | None] = []

    def ask() -> None:
        with proxy.wire() as c:
            answers.append(c.value("SELECT 'waited'"))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert answers == []
    own_pg.start()
    for thread in threads:
        thread.join()
    assert answers == ["waited"] * 3


def test_waiting_ends(own_pg, own_proxy):
    own_pg.stop()
    proxy = own_proxy(own_pg, pool={"when_down": "wait", "queue_timeout_s": 0.7, **QUICK})
    start = time.monotonic()
    assert failure(proxy)["C"] in ("57P03", "08006")
    assert 0.5 < time.monotonic() - start < 6


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_restart(own_pg, own_proxy, how):
    """Idle clients of transaction mode stay; those in a transaction are told by the server itself."""
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "when_down": "wait", **QUICK})
    with proxy.wire() as idle, proxy.wire() as busy:
        idle.query("SET my.flag = 'kept'")
        busy.query("BEGIN; SELECT 1")
        own_pg.restart(how)
        (error,) = errors(busy.until_end())
        assert error["S"] == "FATAL"
        assert error["C"] in ("57P01", "57P02", "08006")
        assert idle.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert idle.value("SHOW my.flag") == "kept"


def test_restart_in_session_mode(own_pg, own_proxy):
    proxy = own_proxy(own_pg, pool=QUICK)
    with proxy.wire() as c:
        own_pg.restart()
        assert sqlstates(c.until_end()) == ["57P01"]
    wait_until(lambda: works(proxy), "the proxy works again")


def test_crash(own_pg, own_proxy):
    proxy = own_proxy(own_pg, pool={"mode": "transaction", **QUICK})
    with proxy.wire() as idle, proxy.wire() as busy:
        busy.query("BEGIN; SELECT 1")
        busy.send(query("SELECT pg_sleep(30)"))
        own_pg.kill()
        said = errors(busy.until_end())
        assert len(said) == 1
        assert said[0]["S"] == "FATAL"
        own_pg.start()
        wait_until(lambda: works(proxy), "the proxy works again")
        assert idle.value("SELECT 1") == "1"


def test_too_many_connections_on_the_server(new_pg, own_proxy):
    """The server's own 53300 is not held for a server that is down; clients wait or are told."""
    server = new_pg(settings={"max_connections": "12", "superuser_reserved_connections": "3"})
    proxy = own_proxy(server, pool={"max": 50, "queue_timeout_s": 1, **QUICK})
    held = []
    said: dict[str, str] = {}
    for _ in range(14):
        try:
            held.append(proxy.wire())
        except LoginFailed as failed:
            said = failed.fields
            break
    assert said["S"] == "FATAL"
    assert said["C"] in ("53300", "08006", "57P03")
    for c in held:
        assert c.value("SELECT 1") == "1"
        c.terminate()
    wait_until(lambda: works(proxy), "places are free again")


def test_a_server_that_accepts_and_says_nothing(own_pg, own_proxy):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        clusters = [
            {"name": "main", "host": "127.0.0.1", "port": port, "database": "app", "tls": {"mode": "disable"}}
        ]
        proxy = own_proxy(own_pg, clusters=clusters, pool={**QUICK, "connect_timeout_s": 0.7})
        start = time.monotonic()
        assert failure(proxy)["C"] in ("08006", "57P03")
        assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    "speech",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"E\0\0\0\x05\0",
        b"R\0\0\0\x02",
        b"R\xff\xff\xff\xff\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05Q",
        b"R\0\0\0\x0c\0\0\0\x05",
        b"\0" * 64,
        b"",
    ],
)
def test_a_server_that_speaks_nonsense(own_pg, own_proxy, speech):
    """The client gets a clear error, the proxy goes on."""
    with socket.create_server(("127.0.0.1", 0)) as liar:
        port = liar.getsockname()[1]

        def lie() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = liar.accept()
                    with conn, contextlib.suppress(OSError):
                        conn.recv(4096)
                        conn.sendall(speech)

        threading.Thread(target=lie, daemon=True).start()
        clusters = [
            {
                "name": "main",
                "host": "127.0.0.1",
                "port": port,
                "database": "app",
                "tls": {"mode": "disable"},
            },
            {"name": "well", "host": own_pg.host, "port": own_pg.port, "database": "app"},
        ]
        tenants = [{"name": "acme", "cluster": "main"}, {"name": "beta", "cluster": "well"}]
        proxy = own_proxy(own_pg, clusters=clusters, tenants=tenants, pool=QUICK)
        assert failure(proxy)["C"] == "08006"
        with proxy.wire("beta_app") as c:
            assert c.value("SELECT item FROM orders WHERE id = 1") == "bolt"
        # else shutdown would not wake the accept
        liar.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def hanging_up() -> Iterator[tuple[int, list[object]]]:
    """A port at which connections are closed at once, and from where they came."""
    port = free_port()
    attempts: list[object] = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, address = server.accept()
                    attempts.append(address)
                    conn.close()

        threading.Thread(target=accept, daemon=True).start()
        yield port, attempts
        # else closing would not wake the accept
        server.shutdown(socket.SHUT_RDWR)


def test_no_stampede(own_pg, own_proxy):
    """While the server is down, many clients make few connection attempts."""
    with hanging_up() as (port, attempts):
        clusters = [{"name": "main", "host": "127.0.0.1", "port": port, "database": "app"}]
        proxy = own_proxy(own_pg, clusters=clusters, pool={"retry_min_s": 0.5, "retry_max_s": 1})
        for _ in range(30):
            assert failure(proxy)["C"] == "08006"
    assert len(attempts) < 20


def test_another_clusters_tenants_are_unharmed(own_pg, own_proxy):
    clusters = [
        {"name": "down", "host": "127.0.0.1", "port": free_port(), "database": "app"},
        {"name": "well", "host": own_pg.host, "port": own_pg.port, "database": "app"},
    ]
    tenants = [{"name": "acme", "cluster": "down"}, {"name": "beta", "cluster": "well"}]
    proxy = own_proxy(own_pg, clusters=clusters, tenants=tenants, pool=QUICK)
    for _ in range(3):
        assert failure(proxy)["C"] == "08006"
        with proxy.wire("beta_app") as c:
            assert c.value("SELECT item FROM orders WHERE id = 1") == "bolt"


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_restart_goes_unnoticed_by_who_has_nothing_running(own_pg, own_proxy, mode):
    """With the defaults: a client that asks meanwhile waits for the server to be back."""
    proxy = own_proxy(own_pg, pool={"mode": mode})
    assert works(proxy)
    with proxy.wire() as idle:
        if mode == "transaction":
            assert idle.value("SELECT 1") == "1"
        own_pg.stop()
        answers: list[str | None] = []

        def ask() -> None:
            if mode == "transaction":
                answers.append(idle.value("SELECT item FROM orders WHERE id = 1"))
            else:
                with proxy.wire("beta_app") as c:
                    answers.append(c.value("SELECT item FROM orders WHERE id = 1"))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.5)
        assert answers == []
        own_pg.start()
        thread.join(20)
        assert answers == ["anvil" if mode == "transaction" else "bolt"]


def test_what_is_down_for_longer_is_told(own_pg, own_proxy):
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "down_grace_s": 0.5})
    assert works(proxy)
    own_pg.stop()
    assert failure(proxy)["C"] == "08006"
    own_pg.start()
    wait_until(lambda: works(proxy), "the proxy has found the server")


def test_many_openings_that_fail_at_once_are_one_failure(own_pg, own_proxy):
    """Else a restart under load would be followed by the longest pause, and be an outage of its length."""
    proxy = own_proxy(own_pg, pool={"mode": "transaction", "max": 8, "down_grace_s": 0})
    assert works(proxy)
    own_pg.stop()

    def ask() -> None:
        with contextlib.suppress(LoginFailed, ConnectionEnded, AssertionError):
            with proxy.wire() as c:
                c.value("SELECT 1")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    own_pg.start()
    pauses = [float(said) for said in re.findall(r'retry_s"?[=:] *([\d.]+)', proxy.log())]
    assert pauses
    assert max(pauses) < 1.3
    wait_until(lambda: works(proxy), "the proxy has found the server")


def test_one_tries_for_all_tenants(own_pg, own_proxy):
    """A server that is down is down for every pool."""
    with hanging_up() as (port, attempts):
        clusters = [{"name": "main", "host": "127.0.0.1", "port": port, "database": "app"}]
        proxy = own_proxy(own_pg, clusters=clusters, pool={"retry_min_s": 30, "retry_max_s": 30})
        began = time.monotonic()
        for user in ("acme_app", "beta_app") * 3:
            with pytest.raises((LoginFailed, ConnectionEnded)):
                with proxy.wire(user) as c:
                    c.value("SELECT 1")
        took = time.monotonic() - began
    assert len(attempts) <= 2 + took / 0.75


@contextlib.contextmanager
def ending_logins_of(user: bytes, server: tuple[str, int]) -> Iterator[int]:
    """A port that leads to a server, which ends a user's logins once it has asked for the password."""

    def pump(source: socket.socket, sink: socket.socket, most: int) -> None:
        with contextlib.suppress(OSError):
            while most and (data := source.recv(65536)):
                sink.sendall(data)
                most -= 1
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(server) as there, contextlib.suppress(OSError):
            first = client.recv(65536)
            there.sendall(first)
            ways = [(client, there, -1), (there, client, 1 if user in first else -1)]
            threads = [threading.Thread(target=pump, args=way) for way in ways]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_logins_that_end_half_way_are_their_own_tenants_trouble(own_pg, own_proxy):
    """A tenant can have its backends end while they log in; for others the server is there."""
    with ending_logins_of(b"acme_app", (own_pg.host, own_pg.port)) as port:
        cluster = {"name": "main", "host": "127.0.0.1", "port": port, "database": "app"}
        clusters = [{**cluster, "tls": {"mode": "disable"}}]
        pool = {"retry_min_s": 1, "retry_max_s": 1, "mode": "session"}
        proxy = own_proxy(own_pg, clusters=clusters, pool=pool)
        ended = threading.Event()

        def hammer() -> None:
            while not ended.is_set():
                with contextlib.suppress(LoginFailed, ConnectionEnded), proxy.wire() as c:
                    c.value("SELECT 1")

        threads = [threading.Thread(target=hammer) for _ in range(2)]
        for thread in threads:
            thread.start()
        slowest, beta = 0.0, []
        for _ in range(12):
            time.sleep(0.2)
            start = time.monotonic()
            beta.append(proxy.wire("beta_app"))
            assert beta[-1].value("SELECT 1") == "1"
            slowest = max(slowest, time.monotonic() - start)
        ended.set()
        for client in beta:
            client.close()
        for thread in threads:
            thread.join()
        assert slowest < 0.4
