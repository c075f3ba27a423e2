"""A session is a session: what drivers count on that spans transactions, on dedicated and shared backends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import backend_of, either_isolation, is_shared
from tests.pg_server import Server
from tests.wire_client import (
    SYNC,
    bind,
    describe_statement,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
    wait_until,
)


@pytest.fixture(params=["dedicated", "shared"])
def each_isolation(request: pytest.FixtureRequest, proxies: Callable[..., Proxy], pg: Server) -> Proxy:
    """Transaction mode, several backends, so that a client meets another one now and then."""
    return either_isolation(request.param, proxies, pg, 3)


@pytest.fixture
def shared(each_isolation: Proxy, request: pytest.FixtureRequest) -> Proxy:
    if request.node.callspec.params["each_isolation"] != "shared":
        pytest.skip("about shared backends")
    return each_isolation


# --- RESET ALL, DISCARD ALL ---------------------------------------------------------------

#: what asyncpg says when a connection goes back to its pool
RELEASE = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"


@pytest.mark.parametrize("text", ["RESET ALL", "reset /* all */ all;", RELEASE, f"{RELEASE} RESET ALL"])
def test_reset_all(each_isolation, text):
    with each_isolation.wire(application_name="mine", options="-c work_mem=5MB") as c:
        for sql in ("SET work_mem = '9MB'", "SET TimeZone = 'Asia/Tokyo'", "SET application_name = 'other'"):
            c.query(sql)
        assert c.value("SHOW work_mem") == "9MB"
        said = c.query(text)
        assert sqlstates(said) == []
        told = [m.body.split(b"\0")[:2] for m in said if m.type == "S"]
        assert [b"TimeZone", b"UTC"] in told
        assert [m.body for m in said if m.type == "C"][-1] == b"RESET\0"
        assert c.value("SHOW work_mem") == "5MB"
        assert c.value("SHOW TimeZone") == "UTC"
        assert c.value("SHOW application_name") == "mine"
        # with nothing to reset
        assert sqlstates(c.query(text)) == []
        assert c.value("SHOW work_mem") == "5MB"


def test_reset_all_in_the_extended_protocol(each_isolation):
    """On a shared backend it would lead to the settings of nobody: no search_path, and any error its end."""
    with each_isolation.wire(options="-c work_mem=5MB", TimeZone="Asia/Tokyo") as c:
        reset = (parse("RESET ALL"), bind(), execute())
        shown = (parse("SELECT current_setting('work_mem'), current_setting('TimeZone')"), bind(), execute())
        c.query("SET work_mem = '9MB'")
        assert sqlstates(c.ask(*reset, SYNC)) == []
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"
        assert sqlstates(c.query("SELECT 1/0")) == ["22012"]
        assert rows(c.ask(*shown, SYNC)) == [("5MB", "Asia/Tokyo")]
        c.query("SET work_mem = '9MB'")
        assert rows(c.ask(*reset, *shown, SYNC)) == [("5MB", "Asia/Tokyo")]


def test_reset_all_keeps_to_shared_backends(shared, pg):
    with shared.wire() as c:
        c.query("SET work_mem = '9MB'")
        for _ in range(3):
            c.query(RELEASE)
            assert is_shared(pg, backend_of(c))
        before = shared.admin("SHOW LANES")[0]["escalated_statement"]
        c.query(RELEASE)
        assert shared.admin("SHOW LANES")[0]["escalated_statement"] == before


def test_reset_all_beside_what_sets_or_tells_settings(each_isolation):
    with each_isolation.wire() as c:
        c.query("SET work_mem = '9MB'")
        assert rows(c.query("SHOW work_mem; RESET ALL; SHOW work_mem")) == [("9MB",), ("4MB",)]
        c.query("RESET ALL; SET work_mem = '8MB'")
        assert c.value("SHOW work_mem") == "8MB"
        c.query("SET work_mem = '7MB'; RESET ALL")
        assert c.value("SHOW work_mem") == "4MB"
        c.query("BEGIN; SET LOCAL work_mem = '6MB'")
        c.query("ROLLBACK")


def test_discard_all(each_isolation):
    with each_isolation.wire() as c:
        c.ask(parse("SELECT 1", "s"), SYNC)
        said = c.query("DISCARD ALL")
        assert types(said) == "CZ"
        assert said[0].body == b"DISCARD ALL\0"
        assert sqlstates(c.ask(bind(name="s"), execute(), SYNC)) == ["26000"]
        c.query("SET work_mem = '9MB'")
        c.query("DISCARD ALL")
        assert c.value("SHOW work_mem") == "4MB"


async def test_a_pool_of_asyncpg(each_isolation):
    async with asyncpg.create_pool(each_isolation.url(), min_size=2, max_size=4) as pool:

        async def work(number: int) -> None:
            async with pool.acquire() as conn:
                assert await conn.fetchval("SHOW my.number") in (None, "") if number < 0 else True
                await conn.execute(f"SET my.number = '{number}'")
                assert await conn.fetchval("SELECT current_setting('my.number')") == str(number)
                assert await conn.fetchval("SELECT item FROM orders WHERE id = $1", 1) == "anvil"

        await asyncio.gather(*(work(number) for number in range(30)))


# --- EXECUTE and DEALLOCATE of statements that were made by Parse -----------------------------


def test_execute_of_a_statement_of_the_protocol(each_isolation):
    with each_isolation.wire() as c, each_isolation.wire() as other:
        c.ask(parse("SELECT item FROM orders WHERE id = $1", "one", [23]), SYNC)
        c.ask(parse("SELECT 2", "Two"), SYNC)
        other.ask(parse("SELECT 'others'", "one"), SYNC)
        for _ in range(3):
            assert rows(c.query("EXECUTE one(2)")) == [("rocket",)]
            assert rows(c.query('EXECUTE "Two"; EXECUTE one(1)')) == [("2",), ("anvil",)]
            assert rows(other.query("EXECUTE one")) == [("others",)]
        assert rows(c.ask(parse("EXECUTE one(3)"), bind(), execute(), SYNC)) == [("spring",)]
        c.ask(parse("EXECUTE one(3)", "named"), SYNC)
        for _ in range(3):
            assert rows(c.ask(bind(name="named"), execute(), SYNC)) == [("spring",)]
        c.query("BEGIN")
        assert rows(c.query("EXECUTE one(2)")) == [("rocket",)]
        assert sqlstates(c.query("EXECUTE one(1, 2)")) == ["42601"]
        assert sqlstates(c.query("EXECUTE one(1)")) == ["25P02"]
        c.query("ROLLBACK")
        assert sqlstates(c.query("DEALLOCATE one")) == []
        assert sqlstates(c.query("EXECUTE one(1)")) == ["26000"]
        assert rows(other.query("EXPLAIN (COSTS off) EXECUTE one")) == [("Result",)]


# --- definitions change --------------------------------------------------------------------------


@pytest.fixture
def table(pg: Server) -> Any:
    with pg.connect() as conn:
        conn.execute("CREATE TABLE acme.changing (a int, b int); INSERT INTO acme.changing VALUES (1, 2)")
        conn.execute("ALTER TABLE acme.changing OWNER TO acme_app")
        yield
        conn.execute("DROP TABLE IF EXISTS acme.changing")


def test_what_is_prepared_after_a_definition_changed_knows_it(each_isolation, table):
    """As in a session of its own: a Parse never meets a plan of before."""
    star = "SELECT * FROM changing"
    with each_isolation.wire() as c, each_isolation.wire() as other:
        for client in (c, other):
            client.ask(parse(star, "before"), SYNC)
            assert rows(client.ask(bind(name="before"), execute(), SYNC)) == [("1", "2")]
        c.query("ALTER TABLE changing ALTER COLUMN b TYPE text")
        for number, client in enumerate((c, other)):
            name = f"s{number}"
            said = client.ask(parse(star, name), describe_statement(name), bind(name=name), execute(), SYNC)
            assert sqlstates(said) == []
            assert rows(said) == [("1", "2")]
        c.query("BEGIN")
        c.query("ALTER TABLE changing ADD c int")
        assert rows(c.ask(parse(star, "inside"), bind(name="inside"), execute(), SYNC)) == [("1", "2", None)]
        assert sqlstates(other.query("SELECT 1")) == []
        c.query("ROLLBACK")
        assert rows(c.ask(parse(star, "after"), bind(name="after"), execute(), SYNC)) == [("1", "2")]


def test_parameters_of_what_is_prepared_anew(each_isolation, table):
    insert = "INSERT INTO changing (a) VALUES ($1)"
    with each_isolation.wire() as c, each_isolation.wire() as other:
        said = other.ask(parse(insert, "s"), describe_statement("s"), SYNC)
        assert said[1].body.endswith((23).to_bytes(4, "big"))
        c.query("ALTER TABLE changing ALTER COLUMN a TYPE date USING NULL")
        said = other.ask(parse(insert, "t"), describe_statement("t"), SYNC)
        assert said[1].body.endswith((1082).to_bytes(4, "big"))


def test_another_workers_definitions_are_known(proxies, certificates, pg, table):
    """By TLS clients come to any worker."""
    tls = {"mode": "allow", "cert": str(certificates.proxy.cert), "key": str(certificates.proxy.key)}
    proxy = proxies(pool={"mode": "transaction", "max": 4}, workers=2, listen={"tls": tls})
    star = "SELECT * FROM changing"
    with contextlib.ExitStack() as stack:
        at: dict[str, psycopg.Connection[Any]] = {}

        def come() -> bool:
            name = f"w{len(opened)}"
            conn = psycopg.connect(proxy.dsn(sslmode="require", application_name=name), autocommit=True)
            opened.append(stack.enter_context(conn))
            (row,) = [row for row in proxy.admin("SHOW CLIENTS") if row["application_name"] == name]
            at.setdefault(str(row["worker"]), conn)
            return len(at) == 2

        opened: list[Any] = []
        wait_until(come, "both workers have a client")
        for conn in at.values():
            assert conn.execute(star, prepare=True).fetchall() == [(1, 2)]
        first, second = at.values()
        # the server still has it, by the pool's name
        second.execute("DEALLOCATE ALL")
        first.execute("ALTER TABLE changing ALTER COLUMN b TYPE text")
        assert second.execute(star, prepare=True).fetchall() == [(1, "2")]
        first.execute("ALTER TABLE changing ADD c int")
        # prepared before, and it was told other rows: as in a session of its own
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="must not change result type"):
            second.execute(star, prepare=True)
        second.execute("DEALLOCATE ALL")
        assert second.execute(star, prepare=True).fetchall() == [(1, "2", None)]


# --- notifications ---------------------------------------------------------------------------------


def test_a_notification_of_ones_own_has_the_process_id_that_one_knows(each_isolation):
    with psycopg.connect(each_isolation.dsn(), autocommit=True) as conn:
        conn.execute("LISTEN news")
        conn.execute("NOTIFY news, 'mine'")
        (notice,) = conn.notifies(timeout=5, stop_after=1)
        assert (notice.payload, notice.pid) == ("mine", conn.pgconn.backend_pid)


# --- what a session has last had of a sequence -----------------------------------------------


@pytest.mark.parametrize("isolation", ["shared", "dedicated"])
def test_last_values_of_sequences_are_the_clients_own(
    isolation: str, proxies: Callable[..., Proxy], pg: Server
):
    """Not those of another client of the tenant that has had the backend meanwhile."""
    next_one, last_one = parse("SELECT nextval('numbers')"), parse("SELECT lastval()")
    run = bind(), execute()
    proxy = either_isolation(isolation, proxies, pg, 1)
    with proxy.wire() as one, proxy.wire() as other:
        assert one.value("SELECT nextval('numbers')") == one.value("SELECT lastval()")
        assert sqlstates(other.query("SELECT currval('numbers')")) == ["55000"]
        one.query("SELECT nextval('numbers')")
        assert sqlstates(other.extended("SELECT lastval()")) == ["55000"]
        one.query("SELECT nextval('numbers')")
        # in the middle of a batch, where nothing of the session's own has gone before
        said = other.ask(parse("SELECT 7"), *run, last_one, *run, SYNC)
        assert (rows(said), sqlstates(said)) == ([("7",)], ["55000"])
        one.query("SELECT nextval('numbers')")
        first, second = rows(other.ask(next_one, *run, last_one, *run, SYNC))
        assert first == second
        # prepared before
        one.ask(parse("SELECT lastval()", "last"), SYNC)
        one.query("SELECT nextval('numbers')")
        assert len(rows(one.ask(bind(name="last"), execute(), SYNC))) == 1
        other.query("SELECT nextval('numbers')")
        assert sqlstates(one.ask(bind(name="last"), execute(), SYNC)) == ["55000"]


@pytest.mark.parametrize("isolation", ["shared", "dedicated"])
def test_last_values_where_a_statement_may_have_used_a_sequence(
    isolation: str, proxies: Callable[..., Proxy], pg: Server
):
    """It has not, and what is there is another client's."""
    run = bind(), execute()
    other_s, ask = parse("SELECT nextval('numbers')"), parse("SELECT lastval()")
    touches = "DELETE FROM scratch"
    proxy = either_isolation(isolation, proxies, pg, 1)
    with proxy.wire() as one, proxy.wire() as other:
        one.query("SELECT lastval()")
        for sql in (touches, "SET TimeZone = 'CET'", f"BEGIN; {touches}; COMMIT"):
            other.ask(other_s, *run, SYNC)
            assert sqlstates(one.query(sql)) == []
            assert sqlstates(one.query("SELECT lastval()")) == ["55000"], sql
        for before in ([], [parse("SELECT 1"), *run]):
            other.ask(other_s, *run, SYNC)
            assert sqlstates(one.ask(*before, parse(touches), *run, SYNC)) == []
            assert sqlstates(one.ask(ask, *run, SYNC)) == ["55000"]
        one.ask(parse(touches, "touches"), SYNC)
        other.ask(other_s, *run, SYNC)
        assert sqlstates(one.ask(bind(name="touches"), execute(), SYNC)) == []
        assert sqlstates(one.ask(ask, *run, SYNC)) == ["55000"]
        # in a transaction, whose unnamed portal is read on
        other.ask(other_s, *run, SYNC)
        one.query("BEGIN")
        one.ask(parse("SELECT generate_series(1, 3)"), bind(), execute("", 1), SYNC)
        assert (
            sqlstates(one.ask(parse(touches, "more"), bind(name="more", portal="p"), execute("p"), SYNC))
            == []
        )
        assert rows(one.ask(execute(), SYNC)) == [("2",), ("3",)]
        one.query("COMMIT")
        assert sqlstates(one.query("SELECT lastval()")) == ["55000"]
        # one's own is there
        other.ask(other_s, *run, SYNC)
        mine = one.value("SELECT nextval('numbers')")
        one.query(touches)
        assert one.value("SELECT lastval()") == mine


