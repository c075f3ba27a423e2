"""Scripts are taken apart where psql takes them apart."""

from __future__ import annotations

import io

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_proxy.cli import sql_scripts
from tenant_proxy.cli.sql_scripts import statements
from tests.guard.corpus_files import read
from tests.guard.test_corpus import HERE


def split(text: str) -> list[str]:
    return [one.text for one in statements(text.splitlines(keepends=True))]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT ';', 'it''s;', E'\\';', E'\\\\', U&'\\0041;', \"a;\"\"b\"",
        "SELECT E'a'\n '\\';'",
        "SELECT $$ ; ' $$, $x$ $$ ; $y$ $x$, a$b$ , $1",
        "SELECT 1 -- ; '\n + 2 /* ; /* ; */ ' */",
        "SELECT 'a\n;b', \"c\n;d\", $$\n;\n$$",
        "SELECT 5/2-3",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
        "SELECT '\\'",
        "SELECT :'x'",
    ],
)
def test_a_statement_stays_whole(statement):
    assert split(statement) == [statement]
    assert split(f"-- x;\n{statement};\n\nSELECT 1;") == [statement, "SELECT 1"]


def test_begin_and_end_elsewhere_are_plain_statements():
    assert split("BEGIN; SELECT CASE WHEN a THEN b END; END;") == [
        "BEGIN",
        "SELECT CASE WHEN a THEN b END",
        "END",
    ]


def test_commands_of_psql_and_data_of_copy_are_left_out():
    text = r"""\restrict abc
\set x '
SELECT 1 \gset
COPY public.orders (id, total) FROM stdin;
1	';
\N	\\.
\.
\.
SELECT 2;
\connect other
COPY x TO stdout;
"""
    assert split(text) == [
        "SELECT 1",
        "COPY public.orders (id, total) FROM stdin",
        "SELECT 2",
        "COPY x TO stdout",
    ]


def test_lines_are_those_of_the_first_word():
    text = "\n-- c\n/* c\n*/ SELECT\n 1; SELECT 2;\n\n;;\nSELECT 3"
    assert [(one.line, one.text) for one in statements(text.splitlines(keepends=True))] == [
        (4, "SELECT\n 1"),
        (5, "SELECT 2"),
        (8, "SELECT 3"),
    ]


def test_what_is_too_long_is_not_kept(monkeypatch):
    monkeypatch.setattr(sql_scripts, "MAX_STATEMENT", 100)
    found = list(statements(["SELECT '", *["x" * 50 + "\n"] * 10, "';\n", "SELECT 1;"]))
    assert [(one.text, one.line, one.too_long) for one in found] == [("", 1, True), ("SELECT 1", 13, False)]


CORPUS = [
    sql
    for name in ("allowed.yaml", "refused.yaml")
    for group in read(HERE / name)
    for sql in group["sql"]
    if not sql.strip().endswith("\\")
]


@given(st.lists(st.sampled_from(CORPUS), min_size=1, max_size=4))
def test_as_the_parser_takes_them_apart(texts):
    """Wherever the parser can read a script, it sees the same statements."""
    text = ";\n".join(texts) + ";\n"
    try:
        expected = pglast.split(text)
    except pglast.parser.ParseError:
        return
    if "\\" in text or any(" from stdin" in one.lower() for one in texts):
        return  # psql's commands, and data
    trees = [pglast.parser.parse_sql_json(one) for one in split(text)]
    assert len(trees) == len(expected)


PIECES = [
    "\\", "\\'",
    "'", "''", '"', "$$", "$a$", "$1", "--", "/*", "*/", ";", "(", ")", "\n", " ", "e'", "u&'", 'U&"', "n'",
    "x'", "E'a'", "'b'", "b'0'", "a", "1", "x$$", "a$b", "é", "é$a$", ".", "1e", "::", "+", "-", "/", "*",
    "select",
]  # fmt: skip


def split_by_tokens(text: str) -> list[list[str]]:
    """Where the real scanner has a semicolon outside of parentheses."""
    found: list[list[str]] = [[]]
    depth = 0
    for name in names_of_tokens(text):
        depth = max(0, depth + {"ASCII_40": 1, "ASCII_41": -1}.get(name, 0))
        if name == "ASCII_59" and not depth:
            found.append([])
        else:
            found[-1].append(name)
    return [names for names in found if names]


def names_of_tokens(text: str) -> list[str]:
    return [token.name for token in pglast.parser.scan(text) if not token.name.endswith("_COMMENT")]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_as_the_scanner_sees_it(text):
    text += "\n;"
    try:
        expected = split_by_tokens(text)
    except pglast.parser.ParseError:
        return
    if any("ASCII_92" in names for names in expected):
        return  # a backslash outside of quotes: psql's
    found = [names_of_tokens(one.text) for one in statements(io.StringIO(text))]
    assert found == expected
