"""The guard as a driver meets it: what is refused, how it looks, and what state it leaves.

Here the tenant's role may use the other tenant's schema as far as PostgreSQL is concerned, so that only
the guard stands between them.  What the guard says of single statements is in tests/guard.
"""

from __future__ import annotations

import struct

import asyncpg
import psycopg
import pytest

from tests.fix_proxy import PASSWORDS
from tests.wire_client import (
    FLUSH,
    SYNC,
    bind,
    copy_data,
    describe_statement,
    errors,
    execute,
    fields,
    function_call,
    message,
    parse,
    query,
    rows,
    sqlstates,
    types,
)


@pytest.fixture(scope="module", autouse=True)
def careless_grants(pg):
    """As a careless administrator would: acme may read beta's tables."""
    with pg.connect() as conn:
        conn.execute(
            "GRANT USAGE ON SCHEMA beta TO acme_app;"
            "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA beta TO acme_app"
        )
        conn.execute("GRANT beta_app TO acme_app")
    yield
    with pg.connect() as conn:
        conn.execute("REVOKE beta_app FROM acme_app")
        conn.execute(
            "REVOKE ALL ON ALL TABLES IN SCHEMA beta FROM acme_app; REVOKE ALL ON SCHEMA beta FROM acme_app"
        )


FOREIGN = [
    "SELECT * FROM beta.orders",
    "SELECT beta.orders.item FROM beta.orders",
    "TABLE beta.orders",
    "WITH x AS (SELECT * FROM beta.orders) SELECT * FROM x",
    "SELECT (SELECT item FROM beta.orders LIMIT 1)",
    "SELECT 1 WHERE EXISTS (SELECT FROM beta.orders)",
    "INSERT INTO beta.orders VALUES (9, 'x')",
    "INSERT INTO scratch SELECT id, item FROM beta.orders",
    "UPDATE scratch SET body = o.item FROM beta.orders o",
    "DELETE FROM scratch USING beta.orders o WHERE o.id = scratch.id",
    "COPY beta.orders TO STDOUT",
    "COPY (SELECT * FROM beta.orders) TO STDOUT",
    "COPY beta.orders FROM STDIN",
    "EXPLAIN SELECT * FROM beta.orders",
    "EXPLAIN (ANALYZE) SELECT * FROM beta.orders",
    "PREPARE x AS SELECT * FROM beta.orders",
    "CREATE VIEW v AS SELECT * FROM beta.orders",
    "CREATE TABLE t AS SELECT * FROM beta.orders",
    "CREATE TABLE beta.t (a int)",
    "CREATE TEMP TABLE t (LIKE beta.orders)",
    "DROP TABLE beta.orders",
    "ALTER TABLE orders SET SCHEMA beta",
    "DECLARE c CURSOR FOR SELECT * FROM beta.orders",
    "SELECT beta.shout('x')",
    "SELECT 'good'::beta.mood",
    "SELECT nextval('beta.numbers')",
    "SELECT 'beta.orders'::regclass",
    "LOCK TABLE beta.orders",
    "DO $$ BEGIN PERFORM * FROM beta.orders; END $$",
    "SELECT 1; SELECT * FROM beta.orders",
    "SET search_path = beta",
    "SET search_path TO acme, beta",
    "SELECT set_config('search_path', 'beta', false)",
    "SET ROLE beta_app",
    "SET SESSION AUTHORIZATION beta_app",
    "SET LOCAL ROLE beta_app",
    "PREPARE TRANSACTION 'name'",
    "COMMIT PREPARED 'name'",
    "SELECT set_config('role', 'beta_app', false)",
    "COPY orders TO PROGRAM 'cat'",
    "SET standard_conforming_strings = off",
    "SELECT pg_read_file('PG_VERSION')",
]


@pytest.mark.parametrize("sql", FOREIGN)
def test_refused_as_a_simple_query(each_mode, sql):
    with each_mode.wire() as c:
        replies = c.query(sql)
        assert types(replies) == "EZ"
        (error,) = errors(replies)
        assert error["S"] == "ERROR"
        assert error["C"] in ("42501", "22023"), error
        assert c.xact_status == "I"
        assert c.value("SELECT item FROM orders WHERE id = 1") == "anvil"


