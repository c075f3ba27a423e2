"""Extended query: Parse, Bind, Describe, Execute, Close, Flush, Sync."""

from __future__ import annotations

import struct

import pytest

from tests.wire_client import (
    FLUSH,
    SYNC,
    bind,
    close_portal,
    close_statement,
    columns,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
    row,
    rows,
    sqlstates,
    types,
)

TEXT, INT4, INT8 = 25, 23, 20


def test_unnamed_statement_in_one_write(both):
    for c in both():
        replies = c.extended("SELECT item FROM orders WHERE id = $1", "2")
        assert types(replies) == "12TDCZ"
        assert rows(replies) == [("rocket",)]


def test_named_statement_is_used_again(both):
    for c in both():
        assert types(c.ask(parse("SELECT $1::int + 1", "inc"), SYNC)) == "1Z"
        for number in range(5):
            replies = c.ask(bind(str(number), name="inc"), execute(), SYNC)
            assert types(replies) == "2DCZ"
            assert rows(replies) == [(str(number + 1),)]


def test_statements_outlive_transactions_and_errors(both):
    for c in both():
        c.ask(parse("SELECT 'still here'", "kept"), SYNC)
        c.query("BEGIN")
        c.query("SELECT 1/0")
        c.query("ROLLBACK")
        assert rows(c.ask(bind(name="kept"), execute(), SYNC)) == [("still here",)]


def test_a_statement_parsed_in_a_transaction_that_fails_stays(both):
    for c in both():
        c.query("BEGIN")
        c.ask(parse("SELECT 7", "seven"), SYNC)
        c.query("ROLLBACK")
        assert rows(c.ask(bind(name="seven"), execute(), SYNC)) == [("7",)]


def test_a_statement_whose_parse_shares_a_batch_with_an_error_stays(both):
    for c in both():
        assert (
            types(c.ask(parse("SELECT 8", "eight"), parse("SELECT 1/0"), bind(), execute(), SYNC)) == "11EZ"
        )
        assert rows(c.ask(bind(name="eight"), execute(), SYNC)) == [("8",)]


def test_describe_statement(both):
    for c in both():
        replies = c.ask(
            parse("SELECT id, item FROM orders WHERE id = $1 AND item <> $2", "s"),
            describe_statement("s"),
            SYNC,
        )
        assert types(replies) == "1tTZ"
        assert replies[1].body == struct.pack("!HII", 2, INT4, TEXT)
        assert [column.name for column in columns(replies[2])] == ["id", "item"]
        assert types(c.ask(describe_statement("s"), SYNC)) == "tTZ"


def test_describe_what_returns_nothing(both):
    for c in both():
        replies = c.ask(
            parse("SET LOCAL work_mem = '1MB'"), describe_statement(), bind(), describe_portal(), SYNC
        )
        assert types(replies) == "1tn2nZ"


def test_types_given_at_parse(both):
    for c in both():
        replies = c.ask(parse("SELECT $1", types=[INT8]), describe_statement(), bind("5"), execute(), SYNC)
        assert replies[1].body == struct.pack("!HI", 1, INT8)
        assert rows(replies) == [("5",)]


def test_binary_formats_both_ways(both):
    for c in both():
        replies = c.ask(
            parse("SELECT $1::int4 * 2, $2::text, now()::date > $3::date, ARRAY[$1]"),
            bind(struct.pack("!i", 21), "text", struct.pack("!i", 0), formats=[1, 0, 1], result_formats=[1]),
            describe_portal(),
            execute(),
            SYNC,
        )
        assert types(replies) == "12TDCZ"
        assert [column.format for column in columns(replies[2])] == [1, 1, 1, 1]
        assert row(replies[3])[:3] == (struct.pack("!i", 42), b"text", b"\1")


def test_one_format_for_each_result_column(both):
    for c in both():
        replies = c.ask(parse("SELECT 1, 2"), bind(result_formats=[0, 1]), execute(), SYNC)
        assert row(replies[2]) == (b"1", struct.pack("!i", 2))


def test_null_parameters(both):
    for c in both():
        assert rows(c.extended("SELECT $1::text IS NULL, $2::int", None, None)) == [("t", None)]


def test_empty_query(both):
    for c in both():
        assert types(c.extended("")) == "12nIZ"
        assert types(c.extended(" -- nothing")) == "12nIZ"


def test_two_statements_in_one_parse_are_refused(both):
    for c in both():
        assert sqlstates(c.extended("SELECT 1; SELECT 2")) == ["42601"]


