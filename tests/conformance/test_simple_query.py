"""Simple Query: one message, any number of statements."""

from __future__ import annotations

import pytest

from tests.wire_client import errors, query, rows, sqlstates, types


def test_one_row(both):
    for c in both():
        replies = c.query("SELECT id, item FROM orders ORDER BY id")
        assert types(replies) == "TDDDCZ"
        assert rows(replies)[0] == ("1", "anvil")


def test_empty_query(both):
    for c in both():
        assert types(c.query("")) == "IZ"
        assert types(c.query(" ; ;")) == "IZ"
        assert types(c.query("-- only a comment")) == "IZ"


def test_many_statements_in_one_message(both):
    for c in both():
        assert types(c.query("SELECT 1; SELECT 2 WHERE false; SELECT 3")) == "TDCTCTDCZ"


def test_an_error_ends_the_rest_of_the_message(both):
    for c in both():
        replies = c.query("SELECT 1; SELECT 1/0; SELECT 3")
        assert types(replies) == "TDCEZ"
        assert sqlstates(replies) == ["22012"]
        assert c.xact_status == "I"


def test_an_implicit_transaction_is_undone_as_a_whole(both, scratch):
    for c in both():
        c.query("INSERT INTO scratch VALUES (1); SELECT 1/0")
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("0",)]


def test_explicit_transaction_inside_one_message(both, scratch):
    for c in both():
        scratch()
        replies = c.query(
            "BEGIN; INSERT INTO scratch VALUES (1); COMMIT; INSERT INTO scratch VALUES (2); SELECT 1/0"
        )
        assert types(replies) == "CCCCEZ"
        assert rows(c.query("SELECT id FROM scratch")) == [("1",)]


def test_a_transaction_left_open_and_closed_by_the_next_message(both):
    for c in both():
        c.query("BEGIN; SELECT 1")
        assert c.xact_status == "T"
        c.query("SELECT 2")
        assert c.xact_status == "T"
        c.query("COMMIT; BEGIN; SELECT 3; ROLLBACK")
        assert c.xact_status == "I"


def test_failed_transaction(both):
    for c in both():
        c.query("BEGIN")
        c.query("SELECT 1/0")
        assert c.xact_status == "E"
        assert sqlstates(c.query("SELECT 1")) == ["25P02"]
        replies = c.query("COMMIT")
        assert replies[0].body == b"ROLLBACK\0"
        assert c.xact_status == "I"


def test_savepoints(both):
    for c in both():
        c.query("BEGIN; SAVEPOINT one")
        c.query("SELECT nothing_such")
        assert c.xact_status == "E"
        c.query("ROLLBACK TO one")
        assert c.xact_status == "T"
        c.query("RELEASE one; COMMIT")
        assert c.xact_status == "I"


def test_warnings_of_transaction_control(both):
    for c in both():
        assert types(c.query("COMMIT")) == "NCZ"
        assert types(c.query("BEGIN")) == "CZ"
        assert types(c.query("BEGIN")) == "NCZ"
        assert types(c.query("ROLLBACK")) == "CZ"


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SELECT nothing_such", "42703"),
        ("SELECT * FROM nothing_such", "42P01"),
        ("SELECT nothing_such(1)", "42883"),
        ("SELECT 'x'::int", "22P02"),
        ("INSERT INTO orders VALUES (1, 'again', 1)", "23505"),
        ("INSERT INTO orders VALUES (9, NULL, 1)", "23502"),
        ("SELECT 1 + 'anvil' FROM orders", "22P02"),
        ("SELECT item FROM orders GROUP BY id HAVING quantity", "42804"),
        ("CREATE TABLE orders (x int)", "42P07"),
        ("SELECT repeat('x', 2000000000) || repeat('x', 2000000000)", "54000"),
    ],
)
def test_errors_of_the_server(both, sql, sqlstate):
    for c in both():
        assert sqlstates(c.query(sql)) == [sqlstate]


def test_errors_are_whole(both):
    """File, line and routine too reach the client, whose tools may show them (psql's VERBOSITY)."""
    for c in both():
        (error,) = errors(c.query("SELECT 1/0"))
        assert error["R"] == "int4div"
        (error,) = errors(c.query("INSERT INTO orders VALUES (1, 'again')"))
        assert {"s": "acme", "t": "orders", "n": "orders_pkey"}.items() <= error.items()


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT 1 FROM FROM orders",
        "SELECT 'not ended",
        "SELECT 1; SELEKT 2",
        "SELECT (1",
        "SELECT 'é', 'ü' FRO orders",
        "CREATE TABLE",
        "SELECT $1 FROM",
        "SELECT /* not ended",
        'SELECT ""',
    ],
)
def test_syntax_errors_read_as_the_servers_own(both, sql):
    """Message, SQLSTATE and position are the server's, whether it or the guard's parser found the error."""
    for c in both():
        (error,) = errors(c.query(sql))
        assert error["C"] == "42601"
        assert error["P"]