@pytest.mark.parametrize("isolation", ["shared", "dedicated"])
def test_last_values_behind_a_failed_transaction(isolation: str, proxies: Callable[..., Proxy], pg: Server):
    """Where the backend can only forget those of others once the transaction has ended."""
    run = bind(), execute()
    ask, end = "SELECT lastval()", (parse("ROLLBACK"), *run)
    proxy = either_isolation(isolation, proxies, pg, 1)
    with proxy.wire() as one, proxy.wire() as other:

        def failed() -> None:
            other.query("SELECT nextval('numbers')")
            one.query("BEGIN")
            assert sqlstates(one.query("SELECT 1/0")) == ["22012"]

        failed()
        one.send(query("ROLLBACK"), query(ask))
        assert sqlstates(one.until_ready(2)) == ["55000"]
        failed()
        assert sqlstates(one.ask(*end, parse(ask), *run, SYNC)) == ["55000"]
        failed()
        assert sqlstates(one.ask(parse(ask), *run, SYNC)) == ["25P02"]
        assert sqlstates(one.query(f"ROLLBACK; {ask}")) == ["25P02"]
        one.query("ROLLBACK")
        assert sqlstates(one.query(ask)) == ["55000"]
        # all at once: that it has failed is not known yet
        other.query("SELECT nextval('numbers')")
        one.send(query("BEGIN"), query("SELECT 1/0"), query(f"ROLLBACK; {ask}"), query("ROLLBACK"))
        assert sqlstates(one.until_ready(4)) == ["22012", "25P02"]
        # one's own are there
        mine = one.value("SELECT nextval('numbers')")
        one.query("BEGIN")
        one.query("SELECT 1/0")
        assert rows(one.query(f"ROLLBACK; {ask}")) == [(mine,)]


