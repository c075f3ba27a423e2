"""COPY in, out, failed, and with the wrong messages."""

from __future__ import annotations

import struct

import pytest

from tests.wire_client import (
    COPY_DONE,
    FLUSH,
    SYNC,
    bind,
    copy_data,
    copy_fail,
    describe_portal,
    errors,
    execute,
    parse,
    query,
    rows,
    sqlstates,
    types,
)

COPY_IN = "COPY scratch FROM STDIN"
BINARY_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack("!II", 0, 0)


def start_copy(c, sql=COPY_IN):
    c.send(query(sql))
    return c.until("GE")


def test_copy_in(both, scratch):
    for c in both():
        scratch()
        assert types(start_copy(c)) == "G"
        c.send(copy_data(b"1\tone\n"), copy_data(b"2\ttwo\n3\tthr"), copy_data(b"ee\n"))
        replies = c.ask(COPY_DONE)
        assert types(replies) == "CZ"
        assert replies[0].body == b"COPY 3\0"
        assert rows(c.query("SELECT body FROM scratch ORDER BY id")) == [("one",), ("two",), ("three",)]


def test_copy_out(both):
    for c in both():
        replies = c.query("COPY orders TO STDOUT")
        assert types(replies) == "HdddcCZ"
        assert replies[1].body == b"1\tanvil\t1\n"


def test_copy_of_a_query(both):
    for c in both():
        assert (
            types(c.query("COPY (SELECT generate_series(1, 1000)) TO STDOUT (FORMAT csv)"))
            == "H" + "d" * 1000 + "cCZ"
        )


def test_binary_copy_both_ways(both, scratch):
    for c in both():
        scratch()
        start_copy(c, "COPY scratch FROM STDIN (FORMAT binary)")
        one_row = struct.pack("!hii", 2, 4, 5) + struct.pack("!i", 3) + b"abc"
        c.send(copy_data(BINARY_SIGNATURE + one_row + struct.pack("!h", -1)))
        assert types(c.ask(COPY_DONE)) == "CZ"
        replies = c.query("COPY scratch TO STDOUT (FORMAT binary)")
        assert replies[1].body == BINARY_SIGNATURE + one_row or replies[2].body == one_row


def test_empty_copy(both, scratch):
    for c in both():
        start_copy(c)
        assert types(c.ask(COPY_DONE)) == "CZ"
        assert types(c.query("COPY scratch TO STDOUT")) == "HcCZ"


def test_copy_fail(both, scratch):
    for c in both():
        start_copy(c)
        c.send(copy_data(b"1\tone\n"))
        replies = c.ask(copy_fail("changed my mind"))
        assert types(replies) == "EZ"
        (error,) = errors(replies)
        assert error["C"] == "57014"
        assert "changed my mind" in error["M"]
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("0",)]


def test_bad_data_ends_the_copy_and_what_was_sent_ahead_is_dropped(both, scratch):
    for c in both():
        start_copy(c)
        c.send(copy_data(b"not a number\tx\n"), *[copy_data(b"2\ttwo\n")] * 50, COPY_DONE)
        replies = c.until_ready()
        assert types(replies) == "EZ"
        assert sqlstates(replies) == ["22P02"]
        assert types(c.query("SELECT 1")) == "TDCZ"


def test_the_whole_copy_sent_ahead(both, scratch):
    for c in both():
        scratch()
        c.send(query(COPY_IN), copy_data(b"1\tone\n"), COPY_DONE, query("SELECT count(*) FROM scratch"))
        replies = c.until_ready(2)
        assert types(replies) == "GCZTDCZ"
        assert rows(replies) == [("1",)]


def test_copy_data_to_a_copy_that_fails_to_start_is_dropped(both):
    for c in both():
        c.send(query("COPY nothing_such FROM STDIN"), copy_data(b"1\n"), COPY_DONE, query("SELECT 1"))
        replies = c.until_ready(2)
        assert types(replies) == "EZTDCZ"


def test_copy_messages_outside_a_copy_are_ignored(both):
    for c in both():
        c.send(copy_data(b"1\n"), COPY_DONE, copy_fail(), query("SELECT 1"))
        assert types(c.until_ready()) == "TDCZ"