def test_a_parameter_without_a_value(both):
    for c in both():
        assert sqlstates(c.query("SELECT $1")) == ["42P02"]


def test_queries_sent_ahead_are_answered_in_order(both):
    for c in both():
        c.send(
            query("SELECT 1"),
            query("SELECT 1/0"),
            query(""),
            query("BEGIN"),
            query("SELECT 2"),
            query("COMMIT"),
        )
        assert types(c.until_ready(6)) == "TDCZEZIZCZTDCZCZ"


def test_a_message_that_comes_byte_by_byte(both):
    for c in both():
        for byte in query("SELECT 'slow'"):
            c.send(bytes([byte]))
        assert rows(c.until_ready()) == [("slow",)]


def test_ddl_and_what_it_makes(both):
    for c in both():
        c.query("BEGIN")
        c.query("CREATE TABLE fresh (id serial PRIMARY KEY, at timestamptz DEFAULT '2020-01-01')")
        assert rows(c.query("INSERT INTO fresh DEFAULT VALUES RETURNING *")) == [
            ("1", "2020-01-01 00:00:00+00")
        ]
        assert types(c.query("SELECT * FROM fresh")) == "TDCZ"
        c.query(
            "ALTER TABLE fresh ADD note text; COMMENT ON TABLE fresh IS 'new'; CREATE INDEX ON fresh (note)"
        )
        c.query("ROLLBACK")


def test_names_and_texts_of_many_bytes(both):
    for c in both():
        assert rows(c.query("SELECT 'żółć 😀', U&'\\00e9'")) == [("żółć 😀", "é")]
        assert (
            types(c.query('CREATE TEMP TABLE "Große Tabelle" (a int); DROP TABLE "Große Tabelle"')) == "CCZ"
        )


def test_explain_and_show(both):
    for c in both():
        assert types(c.query("EXPLAIN (COSTS off) SELECT * FROM orders")) == "TDCZ"
        assert rows(c.query("SHOW server_encoding")) == [("UTF8",)]
        assert types(c.query("SHOW nothing_such")) == "EZ"


def test_sql_level_prepare(both):
    for c in both():
        c.query("PREPARE find(int) AS SELECT item FROM orders WHERE id = $1")
        assert rows(c.query("EXECUTE find(2)")) == [("rocket",)]
        assert sqlstates(c.query("PREPARE find AS SELECT 1")) == ["42P05"]
        c.query("DEALLOCATE find")
        assert sqlstates(c.query("EXECUTE find(2)")) == ["26000"]
        assert types(c.query("DEALLOCATE ALL")) == "CZ"


def test_sql_level_cursor(both):
    for c in both():
        c.query("BEGIN; DECLARE few SCROLL CURSOR FOR SELECT id FROM orders ORDER BY id")
        assert rows(c.query("FETCH 2 FROM few")) == [("1",), ("2",)]
        assert rows(c.query("FETCH BACKWARD 1 FROM few")) == [("1",)]
        assert types(c.query("MOVE ALL IN few; CLOSE few; COMMIT")) == "CCCZ"


def test_a_cursor_that_is_held_past_its_transaction(both):
    for c in both():
        c.query("BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT id FROM orders ORDER BY id; COMMIT")
        assert rows(c.query("FETCH 2 FROM kept")) == [("1",), ("2",)]
        assert rows(c.query("FETCH ALL FROM kept")) == [("3",)]
        assert types(c.query("CLOSE kept")) == "CZ"


def test_deferred_constraint_fails_at_commit(both, scratch):
    for c in both():
        c.query("BEGIN; INSERT INTO promises VALUES (1, 99)")
        replies = c.query("COMMIT")
        assert types(replies) == "EZ"
        assert sqlstates(replies) == ["23503"]
        assert c.xact_status == "I"


def test_deferred_constraint_fails_at_the_end_of_an_implicit_transaction(both, scratch):
    for c in both():
        replies = c.query("INSERT INTO promises VALUES (1, 99)")
        assert types(replies) == "EZ"
        replies = c.query("INSERT INTO promises VALUES (1, 1); INSERT INTO promises VALUES (2, 99)")
        assert types(replies) == "CCEZ" or types(replies) == "CEZ"
        assert rows(c.query("SELECT * FROM promises")) == []
