"""The tokens of a body in PL/pgSQL, one after the other."""

from __future__ import annotations

from typing import Final, NamedTuple, NoReturn

from pglast.parser import ParseError

from tenant_proxy.guard import names
from tenant_proxy.guard.parse import Unreadable, tokens
from tenant_proxy.guard.plpgsql_words import CLOSING_BRACKETS, OPENING_BRACKETS, RESERVED
from tenant_proxy.guard.walk import Walk

#: longest body, in characters; each statement and expression in it is parsed on its own
_MAX_BODY: Final = 1024 * 1024


class Token(NamedTuple):
    #: keyword or name in lower case as written without quotes, an operator, or "" for quoted names and
    #: literals
    word: str
    start: int
    end: int
    is_name: bool


def scanned(text: str) -> list[Token]:
    """The tokens of a body, without comments.  Raises ParseError, Unreadable and Costly.

    The bounds are those that `parse` holds a text to, for one that is only scanned.
    """
    if "\0" in text:
        raise Unreadable("22021", 'invalid byte sequence for encoding "UTF8": 0x00')
    if len(text) > _MAX_BODY:
        raise Unreadable("54000", "statement is too large to be checked")
    found = []
    for token in tokens(text):
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            continue
        word = text[token.start : token.end + 1]
        quoted = word[0] in "\"'" or token.name in ("SCONST", "USCONST", "UIDENT", "BCONST", "XCONST")
        is_name = token.name in ("IDENT", "UIDENT") or token.kind != "NO_KEYWORD"
        found.append(Token("" if quoted else word.lower(), token.start, token.end + 1, is_name))
    return found


class Tokens:
    """A body's tokens, and where its reader stands among them."""

    def __init__(self, w: Walk, text: str) -> None:
        self.w = w
        self.text = text
        self.at = 0
        self.tokens = self._tokens()

    def _tokens(self) -> list[Token]:
        try:
            return scanned(self.text)
        except Unreadable as error:
            self.fail(error.message, error.sqlstate)
        except ParseError as error:
            self.fail(str(error.args[0]))

    # --- tokens ------------------------------------------------------------------

    def fail(self, message: str, sqlstate: str = "42601") -> NoReturn:
        self.w.refuse(
            "syntax",
            message,
            sqlstate=sqlstate,
            detail="This is in a body in PL/pgSQL.",
            hint="The proxy reads PL/pgSQL as PostgreSQL 18 does.",
        )

    def unexpected(self) -> NoReturn:
        if self.at >= len(self.tokens):
            self.fail("syntax error at end of input")
        token = self.tokens[self.at]
        self.fail(f'syntax error at or near "{self.text[token.start : token.end]}"')

    def peek(self, ahead: int = 0) -> str:
        """The word at a token, "" at the end and for quoted tokens."""
        at = self.at + ahead
        return self.tokens[at].word if at < len(self.tokens) else ""

    @property
    def ended(self) -> bool:
        return self.at >= len(self.tokens)

    def accept(self, *words: str) -> bool:
        word = self.peek()
        if word not in words or (self.peek(1) == "." and word.isalpha() and word not in RESERVED):
            # to PL/pgSQL a name with dots is one word, unless its first part is reserved
            return False
        self.at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.accept(word):
            self.unexpected()

    def name(self) -> Token:
        if self.ended or not self.tokens[self.at].is_name:
            self.unexpected()
        self.at += 1
        return self.tokens[self.at - 1]

    def until(self, *stops: str) -> tuple[int, int]:
        """Skips to the first of `stops` outside parentheses; returns the tokens skipped, [from, to)."""
        start, level = self.at, 0
        while level or (word := self.peek()) not in stops:
            word = self.peek()
            if word in OPENING_BRACKETS:
                level += 1
            elif word in CLOSING_BRACKETS:
                level -= 1
            if self.ended or level < 0 or word == ";":
                self.unexpected()
            self.at += 1
        return start, self.at

    def offset(self, span: tuple[int, int]) -> int:
        """Where `slice` begins."""
        return self.tokens[span[0]].start

    def slice(self, span: tuple[int, int]) -> str:
        start, end = span
        if start == end:
            return ""
        return self.text[self.tokens[start].start : self.tokens[end - 1].end]

    def variable(self, span: tuple[int, int]) -> str:
        """The name of what is assigned to, or of the field of it; "" if there is none."""
        name = ""
        for token in self.tokens[slice(*span)]:
            if token.word == "[":
                break
            if token.is_name:
                name = self.name_of(token)
        return name

    def name_of(self, token: Token) -> str:
        return token.word or names.truncated(self.text[token.start + 1 : token.end - 1].replace('""', '"'))
