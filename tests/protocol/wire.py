"""Messages of both directions, written as a test reads them, and shown as a failed test should show them.

Names are those of the protocol's documentation (54.7, Message Formats); constants have no body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tenant_proxy.errors import ProxyError
from tenant_proxy.wire.messages import message

# --- from the client -----------------------------------------------------------

SYNC = message(b"S", b"")
FLUSH = message(b"H", b"")
TERMINATE = message(b"X", b"")
COPY_DONE = message(b"c", b"")


def text(word: str) -> bytes:
    return word.encode() + b"\0"


def query(sql: str) -> bytes:
    return message(b"Q", text(sql))


def parse(name: str, sql: str, *types: int) -> bytes:
    return message(b"P", text(name) + text(sql) + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(name: str, *values: bytes | None, portal: str = "") -> bytes:
    parameters = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values
    )
    return message(
        b"B",
        text(portal) + text(name) + struct.pack("!HH", 0, len(values)) + parameters + struct.pack("!H", 0),
    )


def describe(name: str) -> bytes:
    return message(b"D", b"S" + text(name))


def describe_portal(portal: str = "") -> bytes:
    return message(b"D", b"P" + text(portal))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(b"E", text(portal) + struct.pack("!i", rows))


def close(name: str) -> bytes:
    return message(b"C", b"S" + text(name))


def close_portal(portal: str) -> bytes:
    return message(b"C", b"P" + text(portal))


def copy_data(data: bytes) -> bytes:
    """Of both directions."""
    return message(b"d", data)


def copy_fail(why: str) -> bytes:
    return message(b"f", text(why))


def function_call(oid: int, *values: bytes) -> bytes:
    parameters = b"".join(struct.pack("!i", len(value)) + value for value in values)
    return message(b"F", struct.pack("!IHH", oid, 0, len(values)) + parameters + struct.pack("!H", 0))


def password(secret: str) -> bytes:
    return message(b"p", text(secret))


def startup(**parameters: str) -> bytes:
    body = b"".join(text(name) + text(value) for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 3 << 16) + body


# --- from the server -----------------------------------------------------------

PARSED = message(b"1", b"")
BOUND = message(b"2", b"")
CLOSED = message(b"3", b"")
NO_DATA = message(b"n", b"")
SUSPENDED = message(b"s", b"")
EMPTY = message(b"I", b"")
COPY_IN = message(b"G", struct.pack("!bH", 0, 0))
COPY_OUT = message(b"H", struct.pack("!bH", 0, 0))
COPY_BOTH = message(b"W", struct.pack("!bH", 0, 0))
#: ReadyForQuery: idle, in a transaction, in a failed transaction
IDLE = message(b"Z", b"I")
OPEN = message(b"Z", b"T")
FAILED = message(b"Z", b"E")
AUTHENTICATED = message(b"R", struct.pack("!i", 0))


def columns(*names: str) -> bytes:
    """RowDescription of text columns."""
    fields = b"".join(text(name) + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for name in names)
    return message(b"T", struct.pack("!H", len(names)) + fields)


def parameter_types(*types: int) -> bytes:
    return message(b"t", struct.pack(f"!H{len(types)}I", len(types), *types))


def row(*values: str | None) -> bytes:
    cells = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value.encode())) + value.encode()
        for value in values
    )
    return message(b"D", struct.pack("!H", len(values)) + cells)


def complete(tag: str) -> bytes:
    return message(b"C", text(tag))


def result(value: str, status: bytes = IDLE) -> bytes:
    """All that a server says to a simple query for one value."""
    return columns("?column?") + row(value) + complete("SELECT 1") + status


def error(sqlstate: str, words: str = "failed") -> bytes:
    return ProxyError(sqlstate, words).to_message()


def fatal(sqlstate: str, words: str = "gone") -> bytes:
    return ProxyError(sqlstate, words, severity="FATAL").to_message()


def notice(words: str) -> bytes:
    return message(b"N", b"SNOTICE\0VNOTICE\0C00000\0M" + text(words) + b"\0")


def parameter(name: str, value: str) -> bytes:
    return message(b"S", text(name) + text(value))


def notification(pid: int, channel: str, payload: str = "") -> bytes:
    return message(b"A", struct.pack("!i", pid) + text(channel) + text(payload))


def function_result(value: bytes) -> bytes:
    return message(b"V", struct.pack("!i", len(value)) + value)


# --- shown -----------------------------------------------------------------------


def shown(data: bytes) -> list[str]:
    """One line a message; of an error only severity and SQLSTATE, since the words may be anybody's."""
    return list(_lines(data))


def _lines(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "big") + 1
        code, body = chr(data[at]), data[at + 5 : at + size]
        if len(data) - at < max(size, 5):
            yield f"{code} cut short: {data[at : at + 60]!r}"
            return
        if code == "E" and body[:1] == b"S":
            fields = {part[:1]: part[1:].decode() for part in body.split(b"\0")}
            yield f"error {fields[b'V']} {fields[b'C']}"
        elif len(body) > 200:
            yield f"{code} {body[:60]!r}... {len(body)} bytes, {hash(body):x}"
        else:
            yield f"{code} {body!r}"
        at += size
