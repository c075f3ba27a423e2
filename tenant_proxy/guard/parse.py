"""SQL text to parse tree: pglast's JSON, within bounds.

pglast's parser is PostgreSQL's own (version 18).  Three of its habits need a bound before it is let
loose on hostile text: runs of operator characters make the scanner take quadratic time; a row assigned
to many columns is written out once a column; and the tree of a long text fills memory.

Whoever can't wait (a worker's loop) judges with an allowance, and what would cost more ends in `Costly`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import orjson
from pglast.parser import ParseError, Token, parse_sql_json, scan

from tenant_proxy.guard.shape import scan_cost, shape

Tree = list[dict[str, Any]]
Judged = TypeVar("Judged")

#: longest text that is judged, in bytes of UTF-8
MAX_TEXT_BYTES: Final = 8 * 1024 * 1024

#: largest tree, in bytes of JSON; Python's objects take some 12 times that
MAX_TREE_BYTES: Final = 24 * 1024 * 1024

#: see `shape.operator_work`; a statement of ordinary size is below a thousand
MAX_SCAN_COST: Final = 50_000_000

#: columns that rows are assigned to, times the bytes behind (which hold the row)
MAX_ROW_ASSIGNMENT: Final = 150_000

#: JSON nested deeper than Python's usual limit is read with this one: a term of a + b + c … takes two
#: levels, and a level takes about 150 bytes of C stack
DEEP_RECURSION: Final = 12_000

#: what a judgement with an allowance may cost, in bytes of JSON read: one takes 0.01 to 0.05 µs with all that
#: is done with it
ALLOWANCE: Final = 64 * 1024

#: longest text, in bytes of UTF-8, that is parsed within an allowance: how large its tree is, is known only
#: then
ALLOWED_TEXT_BYTES: Final = 4096

#: of a text parsed within an allowance, in place of those above
_ALLOWED_SCAN_COST: Final = 200_000
_ALLOWED_ROW_ASSIGNMENT: Final = 2_000

#: of each text, however short
_COST_OF_A_PARSE: Final = 2_000

#: of a name in a value of Bind
COST_OF_A_NAME: Final = 200

#: of a character of a list of schemas
COST_OF_A_LIST: Final = 25

#: of a byte of a body in PL/pgSQL, which is read a token at a time in Python, and once more by PostgreSQL's
#: reader
COST_OF_CODE: Final = 33

_SET = re.compile(r"(?i)\bset\b")
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_FOREIGN_TAG = re.compile(r"\$[^\x00-\x23\x25-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f$]*[^\x00-\x7f]")
#: characters of code with dollar quotes whose tags are not ASCII
_MAX_FOREIGN: Final = 16 * 1024
_AFTER_ROW = re.compile(r"\)\s*=|--|/\*")
_STRUCTURE = re.compile(rb'"[^"]*"|\) ?=|[(),]')


class Unreadable(Exception):
    """The text can't be parsed.  `index` is 0-based in characters, -1 if not known."""

    def __init__(self, sqlstate: str, message: str, index: int = -1, *, reason: str = "syntax") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.index = index
        self.reason = reason


class Costly(Exception):
    """The judgement would cost more than its allowance."""


class _Allowance:
    __slots__ = ("left", "text_bytes")

    def __init__(self, times: int) -> None:
        self.left = ALLOWANCE * times
        self.text_bytes = ALLOWED_TEXT_BYTES * times


_allowance: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


def within_allowance(judge: Callable[[], Judged], times: int = 1) -> Judged | None:
    """What `judge` returns, or None if what it parses would cost more than so many ALLOWANCEs together."""
    token = _allowance.set(_Allowance(times))
    try:
        return judge()
    except Costly:
        return None
    finally:
        _allowance.reset(token)


def charge(cost: int) -> _Allowance | None:
    """Takes from the allowance, if there is one; raises Costly when it is used up."""
    held = _allowance.get()
    if held is None:
        return None
    held.left -= cost
    if held.left < 0:
        raise Costly
    return held


def tokens(text: str) -> list[Token]:
    """pglast's `scan`, of code that is read a token at a time.  Raises ParseError, Unreadable and Costly.

    pglast looks each token up among the characters that are not ASCII, one by one.  To the scanner they are
    all letters, so one ASCII letter stands for each, which begins no kind of literal (as E'' and X'').  Only
    the tags of dollar quotes are told apart by them.
    """
    charge(len(text) * COST_OF_CODE)
    if text.isascii():
        return scan(text)
    if _FOREIGN_TAG.search(text):
        if len(text) > _MAX_FOREIGN:
            raise _too_complex()
        charge(len(text) * len(text))
        return scan(text)
    return scan(_FOREIGN.sub("q", text))