@pytest.mark.parametrize("sql", [sql for sql in FOREIGN if ";" not in sql.split("$$")[0]])
def test_refused_at_parse(each_mode, sql):
    """Nothing is parsed on the server, and what follows is skipped until Sync."""
    with each_mode.wire() as c:
        replies = c.ask(parse(sql, "name"), describe_statement("name"), bind(name="name"), execute(), SYNC)
        assert types(replies) == "EZ"
        assert sqlstates(replies)[0] in ("42501", "22023")
        assert sqlstates(c.ask(bind(name="name"), SYNC)) == ["26000"]


def test_the_error_says_what_and_where(proxy):
    with proxy.wire() as c:
        (error,) = errors(c.query("SELECT 'é', o.item\nFROM beta.orders o"))
        assert error["S"] == error["V"] == "ERROR"
        assert error["C"] == "42501"
        assert "beta" in error["M"]
        assert error["H"]
        # a position counts characters, not bytes
        assert error["P"] == str("SELECT 'é', o.item\nFROM beta.orders o".index("beta.orders") + 1)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM gamma.t",
        "CREATE TABLE gamma.t (a int)",
        "SELECT * FROM pg_authid",
        "TABLE pg_shadow",
        "SELECT pg_catalog.pg_read_file('x')",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION f()",
        "CREATE TABLESPACE x LOCATION '/x'",
    ],
)
def test_refusals_are_worded_as_the_server_words_them(pg, proxy, superuser, sql):
    """Applications match on the text."""
    superuser.execute("CREATE SCHEMA IF NOT EXISTS gamma; CREATE TABLE IF NOT EXISTS gamma.t ()")
    said = []
    for conn in (pg.connect("acme_app", PASSWORDS["acme_app"]), proxy.connect()):
        with conn, pytest.raises(psycopg.Error) as raised:
            conn.execute(sql)
        said.append((raised.value.sqlstate, raised.value.diag.message_primary))
    assert said[0] == said[1]


def test_drivers_show_the_position(proxy):
    with proxy.connect() as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
            conn.execute("SELECT item FROM beta.orders")
        assert raised.value.diag.statement_position == "18"
        assert raised.value.diag.message_hint


async def test_asyncpg_sees_its_own_exception(proxy):
    conn = await asyncpg.connect(proxy.url())
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as raised:
            await conn.fetch("SELECT * FROM beta.orders")
        assert raised.value.position == "15"
        assert await conn.fetchval("SELECT 1") == 1
    finally:
        await conn.close()


def test_syntax_errors_are_told_as_the_server_would(proxy):
    with proxy.wire() as c:
        (error,) = errors(c.query("SELECT item FRO orders WHERE"))
        assert error["C"] == "42601"
        assert error["M"] == 'syntax error at or near "orders"'
        assert error["P"]


@pytest.mark.parametrize("way", ["simple", "extended"])
def test_in_a_transaction_it_aborts_as_any_failed_statement(each_mode, superuser, way):
    superuser.execute("TRUNCATE acme.scratch")
    with each_mode.wire() as c:
        ask = c.query if way == "simple" else c.extended
        ask("BEGIN")
        ask("INSERT INTO scratch VALUES (1)")
        assert sqlstates(ask("SELECT * FROM beta.orders")) == ["42501"]
        assert c.xact_status == "E"
        assert sqlstates(ask("SELECT 1")) == ["25P02"]
        # a second refused statement is not looked at any more than a good one is
        assert sqlstates(ask("SELECT * FROM beta.orders")) in (["25P02"], ["42501"])
        assert c.xact_status == "E"
        assert [m.body for m in ask("COMMIT") if m.type == "C"] == [b"ROLLBACK\0"]
        assert c.xact_status == "I"
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("0",)]


def test_savepoints_undo_it(each_mode):
    with each_mode.wire() as c:
        c.query("BEGIN")
        c.query("SAVEPOINT before")
        c.query("SELECT * FROM beta.orders")
        assert c.xact_status == "E"
        c.query("ROLLBACK TO before")
        assert c.xact_status == "T"
        assert c.value("SELECT 1") == "1"
        c.query("COMMIT")


