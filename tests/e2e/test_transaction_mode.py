"""Transaction pooling: many clients on few backends, and none of them notices the others."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import psycopg
import pytest

from tests.fix_proxy import Proxy
from tests.fix_shared import either_isolation
from tests.pg_server import Server
from tests.wire_client import (
    FLUSH,
    SYNC,
    WireClient,
    bind,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
    wait_until,
)


@pytest.fixture
def few(proxies):
    """Call with the number of backends that a tenant may have."""

    def make(backends: int = 1, **pool) -> Proxy:
        return proxies(pool={"mode": "transaction", "max": backends, **pool})

    return make


def backend_of(client: WireClient) -> str | None:
    return client.value("SELECT pg_backend_pid()")


def on_the_server(pg: Server, user: str = "acme_app") -> int:
    with pg.connect() as conn:
        found = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [user]).fetchone()
        assert found is not None
        return found[0]


def test_many_clients_share_one_backend(few, pg):
    clients = [few().wire() for _ in range(20)]
    assert len({backend_of(c) for c in clients}) == 1
    assert on_the_server(pg) >= 1
    for c in clients:
        c.terminate()


def test_a_transaction_keeps_its_backend(few):
    proxy = few(2)
    first, second = proxy.wire(), proxy.wire()
    with first, second:
        first.query("BEGIN")
        own = backend_of(first)
        for _ in range(5):
            assert backend_of(second) != own
            assert backend_of(first) == own
        first.query("COMMIT")


def test_a_client_waits_for_a_backend_and_is_served_in_turn(few):
    proxy = few(1)
    holder, *waiters = [proxy.wire() for _ in range(4)]
    holder.query("BEGIN; SELECT 1")
    for number, waiter in enumerate(waiters):
        waiter.send(query(f"SELECT {number}"))
        wait_until(partial(waits, proxy, number + 1), "one more client waits")
    holder.query("COMMIT")
    for number, waiter in enumerate(waiters):
        assert rows(waiter.until_ready()) == [(str(number),)]
    for c in (holder, *waiters):
        c.terminate()


def waits(proxy: Proxy, count: int) -> bool:
    return waiting(proxy) == count


def waiting(proxy: Proxy) -> int:
    return sum(int(pool["cl_waiting"]) for pool in proxy.admin("SHOW POOLS") if pool["user"] == "acme_app")


# --- prepared statements --------------------------------------------------------------


def test_prepared_statements_follow_their_client(few):
    """Each on whatever backend is free; a statement is made there first if it is not known."""
    proxy = few(3)
    clients = [proxy.wire() for _ in range(3)]
    for number, c in enumerate(clients):
        c.ask(parse(f"SELECT {number}, $1::int", "same_name"), SYNC)
    for turn in range(4):
        # every client takes part with another backend than before
        for c in clients:
            c.query("BEGIN")
        for number, c in enumerate(clients):
            replies = c.ask(bind(str(turn), name="same_name"), execute(), SYNC)
            assert types(replies) == "2DCZ"
            assert rows(replies) == [(str(number), str(turn))]
        for c in clients[turn % 3 :] + clients[: turn % 3]:
            c.query("COMMIT")
    for c in clients:
        c.terminate()


def test_replies_to_parse_are_the_clients_own(few):
    """The backend has the statement already and does not parse it again; ParseComplete comes all the same."""
    with few().wire() as first, few().wire() as second:
        for c in (first, second, first, second):
            assert (
                types(
                    c.ask(parse("SELECT 42", "s"), describe_statement("s"), bind(name="s"), execute(), SYNC)
                )
                == "1tT2DCZ"
            )
            assert types(c.ask(close_statement("s"), SYNC)) == "3Z"


def test_one_name_with_different_texts_in_two_clients(few):
    with few().wire() as first, few().wire() as second:
        first.ask(parse("SELECT 'first'", "s"), SYNC)
        second.ask(parse("SELECT 'second'", "s"), SYNC)
        for _ in range(3):
            assert rows(first.ask(bind(name="s"), execute(), SYNC)) == [("first",)]
            assert rows(second.ask(bind(name="s"), execute(), SYNC)) == [("second",)]


def test_equal_texts_with_different_parameter_types(few):
    with few().wire() as first, few().wire() as second:
        first.ask(parse("SELECT pg_typeof($1)::text", "s", types=[23]), SYNC)
        second.ask(parse("SELECT pg_typeof($1)::text", "s", types=[1700]), SYNC)
        assert rows(first.ask(bind("1", name="s"), execute(), SYNC)) == [("integer",)]
        assert rows(second.ask(bind("1", name="s"), execute(), SYNC)) == [("numeric",)]


def test_a_closed_statement_is_gone_only_for_its_client(few):
    with few().wire() as first, few().wire() as second:
        for c in (first, second):
            c.ask(parse("SELECT 7", "s"), SYNC)
        first.ask(close_statement("s"), SYNC)
        assert sqlstates(first.ask(bind(name="s"), SYNC)) == ["26000"]
        assert rows(second.ask(bind(name="s"), execute(), SYNC)) == [("7",)]


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE s"])
def test_deallocate_and_discard_touch_only_their_client(few, command):
    with few().wire() as first, few().wire() as second:
        for c in (first, second):
            c.ask(parse("SELECT 7", "s"), SYNC)
        assert types(first.query(command)) == "CZ"
        assert sqlstates(first.ask(bind(name="s"), SYNC)) == ["26000"]
        assert rows(second.ask(bind(name="s"), execute(), SYNC)) == [("7",)]
        assert types(first.ask(parse("SELECT 8", "s"), SYNC)) == "1Z"
        assert rows(first.ask(bind(name="s"), execute(), SYNC)) == [("8",)]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("DEALLOCATE ALL", ""),
        ("DEALLOCATE ALL", "d"),
        ("DISCARD ALL", ""),
        ("DISCARD ALL", "d"),
        # not by a name: the server, which knows s by another, tells that it is not there
        ("DEALLOCATE s", ""),
    ],
)
def test_so_do_they_in_the_extended_protocol(few, command, name):
    with few().wire() as first, few().wire() as second:
        for c in (first, second):
            c.ask(parse("SELECT 7", "s"), SYNC)
        for _ in range(2):
            said = first.ask(parse(command, name), bind(name=name), execute(), SYNC)
            assert types(said) == "12CZ", sqlstates(said)
            assert said[2].body.decode() == command.removesuffix(" s") + "\0"
            assert sqlstates(first.ask(bind(name="s"), SYNC)) == ["26000"]
            assert rows(second.ask(bind(name="s"), execute(), SYNC)) == [("7",)]
            assert types(first.ask(parse("SELECT 8", "s"), SYNC)) == "1Z"
            assert rows(first.ask(bind(name="s"), execute(), SYNC)) == [("8",)]


def test_statements_per_backend_are_bounded(few, pg):
    """The least lately used is closed on the backend, and made again when its client wants it."""
    proxy = few(1, max_prepared_statements=10)
    with proxy.wire() as c:
        for number in range(100):
            c.ask(parse(f"SELECT {number}", f"s{number}"), SYNC)
        for number in (0, 50, 99, 1, 0):
            assert rows(c.ask(bind(name=f"s{number}"), execute(), SYNC)) == [(str(number),)]
        # asked on the very backend, which pools may name as they like
        assert int(c.value("SELECT count(*) FROM pg_prepared_statements") or 0) <= 11


def test_more_statements_in_one_batch_than_the_backend_keeps(few):
    proxy = few(1, max_prepared_statements=5)
    with proxy.wire() as c:
        c.ask(*[parse(f"SELECT {n}", f"s{n}") for n in range(30)], SYNC)
        batch = [bind(name=f"s{n}") + execute() for n in range(30)]
        for _ in range(2):
            assert rows(c.ask(*batch, SYNC)) == [(str(n),) for n in range(30)]


def test_a_statement_that_no_longer_fits_fails_as_it_does_directly(few):
    """Its table is gone, on whatever backend the statement is made anew: the error is that of Bind."""
    with few(2).wire() as c, few(2).wire() as other:
        c.query("CREATE TABLE passing (a int)")
        c.ask(parse("SELECT * FROM passing", "s"), SYNC)
        other.query("DROP TABLE passing")
        other.query("BEGIN")  # takes the backend that may still have it
        replies = c.ask(bind(name="s"), execute(), SYNC)
        assert types(replies) == "EZ"
        assert sqlstates(replies) == ["42P01"]
        assert c.value("SELECT 1") == "1"
        other.query("ROLLBACK")


def test_a_result_type_changed_by_another_client(few):
    with few().wire() as c, few().wire() as other:
        c.query("CREATE TABLE shape (a int)")
        try:
            c.ask(parse("SELECT * FROM shape", "s"), SYNC)
            c.ask(bind(name="s"), execute(), SYNC)
            other.query("ALTER TABLE shape ADD b int")
            assert sqlstates(c.ask(bind(name="s"), execute(), SYNC)) in (["0A000"], [])
            c.ask(close_statement("s"), parse("SELECT * FROM shape", "s"), SYNC)
            assert types(c.ask(bind(name="s"), execute(), SYNC)) == "2CZ"
        finally:
            c.query("DROP TABLE shape")


def test_a_setting_that_is_named_by_a_value(one_backend):
    """It is the client's, and not of who gets the backend next."""
    ask = "SELECT coalesce(current_setting('named.by_value', true), '')"
    with one_backend.wire() as c, one_backend.wire() as other:
        for value in ("one", "two"):
            messages = (
                parse("SELECT set_config($1, $2, false)"),
                bind("Named.By_Value", value),
                execute(),
                SYNC,
            )
            assert rows(c.ask(*messages)) == [(value,)]
            assert other.value(ask) == ""
            assert c.value(ask) == value


