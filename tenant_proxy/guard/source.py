"""The text that is judged: where its names and literals stand, and the edits made in it.

The parse tree says where a name begins, not where it ends, and of some names not even that.  PostgreSQL's own
scanner (pglast has it) says where tokens are; a name is taken to be at a place only if the tokens there are
its parts.  What can't be told for certain can't be edited (`NotFound`), and the judge then refuses.

Offsets are characters here; `byte_edits` turns them into bytes for the verdict.  A text inside another (a
body, a query in a literal) has a `Source` of its own, whose edits become edits of the text around it.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pglast.parser import ParseError, scan

from tenant_proxy.guard.names import truncated
from tenant_proxy.guard.parse import Unreadable
from tenant_proxy.guard.parse import tokens as tokens_of
from tenant_proxy.guard.shape import shape
from tenant_proxy.model import Edit

_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})
_STRINGS: Final = frozenset({"SCONST", "USCONST"})
#: literals and parameters
VALUES: Final = _STRINGS | {"BCONST", "XCONST", "ICONST", "FCONST", "PARAM"}
_DOT: Final = "ASCII_46"

#: a name whose spelling is not read (U&"…"): it may be any
ANY: Final = "\0"

_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class NotFound(Exception):
    """A name or literal of the tree can't be told in the text."""


class Token(NamedTuple):
    start: int
    end: int
    #: the scanner's word for it
    kind: str
    #: as a name: folded or unquoted, and cut; ANY for U&"…"; "" for literals
    name: str


class Pending(NamedTuple):
    parts: tuple[str, ...]
    #: which of them is replaced
    part: int
    text: str
    #: the keyword in front, "" for any
    keyword: str = ""


