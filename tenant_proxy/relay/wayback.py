"""What servers say, in the names that clients know: errors, notices, positions (decision 10).

Statements of a tenant may reach the server changed: `pg_class` as `tp_catalog.pg_class`, `public.orders`
as `acme.orders`, channels with the tenant's space in front.  Errors and notices name what the server has
seen.  Here they are turned back: the texts of message, detail, hint, context and internal query, the field
that names the schema, and positions.  Rows are not touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from tenant_proxy.wire import messages

#: fields with text in which objects may be named (docs 54.8): message, detail, hint, where, internal query
_TEXTS: Final = frozenset(b"MDHWq")
_SCHEMA: Final = ord("s")
_POSITION: Final = ord("P")
_INTERNAL_POSITION: Final = ord("p")
_INTERNAL_QUERY: Final = ord("q")

_INSIDE: Final = rb"[A-Za-z0-9_$\x80-\xff]"
_SHIMS: Final = re.compile(
    rb"(?<!" + _INSIDE + rb")tp_(?:(catalog)(?:_sys)?|(information_schema))(?!" + _INSIDE + rb")"
)
#: what stands around dynamic SQL (guard/plpgsql.py), and where it is read
_DYNAMIC: Final = re.compile(
    rb"tp_catalog\.dynamic\( ?|/\*tp_catalog\*/\)|"
    rb"^PL/pgSQL function tp_catalog\.dynamic(?:_turned)?\([a-z]+\) line \d+ at [A-Za-z ]+\n",
    re.MULTILINE,
)
_SHIM_SCHEMAS: Final = {
    b"tp_catalog": b"pg_catalog",
    b"tp_catalog_sys": b"pg_catalog",
    b"tp_information_schema": b"information_schema",
}
#: what clients call their schema under policy.public_is_own
_PUBLIC: Final = b"public"

#: a place that was changed: where it starts and ends in the client's text, where it starts and how long it
#: is in what the server got; in bytes
Place = tuple[int, int, int, int]


class Changed(NamedTuple):
    """A statement before and after, and the codec of both."""

    text: bytes
    result: bytes
    places: Sequence[Place]
    codec: str

    def position(self, position: int) -> int | None:
        """A position (1-based, in characters) in what the server got, as one in the client's text."""
        try:
            at = len(self.result.decode(self.codec)[: position - 1].encode(self.codec))
            before = 0
            for start, end, new, size in self.places:
                if at < new:
                    break
                if at < new + size:
                    at, before = start, 0
                    break
                before = end - (new + size)
            return len(self.text[: at + before].decode(self.codec)) + 1
        except UnicodeError:
            return None


class Names:
    """The names of one tenant."""

    def __init__(self, *, space: str, schema: str, hides: bool, public_is_own: bool) -> None:
        self.prefix = f"{space}.".encode() if hides and space else b""
        self.own = schema.encode() if public_is_own else b""
        self.translates = hides or public_is_own
        self._hides = hides
        name = re.escape(self.own)
        quoted = re.escape(self.own.replace(b'"', b'""'))
        # schema "acme", acme.orders and "acme".orders; not x.acme.orders
        word = rb"(?<!" + _INSIDE + rb')(?<!\.)(?:"' + quoted + rb'"|' + name + rb")(?=\.)"
        self._own = re.compile(rb'(?P<words>\bschema )"' + name + rb'"|' + word)

    def text(self, text: bytes) -> bytes:
        if self._hides:
            text = _DYNAMIC.sub(b"", text)
            text = _SHIMS.sub(lambda found: b"pg_catalog" if found[1] else b"information_schema", text)
        if self.prefix:
            text = text.replace(self.prefix, b"")
        if self.own:
            text = self._own.sub(
                lambda found: found["words"] + b'"public"' if found["words"] else _PUBLIC, text
            )
        return text

    def schema(self, name: bytes) -> bytes:
        if self._hides and name in _SHIM_SCHEMAS:
            return _SHIM_SCHEMAS[name]
        return _PUBLIC if self.own and name == self.own else name

    def turned_back(self, body: bytes, changed: Changed | None) -> bytes | None:
        """The body of an ErrorResponse or NoticeResponse for the client; None if it may go as it is."""
        before = _fields(body)
        after = list(before)
        query = next((text for code, text in before if code == _INTERNAL_QUERY), b"")
        for i, (code, text) in enumerate(before):
            if code in _TEXTS and self.translates:
                after[i] = code, self.text(text)
            elif code == _SCHEMA and self.translates:
                after[i] = code, self.schema(text)
            elif code == _POSITION and changed is not None and text.isdigit():
                position = changed.position(int(text))
                after[i] = code, b"%d" % position if position else text
            elif code == _INTERNAL_POSITION and query and text.isdigit() and self.translates:
                ahead = query.decode("utf-8", "surrogateescape")[: int(text) - 1]
                turned = self.text(ahead.encode("utf-8", "surrogateescape"))
                after[i] = code, b"%d" % (len(turned.decode("utf-8", "surrogateescape")) + 1)
        if after == before:
            return None
        return b"".join(bytes([code]) + text + b"\0" for code, text in after) + b"\0"

    def error(self, body: bytes, changed: Changed | None) -> bytes | None:
        """An ErrorResponse in place of the server's, or None."""
        turned = self.turned_back(body, changed)
        return None if turned is None else messages.message(b"E", turned)

    def notice(self, body: bytes, changed: Changed | None) -> bytes | None:
        turned = self.turned_back(body, changed)
        return None if turned is None else messages.message(b"N", turned)


AS_THEY_ARE: Final = Names(space="", schema="", hides=False, public_is_own=False)


def _fields(body: bytes) -> list[tuple[int, bytes]]:
    return [(part[0], part[1:]) for part in body.split(b"\0") if part]
