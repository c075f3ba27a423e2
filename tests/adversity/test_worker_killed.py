"""kill -9 of a worker takes its own clients and nobody else's."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tenant_proxy.pool.budget import ASLEEP_S
from tests.fix_proxy import Proxy
from tests.wire_client import (
    ConnectionEnded,
    LoginFailed,
    WireClient,
    query,
    send_cancel,
    sqlstates,
    startup,
    wait_until,
)


@pytest.fixture
def two_workers(own_proxy) -> Proxy:
    return own_proxy(workers=2)


def alive(client: WireClient) -> bool:
    try:
        return client.value("SELECT 1") == "1"
    except Exception:
        return False


def spread(proxy: Proxy, count: int = 16) -> list[WireClient]:
    """Clients that both workers serve."""
    return [proxy.wire("acme_app" if number % 2 else "beta_app") for number in range(count)]


def workers_back(proxy: Proxy, killed: int) -> None:
    wait_until(
        lambda: killed not in proxy.worker_pids() and len(proxy.worker_pids()) == 2 and proxy.is_ready(),
        "the worker is replaced",
    )


@pytest.mark.parametrize("slot", [0, 1])
def test_a_worker_that_is_stuck_keeps_no_one_from_logging_in(two_workers, slot):
    """Its tenants' connections go to it otherwise, and would wait there."""
    victim = two_workers.worker_pids()[slot]
    os.kill(victim, signal.SIGSTOP)
    try:
        # a connection may be the stuck one's by the kernel's choice until it is known to be stuck
        time.sleep(ASLEEP_S + 1.5)
        for user in ("acme_app", "beta_app") * 4:
            with two_workers.wire(user) as c:
                c.sock.settimeout(3)
                assert c.value("SELECT 1") == "1"
    finally:
        os.kill(victim, signal.SIGCONT)


def test_who_was_passed_to_a_worker_that_died_is_served_by_another(two_workers):
    """And does not wait for the next one, which comes after ever longer pauses where one keeps dying."""
    for slot in (0, 1) * 5:
        victim = two_workers.worker_pids()[slot]
        known = spread(two_workers, 4)
        os.kill(victim, signal.SIGSTOP)
        waiting = [WireClient(two_workers.host, two_workers.port) for _ in range(4)]
        for number, c in enumerate(waiting):
            c.send(startup({"user": ("acme_app", "beta_app")[number % 2], "database": "app"}))
        os.kill(victim, signal.SIGKILL)
        start = time.monotonic()
        for c in waiting:
            assert c.receive().type == "R"
            c.close()
        # nor does a cancel request of a client that it had
        for c in known:
            c.cancel()
            c.close()
        assert time.monotonic() - start < 0.5
        workers_back(two_workers, victim)


@pytest.mark.parametrize("slot", [0, 1])
def test_only_its_own_clients_end(two_workers, slot):
    clients = spread(two_workers)
    victim = two_workers.worker_pids()[slot]
    held = sockets_of(victim, two_workers.port)
    os.kill(victim, signal.SIGKILL)
    workers_back(two_workers, victim)
    for c in clients:
        mine = c.sock.getsockname()[1] in held
        assert alive(c) == (not mine)
        c.close()
    for user in ("acme_app", "beta_app") * 4:
        with two_workers.wire(user) as c:
            assert c.value("SELECT 1") == "1"


def sockets_of(pid: int, port: int) -> set[int]:
    """Ports of the clients whose sockets a process holds on a listening port."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    with open(f"/proc/{pid}/net/tcp") as table:
        for line in list(table)[1:]:
            parts = line.split()
            if parts[9] in inodes and int(parts[1].split(":")[1], 16) == port and parts[3] == "01":
                found.add(int(parts[2].split(":")[1], 16))
    return found


def test_its_backends_are_gone_and_its_share_of_the_pool_is_free(own_pg, own_proxy):
    proxy = own_proxy(own_pg, workers=2, pool={"mode": "transaction", "max": 3, "queue_timeout_s": 10})
    clients = [proxy.wire() for _ in range(3)]
    for c in clients:
        c.query("BEGIN; LOCK TABLE scratch IN ROW SHARE MODE")
    for victim in proxy.worker_pids():
        os.kill(victim, signal.SIGKILL)
        workers_back(proxy, victim)
    for c in clients:
        c.close()
    with own_pg.connect() as superuser:
        wait_until(
            lambda: (
                superuser.execute(
                    "SELECT count(*) FROM pg_locks WHERE relation = 'acme.scratch'::regclass"
                ).fetchone()
                == (0,)
            ),
            "transactions of the dead workers are undone",
        )
    # the whole maximum can be had again: the dead workers' counts are cleared
    again = [proxy.wire() for _ in range(3)]
    for c in again:
        c.query("BEGIN; SELECT 1")
        assert c.value("SELECT 1") == "1"
    for c in again:
        c.terminate()


def test_a_single_worker_is_restarted(own_proxy):
    proxy = own_proxy()
    (victim,) = proxy.worker_pids()
    with proxy.wire() as c:
        os.kill(victim, signal.SIGKILL)
        assert c.until_end() == []
    wait_until(
        lambda: proxy.worker_pids() not in ([], [victim]) and proxy.is_ready(), "the worker is replaced"
    )
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_connections_made_while_it_is_down_wait_in_the_queue(own_proxy):
    """The supervisor holds the listening socket, so nobody is refused."""
    proxy = own_proxy()
    (victim,) = proxy.worker_pids()
    os.kill(victim, signal.SIGKILL)
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_killed_again_and_again(two_workers):
    for _ in range(4):
        victim = two_workers.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        workers_back(two_workers, victim)
        with two_workers.wire() as c:
            assert c.value("SELECT 1") == "1"


def test_a_cancel_for_a_dead_workers_client(two_workers):
    c = two_workers.wire()
    c.send(query("SELECT pg_sleep(15)"))
    victims = two_workers.worker_pids()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
        workers_back(two_workers, victim)
    send_cancel((two_workers.host, two_workers.port), c.pid, c.secret)
    c.close()
    with two_workers.wire() as fresh:
        assert fresh.value("SELECT 1") == "1"


def test_the_control_process(own_proxy):
    """Metrics and console are away for a moment; clients notice nothing."""
    proxy = own_proxy()
    with proxy.wire() as c:
        controls = [pid for pid in proxy.process_tree() if "tenant_proxy.control" in command(pid)]
        assert len(controls) == 1
        os.kill(controls[0], signal.SIGKILL)
        assert c.value("SELECT 1") == "1"
        wait_until(proxy.is_ready, "the endpoint is back")
        assert c.value("SELECT 1") == "1"


def command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ")
    except FileNotFoundError:
        return ""


def test_the_supervisor(own_proxy):
    """Its children notice and end by themselves: no orphan goes on serving an old configuration."""
    proxy = own_proxy(workers=2)
    tree = proxy.process_tree()
    with proxy.wire() as c:
        os.kill(tree[0], signal.SIGKILL)
        assert sqlstates(c.until_end()) in ([], ["57P01"])
    proxy.kill()
    wait_until(lambda: not any(command(pid) for pid in tree), "no process is left")
    # a process that is ending has given up its command line before its sockets
    with pytest.raises((ConnectionError, ConnectionEnded, LoginFailed)):
        proxy.wire()
