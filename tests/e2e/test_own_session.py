"""What a session asks of itself, and of others of its login: process ids, prepared statements, their end.

Through the proxy a session is a client, whatever backend it has at the moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as e

from tests.e2e.test_hidden import _install, drop_database, make_database
from tests.fix_proxy import Proxy
from tests.fix_shared import BACKEND, SERVICE, provide
from tests.pg_server import Server
from tests.wire_client import (
    FLUSH,
    SYNC,
    WireClient,
    bind,
    close_statement,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
    wait_until,
)

DATABASE = "own_session"

#: server's names left out
STATEMENTS = "SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY prepare_time"


@pytest.fixture(scope="module")
def database(pg: Server) -> Iterator[str]:
    provide(pg)
    dsn = make_database(pg, DATABASE)
    asyncio.run(_install(dsn))
    yield DATABASE
    drop_database(pg, DATABASE)


def config(pg: Server, mode: str, **changes: Any) -> dict[str, Any]:
    cluster: dict[str, Any] = {"name": "main", "host": pg.host, "port": pg.port, "database": DATABASE}
    if mode == "shared":
        cluster["service"] = {**SERVICE, "max_backends": 2}
        changes["isolation"] = "shared"
    pool = {"mode": "session" if mode == "session" else "transaction", "max": 4}
    return {"clusters": [cluster], "pool": pool, "secret": {"value": "a test's"}, **changes}


@pytest.fixture(params=["session", "transaction", "shared"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(proxies: Callable[..., Proxy], pg: Server, database: str, mode: str) -> Proxy:
    made = proxies(**config(pg, mode))
    if mode == "shared":
        with made.wire() as client:
            wait_until(lambda: is_shared(pg, client), "the tenant shares backends", 20)
    return made


def is_shared(pg: Server, client: WireClient) -> bool:
    with pg.connect() as conn:
        pid = client.value(BACKEND)
        found = conn.execute("SELECT usename FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
    return found is not None and found[0] == SERVICE["user"]


def ended(client: WireClient) -> dict[str, str]:
    """The last words to a client that is ended now."""
    (error,) = errors(client.until_end())
    return error


# --- process ids --------------------------------------------------------------------------


def test_the_process_id_is_the_one_of_the_greeting(proxy):
    with proxy.wire() as client, proxy.wire() as other:
        for each in (client, other):
            said = each.query("SELECT pg_backend_pid(), pg_catalog.pg_backend_pid() AS x")
            assert rows(said) == [(str(each.pid),) * 2]
            assert said[0].body.find(b"pg_backend_pid\0") > 0
            said = each.extended("SELECT * FROM pg_backend_pid() WHERE $1 > 0", b"1")
            assert rows(said) == [(str(each.pid),)]
        assert client.pid != other.pid


def test_a_statement_that_is_prepared_gives_each_client_its_own(proxy):
    with proxy.wire() as client, proxy.wire() as other:
        for each in (client, other):
            assert types(each.ask(parse("SELECT pg_backend_pid()", "mine") + SYNC)) == "1Z"
        for _ in range(2):
            for each in (client, other):
                assert rows(each.ask(bind(name="mine") + execute() + SYNC)) == [(str(each.pid),)]


def test_beside_backends_it_is_its_backends(proxy, mode):
    """So that the row of one's own is found."""
    with proxy.wire() as client:
        pid = client.value(BACKEND)
        assert pid is not None
        assert (int(pid) == client.pid) == (mode == "session")
        assert client.value("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()") != "0"
        assert client.value("SELECT pg_blocking_pids(pg_backend_pid())") == "{}"


def test_nothing_that_stays_has_it(proxy):
    with proxy.wire() as client, proxy.wire() as other:
        client.query("CREATE VIEW whoami AS SELECT pg_backend_pid() AS pid")
        client.query("CREATE TABLE made (pid int DEFAULT pg_backend_pid())")
        try:
            assert str(client.pid) not in str(client.value("SELECT pg_get_viewdef('whoami'::regclass)"))
            assert other.value("SELECT pid > 0 FROM whoami") == "t"
            assert types(other.query("INSERT INTO made DEFAULT VALUES")) == "CZ"
        finally:
            client.query("DROP TABLE made")
            client.query("DROP VIEW whoami")