@pytest.fixture(params=["dedicated", "shared"])
def one_backend(request, proxies, pg) -> Proxy:
    return either_isolation(request.param, proxies, pg, 1)


@pytest.mark.parametrize("described", [True, False])
def test_a_result_type_changed_past_the_proxy(one_backend, pg, described):
    """Nobody has told the proxy; what is prepared now has no plan of before, whoever made it first."""
    with one_backend.wire() as c, one_backend.wire() as other, pg.connect() as conn:
        conn.execute("CREATE TABLE acme.past (a int); ALTER TABLE acme.past OWNER TO acme_app")
        try:
            for client in (c, other):
                assert sqlstates(client.query("SELECT 1")) == []
            c.ask(parse("SELECT * FROM past", "s"), SYNC)
            assert types(c.ask(bind(name="s"), describe_portal(), execute(), SYNC)) == "2TCZ"
            conn.execute("ALTER TABLE acme.past ADD b text; INSERT INTO acme.past VALUES (1, 'two')")
            if described:
                other.send(parse("SELECT * FROM past", "mine"), describe_statement("mine"), FLUSH)
                assert types(other.until("T")) == "1tT"
                assert types(other.ask(SYNC)) == "Z"
            else:
                assert types(other.ask(parse("SELECT * FROM past", "mine"), SYNC)) == "1Z"
            for _ in range(2):
                replies = other.ask(bind(name="mine"), describe_portal(), execute(), SYNC)
                assert types(replies) == "2TDCZ"
                assert rows(replies) == [("1", "two")]
            # who has prepared it before, and knows other rows, has the error of a session of its own
            assert sqlstates(c.ask(bind(name="s"), describe_portal(), execute(), SYNC)) == ["0A000"]
            conn.execute("ALTER TABLE acme.past DROP a")
            for messages in ([describe_portal(), execute()], [execute()]):
                assert sqlstates(other.ask(bind(name="mine"), *messages, SYNC)) == ["0A000"]
        finally:
            conn.execute("DROP TABLE acme.past")


