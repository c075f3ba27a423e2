"""Statements made from others: written otherwise, or put inside of something."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from pglast.parser import ParseError, scan

_GAPS = (" ", "\t", "\n", "\r\n ", "/**/", " /* ' \" $$ ; beta */ ", "\f", " -- ' ; $a$\n", "/* /* */ */ ")


def rewritten(sql: str, choice: random.Random) -> str | None:
    """The same tokens otherwise: case, quotes, Unicode escapes, comments, space; None if it can't be."""
    if not sql.isascii() or "\0" in sql:
        return None
    try:
        tokens = list(scan(sql))
    except (ParseError, ValueError):
        return None
    if any(token.name in ("UIDENT", "USCONST", "UESCAPE") for token in tokens):
        return None
    parts: list[str] = []
    before, end = "", 0
    for token in tokens:
        text = sql[token.start : token.end + 1]
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            continue
        if before:
            # two strings with a newline between are one
            both_strings = before[-1:] == "'" and text[:1] == "'"
            gap = sql[token.start - 1 : token.start] if both_strings else choice.choice(_GAPS)
            if both_strings and "\n" in sql[end : token.start]:
                gap = "\n"
            elif "." in (before, text):
                gap = choice.choice((*_GAPS, ""))
            parts.append(gap or ("" if "." in (before, text) else " "))
        parts.append(_respelled(token.name, text, choice))
        before, end = text, token.end + 1
    return "".join(parts)


def _respelled(name: str, text: str, choice: random.Random) -> str:
    if name == "IDENT" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        way = choice.randrange(5)
        if way == 0:
            return f'"{text.lower()}"'
        if way == 1:
            at = choice.randrange(len(text))
            lower = text.lower()
            return f'U&"{lower[:at]}\\{ord(lower[at]):04x}{lower[at + 1 :]}"'
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return "".join(choice.choice((c.upper(), c.lower())) for c in text)
    return text


def nested(sql: str) -> Iterator[tuple[str, ...]]:
    """A statement inside of others, each with what makes it run."""
    sql = sql.rstrip().rstrip(";")
    yield ("PREPARE mutant AS " + sql, "EXECUTE mutant")
    yield ("EXPLAIN (ANALYZE) " + sql,)
    yield ("EXPLAIN " + sql,)
    yield (f"DO $do$ BEGIN {sql}; END $do$",)
    yield (f"DO $do$ BEGIN EXECUTE $ex${sql}$ex$; END $do$",)
    yield (f"DO $do$ DECLARE r record; BEGIN FOR r IN {sql} LOOP NULL; END LOOP; END $do$",)
    yield (f"CREATE FUNCTION mutant() RETURNS void LANGUAGE sql AS $fn${sql}$fn$", "SELECT mutant()")
    yield (
        f"CREATE FUNCTION mutant() RETURNS void LANGUAGE plpgsql AS $fn$ BEGIN {sql}; END $fn$",
        "SELECT mutant()",
    )
    yield ("DECLARE mutant CURSOR FOR " + sql, "FETCH ALL FROM mutant")
    yield (f"SELECT 1; {sql}; SELECT 2",)
    if re.match(r"(?i)\s*(select|with|table|values|\()", sql):
        yield (f"WITH mutant AS ({sql}) SELECT * FROM mutant",)
        yield (f"SELECT * FROM ({sql}) mutant",)
        yield (f"SELECT EXISTS ({sql})",)
        yield (f"SELECT (SELECT mutant FROM ({sql} LIMIT 1) mutant)",)
        yield (f"CREATE VIEW mutant AS {sql}", "SELECT * FROM mutant")
        yield (f"CREATE TEMP TABLE mutant ON COMMIT DROP AS {sql}",)
        yield (f"INSERT INTO t (a) SELECT 1 WHERE EXISTS ({sql})",)
        yield (f"SELECT 1 UNION ALL SELECT count(*) FROM ({sql}) mutant",)
        quoted = sql.replace("'", "''")
        yield (f"SELECT query_to_xml('{quoted}', true, false, '')",)
    elif re.match(r"(?i)\s*(insert|update|delete|merge)", sql):
        yield (f"WITH mutant AS ({sql} RETURNING 1) SELECT * FROM mutant",)
        yield (f"CREATE RULE mutant AS ON INSERT TO t DO ALSO {sql}", "INSERT INTO t VALUES (1)")
