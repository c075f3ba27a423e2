"""Words of PL/pgSQL that `plpgsql` goes by."""

from __future__ import annotations

import re
from typing import Final

OPENING_BRACKETS, CLOSING_BRACKETS = {"(", "["}, {")", "]"}

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

#: name%TYPE and name%ROWTYPE, since version 17 also as arrays
COPIED_TYPE: Final = re.compile(r"(?is)(.*\S)\s*%\s*(rowtype|type)\b(?:\s*array\b)?(?:\s*\[\s*\d*\s*\])*\s*")

#: the type of cursors
CURSORS: Final = re.compile(r'(?is)(?:(?:pg_catalog|"pg_catalog")\s*\.\s*)?(?:refcursor|"refcursor")')
