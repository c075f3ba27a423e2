"""A small PostgreSQL client that shows every message: for conversations a driver would never hold.

Functions compose and read messages (bytes only); `WireClient` puts them
on a blocking socket.  It does what it is told, wrong things too.  PostgreSQL docs, chapter
"Frontend/Backend Protocol".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

#: wire protocol versions
V2_0 = 2 << 16
V3_0 = 3 << 16
V3_2 = (3 << 16) | 2
V3_GREASE = (3 << 16) | 9999
CANCEL_CODE = (1234 << 16) | 5678
SSL_CODE = (1234 << 16) | 5679
GSS_CODE = (1234 << 16) | 5680

#: how long a reply may take before a test fails, in seconds
PATIENCE_S = 20.0


class Message(NamedTuple):
    """One backend message: its type byte as a letter, and its body without the length."""

    type: str
    body: bytes

    def __repr__(self) -> str:
        if self.type in "EN":
            return f"{self.type}{fields(self)}"
        body = repr(self.body) if len(self.body) < 200 else f"<{len(self.body)} bytes>"
        return f"{self.type}({body})"


# --- what a client sends ------------------------------------------------------


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def cstr(text: str | bytes) -> bytes:
    return (text.encode(errors="surrogateescape") if isinstance(text, str) else text) + b"\0"


def startup(settings: dict[str, str], version: int = V3_0) -> bytes:
    body = struct.pack("!I", version) + b"".join(cstr(k) + cstr(v) for k, v in settings.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def special_request(code: int, body: bytes = b"") -> bytes:
    """SSLRequest, GSSENCRequest or CancelRequest."""
    return struct.pack("!II", len(body) + 8, code) + body


def query(sql: str | bytes) -> bytes:
    return message("Q", cstr(sql))


def parse(sql: str | bytes, name: str = "", types: Sequence[int] = ()) -> bytes:
    return message("P", cstr(name) + cstr(sql) + struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(
    *params: bytes | str | None,
    portal: str = "",
    name: str = "",
    formats: Sequence[int] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    body = cstr(portal) + cstr(name) + struct.pack(f"!H{len(formats)}h", len(formats), *formats)
    body += struct.pack("!H", len(params))
    for value in params:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            data = value.encode() if isinstance(value, str) else value
            body += struct.pack("!i", len(data)) + data
    body += struct.pack(f"!H{len(result_formats)}h", len(result_formats), *result_formats)
    return message("B", body)


def describe_statement(name: str = "") -> bytes:
    return message("D", b"S" + cstr(name))


def describe_portal(name: str = "") -> bytes:
    return message("D", b"P" + cstr(name))


def execute(portal: str = "", limit: int = 0) -> bytes:
    return message("E", cstr(portal) + struct.pack("!I", limit))


def close_statement(name: str = "") -> bytes:
    return message("C", b"S" + cstr(name))


def close_portal(name: str = "") -> bytes:
    return message("C", b"P" + cstr(name))


def copy_data(data: bytes) -> bytes:
    return message("d", data)


def copy_fail(reason: str = "changed my mind") -> bytes:
    return message("f", cstr(reason))


def function_call(oid: int, *args: bytes | None, arg_format: int = 1, result_format: int = 1) -> bytes:
    body = struct.pack("!IHhH", oid, 1, arg_format, len(args))
    for value in args:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message("F", body + struct.pack("!h", result_format))


SYNC = message("S")
FLUSH = message("H")
COPY_DONE = message("c")
TERMINATE = message("X")


# --- what a server sends --------------------------------------------------------


def fields(reply: Message) -> dict[str, str]:
    """Fields of an ErrorResponse or NoticeResponse by their letter."""
    assert reply.type in "EN", reply.type
    parts = reply.body.rstrip(b"\0").split(b"\0")
    return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in parts if part}


def row(reply: Message) -> tuple[bytes | None, ...]:
    """The values of a DataRow."""
    assert reply.type == "D", reply
    (count,), at, values = struct.unpack_from("!H", reply.body), 2, list[bytes | None]()
    for _ in range(count):
        (size,) = struct.unpack_from("!i", reply.body, at)
        at += 4
        values.append(None if size < 0 else reply.body[at : at + size])
        at += max(size, 0)
    assert at == len(reply.body)
    return tuple(values)


class Column(NamedTuple):
    name: str
    table: int
    number: int
    type: int
    size: int
    modifier: int
    format: int


def columns(reply: Message) -> list[Column]:
    """The columns of a RowDescription."""
    assert reply.type == "T", reply
    (count,), at, found = struct.unpack_from("!H", reply.body), 2, list[Column]()
    for _ in range(count):
        end = reply.body.index(b"\0", at)
        found.append(Column(reply.body[at:end].decode(), *struct.unpack_from("!IhIhih", reply.body, end + 1)))
        at = end + 19
    return found


def parameter_status(reply: Message) -> tuple[str, str]:
    name, value, _ = reply.body.split(b"\0")
    return name.decode(), value.decode()


def rows(replies: Iterable[Message]) -> list[tuple[str | None, ...]]:
    """All DataRows as text."""
    return [tuple(None if v is None else v.decode() for v in row(m)) for m in replies if m.type == "D"]


def types(replies: Iterable[Message]) -> str:
    """The type letters in order, e.g. "TDCZ"."""
    return "".join(m.type for m in replies)


def errors(replies: Iterable[Message]) -> list[dict[str, str]]:
    return [fields(m) for m in replies if m.type == "E"]


def sqlstates(replies: Iterable[Message]) -> list[str]:
    return [error["C"] for error in errors(replies)]


class ConnectionEnded(Exception):
    """The peer closed; `replies` is what came before."""

    def __init__(self, replies: list[Message]) -> None:
        super().__init__(f"connection closed after {replies}")
        self.replies = replies


class LoginFailed(Exception):
    """The server answered the startup with an ErrorResponse."""

    def __init__(self, replies: list[Message]) -> None:
        self.fields = errors(replies)[0]
        self.replies = replies
        super().__init__(f"{self.fields['S']} {self.fields['C']}: {self.fields['M']}")


class WireClient:
    """A connection.  `open()` makes one that is logged in; the constructor only connects the socket."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        if host.startswith("/"):
            self.sock: socket.socket = socket.socket(socket.AF_UNIX)
            self.sock.connect(f"{host}/.s.PGSQL.{port}")
        else:
            self.sock = socket.create_connection(self.address, timeout=PATIENCE_S)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(PATIENCE_S)
        self._in = bytearray()
        self._at = 0
        #: ReadyForQuery's status, parameters and key as last told
        self.xact_status = ""
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.secret = b""
        #: every message of the login, in order
        self.login_replies: list[Message] = []
        self.tls_server_cert = b""
        self.channel_binding = "n"

    @classmethod
    def open(
        cls,
        host: str,
        port: int,
        *,
        user: str = "acme_app",
        password: str = "acme-secret",
        database: str = "app",
        version: int = V3_0,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        direct: bool = False,
        **settings: Any,
    ) -> WireClient:
        client = cls(host, port)
        try:
            if tls is not None:
                client.start_tls(tls, server_name=server_name, direct=direct)
            client.log_in(user=user, password=password, database=database, version=version, **settings)
        except BaseException:
            client.close()
            raise
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- opening

    def start_tls(
        self, context: ssl.SSLContext, *, server_name: str | None = None, direct: bool = False
    ) -> None:
        """TLS after an SSLRequest, or at once with ALPN if `direct`."""
        if not direct:
            self.send(special_request(SSL_CODE))
            answer = self.sock.recv(1)
            assert answer == b"S", f"SSLRequest answered {answer!r}"
        else:
            context.set_alpn_protocols(["postgresql"])
        wrapped = context.wrap_socket(self.sock, server_hostname=server_name)
        self.tls_server_cert = wrapped.getpeercert(binary_form=True) or b""
        self.sock = wrapped

    def log_in(
        self,
        *,
        user: str = "acme_app",
        password: str = "acme-secret",
        database: str = "app",
        version: int = V3_0,
        **settings: Any,
    ) -> list[Message]:
        """Startup until ReadyForQuery, whatever password method is asked for."""
        self.send(startup({"user": user, "database": database, **settings}, version))
        scram: _Scram | None = None
        while True:
            reply = self.receive()
            self.login_replies.append(reply)
            if reply.type == "Z":
                return self.login_replies
            if reply.type == "E":
                raise LoginFailed(self.login_replies)
            if reply.type != "R":
                continue
            (code,) = struct.unpack_from("!I", reply.body)
            if code == 3:
                self.send(message("p", cstr(password)))
            elif code == 5:
                inner = hashlib.md5(password.encode() + user.encode()).hexdigest()
                outer = hashlib.md5(inner.encode() + reply.body[4:8]).hexdigest()
                self.send(message("p", cstr("md5" + outer)))
            elif code == 10:
                scram = _Scram(
                    password, reply.body[4:].split(b"\0"), self.tls_server_cert, self.channel_binding
                )
                first = scram.first()
                self.send(message("p", cstr(scram.mechanism) + struct.pack("!i", len(first)) + first))
            elif code == 11:
                assert scram is not None
                self.send(message("p", scram.final(reply.body[4:])))
            elif code == 12:
                assert scram is not None
                scram.verify(reply.body[4:])
            else:
                assert code == 0, f"unknown authentication request {code}"

    # --- talking

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(messages))

    def receive(self) -> Message:
        """The next message; ConnectionEnded at the end of the stream, TimeoutError if none comes."""
        kind = self._read(1)
        (size,) = struct.unpack("!I", self._read(4))
        reply = Message(kind.decode("latin1"), self._read(size - 4))
        if reply.type == "Z":
            self.xact_status = reply.body.decode()
        elif reply.type == "S":
            name, value = parameter_status(reply)
            self.parameters[name] = value
        elif reply.type == "K":
            (self.pid,) = struct.unpack_from("!i", reply.body)
            self.secret = reply.body[4:]
        return reply

    def until(self, kinds: str) -> list[Message]:
        """Messages up to and including the first whose type is one of `kinds`."""
        replies: list[Message] = []
        while True:
            try:
                replies.append(self.receive())
            except ConnectionEnded:
                raise ConnectionEnded(replies) from None
            except TimeoutError:
                raise TimeoutError(f"no {kinds} within {PATIENCE_S} s, only {replies[-20:]}") from None
            if replies[-1].type in kinds:
                return replies

    def until_ready(self, times: int = 1) -> list[Message]:
        return [reply for _ in range(times) for reply in self.until("Z")]

    def until_end(self) -> list[Message]:
        """Everything up to the end of the stream."""
        try:
            self.until("")
        except ConnectionEnded as ended:
            return ended.replies
        raise AssertionError

    def ask(self, *messages: bytes) -> list[Message]:
        """Sends, and reads until ReadyForQuery."""
        self.send(*messages)
        return self.until_ready()

    def query(self, sql: str | bytes) -> list[Message]:
        return self.ask(query(sql))

    def told(self, *messages: bytes, times: int = 1) -> list[str]:
        """SQLSTATEs of so many answers, or of what has come when the connection ends."""
        self.send(*messages)
        try:
            return sqlstates(self.until_ready(times))
        except ConnectionEnded as end:
            return sqlstates(end.replies)

    def told_after(self, sql: str) -> tuple[list[str], float]:
        """`told` of a query, and how many seconds it took."""
        start = time.monotonic()
        said = self.told(query(sql))
        return said, time.monotonic() - start

    def extended(self, sql: str, *params: bytes | str | None) -> list[Message]:
        """Parse, Bind, Describe, Execute, Sync in one write."""
        return self.ask(parse(sql), bind(*params), describe_portal(), execute(), SYNC)

    def value(self, sql: str) -> str | None:
        """The first column of the first row; fails on an error."""
        replies = self.query(sql)
        assert not errors(replies), errors(replies)
        return rows(replies)[0][0]

    def cancel(self) -> None:
        """A CancelRequest for this connection, over a connection of its own; returns when it is closed."""
        send_cancel(self.address, self.pid, self.secret)

    def is_closed(self) -> bool:
        """Waits for the peer to close; False if it stays open for PATIENCE_S."""
        try:
            self.until_end()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Ends abruptly, without Terminate."""
        self.sock.close()

    def reset(self) -> None:
        """Ends with a TCP reset, as a crashed client's kernel does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def terminate(self) -> None:
        """Ends as clients should."""
        self.send(TERMINATE)
        self.sock.close()

    def _read(self, size: int) -> bytes:
        while len(self._in) - self._at < size:
            if self._at:
                del self._in[: self._at]
                self._at = 0
            try:
                data = self.sock.recv(max(65536, size - len(self._in)))
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                raise ConnectionEnded([])
            self._in += data
        self._at += size
        return bytes(self._in[self._at - size : self._at])


