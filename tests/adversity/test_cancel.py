"""A CancelRequest hits its own statement and nothing else, whoever of the workers gets it."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.wire_client import (
    CANCEL_CODE,
    SYNC,
    V3_2,
    WireClient,
    bind,
    copy_data,
    execute,
    parse,
    query,
    rows,
    send_cancel,
    special_request,
    sqlstates,
    types,
    wait_until,
)

SLEEP = "SELECT pg_sleep(15)"


def sleeping(superuser, count: int = 1) -> None:
    """Waits until so many statements sleep on the server."""
    wait_until(lambda: sleepers(superuser) == count, f"{count} statements sleep")


def sleepers(superuser) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename <> 'postgres'"
    return superuser.execute(sql).fetchone()[0]


@pytest.mark.parametrize("version", [None, V3_2], ids=["3.0", "3.2"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_running_statement(proxies, superuser, workers, mode, version):
    """Over several turns, so that the request lands on the other worker too."""
    proxy = proxies(workers=workers, pool={"mode": mode})
    with proxy.wire(**({"version": version} if version else {})) as c:
        for _ in range(4):
            c.send(query(SLEEP))
            sleeping(superuser)
            c.cancel()
            replies = c.until_ready()
            assert sqlstates(replies) == ["57014"]
            assert c.value("SELECT 1") == "1"


def test_only_its_own_statement(proxies, superuser):
    proxy = proxies(workers=2, pool={"mode": "transaction"})
    victim, bystander = proxy.wire(), proxy.wire()
    with victim, bystander:
        bystander.send(query("SELECT 'finished', pg_sleep(1)"))
        victim.send(query(SLEEP))
        sleeping(superuser, 2)
        victim.cancel()
        assert sqlstates(victim.until_ready()) == ["57014"]
        assert rows(bystander.until_ready())[0][0] == "finished"


def test_in_a_transaction(each_mode, superuser):
    with each_mode.wire() as c:
        c.query("BEGIN; SELECT 1")
        c.send(query(SLEEP))
        sleeping(superuser)
        c.cancel()
        assert sqlstates(c.until_ready()) == ["57014"]
        assert c.xact_status == "E"
        c.query("ROLLBACK")


def test_in_a_batch(each_mode, superuser):
    with each_mode.wire() as c:
        c.send(parse(SLEEP), bind(), execute(), parse("SELECT 1"), bind(), execute(), SYNC, query("SELECT 2"))
        sleeping(superuser)
        c.cancel()
        assert types(c.until_ready(2)) == "12EZTDCZ"


def test_during_copy(each_mode, superuser):
    with each_mode.wire() as c:
        c.send(query("COPY scratch FROM STDIN"), copy_data(b"1\tone\n"))
        c.until("G")
        c.cancel()
        # the server notices when more comes
        c.send(copy_data(b"2\ttwo\n"))
        replies = c.until_ready()
        assert sqlstates(replies) == ["57014"]


def test_while_idle_it_does_nothing(each_mode):
    """Not even to the client's next statement (invariant 9)."""
    with each_mode.wire() as c:
        for number in range(20):
            c.cancel()
            assert c.value(f"SELECT {number}") == str(number)


def test_a_late_request_does_not_hit_the_clients_own_next_statement(each_mode):
    """When its connection is closed a request has been carried out: libpq and drivers rely on that."""
    dice = random.Random(7)
    with each_mode.wire() as c:
        for _ in range(150):
            c.send(query(f"SELECT pg_sleep({dice.random() * 0.002})"))
            time.sleep(dice.random() * 0.003)
            c.cancel()
            c.until_ready()
            assert sqlstates(c.query("SELECT pg_sleep(0.001)")) == []


def test_of_a_client_that_waits_in_the_queue(proxies, superuser):
    """There is nothing to forward: the statement must not run, or must be cancelled when it does."""
    proxy = proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 20})
    with proxy.wire() as holder, proxy.wire() as waiter:
        holder.query("BEGIN; SELECT 1")
        waiter.send(query("SELECT 'ran'"))
        wait_until(lambda: any(int(p["cl_waiting"]) for p in proxy.admin("SHOW POOLS")), "it waits")
        waiter.cancel()
        assert holder.value("SELECT 'unharmed'") == "unharmed"
        holder.query("COMMIT")
        replies = waiter.until("Z")
        assert sqlstates(replies) == ["57014"] or rows(replies) == [("ran",)]


