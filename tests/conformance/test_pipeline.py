"""Pipelines: batches sent ahead, with errors in the middle and at the end."""

from __future__ import annotations

import threading

from tests.wire_client import (
    SYNC,
    bind,
    describe_portal,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
)


def batch(sql: str, *params: str | None) -> bytes:
    return parse(sql) + bind(*params) + describe_portal() + execute()


def test_batches_are_answered_in_order(both):
    for c in both():
        c.send(*(batch("SELECT $1::int", str(n)) + SYNC for n in range(100)))
        replies = c.until_ready(100)
        assert types(replies) == "12TDCZ" * 100
        assert rows(replies) == [(str(n),) for n in range(100)]


def test_an_error_spares_the_other_batches(both):
    for c in both():
        c.send(batch("SELECT 1"), SYNC, batch("SELECT 1/0"), batch("SELECT 2"), SYNC, batch("SELECT 3"), SYNC)
        replies = c.until_ready(3)
        assert types(replies) == "12TDCZ1EZ12TDCZ"


def test_parse_error_first_in_a_batch(both):
    for c in both():
        c.send(batch("SELEC 1"), batch("SELECT 2"), SYNC, batch("SELECT 3"), SYNC)
        assert types(c.until_ready(2)) == "EZ12TDCZ"


def test_parse_error_behind_good_statements(both):
    for c in both():
        c.send(batch("SELECT 1"), batch("SELEC 2"), batch("SELECT 3"), SYNC, batch("SELECT 4"), SYNC)
        replies = c.until_ready(2)
        assert types(replies) == "12TDCEZ12TDCZ"
        assert rows(replies) == [("1",), ("4",)]


def test_errors_in_every_other_batch(both):
    for c in both():
        for n in range(20):
            c.send(batch("SELECT 1 / $1::int", str(n % 2)), SYNC)
        assert types(c.until_ready(20)) == ("1EZ" + "12TDCZ") * 10


def test_deferred_constraint_fails_at_sync(both, scratch):
    """The error comes after CommandComplete, when Sync ends the implicit transaction."""
    for c in both():
        c.send(batch("INSERT INTO promises VALUES (1, 99)"), SYNC, batch("SELECT 1"), SYNC)
        replies = c.until_ready(2)
        assert types(replies) == "12nCEZ12TDCZ"
        assert sqlstates(replies) == ["23503"]


def test_deferred_constraint_fails_at_a_pipelined_commit(both, scratch):
    for c in both():
        c.send(
            batch("BEGIN"), batch("INSERT INTO promises VALUES (1, 99)"), batch("COMMIT"),
            batch("SELECT 1"), SYNC, batch("SELECT 2"), SYNC,
        )  # fmt: skip
        replies = c.until_ready(2)
        assert types(replies) == "12nC12nC12nEZ12TDCZ"
        assert c.xact_status == "I"


def test_begin_and_commit_inside_one_batch(both, scratch):
    for c in both():
        scratch()
        replies = c.ask(batch("BEGIN"), batch("INSERT INTO scratch VALUES (1)"), batch("COMMIT"), SYNC)
        assert types(replies) == "12nC" * 3 + "Z"
        assert rows(c.query("SELECT id FROM scratch")) == [("1",)]


def test_a_transaction_over_several_batches(both, scratch):
    for c in both():
        scratch()
        c.send(batch("BEGIN"), SYNC, batch("INSERT INTO scratch VALUES (1)"), SYNC, batch("SELECT 1/0"), SYNC)
        c.send(batch("SELECT 2"), SYNC, batch("ROLLBACK"), SYNC, batch("SELECT count(*) FROM scratch"), SYNC)
        replies = c.until_ready(6)
        assert [m.body for m in replies if m.type == "Z"] == [b"T", b"T", b"E", b"E", b"I", b"I"]
        assert sqlstates(replies) == ["22012", "25P02"]
        assert rows(replies) == [("0",)]


def test_commit_of_a_failed_transaction_in_a_pipeline(both):
    for c in both():
        c.send(query("BEGIN"), batch("SELECT 1/0"), SYNC, batch("COMMIT"), SYNC, batch("SELECT 1"), SYNC)
        replies = c.until_ready(4)
        assert [m.body for m in replies if m.type == "C"] == [b"BEGIN\0", b"ROLLBACK\0", b"SELECT 1\0"]


def test_named_statements_parsed_and_used_ahead(both):
    for c in both():
        c.send(parse("SELECT $1::int * 2", "twice"), SYNC)
        c.send(*(bind(str(n), name="twice") + execute() + SYNC for n in range(50)))
        assert rows(c.until_ready(51)) == [(str(2 * n),) for n in range(50)]


def test_a_pipeline_larger_than_every_buffer(both):
    """Requests and replies of many megabytes at once: neither side may wait for the other to read."""
    for c in both():
        count, size = 200, 50_000
        batches = [batch("SELECT $1::text", "x" * size) + SYNC for _ in range(count)]
        sender = threading.Thread(target=c.send, args=batches)
        sender.start()
        replies = c.until_ready(count)
        sender.join()
        assert types(replies) == "12TDCZ" * count
        assert all(len(m.body) == size + 6 for m in replies if m.type == "D")


def test_half_a_message_behind_a_whole_one(both):
    for c in both():
        first, second = query("SELECT 1"), query("SELECT 2")
        c.send(first + second[:7])
        assert rows(c.until_ready()) == [("1",)]
        c.send(second[7:])
        assert rows(c.until_ready()) == [("2",)]
