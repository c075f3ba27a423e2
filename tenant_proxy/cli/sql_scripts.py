r"""SQL scripts taken apart into what psql would send, a statement at a time and in little memory.

Statements end where psql ends them (its psqlscan.l): at a semicolon outside of quotes, comments,
parentheses and `BEGIN ATOMIC … END`.  Commands of psql (\connect …) are left out, and so is the data behind
COPY … FROM stdin.  What comes out is judged by the real parser; a mistake here makes an error there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tenant_proxy.guard.parse import MAX_TEXT_BYTES

#: characters of a statement that are kept; one that is longer the guard would not judge either
MAX_STATEMENT: Final = MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class Statement:
    #: without what stands before its first word; "" if it is `too_long`
    text: str
    #: where that is in the file, from 1
    line: int
    too_long: bool = False


_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<line_comment>--[^\n]*)
    | (?P<comment>/\*)
    | (?P<escaped>[eE]')
    | (?P<string>(?:[uU]&|[bBxXnN])?')
    | (?P<name>(?:[uU]&)?")
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<number>[0-9][\w.]*)
    | (?P<parameter>\$[0-9]+)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<end>;)
    | (?P<command>\\)
    | (?P<other>[^\s\w\x80-\U0010ffff'"$()\\;/-]+|.)
    """,
    re.VERBOSE | re.ASCII,
)

#: how each kind of quote goes on to its end
_INSIDE: Final = {
    "string": re.compile(r"(?:[^']++|'')*+'"),
    "escaped": re.compile(r"(?:[^'\\]++|\\.|'')*+'", re.DOTALL),
    "name": re.compile(r'(?:[^"]++|"")*+"'),
}
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")

#: psql's own commands that send what is in the buffer
_SENDING: Final = re.compile(r"\\(?:g|gx|gexec|gset|gdesc|crosstabview|watch|bind|parse)\b")

_COPY_FROM_STDIN: Final = re.compile(r"\s*copy\b.*\bfrom\s+(?:stdin|stdout)\b", re.IGNORECASE | re.DOTALL)


@dataclass(slots=True)
class _State:
    """What psql's scanner keeps between lines."""

    quote: str = ""
    dollar: str = ""
    comments: int = 0
    parentheses: int = 0
    #: the last token was an E'…', which a '…' behind a line break goes on
    escaped: bool = False
    broken: bool = False
    #: BEGIN and CASE that are open in the body of a function
    begins: int = 0
    #: the statement's first words, lower case
    words: list[str] = field(default_factory=list)

    def word(self, word: str) -> None:
        word = word.lower()
        if len(self.words) < 4:
            self.words.append(word)
        if self.parentheses or self.words[:1] != ["create"]:
            return
        if not {"function", "procedure"} & set(self.words[1:4]):
            return
        if word == "begin" or (word == "case" and self.begins):
            self.begins += 1
        elif word == "end" and self.begins:
            self.begins -= 1


def statements(lines: Iterable[str]) -> Iterator[Statement]:
    """The statements of a script, given by its lines with their ends."""
    return _Splitter().split(lines)


class _Splitter:
    def __init__(self) -> None:
        self._begin()
        #: in the data of a COPY
        self._data = False

    def _begin(self) -> None:
        self._state = _State()
        self._pieces: list[str] = []
        self._size = 0
        self._line = 0

    def split(self, lines: Iterable[str]) -> Iterator[Statement]:
        for number, line in enumerate(lines, 1):
            if self._data:
                self._data = line.rstrip("\r\n") != "\\."
                continue
            yield from self._split_line(line, number)
        if self._line:
            yield self._taken()

    def _split_line(self, line: str, number: int) -> Iterator[Statement]:
        at = 0
        while at < len(line):
            state = self._state
            if state.quote or state.dollar or state.comments:
                at = self._inside(line, at)
                continue
            token = _TOKEN.match(line, at)
            assert token is not None  # its last branch takes any character
            kind, text = str(token.lastgroup), token[0]
            if kind == "command":
                if _SENDING.match(line, at) and self._line:
                    yield self._taken()
                return  # the rest of the line is the command's
            at = token.end()
            if kind == "end" and not state.parentheses and not state.begins:
                if self._line:
                    done = self._taken()
                    yield done
                    if _COPY_FROM_STDIN.match(done.text):
                        self._data = True
                        return
                continue
            if not self._line and kind not in ("space", "line_comment", "comment"):
                self._line = number
            self._add(text)
            self._enter(kind, text)

    def _enter(self, kind: str, text: str) -> None:
        state = self._state
        if kind == "string" and text == "'" and state.escaped and state.broken:
            kind = "escaped"
        if kind not in ("space", "line_comment"):
            state.escaped, state.broken = kind == "escaped", False
        elif "\n" in text:
            state.broken = True
        if kind in _INSIDE:
            state.quote = kind
        elif kind == "dollar":
            state.dollar = text
        elif kind == "comment":
            state.comments = 1
        elif kind == "open":
            state.parentheses += 1
        elif kind == "close":
            state.parentheses = max(0, state.parentheses - 1)
        elif kind == "word":
            state.word(text)

    def _inside(self, line: str, at: int) -> int:
        """Goes on in a quote or comment; where it or the line ends."""
        state = self._state
        if state.comments:
            mark = _COMMENT_MARK.search(line, at)
            end = mark.end() if mark else len(line)
            if mark:
                state.comments += 1 if mark[0] == "/*" else -1
        elif state.dollar:
            found = line.find(state.dollar, at)
            end = found + len(state.dollar) if found >= 0 else len(line)
            if found >= 0:
                state.dollar = ""
        else:
            match = _INSIDE[state.quote].match(line, at)
            end = match.end() if match else len(line)
            if match:
                state.quote = ""
        self._add(line[at:end])
        return end

    def _add(self, text: str) -> None:
        if not self._line:
            return  # nothing of a statement yet
        self._size += len(text)
        if self._size <= MAX_STATEMENT:
            self._pieces.append(text)
        else:
            self._pieces.clear()

    def _taken(self) -> Statement:
        text, line, long = "".join(self._pieces).rstrip(), self._line, self._size > MAX_STATEMENT
        self._begin()
        return Statement("" if long else text, line, long)