# --- the end of one's own session -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT pg_catalog.pg_terminate_backend({pid})",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        "INSERT INTO scratch VALUES (1); SELECT pg_terminate_backend({pid}); INSERT INTO scratch VALUES (2)",
        "DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$",
    ],
)
def test_a_session_may_end_itself(proxy, mode, text):
    with proxy.wire() as client, proxy.wire() as other:
        backend = client.value(BACKEND)
        client.send(query(text.format(pid=client.pid)))
        error = ended(client)
        assert (error["S"], error["C"]) == ("FATAL", "57P01")
        assert error["M"] == "terminating connection due to administrator command"
        # its backend is gone too, and nothing of the transaction is there
        assert other.value("SELECT count(*) FROM scratch WHERE id < 3") == "0"
        if not text.startswith("DO"):
            gone = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}"
            wait_until(lambda: other.value(gone) == "0", "the backend is gone")


def test_in_the_extended_protocol_nothing_behind_it_is_answered(proxy):
    with proxy.wire() as client:
        client.send(
            parse("SELECT pg_terminate_backend($1::int)"),
            bind(str(client.pid)) + execute() + parse("SELECT 1", "a") + SYNC,
        )
        said = client.until_end()
        assert sqlstates(said) == ["57P01"]
        assert types(said).endswith("E")


def test_without_a_sync(proxy):
    with proxy.wire() as client:
        client.send(parse("SELECT pg_terminate_backend(pg_backend_pid())") + bind() + execute() + FLUSH)
        assert ended(client)["C"] == "57P01"