def test_an_aborted_transaction_holds_its_locks_no_longer_than_any(each_mode, superuser):
    """The server knows that the transaction failed; it is not only the proxy that says so."""
    with each_mode.wire() as c:
        c.query("BEGIN; LOCK TABLE scratch")
        c.query("SELECT * FROM beta.orders")
        c.query("ROLLBACK")
        with superuser.transaction():
            superuser.execute("LOCK TABLE acme.scratch NOWAIT")


def test_in_a_message_of_several_statements_nothing_runs(each_mode, superuser):
    """The text is judged as a whole before its first statement runs."""
    superuser.execute("TRUNCATE acme.scratch")
    with each_mode.wire() as c:
        assert types(c.query("INSERT INTO scratch VALUES (1); COMMIT; SELECT * FROM beta.orders")) == "EZ"
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("0",)]


def test_in_a_pipeline(each_mode, superuser):
    superuser.execute("TRUNCATE acme.scratch")
    with each_mode.wire() as c:
        c.send(
            parse("INSERT INTO scratch VALUES (1)"), bind(), execute(),
            parse("SELECT * FROM beta.orders"), bind(), execute(),
            parse("INSERT INTO scratch VALUES (2)"), bind(), execute(), SYNC,
            parse("SELECT count(*) FROM scratch"), bind(), execute(), SYNC,
        )  # fmt: skip
        replies = c.until_ready(2)
        assert types(replies) == "12CEZ12DCZ"
        assert sqlstates(replies) == ["42501"]
        # the batch was one transaction, and failed as one
        assert rows(replies) == [("0",)]


def test_in_a_pipeline_inside_a_transaction(each_mode):
    with each_mode.wire() as c:
        c.send(
            query("BEGIN"),
            parse("SELECT * FROM beta.orders"),
            bind(),
            execute(),
            SYNC,
            query("SELECT 1"),
            query("ROLLBACK"),
        )
        replies = c.until_ready(4)
        assert types(replies) == "CZEZEZCZ"
        assert [m.body for m in replies if m.type == "Z"] == [b"T", b"E", b"E", b"I"]


def test_refused_between_simple_queries_sent_ahead(each_mode):
    with each_mode.wire() as c:
        c.send(query("SELECT 1"), query("SELECT * FROM beta.orders"), query("SELECT 2"))
        assert types(c.until_ready(3)) == "TDCZEZTDCZ"


def test_refused_under_flush(each_mode):
    with each_mode.wire() as c:
        c.send(parse("SELECT 1"), bind(), execute(), parse("SELECT * FROM beta.orders"), FLUSH)
        assert types(c.until("E")) == "12DCE"
        c.send(bind(), execute(), SYNC)
        assert types(c.until_ready()) == "Z"


def test_copy_data_behind_a_refused_copy_is_dropped(each_mode):
    with each_mode.wire() as c:
        c.send(query("COPY beta.orders FROM STDIN"), copy_data(b"9\tx\t1\n"), query("SELECT 1"))
        assert types(c.until_ready(2)) == "EZTDCZ"


def test_function_calls_are_judged_too(each_mode, superuser):
    """The fast path names functions by OID; those of other schemas and dangerous ones are refused."""
    (foreign,) = superuser.execute("SELECT 'beta.shout'::regproc::oid::int").fetchone()
    (own,) = superuser.execute("SELECT 'acme.shout'::regproc::oid::int").fetchone()
    set_config, read_file = 2078, 2624
    with each_mode.wire() as c:
        assert sqlstates(c.ask(function_call(foreign, b"x", arg_format=0))) == ["42501"]
        assert sqlstates(c.ask(function_call(read_file, b"PG_VERSION", arg_format=0))) == ["42501"]
        assert sqlstates(c.ask(function_call(set_config, b"role", b"beta_app", b"f", arg_format=0))) == [
            "42501"
        ]
        assert c.value("SELECT current_user") == "acme_app"
        replies = c.ask(function_call(own, b"x", arg_format=0, result_format=0))
        assert types(replies) in ("VZ", "EZ")


def test_own_schema_and_shared_tables_may_be_named(each_mode):
    with each_mode.wire() as c:
        assert c.value("SELECT item FROM acme.orders WHERE id = 1") == "anvil"
        assert c.value("SELECT name FROM public.countries WHERE code = 'FR'") == "France"
        assert c.value("SELECT name FROM countries WHERE code = 'JP'") == "Japan"
        assert c.value("SELECT acme.shout('x') || pg_catalog.lower('Y')") == "Xy"
        assert c.value("SELECT count(*) > 0 FROM information_schema.tables") == "t"
        assert sqlstates(c.query("INSERT INTO public.countries VALUES ('XX', 'x')")) == ["42501"]


