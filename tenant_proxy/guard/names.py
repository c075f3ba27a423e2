"""Names of objects inside literals, as PostgreSQL's input functions read them (regproc.c, varlena.c)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

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


_RIGHTS = re.compile(r'(?s)\s*(?:(?:group|user)\s+)?((?:"(?:[^"]|"")*"|[^"=/])*)=[^/]*(?:/(.*))?')


def roles_of_rights(text: str) -> list[str]:
    """The roles in a text like joe=r/ann (aclparse); none if it is malformed, or nobody's name."""
    found = _RIGHTS.fullmatch(text)
    parts = [
        split_qualified(part) for part in (found.groups() if found else ()) if part and part.strip(_SPACE)
    ]
    return [part[-1] for part in parts if part]


def array_elements(text: str) -> list[str] | None:
    """The elements of a one-dimensional array literal {a,"b c"}; None if it is anything else.

    NULL is left out.  Backslash escapes are resolved as array_in does.
    """
    text = text.strip(_SPACE)
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":
        return None
    inner = text[1:-1]
    elements: list[str] = []
    at = 0
    while True:
        match = _ELEMENT.match(inner, at)
        if match is None:
            # nothing but white space is an empty array
            return None if elements or inner.strip(_SPACE) else []
        quoted, bare, comma = match.groups()
        if quoted is not None:
            elements.append(_ESCAPED.sub(r"\1", quoted))
        elif (bare := bare.strip(_SPACE)).upper() != "NULL":
            elements.append(_ESCAPED.sub(r"\1", bare))
        at = match.end()
        if not comma:
            return elements


_ELEMENT = re.compile(rf'(?s)[{_SPACE}]*+(?:"((?:[^"\\]|\\.)*+)"[{_SPACE}]*+|((?:[^,"{{}}\\]|\\.)++))(,|\Z)')
_ESCAPED = re.compile(r"(?s)\\(.)")


#: types of which an array in binary holds numbers: oid, regproc, regprocedure, regoper, regoperator,
#: regclass, regtype, regconfig, regdictionary, regnamespace, regrole, regcollation
_NUMBERS = frozenset({26, 24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191})


def binary_array_elements(value: bytes) -> list[bytes] | None:
    """The texts in an array in binary (array_recv), in all its dimensions; None if it is no such array.

    It begins with how many dimensions it has, at most 6, which no text does.  NULL is left out.
    """
    if len(value) < 12 or value[:3] != b"\0\0\0":
        return None
    dimensions, _, element_type = struct.unpack_from("!iiI", value)
    if element_type in _NUMBERS:
        return []
    elements: list[bytes] = []
    at = 12 + 8 * dimensions
    while at + 4 <= len(value):
        (size,) = struct.unpack_from("!i", value, at)
        at += 4
        if size >= 0:
            elements.append(value[at : at + size])
            at += size
    return elements


def array_literal(elements: Iterable[str]) -> str:
    """The text of an array of these."""
    quoted = (element.replace("\\", "\\\\").replace('"', '\\"') for element in elements)
    return "{" + ",".join(f'"{element}"' for element in quoted) + "}"