def parse(text: str, folding: str = "") -> Tree:
    """The statements of `text` as {"stmt": …, "stmt_location": …, "stmt_len": …}.  Raises Unreadable.

    `folding`: letters that the server folds to ASCII where the parser does not (`GuardScope.folding`).
    """
    charged = charge(_COST_OF_A_PARSE)
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
    if charged is not None:
        _check_allowed(text, encoded, charged.text_bytes)
    if len(encoded) > 4096 and scan_cost(encoded) > MAX_SCAN_COST:
        raise _too_complex()
    if len(encoded) > 1024 and _assigns_rows(text):
        _check_row_assignments(text, encoded)
    try:
        found = parse_sql_json(text)
    except ParseError as error:
        raise _unreadable(error, text) from None
    if len(found) > MAX_TREE_BYTES:
        raise Unreadable("54000", "statement is too large to be checked", reason="too_large")
    if charged is not None:
        charge(len(found))
    if folding and not text.isascii():
        _check_folding(text, folding)
    return _loaded(found)


def _check_folding(text: str, folding: str) -> None:
    """Names that the server reads as others than the parser does."""
    for token in tokens(text) if any(letter in text for letter in folding) else ():
        name = text[token.start : token.end + 1]
        is_name = token.name == "IDENT" or token.kind != "NO_KEYWORD"
        if is_name and name[0] != '"' and any(letter in name for letter in folding):
            raise Unreadable(
                "0A000", f'the server may read the name "{name}" as another', token.start, reason="folding"
            )


def _check_allowed(text: str, encoded: bytes, most: int) -> None:
    """What is known to take the parser longer than its tree's size tells."""
    if len(encoded) > most or (
        len(encoded) > 256
        and (
            scan_cost(encoded) > _ALLOWED_SCAN_COST
            or (_assigns_rows(text) and _row_work(encoded) > _ALLOWED_ROW_ASSIGNMENT)
        )
    ):
        raise Costly


def _loaded(found: str) -> Tree:
    try:
        # twice as fast as json, whose part is what is deeper than its 1,024 levels
        tree: Tree = orjson.loads(found)["stmts"]
    except orjson.JSONDecodeError:
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
    if message == "out of memory":
        return Unreadable("54000", "statement is too large to be checked", reason="too_large")
    return Unreadable("42601", message, len(text) if index is None else int(index))


def _assigns_rows(text: str) -> bool:
    # most texts have no such word at all, which is soon found out
    return "set" in text.lower() and bool(_SET.search(text) and _AFTER_ROW.search(text))


def _check_row_assignments(text: str, encoded: bytes) -> None:
    """SET (a, b, …) = (…): the tree repeats the right side for each column on the left."""
    found = shape(encoded)
    if found is None:
        if len(encoded) > _MAX_SCANNED:
            raise _too_complex()
        found = _scanned(text)
    if _work_of_rows(found) > MAX_ROW_ASSIGNMENT:
        raise _too_complex()


def _row_work(encoded: bytes) -> int:
    """`_work_of_rows`, or as good as endless for a text that has no shape."""
    found = shape(encoded)
    return MAX_ROW_ASSIGNMENT if found is None else _work_of_rows(found)


def _work_of_rows(found: bytes) -> int:
    """Columns that rows are assigned to, times the bytes behind."""
    opened: list[int] = []  # commas before each
    commas = work = 0
    for match in _STRUCTURE.finditer(found):
        token = match[0]
        if token == b",":
            commas += 1
        elif token == b"(":
            opened.append(commas)
        elif token.startswith(b")") and opened:
            before = opened.pop()
            columns = commas - before + 1
            commas = before  # those inside don't count for what is around
            if token != b")" and columns > 1:
                work += columns * (len(found) - match.end())
                if work > MAX_ROW_ASSIGNMENT:
                    break
    return work


#: texts without a shape are scanned by pglast, a token at a time
_MAX_SCANNED: Final = 256 * 1024


def _scanned(text: str) -> bytes:
    """As much of a text's shape as `_check_row_assignments` looks at."""
    try:
        found = tokens(text)
    except ParseError as error:
        raise _unreadable(error, text) from None
    punctuation = {"ASCII_40": b"(", "ASCII_41": b")", "ASCII_44": b",", "ASCII_61": b"="}
    return b"".join(
        punctuation.get(token.name, b"xx")
        for token in found
        if token.name not in ("SQL_COMMENT", "C_COMMENT")
    )


def _too_complex() -> Unreadable:
    return Unreadable("54001", "statement is too complex to be checked", reason="too_complex")
