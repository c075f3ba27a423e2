"""Messages larger than every buffer of the proxy."""

from __future__ import annotations

import pytest

from tests.wire_client import SYNC, bind, execute, parse, query, row, types

MB = 1 << 20


@pytest.mark.slow
def test_a_row_of_64_megabytes(both_once):
    for c in both_once():
        replies = c.query(f"SELECT repeat('0123456789abcdef', {4 * MB})")
        assert types(replies) == "TDCZ"
        (value,) = row(replies[1])
        assert value is not None
        assert len(value) == 64 * MB
        assert value.count(b"0123456789abcdef") == 4 * MB


@pytest.mark.slow
def test_a_parameter_of_64_megabytes(both_once):
    data = bytes(range(256)) * (MB // 4)
    for c in both_once():
        c.ask(parse("SELECT length($1::bytea), md5($1::bytea)", "s"), SYNC)
        replies = c.ask(bind(data, name="s", formats=[1]), execute(), SYNC)
        assert types(replies) == "2DCZ"
        assert row(replies[1])[0] == str(64 * MB).encode()


def test_a_statement_of_megabytes(both_once):
    for c in both_once():
        literal = "x" * (5 * MB)
        replies = c.query(f"SELECT length('{literal}')")
        assert row(replies[1]) == (str(5 * MB).encode(),)


def test_many_rows(both_once):
    for c in both_once():
        replies = c.query("SELECT generate_series(1, 100000)")
        assert types(replies) == "T" + "D" * 100_000 + "CZ"


def test_wide_rows(both_once):
    """1,600 columns: as many as a result may have nearly."""
    for c in both_once():
        replies = c.query("SELECT " + ", ".join(f"{n} AS column_{n}" for n in range(1600)))
        assert len(row(replies[1])) == 1600


def test_many_parameters(both_once):
    for c in both_once():
        count = 65_535
        sql = "SELECT 1 WHERE $1 = '0' OR '1' IN (" + ",".join(f"${n}" for n in range(2, count + 1)) + ")"
        replies = c.ask(parse(sql), bind(*map(str, range(count))), execute(), SYNC)
        assert types(replies) == "12DCZ"


def test_a_result_that_is_read_late(both):
    """The proxy holds the server back, not the result in its memory; nothing is lost."""
    for c in both():
        c.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)"))
        first = c.receive()
        assert first.type == "T"
        replies = c.until_ready()
        assert types(replies) == "D" * 20_000 + "CZ"
