"""FunctionCall: the old fast path, which names a function by OID."""

from __future__ import annotations

import struct

from tests.wire_client import function_call, rows, sqlstates, types

#: OID of a function in pg_proc.dat, the same in every version
INT4PL = 177


def test_binary_call(both):
    for c in both():
        replies = c.ask(function_call(INT4PL, struct.pack("!i", 40), struct.pack("!i", 2)))
        assert types(replies) == "VZ"
        assert replies[0].body == struct.pack("!ii", 4, 42)


def test_text_call(both):
    for c in both():
        replies = c.ask(function_call(INT4PL, b"40", b"2", arg_format=0, result_format=0))
        assert replies[0].body == struct.pack("!i", 2) + b"42"


def test_null_argument_of_a_strict_function(both):
    for c in both():
        replies = c.ask(function_call(INT4PL, None, struct.pack("!i", 2)))
        assert replies[0].body == struct.pack("!i", -1)


def test_wrong_number_of_arguments(both):
    for c in both():
        assert sqlstates(c.ask(function_call(INT4PL, b"40", arg_format=0))) == ["08P01"]
        assert rows(c.query("SELECT 1")) == [("1",)]


def test_error_inside(both):
    for c in both():
        assert sqlstates(c.ask(function_call(INT4PL, b"2147483647", b"1", arg_format=0))) == ["22003"]


def test_call_in_a_transaction(both):
    for c in both():
        c.query("BEGIN")
        c.ask(function_call(INT4PL, b"1", b"2", arg_format=0))
        assert c.xact_status == "T"
        c.ask(function_call(INT4PL, b"x", b"2", arg_format=0))
        assert c.xact_status == "E"
        assert sqlstates(c.ask(function_call(INT4PL, b"1", b"2", arg_format=0))) == ["25P02"]
        c.query("ROLLBACK")