@pytest.mark.parametrize(
    ("batch", "sqlstate"),
    [
        ([parse("SELECT nothing_such")], "42703"),
        ([parse("SELEC 1")], "42601"),
        ([bind(name="nothing_such")], "26000"),
        ([describe_statement("nothing_such")], "26000"),
        ([describe_portal("nothing_such")], "34000"),
        ([execute("nothing_such")], "34000"),
        ([parse("SELECT $1::int"), bind()], "08P01"),
        ([parse("SELECT $1::int"), bind("x")], "22P02"),
        ([parse("SELECT 1"), bind(result_formats=[7]), execute()], "22023"),
        ([parse("SELECT 1"), bind(result_formats=[0, 0])], "08P01"),
        ([parse("SELECT $1::int4"), bind(b"\0\0", formats=[1])], "08P01"),
        ([parse("SELECT 1", "a"), parse("SELECT 2", "a")], "42P05"),
    ],
)
def test_errors_skip_what_follows_until_sync(both, batch, sqlstate):
    for c in both():
        replies = c.ask(*batch, parse("SELECT 1"), bind(), execute(), SYNC)
        assert sqlstates(replies) == [sqlstate]
        assert types(replies).endswith("EZ")
        assert rows(c.extended("SELECT 'well again'")) == [("well again",)]


def test_an_error_after_rows(both):
    for c in both():
        replies = c.ask(
            parse("SELECT 6 / (3 - g) FROM generate_series(1, 5) g"),
            bind(),
            execute(),
            parse("SELECT 1"),
            SYNC,
        )
        assert types(replies) == "12DDEZ"


def test_a_name_is_free_again_after_close(both):
    for c in both():
        c.ask(parse("SELECT 1", "name"), SYNC)
        assert (
            types(
                c.ask(close_statement("name"), parse("SELECT 2", "name"), bind(name="name"), execute(), SYNC)
            )
            == "312DCZ"
        )


def test_close_of_what_does_not_exist(both):
    for c in both():
        assert types(c.ask(close_statement("nothing_such"), close_portal("nothing_such"), SYNC)) == "33Z"


def test_the_unnamed_statement_is_replaced_by_the_next(both):
    for c in both():
        c.ask(parse("SELECT 1"), SYNC)
        c.ask(parse("SELECT 2"), SYNC)
        assert rows(c.ask(bind(), execute(), SYNC)) == [("2",)]


def test_the_unnamed_statement_survives_sync_and_ends_with_a_simple_query(both):
    for c in both():
        c.ask(parse("SELECT 1"), SYNC)
        assert rows(c.ask(bind(), execute(), SYNC)) == [("1",)]
        c.query("SELECT 3")
        assert sqlstates(c.ask(bind(), execute(), SYNC)) == ["26000"]


def test_a_failed_parse_leaves_no_unnamed_statement(both):
    for c in both():
        c.ask(parse("SELECT 1"), SYNC)
        c.ask(parse("SELECT nothing_such"), SYNC)
        assert sqlstates(c.ask(bind(), execute(), SYNC)) == ["26000"]


def test_deallocate_ends_protocol_level_statements(both):
    for c in both():
        c.ask(parse("SELECT 1", "a"), parse("SELECT 2", "b"), SYNC)
        c.query("DEALLOCATE a")
        assert sqlstates(c.ask(bind(name="a"), SYNC)) == ["26000"]
        assert rows(c.ask(bind(name="b"), execute(), SYNC)) == [("2",)]
        c.query("DEALLOCATE ALL")
        assert sqlstates(c.ask(bind(name="b"), SYNC)) == ["26000"]


def test_discard_all_ends_protocol_level_statements(both):
    for c in both():
        c.ask(parse("SELECT 1", "a"), SYNC)
        assert types(c.query("DISCARD ALL")) == "CZ"
        assert sqlstates(c.ask(bind(name="a"), SYNC)) == ["26000"]
        assert types(c.ask(parse("SELECT 1", "a"), SYNC)) == "1Z"


def test_deallocate_of_what_does_not_exist(both):
    for c in both():
        assert sqlstates(c.query("DEALLOCATE nothing_such")) == ["26000"]


