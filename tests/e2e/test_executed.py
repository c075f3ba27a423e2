"""EXECUTE of what was prepared by Parse, whose values Bind would have had judged (relay/executed.py)."""

from __future__ import annotations

import pytest

from tenant_proxy.relay import executed
from tenant_proxy.relay.executed import ExecutedNames
from tests.wire_client import (
    SYNC,
    bind,
    close_statement,
    cstr,
    describe_statement,
    errors,
    execute,
    message,
    parse,
    rows,
)

SETS = "SELECT set_config($1, $2, false)"
DENIED = 'permission denied for prepared statement "p"'


@pytest.mark.parametrize(
    "sql",
    [
        "EXECUTE p('search_path', 'beta')",
        "EXPLAIN ANALYZE EXECUTE p('search_path', 'beta')",
        "CREATE TEMP TABLE x AS EXECUTE p('search_path', 'beta')",
    ],
)
def test_values_that_bind_would_have_had_judged(each_mode, sql):
    with each_mode.wire() as client:
        assert not errors(client.ask(parse(SETS, "p"), SYNC))
        assert [error["M"] for error in errors(client.query(sql))] == [DENIED]
        assert [error["M"] for error in errors(client.ask(parse(sql), bind(), execute(), SYNC))] == [DENIED]
        assert client.value("SHOW search_path") == "acme, public"
        # as it is meant
        assert rows(client.ask(bind("app.x", "y", name="p"), execute(), SYNC)) == [("y",)]


def test_queries_too(each_mode):
    with each_mode.wire() as client:
        assert not errors(client.ask(parse("SELECT query_to_xml($1, true, true, '')", "p"), SYNC))
        (error,) = errors(client.query("EXECUTE p('SELECT * FROM beta.orders')"))
        assert (error["C"], error["M"]) == ("42501", DENIED)


def test_the_statement_may_come_after_what_executes_it(each_mode):
    with each_mode.wire() as client:
        client.ask(parse("SELECT 1", "p"), parse("EXECUTE p", "q"), close_statement("p"), SYNC)
        (error,) = errors(client.ask(parse(SETS, "p"), SYNC))
        assert error["M"] == DENIED


def test_names_are_cut_as_the_server_cuts_them(each_mode):
    name = "p" * 63
    with each_mode.wire() as client:
        assert not errors(client.ask(parse(SETS, name + "q"), SYNC))
        assert errors(client.query(f"EXECUTE {name}('search_path', 'beta')"))[0]["C"] in ("42501", "26000")
        assert client.value("SHOW search_path") == "acme, public"


@pytest.mark.parametrize("names", [(63, 70), (70, 63), (70, 71)])
def test_bind_by_a_name_that_the_server_takes_for_another(each_mode, names):
    made, bound = ("p" * size for size in names)
    with each_mode.wire() as client:
        assert not errors(client.ask(parse(SETS, made), SYNC))
        (error,) = errors(client.ask(bind("search_path", "beta", name=bound), execute(), SYNC))
        assert error["C"] in ("42501", "26000")
        assert client.value("SHOW search_path") == "acme, public"


@pytest.mark.parametrize(
    ("made", "closed", "bound"),
    [
        ("é", None, "é".encode("latin1")),
        ("é", "é".encode(), "é".encode()),
        ("p" * 62 + "é", None, b"p" * 62 + b"\xe9"),
    ],
    ids=["bound", "closed", "cut"],
)
def test_a_name_in_another_encoding(each_mode, made, closed, bound):
    with each_mode.wire() as client:
        if errors(client.ask(parse(SETS, made), SYNC)):
            # where servers find statements by the client's own names
            assert each_mode.config.get("pool", {}).get("mode") == "session"
        client.query("SET client_encoding TO LATIN1")
        if closed is not None:
            client.ask(message("C", b"S" + cstr(closed)), SYNC)
            client.query("SET client_encoding TO UTF8")
        named = message("B", b"\0" + cstr(bound) + bind("search_path", "beta")[7:])
        (error,) = errors(client.ask(parse("SELECT to_regclass($1)", "other"), named, execute(), SYNC))
        assert error["C"] in ("42501", "26000")
        assert client.value("SHOW search_path") == "acme, public"
        client.query("SET client_encoding TO UTF8")
        # names that are longer than servers look at are alike where they look
        assert not errors(client.ask(parse(SETS, "p" * 63 + "é"), SYNC))


def test_the_proxy_s_own_names_are_no_client_s(each_mode):
    with each_mode.wire() as client:
        client.query("CREATE TEMP TABLE pinned (a int)")
        assert rows(client.ask(parse(SETS, "p"), bind("app.x", "y", name="p"), execute(), SYNC)) == [("y",)]
        names = [f"tp_{n:x}" for n in range(1, 256)] + ["tp_none", "tp_refused", "tp_turn2"]
        for name in names:
            bad = errors(client.ask(bind("search_path", "beta", name=name), execute(), SYNC))
            assert [error["C"] for error in bad] == ["26000"]
            assert [e["C"] for e in errors(client.ask(describe_statement(name), SYNC))] == ["26000"]
            assert not errors(client.ask(close_statement(name), SYNC))
        assert client.value("SHOW search_path") == "acme, public"
        assert rows(client.ask(bind("app.x", "z", name="p"), execute(), SYNC)) == [("z",)]
        # those that look alike are
        client.query("PREPARE tp_mine AS SELECT 1; PREPARE tp_turns AS SELECT 2")
        assert rows(client.ask(bind(name="tp_mine"), execute(), SYNC)) == [("1",)]
        assert rows(client.ask(bind(name="tp_turns"), execute(), SYNC)) == [("2",)]


def test_other_statements_are_executed(each_mode):
    with each_mode.wire() as client:
        assert not errors(client.ask(parse("SELECT $1::int + 1", "p"), SYNC))
        assert rows(client.query("EXECUTE p(1)")) == [("2",)]


def test_very_many_names(monkeypatch):
    monkeypatch.setattr(executed, "MAX_NAMES", 2)
    names = ExecutedNames()
    assert all(names.binds(1, b"%d" % n) for n in range(4))
    # any may be one of them
    assert names.executes(1, [b"x"], prepared=False) == b"x"
    assert names.executes(2, [b"x"], prepared=False) is None
    assert [names.executes(2, [b"%d" % n], prepared=True) for n in range(4)] == [None, None, b"2", b"3"]
    assert not names.binds(2, b"0")
    names.forget(1)
    assert names.executes(1, [b"x"], prepared=False) is None


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT query_to_xml($1, true, true, '')", [b"SELECT * FROM beta.orders -- \xad\xa1"]),
        ("SELECT set_config('search_path', $1, false)", [b'beta, "\xad\xa1"']),
        ("SELECT set_config($1, $2, false)", [b"search_path", b'beta, "\xad\xa1"']),
    ],
)
def test_values_that_only_the_server_can_read(each_mode, sql, values):
    """PostgreSQL's EUC_JP has a row of characters that Python's lacks."""
    with each_mode.wire(client_encoding="EUC_JP") as client:
        (error,) = errors(client.ask(parse(sql), bind(*values), execute(), SYNC))
        assert (error["C"], "R" in error) == ("22021", False)
        assert client.value("SHOW search_path") == "acme, public"
