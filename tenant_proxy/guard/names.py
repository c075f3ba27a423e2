"""Names of objects inside literals, as PostgreSQL's input functions read them (regproc.c, varlena.c)."""

from __future__ import annotations

import re

from tenant_proxy.settings_policy import MAX_IDENTIFIER_BYTES

#: ASCII letters are folded; others are left (a server of another encoding than UTF-8 might fold them)
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

#: scanner_isspace(); \v only in newer versions
_SPACE = " \t\n\r\f\v"

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_OID = re.compile(r"[0-9]+|-")


def truncated(name: str) -> str:
    """Cut at 63 bytes without splitting a character, as identifiers are (truncate_identifier)."""
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_IDENTIFIER_BYTES:
        return name
    return encoded[:MAX_IDENTIFIER_BYTES].decode("utf-8", "ignore")


def is_oid(text: str) -> bool:
    """Whether a literal is an OID (or "-", none), and so names nothing."""
    return _OID.fullmatch(text.strip(_SPACE)) is not None


def split_qualified(text: str) -> list[str] | None:
    """a.b."C" as names (stringToQualifiedNameList); None if PostgreSQL would call it malformed."""
    parts = split_spans(text)
    return None if parts is None else [name for name, _, _ in parts]


def split_spans(text: str) -> list[tuple[str, int, int]] | None:
    """`split_qualified` with the characters, [from, to), that each part is written in."""
    parts: list[tuple[str, int, int]] = []
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in _SPACE:
            at += 1
        start = at
        quoted = _QUOTED.match(text, at)
        if quoted:
            name, at = quoted[1].replace('""', '"'), quoted.end()
        elif text.startswith('"', at):
            return None
        else:
            while at < end and text[at] != "." and text[at] not in _SPACE:
                at += 1
            name = text[start:at].translate(_ASCII_LOWER)
        if not name:
            return None
        parts.append((truncated(name), start, at))
        while at < end and text[at] in _SPACE:
            at += 1
        if at == end:
            return parts
        if text[at] != ".":
            return None
        at += 1


def array_elements(text: str) -> list[str] | None:
    """The elements of a one-dimensional array literal {a,"b c"}; None if it is anything else.

    NULL is left out.  Backslash escapes are resolved as array_in does.
    """
    text = text.strip(_SPACE)
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        return None
    inner = text[1:-1]
    if not inner.strip(_SPACE):
        return []
    elements: list[str] = []
    for match in _ELEMENT.finditer(inner):
        raw = match[1].strip(_SPACE)
        if raw.startswith('"'):
            elements.append(re.sub(r"(?s)\\(.)", r"\1", raw[1:-1]))
        elif raw.upper() != "NULL":
            elements.append(re.sub(r"(?s)\\(.)", r"\1", raw))
    # every character belongs to an element or a comma between two
    if "".join(match[0] for match in _ELEMENT.finditer(inner)) != inner or inner.endswith(","):
        return None
    return elements


_ELEMENT = re.compile(r'(?s)((?:\s*"(?:[^"\\]|\\.)*"\s*)|(?:[^,"{}\\]|\\.)+)(?:,|\Z)')
