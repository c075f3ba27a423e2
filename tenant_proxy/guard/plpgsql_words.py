"""Words of PL/pgSQL that `plpgsql` goes by."""

from __future__ import annotations

from typing import Final, NamedTuple

LEVELS: Final = {"debug", "log", "info", "notice", "warning", "exception"}
DIRECTIONS: Final = {
    *("next", "prior", "first", "last", "absolute", "relative", "forward", "backward", "all"),
}
#: what a query may begin with; a FOR loop over anything else is over a cursor
QUERIES: Final = {
    *("select", "with", "values", "table", "insert", "update", "delete", "merge", "explain", "show", "("),
}
ENDS: Final = {"end", "exception", "else", "elsif", "elseif", "when"}

#: reserved words of PL/pgSQL (pl_reserved_kwlist.h): never a variable
RESERVED: Final = {
    *("all", "begin", "by", "case", "declare", "else", "end", "execute", "for", "foreach", "from", "if"),
    *("in", "into", "loop", "not", "null", "or", "strict", "then", "to", "using", "when", "while"),
}


class Token(NamedTuple):
    #: keyword or name in lower case as written without quotes, an operator, or "" for quoted names and
    #: literals
    word: str
    start: int
    end: int
    is_name: bool