def test_bound_parameters_count(each_mode):
    """PgDog #1298: a gate that only reads the text misses set_config($1, $2)."""
    with each_mode.wire() as c:
        for name, value in (
            ("search_path", "beta"),
            ("role", "beta_app"),
            ("session_authorization", "beta_app"),
        ):
            c.extended("SELECT set_config($1, $2, false)", name, value)
            assert c.value("SELECT current_user || ' ' || current_schema()") == "acme_app acme"
        # nor through what the parameters name
        c.extended("SELECT nextval($1::regclass)", "beta.numbers")
        c.extended("SELECT $1::regclass", "beta.orders")


def array(element_type: int, *elements: bytes | None) -> bytes:
    """As array_send writes it."""
    sizes = (-1 if element is None else len(element) for element in elements)
    body = b"".join(
        struct.pack("!i", size) + (element or b"") for size, element in zip(sizes, elements, strict=True)
    )
    return struct.pack("!iiIii", 1, int(None in elements), element_type, len(elements), 1) + body


def test_arrays_of_names_are_judged_in_binary_too(each_mode):
    text, regclass, text_array = 25, 2205, 1009
    with each_mode.wire() as client:

        def asked(sql: str, value: bytes, *types: int) -> list[str]:
            sent = parse(sql, types=types), bind(value, formats=[1]), execute(), SYNC
            return sqlstates(client.ask(*sent))

        oid = client.value("SELECT 'orders'::regclass::oid")
        assert asked("SELECT $1::text[]::regclass[]", array(text, b"orders", None)) == []
        assert asked("SELECT $1::text[]::regclass[]", array(text, b"orders", None, b"beta.orders")) == [
            "42501"
        ]
        assert asked("SELECT $1::regclass[]", array(text, b"beta.orders"), text_array) == ["42501"]
        # to PostgreSQL one dimension more
        assert asked("SELECT ARRAY[$1]::regclass[]", array(text, b"beta.orders"), text_array) == ["42501"]
        assert asked("SELECT $1::regclass[]", array(regclass, struct.pack("!I", int(oid)))) == []


def test_extensions_that_are_there_need_not_be_made(each_mode):
    """As migrations of many tools begin; others are the operator's to make, in the server's words."""
    there = "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA pg_catalog"
    with each_mode.wire() as client:
        for replies in (
            client.query(there.format("plpgsql") + "; SELECT 1"),
            client.ask(parse(there.format('"plpgsql"')), bind(), execute(), SYNC),
            client.query(f"DO $$ BEGIN {there.format('plpgsql')}; END $$"),
        ):
            assert sqlstates(replies) == []
            (notice,) = [fields(message) for message in replies if message.type == "N"]
            assert (notice["C"], notice["M"]) == ("42710", 'extension "plpgsql" already exists, skipping')
        (error,) = errors(client.query("CREATE EXTENSION IF NOT EXISTS hstore"))
        assert (error["C"], error["M"]) == ("42501", 'permission denied to create extension "hstore"')
        assert sqlstates(client.query("CREATE EXTENSION plpgsql")) == ["42501"]


def test_parameters_are_what_they_are_read_as(each_mode):
    """A parameter's own type could turn its value to another text."""
    sql = "SELECT set_config($1, $2, true)"
    with each_mode.wire() as c:
        for oids in ((19, 25), (25, 1042), (16384, 25)):
            sent = parse(sql, types=oids), bind("application_name", "x"), execute(), SYNC
            assert sqlstates(c.ask(*sent)) == ["42501"], oids
        for oids in ((0, 0), (0, 25), (1043, 1043), (705, 25)):
            replies = c.ask(parse(sql, types=oids), bind("application_name", "x"), execute(), SYNC)
            assert rows(replies) == [("x",)], oids


