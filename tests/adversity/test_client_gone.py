"""Terminate, and ends without it, in every state; the next client finds all in order."""

from __future__ import annotations

import pytest

from tests.fix_proxy import Proxy
from tests.wire_client import (
    FLUSH,
    SYNC,
    TERMINATE,
    WireClient,
    bind,
    copy_data,
    execute,
    parse,
    query,
    startup,
    wait_until,
)


def idle(c: WireClient) -> None:
    """Between statements."""


def in_transaction(c: WireClient) -> None:
    c.query("BEGIN; INSERT INTO scratch VALUES (1, 'must not stay')")


def in_failed_transaction(c: WireClient) -> None:
    c.query("BEGIN; INSERT INTO scratch VALUES (1, 'must not stay')")
    c.query("SELECT 1/0")


def in_a_statement(c: WireClient) -> None:
    c.send(query("INSERT INTO scratch SELECT 1, pg_sleep(0.3)::text"))


def in_copy_in(c: WireClient) -> None:
    c.send(query("COPY scratch FROM STDIN"), copy_data(b"1\tmust not stay\n"))
    c.until("G")


def in_copy_out(c: WireClient) -> None:
    c.send(query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"))
    c.until("d")


def in_a_large_result(c: WireClient) -> None:
    c.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
    c.until("D")


def before_sync(c: WireClient) -> None:
    c.send(parse("INSERT INTO scratch VALUES (1, 'must not stay')"), bind(), execute(), FLUSH)
    c.until("C")


def in_an_aborted_batch(c: WireClient) -> None:
    c.send(parse("SELECT nothing_such"), bind(), FLUSH)
    c.until("E")


def in_a_suspended_portal(c: WireClient) -> None:
    c.send(parse("SELECT generate_series(1, 10)"), bind(), execute(limit=1), FLUSH)
    c.until("s")


def in_the_middle_of_a_message(c: WireClient) -> None:
    c.send(query("SELECT 1" + " " * 1000)[:100])


def in_the_middle_of_a_large_parameter(c: WireClient) -> None:
    c.send(parse("INSERT INTO scratch VALUES (1, $1)"), bind("x" * 1_000_000)[:600_000])


def with_replies_unread(c: WireClient) -> None:
    c.send(*[parse("SELECT 1") + bind() + execute() + SYNC] * 50)


STATES = [
    idle,
    in_transaction,
    in_failed_transaction,
    in_a_statement,
    in_copy_in,
    in_copy_out,
    in_a_large_result,
    before_sync,
    in_an_aborted_batch,
    in_a_suspended_portal,
    in_the_middle_of_a_message,
    in_the_middle_of_a_large_parameter,
    with_replies_unread,
]
ENDS = {
    "terminate": lambda c: c.terminate(),
    "close": lambda c: c.close(),
    "reset": lambda c: c.reset(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nothing_remains(each_mode: Proxy, superuser, state, end):
    """No row, no lock, no open transaction, no client; and the pool goes on serving."""
    superuser.execute("TRUNCATE acme.scratch")
    client = each_mode.wire()
    state(client)
    ENDS[end](client)
    wait_until(lambda: clients_of(each_mode) == 0, "the proxy lets the client go")
    wait_until(lambda: not busy_backends(superuser), "no backend is left in a transaction")
    count = superuser.execute("SELECT count(*) FROM acme.scratch").fetchone()[0]
    if state is in_a_statement and count:
        # a statement that had arrived whole may be carried out, as the server itself does
        superuser.execute("TRUNCATE acme.scratch")
    else:
        assert count == 0
    for _ in range(3):
        with each_mode.wire() as fresh:
            assert fresh.value("SELECT 'well'") == "well"
            assert fresh.xact_status == "I"


@pytest.mark.parametrize("part", [0, 3, 8, 20])
def test_before_the_startup_packet_is_whole(proxy, part):
    client = WireClient(proxy.host, proxy.port)
    client.send(startup({"user": "acme_app", "database": "app"})[:part])
    client.close()
    with proxy.wire() as fresh:
        assert fresh.value("SELECT 1") == "1"


def test_in_the_middle_of_the_password_exchange(proxy):
    client = WireClient(proxy.host, proxy.port)
    client.send(startup({"user": "acme_app", "database": "app"}))
    assert client.receive().type == "R"
    client.send(TERMINATE)
    client.close()
    with proxy.wire() as fresh:
        assert fresh.value("SELECT 1") == "1"


def test_terminate_behind_statements_lets_them_finish(each_mode, superuser):
    superuser.execute("TRUNCATE acme.scratch")
    client = each_mode.wire()
    client.send(query("INSERT INTO scratch VALUES (1)"), query("INSERT INTO scratch VALUES (2)"), TERMINATE)
    client.until_end()
    client.close()
    stored = "SELECT count(*) FROM acme.scratch"
    wait_until(lambda: superuser.execute(stored).fetchone() == (2,), "both statements have run")
    superuser.execute("TRUNCATE acme.scratch")


def clients_of(proxy: Proxy) -> int:
    """Clients that the proxy says it has, but for the admin connection that asks."""
    return len([c for c in proxy.admin("SHOW CLIENTS") if c["user"] in ("acme_app", "beta_app")])


def busy_backends(superuser) -> list[tuple]:
    return superuser.execute(
        "SELECT pid, state, query FROM pg_stat_activity"
        " WHERE usename IN ('acme_app', 'beta_app') AND state <> 'idle'"
    ).fetchall()