def test_execute_of_a_protocol_level_statement_in_sql(both_session):
    """Transaction mode keeps the two apart, as poolers do: SQL's EXECUTE names what SQL's PREPARE made."""
    for c in both_session():
        c.ask(parse("SELECT 'through SQL'", "told"), SYNC)
        assert rows(c.query("EXECUTE told")) == [("through SQL",)]


def test_bind_of_an_sql_level_statement(both):
    for c in both():
        c.query("PREPARE told AS SELECT 'through the protocol'")
        assert rows(c.ask(bind(name="told"), execute(), SYNC)) == [("through the protocol",)]


def test_a_result_that_changes_its_type_under_a_statement(both):
    for c in both():
        c.query("BEGIN; CREATE TABLE shape (a int); COMMIT")
        try:
            c.ask(parse("SELECT * FROM shape", "s"), SYNC)
            c.ask(bind(name="s"), execute(), SYNC)
            c.query("ALTER TABLE shape ADD b int")
            assert sqlstates(c.ask(bind(name="s"), execute(), SYNC)) == ["0A000"]
        finally:
            c.query("DROP TABLE shape")


def test_flush_brings_replies_without_sync(both):
    for c in both():
        c.send(parse("SELECT 1"), describe_statement(), FLUSH)
        assert types(c.until("T")) == "1tT"
        c.send(bind(), FLUSH)
        assert types(c.until("2")) == "2"
        c.send(execute(), FLUSH)
        assert types(c.until("C")) == "DC"
        c.send(SYNC)
        assert types(c.until_ready()) == "Z"


def test_an_error_under_flush_waits_for_sync(both):
    for c in both():
        c.send(parse("SELECT nothing_such"), FLUSH)
        assert types(c.until("E")) == "E"
        c.send(bind(), execute(), FLUSH, SYNC)
        assert types(c.until_ready()) == "Z"


def test_sync_alone(both):
    for c in both():
        assert types(c.ask(SYNC)) == "Z"
        c.send(SYNC, SYNC, SYNC)
        assert types(c.until_ready(3)) == "ZZZ"


def test_transaction_through_the_extended_protocol(both, scratch):
    for c in both():
        scratch()
        assert types(c.extended("BEGIN")) == "12nCZ"
        assert c.xact_status == "T"
        c.extended("INSERT INTO scratch VALUES ($1, $2)", "1", "one")
        assert c.xact_status == "T"
        c.extended("COMMIT")
        assert c.xact_status == "I"
        assert rows(c.extended("SELECT body FROM scratch")) == [("one",)]


def test_a_batch_is_one_transaction(both, scratch):
    for c in both():
        c.ask(
            parse("INSERT INTO scratch VALUES (1)"),
            bind(),
            execute(),
            parse("SELECT 1/0"),
            bind(),
            execute(),
            SYNC,
        )
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("0",)]


def test_simple_query_between_batches(both):
    for c in both():
        c.send(parse("SELECT 1", "s"), SYNC, query("SELECT 2"), bind(name="s"), execute(), SYNC)
        assert types(c.until_ready(3)) == "1ZTDCZ2DCZ"


def test_simple_query_in_place_of_sync(both):
    for c in both():
        c.send(parse("SELECT 1"), bind(), execute(), query("SELECT 2"))
        assert types(c.until_ready()) == "12DCTDCZ"


def test_simple_query_after_an_error_without_sync_is_skipped(both):
    for c in both():
        c.send(parse("SELECT nothing_such"), query("SELECT 2"), SYNC)
        assert types(c.until_ready()) == "EZ"


def test_the_same_statement_name_with_another_text_needs_close(both):
    for c in both():
        for text in ("SELECT 1", "SELECT 2", "SELECT 1"):
            assert types(c.ask(close_statement("s"), parse(text, "s"), SYNC)) == "31Z"
            assert rows(c.ask(bind(name="s"), execute(), SYNC)) == [(text[-1],)]


def test_many_statements(both):
    for c in both():
        batch = [parse(f"SELECT {n}", f"s{n}") for n in range(300)]
        assert types(c.ask(*batch, SYNC)) == "1" * 300 + "Z"
        for n in (0, 150, 299, 1):
            assert rows(c.ask(bind(name=f"s{n}"), execute(), SYNC)) == [(str(n),)]


def test_odd_names(both):
    for c in both():
        for name in ("Großer Name", "a'b\"c", "x" * 200, " ", "PREPARED_1;--"):
            assert (
                types(c.ask(parse("SELECT 1", name), bind(name=name), execute(), close_statement(name), SYNC))
                == "12DC3Z"
            )