def test_in_a_transaction_it_is_rolled_back(proxy):
    with proxy.wire() as client, proxy.wire() as other:
        client.query("BEGIN")
        client.query("INSERT INTO scratch VALUES (1, 'x')")
        client.send(query("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert ended(client)["C"] == "57P01"
        locks = "SELECT count(*) FROM pg_locks WHERE relation = 'scratch'::regclass"
        wait_until(lambda: other.value(locks) == "0", "the transaction has ended")
        assert other.value("SELECT count(*) FROM scratch WHERE id = 1") == "0"


def test_one_may_cancel_oneself(proxy):
    with proxy.wire() as client:
        for pid in ("pg_backend_pid()", str(client.pid)):
            assert sqlstates(client.query(f"SELECT pg_cancel_backend({pid})")) == ["57014"]
        assert client.value("SELECT 1") == "1"


# --- … and of others -----------------------------------------------------------------------------


def test_a_session_may_end_another_of_its_login(proxy):
    with proxy.wire() as client, proxy.wire() as other, proxy.wire() as third:
        for each in (other, third):
            assert each.value("SELECT 1") == "1"
        assert client.value(f"SELECT pg_terminate_backend({other.pid})") == "t"
        assert ended(other)["C"] == "57P01"
        # in the middle of a transaction
        third.query("BEGIN")
        third.query("INSERT INTO scratch VALUES (1, 'x')")
        assert client.value(f"SELECT pg_terminate_backend({third.pid}, 1000)") == "t"
        assert ended(third)["C"] == "57P01"
        assert client.value("SELECT count(*) FROM scratch WHERE id = 1") == "0"


def test_and_cancel_what_it_runs(proxy, pg):
    with proxy.wire() as client, proxy.wire() as other:
        other.send(query("SELECT pg_sleep(20)"))
        with pg.connect() as conn:
            sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            wait_until(lambda: conn.execute(sleeps).fetchone(), "it runs")
        assert client.value(f"SELECT pg_cancel_backend({other.pid})") == "t"
        assert sqlstates(other.until_ready()) == ["57014"]
        assert other.value("SELECT 1") == "1"


def test_nobody_else_s(proxy, mode):
    with proxy.wire() as client, proxy.wire("beta_app") as stranger:
        # on shared backends it may be the client's own of the moment
        backends = [] if mode == "shared" else [stranger.value(BACKEND)]
        for pid in (stranger.pid, *backends, 999_999):
            said = client.query(f"SELECT pg_terminate_backend({pid}), pg_cancel_backend({pid})")
            assert not errors(said)
        said = client.query("SELECT pg_terminate_backend(999999)")
        assert rows(said) == [("f",)]
        assert types(said) == "TNDCZ" or types(said) == "NTDCZ"
        assert stranger.value("SELECT 1") == "1"
        assert stranger.value(BACKEND) is not None


def test_what_is_said_in_the_functions_words_ends_nobody_else(proxy):
    """Anybody can raise the notice that the functions raise."""
    with proxy.wire() as client, proxy.wire("beta_app") as stranger:
        said = client.query(
            "DO $$ BEGIN RAISE INFO 'x' USING SCHEMA = 'tp_catalog', TABLE = 'pg_terminate_backend', "
            f"COLUMN = '{stranger.pid}'; END $$"
        )
        assert not errors(said)
        assert client.value("SELECT 1") == "1"
        assert stranger.value("SELECT 1") == "1"


def test_on_another_worker(own_proxy, pg, database):
    provide(pg)
    proxy = own_proxy(**config(pg, "transaction", workers=2))
    with proxy.wire() as client:
        others = [proxy.wire() for _ in range(8)]
        assert len({other.pid for other in others} | {client.pid}) == 9
        for other in others:
            assert client.value(f"SELECT pg_terminate_backend({other.pid})") == "t"
            assert ended(other)["C"] == "57P01"
            other.close()
        assert client.value("SELECT 1") == "1"


@pytest.mark.parametrize("mode", ["transaction"], indirect=True)
def test_the_server_s_own_where_the_policy_allows_it(proxies, pg, database, mode):
    proxy = proxies(**config(pg, mode, policy={"allowed_functions": ["pg_terminate_backend"]}))
    with proxy.wire() as client, proxy.wire() as other:
        backend = client.value(BACKEND)
        client.query("BEGIN")
        client.query("SELECT 1")
        assert other.value(f"SELECT pg_terminate_backend({backend})") == "t"
        assert ended(client)["C"] == "57P01"


@pytest.mark.parametrize("catalogs", ["show"])
def test_where_nothing_is_hidden_it_is_refused(proxies, pg, database, catalogs):
    proxy = proxies(**config(pg, "transaction", policy={"catalogs": catalogs}))
    with proxy.connect() as conn:
        with pytest.raises(e.InsufficientPrivilege):
            conn.execute("SELECT pg_terminate_backend(1)")
        conn.rollback()
        assert conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() is not None


# --- prepared statements -----------------------------------------------------------------------


def test_prepared_statements_are_the_client_s_own(proxy, mode):
    with proxy.wire() as client, proxy.wire() as other, proxy.wire("beta_app") as stranger:
        made = {client: {"a": "SELECT 1", "b": "SELECT $1::int"}, other: {"a": "SELECT 'it''s'"}}
        for each, texts in made.items():
            for name, text in texts.items():
                assert types(each.ask(parse(text, name) + SYNC)) == "1Z"
            assert rows(each.query(STATEMENTS)) == [(name, text, "f") for name, text in texts.items()]
        assert rows(stranger.query(STATEMENTS)) == []
        found = "SELECT parameter_types FROM pg_catalog.pg_prepared_statements p WHERE p.name = 'b'"
        # where its backend of the moment knows the statement
        assert client.value(found) in (("{integer}",) if mode == "session" else ("{integer}", "{}"))
        client.ask(close_statement("a") + SYNC)
        client.query("PREPARE c AS SELECT 3")
        both = [("b", "SELECT $1::int", "f"), ("c", "PREPARE c AS SELECT 3", "t")]
        assert rows(client.query(STATEMENTS)) == both
        of_sql = "SELECT count(*) FROM pg_prepared_statements WHERE pg_prepared_statements.from_sql"
        assert client.value(of_sql) == "1"
        client.query("DEALLOCATE ALL")
        assert rows(client.query(STATEMENTS)) == []
        assert rows(other.query(STATEMENTS)) == [("a", "SELECT 'it''s'", "f")]


def test_a_prepared_statement_that_tells_them_tells_them_anew(proxy):
    with proxy.wire() as client:
        text = "SELECT name FROM pg_prepared_statements ORDER BY 1"
        client.ask(parse(text, "p") + SYNC)
        assert rows(client.ask(bind(name="p") + execute() + SYNC)) == [("p",)]
        client.ask(parse("SELECT 1", "a") + SYNC)
        assert rows(client.ask(bind(name="p") + execute() + SYNC)) == [("a",), ("p",)]


def test_as_psycopg_uses_them(proxy):
    with psycopg.connect(proxy.dsn(), autocommit=True, prepare_threshold=0) as conn:
        conn.prepared_max = 2
        for number in range(5):
            conn.execute(f"SELECT {number}")
        found = conn.execute(
            "SELECT statement FROM pg_prepared_statements ORDER BY prepare_time", prepare=False
        ).fetchall()
        assert found == [("SELECT 3",), ("SELECT 4",)]