@pytest.mark.parametrize("name", ["ALL", "mine"])
def test_deallocate_behind_a_failed_transaction(name: str, proxies: Callable[..., Proxy], pg: Server):
    """It takes away the client's own statements, and none of another's that the backend has."""
    proxy = either_isolation("dedicated", proxies, pg, 1)
    with proxy.wire() as one, proxy.wire() as other:
        other.ask(parse("SELECT 'kept'", "kept"), SYNC)
        one.ask(parse("SELECT 'mine'", "mine"), SYNC)
        one.query("BEGIN")
        one.query("SELECT 1/0")
        one.send(query("ROLLBACK"), query(f"DEALLOCATE {name}"))
        assert sqlstates(one.until_ready(2)) == []
        assert sqlstates(one.ask(bind(name="mine"), execute(), SYNC)) == ["26000"]
        assert rows(other.ask(bind(name="kept"), execute(), SYNC)) == [("kept",)]


@pytest.mark.parametrize("isolation", ["shared", "dedicated"])
def test_last_values_are_asked_of_the_backend_that_has_them(
    isolation: str, proxies: Callable[..., Proxy], pg: Server
):
    proxy = either_isolation(isolation, proxies, pg, 2)
    with proxy.wire() as one, proxy.wire() as other:
        other.query("BEGIN")
        other.query("SELECT nextval('numbers')")
        mine = one.value("SELECT nextval('numbers')")
        other.query("COMMIT")
        assert one.value("SELECT lastval()") == mine


def test_errors_name_prepared_statements_as_the_client_does(each_isolation: Proxy):
    with each_isolation.wire() as one:
        one.ask(parse("SELECT 1", "mine"), SYNC)
        (said,) = errors(one.ask(bind("7", name="mine"), SYNC))
        assert said["M"] == 'bind message supplies 1 parameters, but prepared statement "mine" requires 0'