def test_a_malformed_bind_is_the_client_s_mistake(each_mode):
    for values in (b"\0\1\0\0\0\x20beta\0\0", b"\0\1\xff\xff\xff\xfebeta\0\0", b"\0\2"):
        with each_mode.wire() as c:
            malformed = message("B", b"\0\0" + b"\0\0" + values)
            replies = c.ask(parse("SELECT set_config('search_path', $1, false)"), malformed, SYNC)
            assert sqlstates(replies) == ["08P01"]
            assert c.value("SELECT 1") == "1"
    assert "Traceback" not in each_mode.log()


def test_a_name_of_64_bytes_is_not_cut_differently(each_mode):
    with each_mode.wire() as c:
        long_name = "beta" + "x" * 80
        assert sqlstates(c.query(f"SELECT * FROM {long_name}.orders")) == ["42501"]


def test_comments_quotes_and_unicode_escapes_hide_nothing(each_mode):
    with each_mode.wire() as c:
        for sql in (
            "SELECT * FROM/**/beta/* */./* */orders",
            'SELECT * FROM "beta"."orders"',
            'SELECT * FROM U&"\\0062eta".orders',
            "SELECT * FROM U&\"!0062eta\" UESCAPE '!'.orders",
            "select * from BETA.ORDERS",
            "SELECT * FROM app.beta.orders",
            "SELECT $$ ' $$; SELECT * FROM beta.orders -- $$",
        ):
            replies = c.query(sql)
            assert not rows(replies) or rows(replies) == [(" ' ",)], sql
            assert set(sqlstates(replies)) <= {"42501", "42601", "0A000"}, sql
            assert sqlstates(replies), sql


def test_observe_lets_through_and_counts(proxies):
    proxy = proxies(policy={"mode": "observe"})
    before = proxy.metric("tenant_proxy_guard_verdicts_total", tenant="acme")
    with proxy.wire() as c:
        assert rows(c.query("SELECT item FROM beta.orders WHERE id = 1")) == [("bolt",)]
        assert sqlstates(c.query("SELEC 1")) == ["42601"]
    assert proxy.metric("tenant_proxy_guard_verdicts_total", tenant="acme") > before


@pytest.mark.parametrize(("mode", "action"), [("enforce", "reject"), ("observe", "observe")])
def test_violations_are_listed_without_literals(own_proxy, mode, action):
    proxy = own_proxy(workers=2, policy={"mode": mode})
    with proxy.log_contains('"statement": ?"SELECT item FROM beta.orders WHERE item = [?]"', 3):
        for word in ("hunter2", "other", "third"):
            with proxy.wire() as c:
                c.query(f"SELECT item FROM beta.orders WHERE item = '{word}' -- {word}")
                c.query(f"SELECT $${word}$$, item FROM beta.orders")
    shown = {row["statement"]: row for row in proxy.admin("SHOW VIOLATIONS")}
    assert shown.keys() == {"SELECT item FROM beta.orders WHERE item = ?", "SELECT …"}
    row = shown["SELECT item FROM beta.orders WHERE item = ?"]
    assert (row["tenant"], row["user"], row["action"]) == ("acme", "acme_app", action)
    assert (row["reason"], row["object"], row["sqlstate"]) == ("cross_schema", "beta.orders", "42501")
    assert int(row["count"]) == 3
    assert "hunter2" not in str(shown) + proxy.log()
    assert proxy.metric("tenant_proxy_guard_verdicts_total", tenant="acme", action=action) == 6
    proxy.admin("RESET VIOLATIONS")
    assert proxy.admin("SHOW VIOLATIONS") == []


def test_function_calls_are_observed_too(own_proxy):
    proxy = own_proxy(policy={"mode": "observe"})
    with proxy.wire() as c, proxy.log_contains("function call would be refused"):
        # pg_read_file, which the role may not call
        assert sqlstates(c.ask(function_call(2624, b"PG_VERSION", arg_format=0))) == ["42501"]
    (row,) = proxy.admin("SHOW VIOLATIONS")
    assert (row["statement"], row["action"]) == ("(function call)", "observe")


def test_off_does_not_look(proxies):
    proxy = proxies(policy={"mode": "off"})
    with proxy.wire() as c:
        assert rows(c.query("SELECT item FROM beta.orders WHERE id = 1")) == [("bolt",)]