@pytest.mark.parametrize("wrong", ["secret", "pid", "nothing"])
def test_a_wrong_key(proxies, superuser, wrong):
    proxy = proxies(workers=2)
    with proxy.wire() as c:
        c.send(query("SELECT 'finished', pg_sleep(1)"))
        sleeping(superuser)
        if wrong == "secret":
            send_cancel(c.address, c.pid, bytes(b ^ 1 for b in c.secret))
        elif wrong == "pid":
            send_cancel(c.address, c.pid ^ 1, c.secret)
        else:
            send_cancel(c.address, 0, b"\0\0\0\0")
        assert rows(c.until_ready())[0][0] == "finished"


@pytest.mark.parametrize("body", [b"", b"\0\0\0\1", b"\0" * 7, b"\0" * 300, b"\xff" * 5000])
def test_malformed_requests(proxy, body):
    """Closed without an answer, as servers do."""
    with WireClient(proxy.host, proxy.port) as c:
        c.send(special_request(CANCEL_CODE, body))
        assert [m.type for m in c.until_end()] in ([], ["E"])
    with proxy.wire() as c:
        assert c.value("SELECT 1") == "1"


def test_a_key_of_a_session_that_is_over(proxies, superuser):
    """The pool's backend serves somebody else now."""
    proxy = proxies(pool={"mode": "session", "max": 1})
    with proxy.wire() as first:
        pid, secret = first.pid, first.secret
        first.terminate()
    with proxy.wire() as second:
        second.send(query("SELECT 'finished', pg_sleep(0.7)"))
        sleeping(superuser)
        send_cancel((proxy.host, proxy.port), pid, secret)
        assert rows(second.until_ready())[0][0] == "finished"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_storm_of_late_cancels(proxies, workers):
    """Requests that race with the end of their statement never hit the next client of that backend."""
    proxy = proxies(workers=workers, pool={"mode": "transaction", "max": 2, "queue_timeout_s": 30})
    innocent_errors: list[str] = []
    stop = threading.Event()

    def innocent() -> None:
        with proxy.wire() as c:
            while not stop.is_set():
                innocent_errors.extend(sqlstates(c.query("SELECT pg_sleep(0.002)")))

    def guilty() -> None:
        dice = random.Random(7)
        with proxy.wire() as c:
            for _ in range(40):
                c.send(query(f"SELECT pg_sleep({dice.random() * 0.004})"))
                if dice.random() < 0.5:
                    c.cancel()
                    c.until_ready()
                else:
                    c.until_ready()
                    c.cancel()

    innocents = [threading.Thread(target=innocent) for _ in range(3)]
    others = [threading.Thread(target=guilty) for _ in range(2)]
    for thread in innocents + others:
        thread.start()
    for thread in others:
        thread.join()
    stop.set()
    for thread in innocents:
        thread.join()
    assert innocent_errors == []


def test_a_request_is_delivered_before_its_connection_is_closed(proxies, superuser):
    """Also when another worker has the key: what the client sends then is not hit any more."""
    proxy = proxies(workers=3, pool={"mode": "session"})
    with proxy.wire() as c:
        for _ in range(12):
            c.send(query(SLEEP))
            # one that comes before its statement does nothing, as with a server
            sleeping(superuser)
            c.cancel()
            # libpq's PQcancel returns now; the error is all that may come of it
            assert sqlstates(c.until_ready()) == ["57014"]
            assert sqlstates(c.query("SELECT pg_sleep(0.01)")) == []


def test_many_requests_for_one_statement(proxies, superuser):
    proxy = proxies(workers=2, pool={"mode": "transaction", "max": 1})
    with proxy.wire() as c, proxy.wire() as other:
        c.send(query(SLEEP))
        sleeping(superuser)
        threads = [threading.Thread(target=c.cancel) for _ in range(10)]
        for thread in threads:
            thread.start()
        assert sqlstates(c.until_ready()) == ["57014"]
        assert rows(other.query("SELECT 'unharmed'")) == [("unharmed",)]
        for thread in threads:
            thread.join()
        assert rows(other.query("SELECT 'still'")) == [("still",)]
        assert c.value("SELECT 1") == "1"


def test_while_the_server_is_down(own_pg, own_proxy):
    """A request that cannot be delivered is dropped; it holds nothing up."""
    proxy = own_proxy(own_pg, pool={"mode": "session"})
    with proxy.wire() as c:
        pid, secret = c.pid, c.secret
        own_pg.stop("immediate")
        send_cancel((proxy.host, proxy.port), pid, secret)
    own_pg.start()
