"""A BEGIN takes no backend before the first statement behind it, and is otherwise what it always was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import backend_of, is_shared, provide, shared_config, shares_again
from tests.pg_server import Server
from tests.wire_client import SYNC, bind, describe_portal, execute, parse, query, rows, sqlstates, types


@pytest.fixture(params=["dedicated", "shared"])
def one(request: pytest.FixtureRequest, proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    """A single backend, so that who holds it is seen."""
    if request.param == "dedicated":
        return proxies(pool={"mode": "transaction", "max": 1, "queue_timeout_s": 1})
    provide(pg)
    config = shared_config(pg, 1)
    proxy = proxies(**{**config, "pool": {"mode": "transaction", "queue_timeout_s": 1}})
    with proxy.wire() as client:
        shares_again(pg, client)
    return proxy


def status(said: list[Any]) -> str:
    """Of the transaction, as the last ReadyForQuery has it."""
    return said[-1].body.decode()


@pytest.mark.parametrize(
    "begin", ["BEGIN", "begin work", "START TRANSACTION", "/* x */ BEGIN ISOLATION LEVEL SERIALIZABLE;"]
)
def test_it_holds_no_backend(one, begin):
    with one.wire() as c, one.wire() as other:
        said = c.query(begin)
        assert types(said) == "CZ"
        assert said[0].body == (b"START TRANSACTION\0" if begin.startswith("START") else b"BEGIN\0")
        assert status(said) == "T"
        assert other.value("SELECT 'served'") == "served"
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert c.value("SHOW transaction_isolation") == (
            "serializable" if "SERIALIZABLE" in begin else "read committed"
        )
        said = c.query("COMMIT")
        assert said[0].body == b"COMMIT\0"
        assert status(said) == "I"


@pytest.mark.parametrize(
    ("end", "tag"),
    [("COMMIT", b"COMMIT\0"), ("END", b"COMMIT\0"), ("ROLLBACK", b"ROLLBACK\0"), ("ABORT", b"ROLLBACK\0")],
)
def test_an_empty_transaction(one, end, tag):
    with one.wire() as c:
        before = int(one.admin("SHOW STATS_TOTALS")[0]["server_assignment_count"])
        c.query("BEGIN")
        said = c.query(end)
        assert types(said) == "CZ"
        assert (said[0].body, status(said)) == (tag, "I")
        assert int(one.admin("SHOW STATS_TOTALS")[0]["server_assignment_count"]) == before


def test_its_characteristics(one):
    with one.wire() as c:
        c.query("BEGIN READ ONLY, ISOLATION LEVEL REPEATABLE READ, DEFERRABLE")
        assert c.value("SHOW transaction_read_only") == "on"
        assert c.value("SHOW transaction_isolation") == "repeatable read"
        assert c.value("SHOW transaction_deferrable") == "on"
        assert sqlstates(c.query("INSERT INTO scratch VALUES (1, 'x')")) == ["25006"]
        assert status(c.query("ROLLBACK")) == "I"


def test_what_follows_in_the_extended_protocol(one):
    with one.wire() as c:
        c.query("BEGIN")
        said = c.ask(parse("INSERT INTO scratch VALUES (7, 'x') RETURNING body"), bind(), execute(), SYNC)
        assert rows(said) == [("x",)]
        assert status(said) == "T"
        c.query("ROLLBACK")
        assert c.value("SELECT count(*) FROM scratch WHERE id = 7") == "0"
        # a Sync alone tells the state
        c.query("BEGIN")
        assert status(c.ask(SYNC)) == "T"
        said = c.ask(parse("COMMIT"), bind(), execute(), SYNC)
        assert sqlstates(said) == []
        assert status(said) == "I"


@pytest.mark.parametrize("texts", [("BEGIN", "COMMIT"), ("BEGIN",), ("DISCARD ALL",)])
def test_it_ends_the_unnamed_statement(one, texts):
    """As any simple query does."""
    with one.wire() as c:
        assert types(c.ask(parse("", "SELECT 1") + SYNC)) == "1Z"
        for text in texts:
            c.query(text)
        assert sqlstates(c.ask(bind("", "") + execute() + SYNC)) == ["26000"]


def test_a_statement_in_it_that_fails(one):
    with one.wire() as c:
        c.query("BEGIN")
        said = c.query("SELECT 1/0")
        assert (sqlstates(said), status(said)) == (["22012"], "E")
        assert sqlstates(c.query("SELECT 1")) == ["25P02"]
        said = c.query("COMMIT")
        assert (said[0].body, status(said)) == (b"ROLLBACK\0", "I")


def test_a_statement_in_it_that_the_guard_refuses(one):
    """The transaction has failed, though no server knows of it yet."""
    for later in ("SELECT 1", "INSERT INTO scratch VALUES (9, 'x')"):
        with one.wire() as c:
            c.query("BEGIN")
            said = c.query("SELECT * FROM beta.orders")
            assert (sqlstates(said), status(said)) == (["42501"], "E")
            assert status(c.ask(SYNC)) == "E"
            said = c.query(later)
            assert (sqlstates(said), status(said)) == (["25P02"], "E")
            said = c.query("COMMIT")
            assert (said[0].body, status(said)) == (b"ROLLBACK\0", "I")
    with one.wire() as c:
        c.query("BEGIN")
        said = c.ask(parse("SELECT * FROM beta.orders"), bind(), execute(), SYNC)
        assert (sqlstates(said), status(said)) == (["42501"], "E")
        said = c.query("COMMIT")
        assert (said[0].body, status(said)) == (b"ROLLBACK\0", "I")
        assert c.value("SELECT count(*) FROM scratch WHERE id = 9") == "0"


def test_twice(one):
    with one.wire() as c:
        c.query("BEGIN")
        said = c.query("BEGIN")
        assert types(said) == "NCZ"
        assert status(said) == "T"
        assert status(c.query("ROLLBACK")) == "I"
        assert types(c.query("ROLLBACK")) == "NCZ"
        c.query("BEGIN")
        said = c.query("COMMIT AND CHAIN")
        assert status(said) == "T"
        c.query("ROLLBACK")


def test_savepoints_and_set_transaction_come_first(one):
    with one.wire() as c:
        c.query("BEGIN")
        assert sqlstates(c.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")) == []
        assert c.value("SHOW transaction_isolation") == "serializable"
        c.query("ROLLBACK")
        c.query("BEGIN")
        c.query("SAVEPOINT s")
        c.query("INSERT INTO scratch VALUES (8, 'x')")
        c.query("ROLLBACK TO s")
        assert c.value("SELECT count(*) FROM scratch WHERE id = 8") == "0"
        c.query("COMMIT")


def test_in_one_burst(one):
    with one.wire() as c:
        c.send(query("BEGIN"), query("SELECT 'one'"), query("COMMIT"), query("BEGIN"), query("ROLLBACK"))
        said = [c.until_ready() for _ in range(5)]
        assert [status(one) for one in said] == ["T", "T", "I", "T", "I"]
        assert rows(said[1]) == [("one",)]


def test_its_backend_is_killed_before_it_has_one(one, superuser):
    with one.wire() as c:
        c.query("BEGIN")
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename IN ('acme_app', 'tenant_proxy_service')"
            " AND application_name <> 'tenant_proxy code'"
        )
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert status(c.query("COMMIT")) == "I"


def test_drivers(one):
    with psycopg.connect(one.dsn()) as conn:
        conn.execute("SELECT 1")
        conn.rollback()
        with conn.transaction():
            assert conn.execute("SELECT item FROM orders WHERE id = 1").fetchone() == ("anvil",)
        with conn.transaction():
            pass


def test_where_it_runs_is_decided_by_what_follows(one, pg):
    if "service" not in str(one.config["clusters"][0]):
        pytest.skip("about shared backends")
    with one.wire() as c:
        assert is_shared(pg, backend_of(c))
        c.query("BEGIN")
        assert is_shared(pg, backend_of(c))
        c.query("ROLLBACK")
        c.query("BEGIN")
        assert sqlstates(c.query("CREATE TABLE later (id int)")) == []
        assert not is_shared(pg, backend_of(c))
        c.query("ROLLBACK")


# --- in the extended protocol ------------------------------------------------------------------


def batch(sql: str, *, described: bool = False) -> bytes:
    """What drivers send for a statement without parameters."""
    return parse(sql) + bind() + (describe_portal() if described else b"") + execute() + SYNC


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize(
    "begin", ["BEGIN", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"]
)
def test_a_batch_of_its_own_holds_no_backend_either(one, begin, described):
    with one.wire() as c, one.wire() as other:
        said = c.ask(batch(begin, described=described))
        assert types(said) == ("12nCZ" if described else "12CZ")
        assert said[-2].body == (b"START TRANSACTION\0" if begin.startswith("START") else b"BEGIN\0")
        assert status(said) == "T"
        assert other.value("SELECT 'served'") == "served"
        level, deferrable = ("serializable", "on") if "SERIALIZABLE" in begin else ("read committed", "off")
        assert rows(c.ask(parse("SHOW transaction_isolation"), bind(), execute(), SYNC)) == [(level,)]
        assert c.value("SHOW transaction_deferrable") == deferrable
        said = c.ask(batch("COMMIT", described=described))
        assert (said[-2].body, status(said)) == (b"COMMIT\0", "I")
        # a transaction in which nothing happens
        c.ask(batch(begin, described=described))
        before = int(one.admin("SHOW STATS_TOTALS")[0]["server_assignment_count"])
        said = c.ask(batch("ROLLBACK", described=described))
        assert types(said) == ("12nCZ" if described else "12CZ")
        assert (said[-2].body, status(said)) == (b"ROLLBACK\0", "I")
        assert int(one.admin("SHOW STATS_TOTALS")[0]["server_assignment_count"]) == before


def test_a_batch_with_more_is_the_servers(one):
    with one.wire() as c:
        for more in (parse("BEGIN", "named") + bind(name="named") + execute() + SYNC, parse("BEGIN") + SYNC):
            said = c.ask(more)
            assert sqlstates(said) == []
            c.query("ROLLBACK")
        said = c.ask(parse("BEGIN"), bind(), execute(), parse("SELECT 1"), bind(), execute(), SYNC)
        assert types(said) == "12C12DCZ"
        assert status(said) == "T"
        c.query("ROLLBACK")
        # the unnamed statement is what was parsed last
        c.ask(batch("BEGIN"))
        c.ask(batch("COMMIT"))
        assert [m.body for m in c.ask(bind(), execute(), SYNC) if m.type == "C"] == [b"COMMIT\0"]
        # in pieces
        c.send(batch("BEGIN")[:12])
        c.send(batch("BEGIN")[12:])
        assert status(c.until_ready()) == "T"
        assert sqlstates(c.query("SELECT 1 / 0")) == ["22012"]
        said = c.ask(batch("COMMIT"))
        assert (said[-2].body, status(said)) == (b"ROLLBACK\0", "I")