def test_modes_differ_by_tenant(proxies):
    tenants = [{"name": "acme", "policy": {"mode": "off"}}, {"name": "beta"}]
    proxy = proxies(tenants=tenants)
    with proxy.wire() as acme, proxy.wire("beta_app") as beta:
        assert rows(acme.query("SELECT item FROM beta.orders WHERE id = 1")) == [("bolt",)]
        assert sqlstates(beta.query("SELECT item FROM acme.orders")) == ["42501"]


def test_allowed_schemas_of_a_policy(proxies):
    tenants = [{"name": "acme", "policy": {"allowed_schemas": ["beta"]}}, {"name": "beta"}]
    with proxies(tenants=tenants).wire() as c:
        assert rows(c.query("SELECT item FROM beta.orders WHERE id = 1")) == [("bolt",)]
        assert sqlstates(c.query("SELECT * FROM public.countries")) == ["42501"]


def test_denied_and_allowed_functions_of_a_policy(proxies):
    proxy = proxies(policy={"denied_functions": ["md5"], "allowed_functions": ["pg_stat_get_activity"]})
    with proxy.wire() as c:
        assert sqlstates(c.query("SELECT md5('x')")) == ["42501"]
        assert sqlstates(c.query("SELECT pg_catalog.md5('x')")) == ["42501"]
        assert c.value("SELECT upper('x')") == "X"


def test_a_statement_larger_than_the_limit(proxies):
    proxy = proxies(limits={"max_statement_bytes": 2048})
    with proxy.wire() as c:
        large = "SELECT '" + "x" * 5000 + "'"
        replies = c.query(large)
        assert types(replies) == "EZ"
        assert sqlstates(replies) == ["54000"]
        replies = c.ask(parse(large), bind(), execute(), SYNC)
        assert types(replies) == "EZ"
        assert sqlstates(replies) == ["54000"]
        # parameters are not statements
        assert rows(c.extended("SELECT length($1)", "y" * 5000)) == [("5000",)]


def test_verdicts_are_remembered_by_shape(proxies):
    proxy = proxies(policy={"cache_entries": 1000})
    with proxy.wire() as c:
        c.value("SELECT item FROM orders WHERE id = 1")
        misses = proxy.metric("tenant_proxy_guard_cache_misses_total")
        hits = proxy.metric("tenant_proxy_guard_cache_hits_total")
        for number in range(2, 50):
            c.query(f"SELECT item FROM orders WHERE id = {number}")
        assert proxy.metric("tenant_proxy_guard_cache_misses_total") == misses
        assert proxy.metric("tenant_proxy_guard_cache_hits_total") >= hits + 48


def test_a_long_statement_holds_up_its_client_alone(proxies):
    """It is judged by a process of its own; refusals and answers come in order, also in a transaction."""
    proxy = proxies(pool={"mode": "transaction"})
    columns = ", ".join(["1"] * 1_600)
    with proxy.wire() as client, proxy.wire() as other:
        client.query("BEGIN")
        client.send(
            query(f"SELECT {columns}"),
            query(f"SELECT {columns} FROM beta.orders"),
            query("SELECT 1"),
        )
        for _ in range(20):
            assert other.value("SELECT 1") == "1"
        client.until_ready()
        assert sqlstates(client.until_ready()) == ["42501"]
        assert sqlstates(client.until_ready()) == ["25P02"]
        client.query("ROLLBACK")
        assert client.value(f"SELECT count(*) FROM (VALUES {', '.join(['(1)'] * 20_000)}) AS x") == "20000"
    assert proxy.metric("tenant_proxy_guard_judged_apart_total") >= 2
    assert proxy.metric("tenant_proxy_guard_judge_failures_total") == 0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_code_of_one_s_own_does_not_change_how_sql_is_read(proxies, mode):
    """`EXECUTE` of text made at run time can switch the server's reading of backslashes: that ends it."""
    with proxies(pool={"mode": mode}).wire() as client:
        setting = "'SET standard_conforming_strings = ' || o || 'f'"
        made = "overlay('of' PLACING '' FROM 1 FOR 0)"
        client.send(query(f"DO $$ DECLARE o text := {made}; BEGIN EXECUTE {setting}; END $$"))
        (error,) = errors(client.until_end())
        assert error["S"] == "FATAL"
    with proxies(pool={"mode": mode}).connect() as conn:
        assert conn.execute("SHOW standard_conforming_strings").fetchone() == ("on",)
