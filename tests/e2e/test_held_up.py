"""What one tenant's large statements and functions take to be judged holds up no other tenant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import provide, shared_config
from tests.pg_server import Server
from tests.wire_client import SYNC, bind, execute, parse, sqlstates, wait_until

#: takes a second or more to judge
CODE = "BEGIN " + "PERFORM 1; " * 30_000 + "END"
#: another's statement may take so long, on a busy machine
LIMIT_S = 0.4


class Neighbour:
    """Another tenant, and how long it waited at most."""

    def __init__(self, proxy: Proxy) -> None:
        self.slowest_s = 0.0
        self._client = proxy.wire("beta_app")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            start = time.monotonic()
            self._client.query("SELECT 1")
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)
            time.sleep(0.002)

    def __enter__(self) -> Self:
        self._client.query("SELECT 1")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()


@pytest.fixture
def proxy(own_pg: Server, own_proxy: Callable[..., Proxy]) -> Proxy:
    provide(own_pg)
    return own_proxy(own_pg, **shared_config(own_pg, 2))


def test_a_statement_that_listens_and_is_large(proxy: Proxy):
    with proxy.wire("acme_app") as acme, Neighbour(proxy) as neighbour:
        assert sqlstates(acme.query(f"LISTEN news; DO '{CODE}'")) == ["54000"]
        # of some kilobytes it is no matter
        assert sqlstates(acme.query(f"LISTEN news; SELECT '{'x' * 8000}'; NOTIFY news")) == []
        assert sqlstates(acme.query(f"DO '{CODE}'")) == []
    assert neighbour.slowest_s < LIMIT_S


def test_values_of_a_large_statement(proxy: Proxy):
    large = "SELECT nextval($1) FROM orders WHERE coalesce(" + "id, " * 30_000 + "1) = 1"
    with proxy.wire("acme_app") as acme, Neighbour(proxy) as neighbour:
        acme.query("CREATE SEQUENCE numbers")
        acme.send(parse(large, "s"), SYNC)
        assert sqlstates(acme.until("Z")) == []
        acme.send(*[bind("numbers", name="s"), execute()] * 30, SYNC)
        assert sqlstates(acme.until("Z")) == []
        acme.send(bind("beta.orders_id_seq", name="s"), execute(), SYNC)
        refused = acme.until("Z")
    assert sqlstates(refused) == ["42501"]
    assert neighbour.slowest_s < LIMIT_S


def test_large_functions_are_read_apart(proxy: Proxy):
    def code() -> str:
        return next(one["code"] for one in proxy.admin("SHOW LANES") if one["user"] == "acme_app")

    function = "CREATE FUNCTION large() RETURNS int LANGUAGE plpgsql AS"
    with proxy.wire("acme_app") as acme, Neighbour(proxy) as neighbour:
        acme.query("SELECT 1")
        wait_until(lambda: code() == "proven", "the code is proven", 20)
        assert sqlstates(acme.query(f"{function} '{CODE}'")) == []
        proxy.admin("RELOAD")
        time.sleep(5)
        wait_until(lambda: code() == "proven", "it is proven again", 20)
        acme.query("DROP FUNCTION large()")
        # EXECUTE can't be proven
        dynamic = CODE.replace("END", "EXECUTE chr(65); END")
        assert sqlstates(acme.query(f"{function} '{dynamic}'")) == []
        wait_until(lambda: code() == "function acme.large is not proven", "it says so", 30)
    assert neighbour.slowest_s < LIMIT_S


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT query_to_xml($1, true, true, '')", "SELECT " + "id, " * 200_000 + "1 FROM orders"),
        ("SELECT set_config('search_path', $1, false)", "acme, " * 500_000 + "acme"),
    ],
    ids=["query", "search_path"],
)
def test_large_values(proxy: Proxy, sql: str, value: str):
    with proxy.wire("acme_app") as acme, Neighbour(proxy) as neighbour:
        acme.send(parse(sql, "s"), SYNC)
        assert sqlstates(acme.until("Z")) == []
        acme.send(bind(value, name="s"), execute(), SYNC)
        assert sqlstates(acme.until("Z")) == ["54000"]
        # others go on as before
        acme.send(bind("acme" if "path" in sql else "SELECT 1", name="s"), execute(), SYNC)
        assert sqlstates(acme.until("Z")) == []
    assert neighbour.slowest_s < LIMIT_S
