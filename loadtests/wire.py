"""A lean PostgreSQL client: logs in with SCRAM-SHA-256, runs simple queries and COPY, keeps nothing.

Blocking sockets, no decoding of rows: what is measured is the other side.
Messages are those of the PostgreSQL docs, chapter 55 (Frontend/Backend Protocol).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

PROTOCOL_3_0 = 3 << 16
#: the whole of ReadyForQuery, idle: the last bytes of every answer outside a transaction
READY_IDLE = b"Z\x00\x00\x00\x05I"


class WireError(Exception):
    """The other side refused, closed or sent what was not expected."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect and as whom."""

    host: str
    port: int
    user: str
    password: str
    database: str
    #: pgbench encrypts; `Connection` never does
    tls: bool = False

    def login(self, user: str, password: str) -> Endpoint:
        return replace(self, user=user, password=password)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def startup_message(user: str, database: str) -> bytes:
    body = struct.pack("!I", PROTOCOL_3_0) + b"".join(
        text.encode() + b"\0"
        for text in ("user", user, "database", database, "application_name", "loadtests")
    )
    return struct.pack("!I", len(body) + 5) + body + b"\0"


def error_text(body: bytes) -> str:
    """SQLSTATE and message of an ErrorResponse's fields."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return f"{fields.get(b'C', '?????')}: {fields.get(b'M', 'no message')}"


@functools.cache
def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """PBKDF2, nearly all of what a login costs its client; a login's salt stays, so it is paid once."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


class Scram:
    """The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"
        self._server_signature = b""

    def first(self) -> bytes:
        return b"n,," + self._bare.encode()

    def final(self, server_first: bytes) -> bytes:
        """Answers the server's challenge with the proof."""
        challenge = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salted = salted_password(self._password, base64.b64decode(challenge["s"]), int(challenge["i"]))
        without_proof = f"c=biws,r={challenge['r']}"  # biws is base64 of "n,,"
        signed = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._server_signature = hmac.digest(server_key, signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, server_final: bytes) -> None:
        if server_final != b"v=" + base64.b64encode(self._server_signature):
            raise WireError("the server's SCRAM signature is wrong")


class Connection:
    """One logged-in connection; use as a context manager, or call `close`."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = 30) -> None:
        self._sock = socket.create_connection((endpoint.host, endpoint.port), timeout_s)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = b""
        try:
            self._log_in(endpoint)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def sock(self) -> socket.socket:
        return self._sock

    def close(self) -> None:
        """Terminate, then close; a connection that has broken meanwhile is closed all the same."""
        try:
            self._sock.sendall(message(b"X", b""))
        except OSError:
            pass
        finally:
            self._sock.close()

    def drain_query(self, sql: str, buffer: bytearray | None = None) -> int:
        """Runs one statement and throws its rows away; returns the bytes received.

        Looks at the last bytes only, which no row of ours ends with, so that a large
        result costs this client next to nothing.
        """
        self._sock.sendall(message(b"Q", sql.encode() + b"\0"))
        view = memoryview(buffer if buffer is not None else bytearray(256 * 1024))
        total = 0
        tail = b""
        first = b""
        while not tail.endswith(READY_IDLE):
            size = self._sock.recv_into(view)
            if not size:
                raise WireError("closed in the middle of a result")
            first = first or bytes(view[: min(size, 2048)])
            total += size
            tail = (tail + bytes(view[max(0, size - 6) : size]))[-6:]
        if first[:1] == b"E":
            raise WireError(error_text(first[5:]))
        return total

    def query(self, sql: str) -> list[list[str | None]]:
        """Runs one statement and returns its rows as text."""
        self._sock.sendall(message(b"Q", sql.encode() + b"\0"))
        rows: list[list[str | None]] = []
        failure: str | None = None
        while True:
            kind, body = self._read()
            if kind == b"D":  # DataRow
                rows.append(read_row(body))
            elif kind == b"E":  # ErrorResponse
                failure = error_text(body)
            elif kind == b"Z":  # ReadyForQuery
                if failure is not None:
                    raise WireError(failure)
                return rows

    def copy_in(self, sql: str, chunks: Iterable[bytes]) -> int:
        """Sends `chunks` (each of whole CopyData messages) to a COPY FROM STDIN; returns the bytes sent."""
        self._sock.sendall(message(b"Q", sql.encode() + b"\0"))
        self._expect(b"G")  # CopyInResponse
        total = 0
        for chunk in chunks:
            self._sock.sendall(chunk)
            total += len(chunk)
        self._sock.sendall(message(b"c", b""))  # CopyDone
        self._expect(b"C")  # CommandComplete
        self._expect(b"Z")  # ReadyForQuery
        return total

    def _log_in(self, endpoint: Endpoint) -> None:
        self._sock.sendall(startup_message(endpoint.user, endpoint.database))
        scram = Scram(endpoint.password)
        while True:
            kind, body = self._read()
            if kind == b"R":  # Authentication…
                answer = self._answer(scram, endpoint.password, body)
                if answer:
                    self._sock.sendall(message(b"p", answer))
            elif kind == b"E":  # ErrorResponse
                raise WireError(error_text(body))
            elif kind == b"Z":  # ReadyForQuery
                return

    @staticmethod
    def _answer(scram: Scram, password: str, body: bytes) -> bytes:
        code = struct.unpack_from("!I", body)[0]
        if code == 0:  # AuthenticationOk
            return b""
        if code == 3:  # AuthenticationCleartextPassword
            return password.encode() + b"\0"
        if code == 10:  # AuthenticationSASL
            first = scram.first()
            return b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first
        if code == 11:  # AuthenticationSASLContinue
            return scram.final(body[4:])
        if code == 12:  # AuthenticationSASLFinal
            scram.check(body[4:])
            return b""
        raise WireError(f"authentication method {code} is not known to this client")

    def _expect(self, wanted: bytes) -> bytes:
        """The next message of that kind, notices and parameters passed over."""
        while True:
            kind, body = self._read()
            if kind == wanted:
                return body
            if kind == b"E":
                raise WireError(error_text(body))

    def _read(self) -> tuple[bytes, bytes]:
        while len(self._in) < 5 or len(self._in) < 1 + (size := struct.unpack_from("!I", self._in, 1)[0]):
            more = self._sock.recv(65536)
            if not more:
                raise WireError("connection closed")
            self._in += more
        kind, body, self._in = self._in[:1], self._in[5 : 1 + size], self._in[1 + size :]
        return kind, body


def read_row(body: bytes) -> list[str | None]:
    """The columns of a DataRow in text format."""
    count = struct.unpack_from("!H", body)[0]
    offset = 2
    row: list[str | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, offset)
        offset += 4
        if size < 0:
            row.append(None)
            continue
        row.append(body[offset : offset + size].decode())
        offset += size
    return row


def make_verifier(password: str, iterations: int = 4096) -> str:
    """A verifier as PostgreSQL stores in pg_authid.rolpassword: what both proxies are given."""
    salt = secrets.token_bytes(16)
    salted = salted_password(password, salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"
