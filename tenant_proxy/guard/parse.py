"""SQL text to parse tree: pglast's JSON, within bounds.

pglast's parser is PostgreSQL's own (version 18).  Three of its habits need a bound before it is let
loose on hostile text: runs of operator characters make the scanner take quadratic time; a row assigned
to many columns is written out once a column; and the tree of a long text fills memory.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

from pglast.parser import ParseError, parse_sql_json, scan

from tenant_proxy.guard.shape import scan_cost

Tree = list[dict[str, Any]]

#: longest text that is judged, in bytes of UTF-8
MAX_TEXT_BYTES: Final = 8 * 1024 * 1024

#: largest tree, in bytes of JSON; Python's objects take some 12 times that
MAX_TREE_BYTES: Final = 48 * 1024 * 1024

#: see `shape.operator_work`; a statement of ordinary size is below a thousand
MAX_SCAN_COST: Final = 50_000_000

#: copies of one expression that assignments to rows may make, times its tokens
MAX_ROW_ASSIGNMENT: Final = 1_000_000

#: JSON nested deeper than Python's usual limit is read with this one: a term of a + b + c … takes two
#: levels, and a level takes about 150 bytes of C stack
DEEP_RECURSION: Final = 12_000

_SET_ROW = re.compile(r"(?is)\bset\b.*\)[^=(]*=")


class Unreadable(Exception):
    """The text can't be parsed.  `index` is 0-based in characters, -1 if not known."""

    def __init__(self, sqlstate: str, message: str, index: int = -1, *, reason: str = "syntax") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.index = index
        self.reason = reason


def parse(text: str) -> Tree:
    """The statements of `text` as {"stmt": …, "stmt_location": …, "stmt_len": …}.  Raises Unreadable."""
    if "\0" in text:
        raise Unreadable("22021", 'invalid byte sequence for encoding "UTF8": 0x00', reason="encoding")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:  # lone surrogates
        raise Unreadable(
            "22021", 'invalid byte sequence for encoding "UTF8"', error.start, reason="encoding"
        ) from None
    if len(encoded) > MAX_TEXT_BYTES:
        raise Unreadable("54000", "statement is too large to be checked", reason="too_large")
    if len(encoded) > 4096 and scan_cost(encoded) > MAX_SCAN_COST:
        raise Unreadable("54001", "statement is too complex to be checked", reason="too_complex")
    if len(encoded) > 1024 and _SET_ROW.search(text):
        _check_row_assignments(text)
    try:
        found = parse_sql_json(text)
    except ParseError as error:
        raise _unreadable(error, text) from None
    if len(found) > MAX_TREE_BYTES:
        raise Unreadable("54000", "statement is too large to be checked", reason="too_large")
    return _loaded(found)


def _loaded(found: str) -> Tree:
    try:
        tree: Tree = json.loads(found)["stmts"]
    except RecursionError:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, DEEP_RECURSION))
        try:
            tree = json.loads(found)["stmts"]
        except RecursionError:
            raise _too_deep() from None
        finally:
            sys.setrecursionlimit(limit)
    return tree


def _too_deep() -> Unreadable:
    return Unreadable("54001", "statement is nested too deeply to be checked", reason="too_complex")


def _unreadable(error: ParseError, text: str) -> Unreadable:
    message, index = str(error.args[0]), error.args[1]
    if message.startswith(("stack depth limit exceeded", "memory exhausted")):
        return _too_deep()
    return Unreadable("42601", message, len(text) if index is None else int(index))


def _check_row_assignments(text: str) -> None:
    """SET (a, b, …) = (…): the tree repeats the right side for each column on the left."""
    try:
        tokens = [token.name for token in scan(text) if token.name not in ("SQL_COMMENT", "C_COMMENT")]
    except ParseError as error:
        raise _unreadable(error, text) from None
    opened: list[int] = []
    for at, name in enumerate(tokens):
        if name == "ASCII_40":
            opened.append(at)
        elif name == "ASCII_41" and opened:
            start = opened.pop()
            if tokens[at + 1 : at + 2] == ["ASCII_61"]:
                columns = tokens[start:at].count("ASCII_44") + 1
                if columns > 1 and columns * (len(tokens) - at) > MAX_ROW_ASSIGNMENT:
                    raise Unreadable("54001", "statement is too complex to be checked", reason="too_complex")
