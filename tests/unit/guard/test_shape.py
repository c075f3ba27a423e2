"""What the shape of a text is, and which texts have none."""

from __future__ import annotations

import pytest

from tenant_proxy.guard.shape import literal_spans, readable, scan_cost, shape

INT, NUM, STR = "\x01", "\x02", "\x03"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", f"SELECT {INT}"),
        ("SELECT 'a'", f"SELECT {STR}"),
        ("SELECT 'it''s'", f"SELECT {STR}"),
        ("SELECT ''", f"SELECT {STR}"),
        ("SELECT ''''", f"SELECT {STR}"),
        ("SELECT 'a', 'b'", f"SELECT {STR}, {STR}"),
        ("SELECT 1.5, .5, 5., 1e3, 1.5E-3, 2e+4", f"SELECT {NUM}, {NUM}, {NUM}, {NUM}, {NUM}, {NUM}"),
        # the scanner tells int4 from the rest
        ("SELECT 2147483647, 2147483648, 00000000000001", f"SELECT {INT}, {NUM}, {INT}"),
        ("SELECT -1", f"SELECT -{INT}"),
        ("SELECT a1, t2.c3, _4, x$5", "SELECT a1, t2.c3, _4, x$5"),
        ("SELECT é1 FROM ü", "SELECT é1 FROM ü"),
        ("SELECT $1, $23", "SELECT $1, $23"),
        ("SELECT '1'::int", f"SELECT {STR}::int"),
        ("SELECT date '2024-01-01'", f"SELECT date {STR}"),
        ("SELECT date'2024-01-01'", f"SELECT date{STR}"),
        ('SELECT "a 1 \'b\' ""c"" --x"', 'SELECT "a 1 \'b\' ""c"" --x"'),
        ("SELECT a[1:2]", f"SELECT a[{INT}:{INT}]"),
        ("SELECT 'é'", f"SELECT {STR}"),
        ("SELECT t.1", f"SELECT t{NUM}"),
        # white space and comments
        ("  SELECT\t\n 1  ", f"SELECT {INT}"),
        ("SELECT 1 -- one", f"SELECT {INT}"),
        ("SELECT -- one 'x\n1", f"SELECT {INT}"),
        ("SELECT /* 'x */ 1", f"SELECT {INT}"),
        ("SELECT/**/1", f"SELECT {INT}"),
        ("SELECT 1/*/ */+2", f"SELECT {INT} +{INT}"),
        ("SELECT 1 /***/ + 2", f"SELECT {INT} + {INT}"),
        ("SELECT 2--1\n+3", f"SELECT {INT} +{INT}"),
        ("SELECT 1 <--x\n 2", f"SELECT {INT} < {INT}"),
        ("SELECT 1 */* c */ 2", f"SELECT {INT} * {INT}"),
        ("/*x*/ SELECT", "SELECT"),
        ("", ""),
        (" -- x", ""),
        ("a/**/b", "a b"),
        # words that end in a letter that alone would be a prefix
        ("SELECT typee'x', u &'x'", f"SELECT typee{STR}, u &{STR}"),
    ],
)
def test_shape(sql, expected):
    assert shape(sql.encode()) == expected.encode()


@pytest.mark.parametrize(
    "sql",
    [
        # strings with other rules
        r"SELECT 'a\b'",
        r"SELECT '\'",
        "SELECT E'a'",
        "SELECT e'a'",
        "SELECT B'1'",
        "SELECT x'1F'",
        "SELECT N'a'",
        "SELECT U&'a'",
        'SELECT u&"a"',
        "SELECT $$a$$",
        "SELECT $tag$a$tag$",
        "SELECT $é$a$é$",
        # perhaps continued
        "SELECT 'a'\n'b'",
        "SELECT 'a' 'b'",
        "SELECT 'a' -- c\n'b'",
        "SELECT 'a'/* c */'b'",
        # not ended
        "SELECT 'a",
        'SELECT "a',
        "SELECT /* a",
        "SELECT /* a /* b */ c",
        # nested
        "SELECT /* a /* b */ c */ 1",
        # numbers that go on
        "SELECT 1a",
        "SELECT 1_000",
        "SELECT 0x1F",
        "SELECT 0b1",
        "SELECT 1e",
        "SELECT 1e+",
        "SELECT 1.5.5",
        "SELECT 1..5",
        "SELECT 1$1",
        "SELECT 1'a'",
        "SELECT 1é",
        # parameters that go on
        "SELECT $1a",
        "SELECT $1$2",
        "SELECT $",
        # what newer and older servers read differently, or nobody reads
        "SELECT 1\v+1",
        "SELECT \x01",
        "SELECT \x7f",
        "SELECT \\",
        'SELECT "a\x01"',
        'SELECT "a\nb"',
        "SELECT 'a\0b'",
        "SELECT ..",
    ],
)
def test_no_shape(sql):
    assert shape(sql.encode()) is None
    assert literal_spans(sql.encode()) is None


def test_placeholders_can_not_be_forged():
    """A text that holds a placeholder's byte has no shape, so it can't be taken for one with a literal."""
    for kind in (1, 2, 3):
        assert shape(b"SELECT " + bytes([kind])) is None
        assert shape(b'SELECT "' + bytes([kind]) + b'"') is None


def test_readable_shows_no_literal():
    assert readable(b"SELECT 'secret', 12 FROM t") == "SELECT ?, ? FROM t"
    assert readable(rb"SELECT E'\secret'") is None


def test_spans():
    assert literal_spans("SELECT 'é', 1.5 , 7".encode()) == [
        (7, 11, "SCONST"),
        (13, 16, "FCONST"),
        (19, 20, "ICONST"),
    ]


def test_scan_cost_grows_with_the_square_of_runs():
    assert scan_cost(b"SELECT a + b") == 1
    assert scan_cost(b"+" * 1000) == 1_000_000
    assert scan_cost(b"+ " * 1000) == 1000
    assert scan_cost(b"") == 0


@pytest.mark.parametrize("around", ["{}", '"{}"', "'{}'"])
def test_sixteen_bytes_at_once_are_read_as_single_ones(around: str) -> None:
    # white space behind a text is no part of its shape, but lets its end be read at once
    for size in (1, 15, 16, 17, 33):
        for byte in range(256):
            for place in {0, size // 2, size - 1}:
                token = bytearray(b"a" * size)
                token[place] = byte
                text = around.encode().replace(b"{}", bytes(token))
                assert shape(text) == shape(text + b" " * 64), text