def test_statements_of_two_tenants_are_apart(few):
    """Equal texts mean different tables: the same name must not be shared (PgBouncer #1038)."""
    with few().wire("acme_app") as acme, few().wire("beta_app") as beta:
        for c in (acme, beta):
            c.ask(parse("SELECT item FROM orders WHERE id = 1", "s"), SYNC)
        for _ in range(2):
            assert rows(acme.ask(bind(name="s"), execute(), SYNC)) == [("anvil",)]
            assert rows(beta.ask(bind(name="s"), execute(), SYNC)) == [("bolt",)]


# --- state of a session ------------------------------------------------------------------


def test_settings_stay_with_their_client(few):
    with few().wire() as first, few().wire() as second:
        first.query("SET TimeZone = 'Asia/Tokyo'; SET my.flag = 'first'; SET work_mem = '5MB'")
        second.query("SET my.flag = 'second'")
        for _ in range(3):
            assert [first.value(f"SHOW {n}") for n in ("TimeZone", "my.flag", "work_mem")] == [
                "Asia/Tokyo",
                "first",
                "5MB",
            ]
            assert [second.value(f"SHOW {n}") for n in ("TimeZone", "my.flag", "work_mem")] == [
                "UTC",
                "second",
                "4MB",
            ]


def test_settings_of_a_client_that_is_gone_are_gone(few):
    with few().wire() as first:
        first.query("SET my.flag = 'mine'; SET statement_timeout = '7s'")
    with few().wire() as second:
        assert second.value("SELECT current_setting('my.flag', true)") in ("", None)
        assert second.value("SHOW statement_timeout") == "0"


