"""Judging long texts by a short one of the same meaning to the judge.

A verdict that no literal decided holds for the statement with any other literals, and rows of a VALUES list
or members of an IN list that are nothing but literals are all the same to it.  So of a long text (a bulk
insert, mostly) the shape is taken, repeated members are dropped, and what is left is judged with the
shortest literals in their places.  If that is allowed without a literal having decided, the text is.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tenant_proxy.guard.edits import places_in_text
from tenant_proxy.guard.shape import shape
from tenant_proxy.model import Edit

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


# --- places of edits ---------------------------------------------------------------------------------------

#: repetitions that are taken out of one text
_MAX_CUTS: Final = 8


class Cut(NamedTuple):
    """A text without what its stand-in leaves out, otherwise as it is."""

    text: str
    #: offset in bytes, in `text`, behind which so many bytes are missing; in order
    missing: tuple[tuple[int, int], ...]

    def placed(self, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        """Edits of `text` as edits of the whole."""
        found = []
        for edit in edits:
            shift = sum(size for at, size in self.missing if at <= edit.start)
            found.append(Edit(edit.start + shift, edit.end + shift, edit.text))
        return tuple(found)


def cut(text: bytes) -> Cut | None:
    """None if there is no such text: it has no shape, repeats nothing, or too much."""
    found = shape(text)
    if found is None:
        return None
    # from a byte that is no literal to behind another, as places_in_text asks
    spans: list[tuple[int, int]] = []
    instead: list[bytes] = []
    for match in _REPEATED.finditer(found):
        if match["values"]:
            spans.append((match.end("values"), found.rindex(b",", *match.span()) + 1))
            instead.append(b"")
        elif match["list"]:
            first, last = found.index(b",", match.end("list")), found.rindex(b",", *match.span())
            if first < last:
                spans.append((first, last + 1))
                instead.append(b",")
    if not spans or len(spans) > _MAX_CUTS:
        return None
    places = places_in_text(text, spans)
    if places is None:
        return None
    pieces: list[bytes] = []
    missing: list[tuple[int, int]] = []
    at = size = 0
    for (start, end), kept in zip(places, instead, strict=True):
        pieces += (text[at:start], kept)
        size += start - at + len(kept)
        missing.append((size, end - start - len(kept)))
        at = end
    short = b"".join((*pieces, text[at:]))
    return Cut(short.decode(), tuple(missing))
