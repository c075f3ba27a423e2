"""Judging long texts by a short one of the same meaning to the judge.

A verdict that no literal decided holds for the statement with any other literals, and rows of a VALUES list
or members of an IN list that are nothing but literals are all the same to it.  So of a long text (a bulk
insert, mostly) the shape is taken, repeated members are dropped, and what is left is judged with the
shortest literals in their places.  If that is allowed without a literal having decided, the text is.
"""

from __future__ import annotations

import re
from typing import Final

from tenant_proxy.guard.shape import shape

#: texts above this are judged by a stand-in first; they are not cached either
LONG_TEXT_BYTES: Final = 16 * 1024

#: a literal, perhaps signed, or a word that is as good as one
_CONSTANT = rb"(?:[+-]? ?[\x01\x02]|\x03|\bNULL\b|\bDEFAULT\b|\bTRUE\b|\bFALSE\b)"
_CONSTANTS = rb" ?" + _CONSTANT + rb"(?: ?, ?" + _CONSTANT + rb")*+ ?"

_REPEATED: Final = re.compile(
    # quoted names are passed over whole
    rb'"[^"]*"'
    # VALUES (…), (…), … ( : all rows but the last that are constants
    rb"|(?P<values>\bVALUES ?)(?:\(" + _CONSTANTS + rb"\) ?, ?)++(?=\()"
    # IN (…), ARRAY[…]: all constants but one
    rb"|(?P<list>\bIN ?\(|\bARRAY ?\[)(?: ?" + _CONSTANT + rb" ?,)++(?= ?" + _CONSTANT + rb" ?[)\]])",
    re.IGNORECASE,
)

_LITERALS: Final = ((b"\x01", b"0"), (b"\x02", b"0.5"), (b"\x03", b"''"))


def stand_in(text: bytes) -> str | None:
    """A text to judge in place of `text`, or None if there is none (it has no shape, or is not UTF-8)."""
    found = shape(text)
    if found is None:
        return None
    short = _REPEATED.sub(lambda match: match["values"] or match["list"] or match[0], found)
    for placeholder, literal in _LITERALS:
        short = short.replace(placeholder, literal)
    try:
        return short.decode()
    except UnicodeDecodeError:
        return None