class Source:
    __slots__ = ("_starts", "_tokens", "claimed", "edits", "instead", "own", "pending", "relations", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        #: start -> (end, replacement)
        self.edits: dict[int, tuple[int, str]] = {}
        #: starts of tokens that are known to be something else than a pending name
        self.claimed: set[int] = set()
        #: names without a location, found by `settle`
        self.pending: list[Pending] = []
        #: names of relations of the catalogs: which schema they are read from `settle` decides
        self.relations: list[tuple[Token, str, bool]] = []
        #: names of what the session itself is asked for (own_session.py)
        self.own: list[tuple[str, list[Token]]] = []
        #: what stands in place of the whole statement, "" for nothing
        self.instead = ""
        self._tokens: list[Token] | None = None
        self._starts: list[int] = []

    # --- tokens ------------------------------------------------------------------

    @property
    def tokens(self) -> list[Token]:
        """All but comments; U&"…" UESCAPE '…' is one."""
        if self._tokens is None:
            self._tokens = _scanned(self.text)
            self._starts = [token.start for token in self._tokens]
        return self._tokens

    def character(self, location: int) -> int:
        """The character at a byte offset."""
        if self.text.isascii():
            return location
        return len(self.text.encode()[:location].decode("utf-8", "ignore"))

    def index(self, at: int) -> int:
        """Of the first token at or behind a character."""
        _ = self.tokens
        return bisect_left(self._starts, at)

    def name_at(self, at: int, parts: Sequence[str], *, ahead: int = 0) -> list[Token] | None:
        """The tokens of the name `parts` that begins at a character, or up to `ahead` tokens later."""
        first = self.index(at)
        if first >= len(self.tokens) or self.tokens[first].start != at:
            return None
        for index in range(first, first + ahead + 1):
            found = self._name(index, parts)
            if found is not None:
                return found
        return None

    def _name(self, index: int, parts: Sequence[str]) -> list[Token] | None:
        tokens = self.tokens
        if index + 2 * len(parts) - 1 > len(tokens):
            return None
        found = tokens[index : index + 2 * len(parts) - 1]
        for part, token in zip(parts, found[::2], strict=True):
            if token.name not in (part, ANY):
                return None
        if any(token.kind != _DOT for token in found[1::2]):
            return None
        return found[::2]

    # --- edits -----------------------------------------------------------------------

    def edit(self, start: int, end: int, text: str) -> None:
        """Puts `text` in place of the characters from `start` to `end`; the same edit may be made twice."""
        if text.startswith(("'", '"')) and self.text.endswith("&", 0, start):
            text = f" {text}"  # u&"x" is one word
        known = self.edits.setdefault(start, (end, text))
        if known != (end, text):
            raise NotFound

    def replace_token(self, token: Token, text: str) -> None:
        self.claimed.add(token.start)
        self.edit(token.start, token.end, text)

    def string_at(self, at: int) -> Token:
        """The string literal at a character, or right behind the token there (AS '…')."""
        index = self.index(at)
        for token in self.tokens[index : index + 2]:
            if token.kind in _STRINGS:
                return token
        raise NotFound

    def replace_string(self, at: int, inner: Source) -> None:
        """Gives a literal the value that `inner` has with its edits; `inner`'s text is its value now."""
        token = self.string_at(at)
        written = self.text[token.start : token.end]
        tag = written[: written.index("$", 1) + 1] if written[0] == "$" else ""
        if tag and all("$" not in text for _, text in inner.edits.values()):
            offset = token.start + len(tag)
            if self.text[offset : token.end - len(tag)] != inner.text:
                raise NotFound
            for start, (end, text) in inner.edits.items():
                self.edit(offset + start, offset + end, text)
        else:
            self.edit(token.start, token.end, quoted_string(inner.edited()))

    def replace_statement(self, start: int, end: int) -> None:
        """Puts `instead` in place of the statement between two characters."""
        tokens = self.between(start, end)
        self.pending, self.relations = [], []
        self.edits = {at: edit for at, edit in self.edits.items() if not start <= at < end}
        self.edit(tokens[0].start, tokens[-1].end, self.instead)
        self.instead = ""

    def settle(self, start: int, end: int) -> None:
        """Finds the pending names of the statement between two characters.

        A sequence of tokens may be such a name or something else that reads alike; if there are as many of
        them as names were asked for, each is one.
        """
        pending, self.pending = self.pending, []
        first, last = self.index(start), self.index(end)
        # longer names first, as they claim what shorter ones might be found in
        for wanted in sorted(set(pending), key=lambda wanted: -len(wanted.parts)):
            found = list(self._candidates(wanted, first, last))
            if len(found) != pending.count(wanted):
                raise NotFound
            for token in found:
                self.replace_token(token, wanted.text)

    def _candidates(self, wanted: Pending, first: int, last: int) -> Iterator[Token]:
        for index in range(first, last):
            before = self.tokens[index - 1].kind if index > first else ""
            if before == _DOT or (wanted.keyword and before != wanted.keyword):
                continue
            name = self._name(index, wanted.parts)
            if name is not None and name[wanted.part].start not in self.claimed:
                yield name[wanted.part]

    def between(self, start: int, end: int) -> list[Token]:
        return self.tokens[self.index(start) : self.index(end)]

    def edited(self) -> str:
        """The text with its edits."""
        pieces: list[str] = []
        at = 0
        for start, (end, text) in sorted(self.edits.items()):
            if start < at:
                raise NotFound
            pieces += (self.text[at:start], text)
            at = end
        return "".join((*pieces, self.text[at:]))

    def byte_edits(self) -> tuple[Edit, ...]:
        found = [Edit(start, end, text) for start, (end, text) in sorted(self.edits.items())]
        for before, after in itertools.pairwise(found):
            if before.end > after.start:
                raise NotFound
        if self.text.isascii():
            return tuple(found)
        # offsets rise, so each piece of the text is encoded once
        result, at, size = [], 0, 0
        for edit in found:
            size += len(self.text[at : edit.start].encode())
            width = len(self.text[edit.start : edit.end].encode())
            result.append(Edit(size, size + width, edit.text))
            at, size = edit.end, size + width
        return tuple(result)


#: tokens of a text that is looked at, at most: each takes some 200 bytes
_MAX_SCANNED: Final = 256 * 1024
_WORD: Final = re.compile(r"\w+|[^\w\s]")


def _may_be_scanned(text: str) -> bool:
    """Whether it has no more tokens than that, however long its literals are."""
    if len(text) <= _MAX_SCANNED:
        return True
    found = shape(text.encode("utf-8", "surrogatepass"))
    if found is not None:
        return len(found) <= _MAX_SCANNED
    return sum(1 for _ in _WORD.finditer(text)) <= _MAX_SCANNED


def _scanned(text: str) -> list[Token]:
    if not _may_be_scanned(text):
        raise NotFound
    try:
        # pglast's own takes too long for much that is not ASCII
        found = scan(text) if len(text) <= _MAX_SCANNED else tokens_of(text)
    except (ParseError, Unreadable):
        raise NotFound from None
    tokens: list[Token] = []
    plain = text.isascii()
    escapes = False
    for start, last, kind, _ in found:
        if kind in _COMMENTS:
            continue
        end = last + 1
        if kind == "UESCAPE" and tokens and tokens[-1].kind in ("UIDENT", "USCONST"):
            escapes = True
            continue
        if escapes:
            tokens[-1] = tokens[-1]._replace(end=end)
            escapes = False
            continue
        if kind in VALUES:
            name = ""
        elif kind == "UIDENT":
            name = ANY
        else:  # an operator's name is what is written
            name = text[start:end]
            if name[0] == '"':
                name = name[1:-1].replace('""', '"')
            elif plain:
                name = name.lower()
            else:
                name = name.translate(_ASCII_LOWER)
            if end - start > _SHORT:
                name = truncated(name)
        tokens.append(_token(Token, (start, end, kind, name)))
    return tokens


#: names of so many characters need no cut in any encoding
_SHORT: Final = 15

#: much faster than Token(…)
_token: Final = tuple.__new__


def edited(sql: str, edits: Iterable[Edit]) -> str:
    """The text with a verdict's edits applied."""
    text = sql.encode("utf-8", "surrogatepass")
    pieces, at = [], 0
    for edit in edits:
        pieces += [text[at : edit.start], edit.text.encode()]
        at = edit.end
    return b"".join([*pieces, text[at:]]).decode("utf-8", "surrogatepass")


def quoted_string(value: str) -> str:
    """A literal as standard_conforming_strings, which the proxy holds on, reads it."""
    return "'" + value.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
