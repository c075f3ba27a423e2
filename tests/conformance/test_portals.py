"""Portals: named ones, row limits, and how long they live."""

from __future__ import annotations

from tests.wire_client import (
    FLUSH,
    SYNC,
    bind,
    close_portal,
    describe_portal,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
)

NUMBERS = "SELECT generate_series(1, 5)"


def test_row_limit_suspends_the_portal(both):
    for c in both():
        c.send(parse(NUMBERS), bind(), execute(limit=2), execute(limit=2), execute(limit=2), SYNC)
        replies = c.until_ready()
        assert types(replies) == "12DDsDDsDCZ"


def test_a_portal_goes_on_while_the_transaction_lasts(both):
    for c in both():
        c.query("BEGIN")
        assert types(c.ask(parse(NUMBERS), bind(portal="p"), execute("p", 2), SYNC)) == "12DDsZ"
        assert types(c.ask(execute("p", 2), SYNC)) == "DDsZ"
        c.query("SELECT 'between'")
        assert rows(c.ask(execute("p", 0), SYNC)) == [("5",)]
        c.query("COMMIT")


def test_portals_end_with_the_implicit_transaction(both):
    for c in both():
        assert types(c.ask(parse(NUMBERS), bind(portal="p"), execute("p", 2), SYNC)) == "12DDsZ"
        assert sqlstates(c.ask(execute("p", 2), SYNC)) == ["34000"]


def test_portals_end_with_the_transaction(both):
    for c in both():
        c.query("BEGIN")
        c.ask(parse(NUMBERS), bind(portal="p"), execute("p", 2), SYNC)
        c.query("COMMIT")
        assert sqlstates(c.ask(execute("p", 2), SYNC)) == ["34000"]


def test_suspended_under_flush(both):
    for c in both():
        c.send(parse(NUMBERS), bind(), execute(limit=3), FLUSH)
        assert types(c.until("s")) == "12DDDs"
        c.send(execute(limit=3), FLUSH)
        assert types(c.until("C")) == "DDC"
        c.send(SYNC)
        assert types(c.until_ready()) == "Z"


def test_several_portals_at_once(both):
    for c in both():
        c.query("BEGIN")
        c.ask(parse("SELECT generate_series($1::int, 9)", "s"), SYNC)
        replies = c.ask(
            bind("1", name="s", portal="a"), bind("5", name="s", portal="b"),
            execute("a", 1), execute("b", 1), execute("a", 1), describe_portal("b"), close_portal("a"), SYNC,
        )  # fmt: skip
        assert types(replies) == "22DsDsDsT3Z"
        assert rows(replies) == [("1",), ("5",), ("2",)]
        assert sqlstates(c.ask(execute("a"), SYNC)) == ["34000"]
        c.query("ROLLBACK")


def test_a_portal_name_that_is_taken(both):
    for c in both():
        c.query("BEGIN")
        replies = c.ask(parse("SELECT 1"), bind(portal="p"), bind(portal="p"), SYNC)
        assert sqlstates(replies) == ["42P03"]
        c.query("ROLLBACK")


def test_executing_a_finished_portal_again(both):
    for c in both():
        replies = c.ask(parse("SELECT 1"), bind(), execute(), execute(), SYNC)
        assert types(replies) == "12DCCZ"


def test_an_sql_cursor_is_a_portal(both):
    for c in both():
        c.query(f"BEGIN; DECLARE cur CURSOR FOR {NUMBERS}")
        assert rows(c.ask(describe_portal("cur"), execute("cur", 2), SYNC)) == [("1",), ("2",)]
        assert rows(c.query("FETCH 1 FROM cur")) == [("3",)]
        c.query("COMMIT")


def test_row_limit_of_what_returns_no_rows(both):
    for c in both():
        replies = c.ask(parse("SET LOCAL work_mem = '1MB'"), bind(), execute(limit=1), SYNC)
        assert types(replies) in ("12NCZ", "12CZ")


def test_row_limit_over_a_simple_query_in_one_write(both):
    for c in both():
        c.send(
            query("BEGIN"),
            parse(NUMBERS),
            bind(),
            execute(limit=4),
            SYNC,
            execute(limit=4),
            SYNC,
            query("COMMIT"),
        )
        assert types(c.until_ready(4)) == "CZ12DDDDsZDCZCZ"