def test_startup_settings_stay_with_their_client(few):
    with few().wire(TimeZone="Asia/Tokyo", options="-c my.flag=first") as first, few().wire() as second:
        for _ in range(3):
            assert first.value("SHOW TimeZone") == "Asia/Tokyo"
            assert first.value("SHOW my.flag") == "first"
            assert second.value("SHOW TimeZone") == "UTC"
            assert second.value("SELECT current_setting('my.flag', true)") in ("", None)


def test_application_name_stays_with_its_client(few):
    with few().wire(application_name="one") as first, few().wire(application_name="two") as second:
        for _ in range(2):
            for c, name in ((first, "one"), (second, "two")):
                told = c.value("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
                assert told == name


def test_parameters_are_told_only_when_they_change_for_the_client(few):
    """What another client's setting did to the backend in between is no news."""
    with few().wire() as first, few().wire() as second:
        first.query("SET DateStyle = 'German'")
        assert types(second.query("SELECT 1")) == "TDCZ"
        assert types(first.query("SELECT 1")) == "TDCZ"
        assert first.parameters["DateStyle"] == "German, DMY"
        assert second.parameters["DateStyle"] == "ISO, MDY"
        assert first.value("SELECT '2020-02-01'::date") == "01.02.2020"
        assert second.value("SELECT '2020-02-01'::date") == "2020-02-01"


def test_undone_settings_are_undone_for_the_next_transaction(few):
    with few().wire() as first, few().wire() as second:
        first.query("SET my.flag = 'kept'")
        first.query("BEGIN; SET my.flag = 'undone'; ROLLBACK")
        second.query("SET my.flag = 'other'")
        assert first.value("SHOW my.flag") == "kept"
        first.query("BEGIN; SET LOCAL my.flag = 'local'; COMMIT")
        second.query("SELECT 1")
        assert first.value("SHOW my.flag") == "kept"


def test_set_config_is_followed(few):
    with few().wire() as first, few().wire() as second:
        first.extended("SELECT set_config('my.flag', $1, false)", "by function")
        second.query("SET my.flag = 'other'")
        assert first.value("SHOW my.flag") == "by function"


def test_temporary_tables(few, pg):
    """They pin their client to its backend; nobody else sees them, and they end with it."""
    proxy = few(2)
    with proxy.wire() as first, proxy.wire() as second:
        first.query("CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1)")
        for _ in range(3):
            assert first.value("SELECT a FROM mine") == "1"
            assert sqlstates(second.query("SELECT * FROM mine")) == ["42P01"]
    for _ in range(4):
        with proxy.wire() as later:
            assert sqlstates(later.query("SELECT * FROM mine")) == ["42P01"]
            assert sqlstates(later.query("CREATE TEMP TABLE mine (b text); DROP TABLE mine")) == []


def test_a_temporary_table_of_one_transaction_pins_no_longer(few):
    with few(1).wire() as first, few(1).wire() as second:
        first.query(
            "BEGIN; CREATE TEMP TABLE mine (a int) ON COMMIT DROP; INSERT INTO mine VALUES (1); COMMIT"
        )
        assert second.value("SELECT 1") == "1"


def test_listen(few):
    """The notification arrives although the client is idle (more in test_listen.py)."""
    proxy = few(2)
    with proxy.wire() as listener, proxy.wire() as other:
        listener.query("LISTEN news")
        other.query("NOTIFY news, 'hello'")
        reply = listener.receive()
        assert reply.type == "A"
        assert reply.body[4:] == b"news\0hello\0"
    with proxy.wire() as later, proxy.wire() as sender:
        sender.query("NOTIFY news, 'nobody listens'")
        assert types(later.query("SELECT 1")) == "TDCZ"
        assert later.value("SELECT count(*) FROM pg_listening_channels()") == "0"


def test_advisory_locks(few, superuser):
    proxy = few(2)
    with proxy.wire() as first, proxy.wire() as second:
        assert first.value("SELECT pg_try_advisory_lock(77)") == "t"
        for _ in range(3):
            assert second.value("SELECT pg_try_advisory_lock(77)") == "f"
        assert first.value("SELECT pg_advisory_unlock(77)") == "t"
        assert second.value("SELECT pg_try_advisory_lock(77)") == "t"
        first.query("SELECT pg_advisory_lock(78)")
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    wait_until(lambda: superuser.execute(held).fetchone() == (0,), "locks end with their clients")


def test_cursors_with_hold(few):
    proxy = few(2)
    with proxy.wire() as first, proxy.wire() as second:
        first.query("BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT generate_series(1, 5); COMMIT")
        assert rows(first.query("FETCH 2 FROM mine")) == [("1",), ("2",)]
        assert sqlstates(second.query("FETCH 1 FROM mine")) == ["34000"]
        assert rows(first.query("FETCH 1 FROM mine")) == [("3",)]


def test_what_an_extension_s_settings_are_by_themselves_no_client_has_set(few):
    proxy = few()
    with proxy.wire() as one, proxy.wire() as other, proxy.wire() as third:
        # known by name from then on; with the first function PL/pgSQL says what it is
        one.query("SET plpgsql.print_strict_params = on")
        other.query("DO $$ BEGIN PERFORM 1; END $$")
        other.query("SET app.mark = 'x'")
        third.query("SET app.mark = 'y'")
        said = "SELECT source, current_setting('app.mark') FROM pg_settings WHERE name = %s"
        said = said.replace("%s", "'plpgsql.print_strict_params'")
        assert rows(other.query(said)) == [("default", "x")]
        assert rows(third.query(said)) == [("default", "y")]
        # nobody may carry this one from server to server
        assert sqlstates(one.query("SET plpgsql.variable_conflict = 'error'")) == ["42501"]


def test_what_one_client_has_prepared_no_other_can_name(few):
    proxy = few()
    with proxy.wire() as owner, proxy.wire() as other:
        for number in range(40):
            owner.ask(parse(f"SELECT {number}", f"s{number}"), SYNC)
        # the proxy's own names on servers count in hexadecimal
        for number in range(200):
            for sql in (f"EXECUTE tp_{number:x}", f"DEALLOCATE tp_{number:x}"):
                assert sqlstates(other.query(sql)) == ["26000"], sql
        for number in range(40):
            said = owner.ask(bind(name=f"s{number}"), execute(), SYNC)
            assert rows(said) == [(str(number),)]


def test_sql_prepared_statements_stay_with_their_client(few):
    proxy = few(2)
    with proxy.wire() as first, proxy.wire() as second:
        first.query("PREPARE mine AS SELECT 'first'")
        second.query("PREPARE mine AS SELECT 'second'")
        for _ in range(3):
            assert first.value("EXECUTE mine") == "first"
            assert second.value("EXECUTE mine") == "second"
    with proxy.wire() as later:
        assert sqlstates(later.query("EXECUTE mine")) == ["26000"]


def test_session_characteristics_stay_with_their_client(few):
    with few().wire() as first, few().wire() as second:
        first.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        assert second.value("SHOW transaction_read_only") == "off"
        assert first.value("SHOW transaction_read_only") == "on"


def test_pins_are_visible_and_end(few):
    proxy = few(3)
    with proxy.wire() as c:
        c.query("CREATE TEMP TABLE mine (a int)")
        assert any(int(pool["sv_pinned"]) for pool in proxy.admin("SHOW POOLS") if pool["user"] == "acme_app")
        c.query("DISCARD ALL")
        assert not any(
            int(pool["sv_pinned"]) for pool in proxy.admin("SHOW POOLS") if pool["user"] == "acme_app"
        )


def test_with_flush_a_backend_stays_until_sync(few):
    with few(1).wire() as first, few(1).wire() as second:
        first.send(parse("SELECT 1"), bind(), execute(), FLUSH)
        assert types(first.until("C")) == "12DC"
        second.send(query("SELECT 'mine'"))
        wait_until(lambda: waiting(few(1)) == 1, "the second waits")
        first.send(SYNC)
        assert types(first.until_ready()) == "Z"
        assert rows(second.until_ready()) == [("mine",)]


# --- together ------------------------------------------------------------------------


async def test_forty_clients_of_two_tenants_on_three_backends_each(proxies):
    """Every one gets its own tenant's rows, its own settings, its own statements."""
    proxy = proxies(pool={"mode": "transaction", "max": 3}, workers=2)

    async def work(number: int) -> None:
        user, item = (("acme_app", "anvil"), ("beta_app", "bolt"))[number % 2]
        async with await psycopg.AsyncConnection.connect(
            proxy.dsn(user, application_name=f"worker {number}"), autocommit=True, prepare_threshold=0
        ) as conn:
            await conn.execute(f"SET my.number = '{number}'")
            for turn in range(10):
                row = await (
                    await conn.execute(
                        "SELECT item, current_setting('my.number'), current_user, %s::int"
                        " FROM orders WHERE id = 1",
                        [turn],
                    )
                ).fetchone()
                assert row == (item, str(number), user, turn)
                async with conn.transaction():
                    row = await (await conn.execute("SHOW application_name")).fetchone()
                    assert row == (f"worker {number}",)

    await asyncio.gather(*(work(number) for number in range(40)))


def test_threads_that_come_and_go(proxies):
    proxy = proxies(pool={"mode": "transaction", "max": 2})
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(15):
                with proxy.wire("acme_app" if number % 2 else "beta_app") as c:
                    if turn % 3 == 0:
                        c.query("BEGIN")
                        c.query("SELECT 1/0")
                    elif turn % 3 == 1:
                        c.send(query("SELECT pg_sleep(0.001)"))
                    else:
                        assert c.value("SELECT item FROM orders WHERE id = 1") == (
                            "anvil" if number % 2 else "bolt"
                        )
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
