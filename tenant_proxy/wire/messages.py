"""Messages that the cold side reads and writes (docs 54.7, Message Formats).

What clients and servers say in the relay is read in relay.client and relay.server, in C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tenant_proxy.errors import ClientProtocolError, ServerProtocolError

CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
PROTOCOL_3_0 = 3 << 16
#: newest minor version that the proxy speaks
NEWEST_MINOR = 2

AUTH_OK = b"R\0\0\0\x08\0\0\0\0"
READY_IDLE = b"Z\0\0\0\x05I"

#: OID of the type text (src/include/catalog/pg_type.dat)
TEXT_OID = 25

_HEADER = struct.Struct("!cI")


def message(code: bytes, body: bytes) -> bytes:
    """A typed message; the length counts itself and the body."""
    return _HEADER.pack(code, len(body) + 4) + body


def query(sql: str) -> bytes:
    return message(b"Q", sql.encode() + b"\0")


def parse(name: str, sql: str, types: Sequence[int]) -> bytes:
    oids = struct.pack(f"!H{len(types)}I", len(types), *types)
    return message(b"P", name.encode() + b"\0" + sql.encode() + b"\0" + oids)


def bind(statement: str, values: Sequence[bytes]) -> bytes:
    """To the unnamed portal; parameters and results as text."""
    parameters = b"".join(struct.pack("!I", len(value)) + value for value in values)
    head = b"\0" + statement.encode() + b"\0" + struct.pack("!HH", 0, len(values))
    return message(b"B", head + parameters + struct.pack("!H", 0))


def execute() -> bytes:
    """The unnamed portal, to its end."""
    return message(b"E", b"\0" + struct.pack("!I", 0))


def command_complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key_data(pid: int, key: bytes) -> bytes:
    return message(b"K", struct.pack("!i", pid) + key)


def ssl_request() -> bytes:
    return struct.pack("!II", 8, SSL_REQUEST)


def cancel_request(pid: int, key: bytes) -> bytes:
    return struct.pack("!IIi", 12 + len(key), CANCEL_REQUEST, pid) + key


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """StartupMessage of protocol 3.0."""
    # `read_startup` takes any bytes, so any go on
    words = (word.encode("utf-8", "surrogateescape") + b"\0" for pair in parameters.items() for word in pair)
    body = b"".join(words) + b"\0"
    return struct.pack("!II", len(body) + 8, PROTOCOL_3_0) + body


def negotiate_protocol(minor: int, options: Iterable[str]) -> bytes:
    """NegotiateProtocolVersion: the newest minor version spoken here, and options not known."""
    unknown = [option.encode() + b"\0" for option in options]
    return message(b"v", struct.pack("!II", PROTOCOL_3_0 | minor, len(unknown)) + b"".join(unknown))


@dataclass(frozen=True, slots=True)
class StartupPacket:
    """An untyped first packet: `code` is the protocol version or a request's magic number."""

    code: int
    parameters: dict[str, str] = field(default_factory=dict)
    #: of a CancelRequest
    pid: int = 0
    key: bytes = b""
    #: parameters of protocol extensions (_pq_.…)
    extensions: tuple[str, ...] = ()

    @property
    def major(self) -> int:
        return self.code >> 16

    @property
    def minor(self) -> int:
        return self.code & 0xFFFF


def read_startup(packet: bytes) -> StartupPacket:
    """Reads a whole first packet, length included (ProcessStartupPacket in backend_startup.c).

    Raises ClientProtocolError.
    """
    if len(packet) < 8:
        raise ClientProtocolError("invalid length of startup packet")
    length, code = struct.unpack_from("!II", packet)
    if length != len(packet):
        raise ClientProtocolError("invalid length of startup packet")
    if code == CANCEL_REQUEST:
        if not 16 <= length <= 12 + 256:
            raise ClientProtocolError("invalid length of cancel request")
        return StartupPacket(code, pid=struct.unpack_from("!i", packet, 8)[0], key=packet[12:])
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        return StartupPacket(code)
    if code >> 16 != 3:
        return StartupPacket(code)
    body = packet[8:]
    if not body.endswith(b"\0"):
        raise ClientProtocolError("invalid startup packet layout: expected terminator as last byte")
    fields = body[:-1].split(b"\0")
    if fields[-1] != b"" or len(fields) % 2 != 1:
        raise ClientProtocolError("invalid startup packet layout: expected terminator as last byte")
    words = [f.decode("utf-8", "surrogateescape") for f in fields[:-1]]
    if any(name == "" for name in words[::2]):
        raise ClientProtocolError("invalid startup packet layout: expected terminator as last byte")
    extensions = tuple(name for name in words[::2] if name.startswith("_pq_."))
    return StartupPacket(code, dict(zip(words[::2], words[1::2], strict=True)), extensions=extensions)


def error_fields(body: bytes) -> dict[str, str]:
    """Fields of an ErrorResponse's or NoticeResponse's body; unreadable parts are left out."""
    fields: dict[str, str] = {}
    for part in body.split(b"\0"):
        if part:
            fields[chr(part[0])] = part[1:].decode("utf-8", "replace")
    return fields


def data_row(body: bytes) -> list[str | None]:
    """Columns of a DataRow in text format.  Raises ServerProtocolError."""
    return [None if value is None else value.decode("utf-8", "replace") for value in _columns(body)]


def row_values(body: bytes) -> list[bytes | None]:
    """As `data_row`, in whatever encoding they are."""
    return list(_columns(body))


def _columns(body: bytes) -> Iterator[bytes | None]:
    try:
        (count,) = struct.unpack_from("!H", body)
        at = 2
        for _ in range(count):
            (size,) = struct.unpack_from("!i", body, at)
            at += 4
            if size < 0:
                yield None
                continue
            if at + size > len(body):
                raise ServerProtocolError("truncated row")
            yield body[at : at + size]
            at += size
    except struct.error as error:
        raise ServerProtocolError("truncated row") from error


def bind_values(rest: bytes) -> dict[int, bytes | None]:
    """The parameters of a Bind by number from 1; `rest` is the message behind the statement's name.

    Raises ClientProtocolError.
    """
    return {number: value for number, (_, _, value) in _bound(rest).items()}


def with_values(rest: bytes, values: Mapping[int, bytes]) -> bytes:
    """`rest` with other values for some of the parameters."""
    pieces, done = [], 0
    for number, (start, end, _) in _bound(rest).items():
        if number in values:
            pieces += [rest[done:start], struct.pack("!i", len(values[number])), values[number]]
            done = end
    return b"".join([*pieces, rest[done:]])


def _bound(rest: bytes) -> dict[int, tuple[int, int, bytes | None]]:
    """Of each parameter where its length and value stand, and the value."""
    found: dict[int, tuple[int, int, bytes | None]] = {}
    try:
        (formats,) = struct.unpack_from("!H", rest)
        at = 2 + 2 * formats
        (count,) = struct.unpack_from("!H", rest, at)
        at += 2
        for number in range(1, count + 1):
            (size,) = struct.unpack_from("!i", rest, at)
            end = at + 4 + max(size, 0)
            if size < -1 or end > len(rest):
                raise ClientProtocolError("invalid message format")
            found[number] = at, end, None if size < 0 else rest[at + 4 : end]
            at = end
    except struct.error as error:
        raise ClientProtocolError("invalid message format") from error
    return found
