"""SASLprep (RFC 4013) of passwords, with PostgreSQL's exceptions.

PostgreSQL takes a password as it is when the profile refuses it (it may not even
be UTF-8), leaves ASCII alone (control characters too), and looks for prohibited
characters before normalization, not after.  A proxy that differs in any of this
computes other keys than the server does.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare_password(password: bytes) -> bytes:
    """What PBKDF2 gets for a password; the password itself where SASLprep fails."""
    if password.isascii():
        return password
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    prepared = saslprep(text)
    return password if prepared is None else prepared.encode()


def saslprep(text: str) -> str | None:
    """The normalized text, or None where the profile refuses it."""
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        # U+200B is in both tables: a space, for PostgreSQL
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    if not mapped or any(is_in(char) for char in mapped for is_in in _PROHIBITED):
        return None
    if any(map(stringprep.in_table_d1, mapped)) and (
        any(map(stringprep.in_table_d2, mapped))
        or not stringprep.in_table_d1(mapped[0])
        or not stringprep.in_table_d1(mapped[-1])
    ):
        return None
    return unicodedata.normalize("NFKC", mapped)
