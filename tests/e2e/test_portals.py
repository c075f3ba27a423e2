"""Portals that would end the server: see relay.portals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import SYNC, close_statement, copy_data, execute, function_call, query, sqlstates

#: statements that fail in a portal, and what then writes over what it points to
FAILS = [
    ["ALTER TABLE orders DROP nothing", "SELECT f(g) FROM generate_series(1,3) g"],
    ["EXECUTE nothing", "SELECT generate_series(1,3)/0"],
]
COPIES = [
    "COPY scratch FROM STDIN",
    "COPY scratch FROM STDIN;",
    "COPY scratch (id, body) FROM STDIN (FORMAT csv)",
]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_what_a_failed_query_leaves_behind_is_not_run(proxies: Callable[..., Proxy], mode: str):
    proxy = proxies(pool={"mode": mode})
    with proxy.wire() as witness, proxy.wire() as client:
        witness.query("BEGIN")
        witness.query("SELECT 1")
        for statements in FAILS:
            client.query("BEGIN")
            for sql in statements:
                client.query(sql)
            assert sqlstates(client.ask(execute(), SYNC)) == ["25P02"]
            client.query("ROLLBACK")
            # where nobody has been answered yet
            client.send(*map(query, ["BEGIN", *statements]), execute(), SYNC)
            assert sqlstates(client.until_ready(4))[-1] == "25P02"
            client.query("ROLLBACK")
            assert sqlstates(client.ask(execute(), SYNC)) == ["34000"]
        assert witness.value("SELECT 1") == "1"


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_what_a_failed_copy_leaves_behind_is_not_run(proxies: Callable[..., Proxy], mode: str):
    """Its data are bad, and behind them the Execute is there before the server has said so."""
    proxy = proxies(pool={"mode": mode})
    with proxy.wire() as witness, proxy.wire() as client:
        witness.query("BEGIN")
        witness.query("SELECT 1")
        for copy in COPIES:
            for _, overwrites in FAILS:
                client.query("BEGIN")
                client.query("SELECT count(*) FROM scratch")
                client.send(query(copy))
                client.until("G")
                client.send(copy_data(b"bad\n"), query(overwrites), execute(), SYNC)
                assert sqlstates(client.until_ready(3)) == ["22P02", "08P01", "08P01"]
                client.query("ROLLBACK")
        assert witness.value("SELECT 1") == "1"


@pytest.mark.parametrize(
    "wrong",
    [
        execute(),
        query("ROLLBACK TO s"),
        query("CREATE TEMP TABLE t ()"),
        close_statement("s"),
        function_call(177, b"\0\0\0\1", b"\0\0\0\2"),
    ],
    ids=["execute", "rollback", "temp", "close", "call"],
)
def test_what_may_not_come_inside_a_copy_ends_the_session(
    proxies: Callable[..., Proxy], pg: Server, wrong: bytes
):
    """As it does directly, and nothing of it waits for an answer, which would never come."""
    provide(pg)
    proxy = proxies(**shared_config(pg))
    with proxy.wire() as client:
        shares_again(pg, client)
        client.send(query("COPY scratch FROM STDIN"))
        client.until("G")
        client.send(copy_data(b"1\tone\n"), wrong)
        assert sqlstates(client.until_end()) == ["08P01", "08P01"]