def send_cancel(address: tuple[str, int], pid: int, secret: bytes) -> None:
    """A CancelRequest; returns when the server has closed the connection, which says that it was handled."""
    with WireClient(*address) as other:
        other.send(special_request(CANCEL_CODE, struct.pack("!i", pid) + secret))
        assert other.until_end() == []


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Polls `condition()`; for what has no event to wait on."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.005)


class _Scram:
    """The client's side of SCRAM-SHA-256 and -PLUS (RFC 5802, 7677, 5929)."""

    def __init__(self, password: str, mechanisms: list[bytes], server_cert: bytes, binding: str) -> None:
        plus = b"SCRAM-SHA-256-PLUS" in mechanisms and server_cert and binding != "n"
        self.mechanism = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
        self._gs2 = "p=tls-server-end-point,," if plus else f"{binding if binding == 'y' else 'n'},,"
        # certificates of the tests are signed with SHA-256
        self._binding = self._gs2.encode() + (hashlib.sha256(server_cert).digest() if plus else b"")
        self._password = password.encode()
        self._nonce = base64.b64encode(os.urandom(18)).decode()

    def first(self) -> bytes:
        return f"{self._gs2}n=,r={self._nonce}".encode()

    def final(self, server_first: bytes) -> bytes:
        said = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert said["r"].startswith(self._nonce)
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(said["s"]), int(said["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c={base64.b64encode(self._binding).decode()},r={said['r']}"
        auth = f"n=,r={self._nonce},{server_first.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        assert server_final == b"v=" + base64.b64encode(self._expected), "the server's signature is wrong"
