"""Names and quoting of the SQL that is written for clusters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

MAX_NAME_BYTES: Final = 63
_DIGEST_CHARS: Final = 8


def ident(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    return f"{ident(schema)}.{ident(name)}"


def idents(names: Iterable[str]) -> str:
    return ", ".join(ident(name) for name in names)


def literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''") + "'"
    return f" E{quoted.replace(chr(92), chr(92) * 2)}" if "\\" in text else quoted


def fitting(name: str, suffix: str = "") -> str:
    """`name` and `suffix` as PostgreSQL takes them: what would be too long ends in a digest of the whole."""
    whole = name + suffix
    if len(whole.encode()) <= MAX_NAME_BYTES:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST_CHARS]
    room = MAX_NAME_BYTES - len(suffix.encode()) - _DIGEST_CHARS - 1
    return f"{name.encode()[:room].decode(errors='ignore')}_{digest}{suffix}"


def script(statements: Iterable[str]) -> str:
    """As one message, as a person would write them."""
    return "".join(f"{statement.rstrip(';')};\n" for statement in statements)