def test_flush_and_sync_inside_a_simple_copy_are_ignored(both, scratch):
    for c in both():
        scratch()
        start_copy(c)
        c.send(copy_data(b"1\tone\n"), FLUSH, SYNC, copy_data(b"2\ttwo\n"), COPY_DONE)
        assert types(c.until_ready()) == "CZ"
        assert rows(c.query("SELECT count(*) FROM scratch")) == [("2",)]


@pytest.mark.parametrize("wrong", [query("SELECT 1"), parse("SELECT 1")], ids=["query", "parse"])
def test_other_messages_inside_a_copy(both, scratch, wrong):
    """Nobody can tell where the COPY's data ends then: ERROR, FATAL, and the end of the connection."""
    for c in both():
        start_copy(c)
        c.send(copy_data(b"1\tone\n"), wrong)
        replies = c.until_end()
        assert types(replies) == "EE"
        assert sqlstates(replies) == ["08P01", "08P01"]


def test_copy_in_a_transaction(both, scratch):
    for c in both():
        scratch()
        c.query("BEGIN")
        start_copy(c)
        c.ask(copy_data(b"1\tone\n"), COPY_DONE)
        assert c.xact_status == "T"
        start_copy(c)
        c.ask(copy_fail())
        assert c.xact_status == "E"
        c.query("ROLLBACK")


def test_copy_between_other_statements_of_a_message(both, scratch):
    for c in both():
        scratch()
        c.send(query(f"SELECT 1; {COPY_IN}; SELECT 2; {COPY_IN}; COPY scratch TO STDOUT"))
        assert types(c.until("G")) == "TDCG"
        c.send(copy_data(b"1\tone\n"), COPY_DONE)
        assert types(c.until("G")) == "CTDCG"
        c.send(copy_data(b"2\ttwo\n"), COPY_DONE)
        assert types(c.until_ready()) == "CHddcCZ"


def test_copy_through_the_extended_protocol(both, scratch):
    for c in both():
        scratch()
        c.send(parse(COPY_IN), bind(), describe_portal(), execute(), FLUSH)
        assert types(c.until("G")) == "12nG"
        c.send(copy_data(b"1\tone\n"), COPY_DONE, SYNC)
        assert types(c.until_ready()) == "CZ"
        assert types(c.extended("COPY scratch TO STDOUT")) == "12nHdcCZ"


def test_extended_copy_sent_whole_with_its_sync(both, scratch):
    """The Sync sent before the data is part of the COPY and ignored, so another must follow."""
    for c in both():
        scratch()
        c.send(parse(COPY_IN), bind(), execute(), SYNC, copy_data(b"1\tone\n"), COPY_DONE, SYNC)
        assert types(c.until_ready()) == "12GCZ"


def test_failed_copy_through_the_extended_protocol_skips_until_sync(both, scratch):
    for c in both():
        c.send(parse(COPY_IN), bind(), execute(), FLUSH)
        c.until("G")
        c.send(copy_data(b"x\n"), COPY_DONE, parse("SELECT 1"), bind(), execute(), SYNC)
        assert types(c.until_ready()) == "EZ"
        c.send(parse(COPY_IN), bind(), execute(), FLUSH)
        c.until("G")
        c.send(copy_fail(), bind(), execute(), SYNC)
        assert types(c.until_ready()) == "EZ"


def test_copy_fail_without_a_reason(both, scratch):
    for c in both():
        start_copy(c)
        assert types(c.ask(copy_fail(""))) == "EZ"


def test_copy_of_much_data_both_ways(both, scratch):
    line = b"x" * 990
    for c in both():
        scratch()
        start_copy(c)
        for n in range(5_000 // 100):
            c.send(copy_data(b"".join(b"%d\t%s\n" % (n * 100 + k, line) for k in range(100))))
        assert c.ask(COPY_DONE)[0].body == b"COPY 5000\0"
        replies = c.query("COPY (SELECT * FROM scratch ORDER BY id) TO STDOUT")
        assert sum(len(m.body) for m in replies if m.type == "d") > 5_000 * 990


def test_errors_of_the_server(both):
    for c in both():
        assert sqlstates(start_copy(c, "COPY nothing_such FROM STDIN")) == ["42P01"]
        c.until_ready()
        assert sqlstates(c.query("COPY orders (nothing_such) TO STDOUT")) == ["42703"]
