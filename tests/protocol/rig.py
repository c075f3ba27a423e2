"""The engine alone between sockets that the test holds both ends of: what arrives when is the test's to say.

`Rig` is the event loop, the hooks and the PostgreSQL at once.  Nothing happens but in `pump`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from tenant_proxy.guard.cache import VerdictCache
from tenant_proxy.model import Effect
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.engine import Engine
from tenant_proxy.relay.settings import SettingsTable
from tenant_proxy.wire import messages

ALLOWED = 1 << 31
READS = ALLOWED | Effect.READS


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def query(sql: str) -> bytes:
    return message("Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    return message("P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(name: str = "", portal: str = "") -> bytes:
    return message("B", portal.encode() + b"\0" + name.encode() + b"\0" + bytes(6))


def describe(name: str, kind: str = "S") -> bytes:
    return message("D", kind.encode() + name.encode() + b"\0")


def close(name: str) -> bytes:
    return message("C", b"S" + name.encode() + b"\0")


EXECUTE = message("E", b"\0" + bytes(4))
SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")

PARSED, BOUND, CLOSED = message("1"), message("2"), message("3")
IDLE, OPEN, FAILED = message("Z", b"I"), message("Z", b"T"), message("Z", b"E")


def done(tag: str = "SELECT 1") -> bytes:
    return message("C", tag.encode() + b"\0")


def row(*values: str) -> bytes:
    columns = b"".join(struct.pack("!i", len(v)) + v.encode() for v in values)
    return message("D", struct.pack("!H", len(values)) + columns)


def error(sqlstate: str = "42601", text: str = "no") -> bytes:
    return message("E", f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode())


def split(data: bytes) -> list[tuple[str, bytes]]:
    """Messages in `data`; the last may be cut short."""
    found = []
    while len(data) >= 5:
        size = struct.unpack_from("!I", data, 1)[0] + 1
        found.append((chr(data[0]), data[5:size]))
        data = data[size:]
    return found


def kinds(data: bytes) -> str:
    return "".join(kind for kind, _ in split(data))


class End:
    """The test's end of a socket that the engine has the other of."""

    def __init__(self, rig: Rig, sock: socket.socket) -> None:
        self._rig = rig
        self.sock = sock
        self.link = 0
        sock.setblocking(False)

    def send(self, *parts: bytes) -> None:
        """All of it in one piece, and what follows from it."""
        self.sock.sendall(b"".join(parts))
        self._rig.pump()

    def take(self) -> bytes:
        """What has come."""
        got = b""
        while True:
            try:
                piece = self.sock.recv(1 << 20)
            except BlockingIOError:
                return got
            if not piece:
                return got
            got += piece
            self._rig.pump()

    @property
    def closed(self) -> bool:
        """Whether the engine has closed its end; what has come before is gone."""
        self.take()
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


class Rig:
    """An engine with one pool."""

    def __init__(self, *, session_mode: bool = False, servers: int = 1, **limits: Any) -> None:
        self._run: Callable[[], None] | None = None
        self.settings = SettingsTable()
        #: statement -> effects, for those that do more than read; bytes: the refusal
        self.verdicts: dict[str, int | bytes] = {}
        self.pinned: list[str] = []
        self.ends: dict[int, int] = {}
        self.started: list[int] = []
        self.servers: list[End] = []
        self._sockets: list[socket.socket] = []
        self.servers_left = servers
        self.asked: dict[str, str] = {}
        self.greets_by_server = False
        self.on_connect: Callable[[int], None] | None = None
        self._settings_of_login = 0
        self.engine = Engine(
            self,
            VerdictCache(16),
            max_statement_bytes=limits.pop("max_statement_bytes", 1 << 20),
            max_gathered_bytes=limits.pop("max_gathered_bytes", 1 << 28),
            send_buffer_bytes=limits.pop("send_buffer_bytes", 256 * 1024),
            max_clients=0,
            max_logins=100,
            offers_tls=False,
        )
        self.engine.start(self, get_logger("rig"))
        self._session_mode = session_mode
        self.pool_settings = {
            # off: every text is asked of `judge`
            "scope": 1, "guard_mode": 2, "session_mode": session_mode, "max": servers, "min": 0,
            "queue_limit": 0, "fail_when_down": True, "max_prepared": 100,
            "reset_query": messages.query("DISCARD ALL"), "queue_timeout_s": 0, "query_timeout_s": 0,
            "idle_in_transaction_timeout_s": 0, "client_idle_timeout_s": 0, "server_idle_timeout_s": 0,
            "connect_timeout_s": 10, "max_prepared_bytes": 1 << 28,
        } | limits  # fmt: skip
        self.pool = self.engine.pool_open(1, **self.pool_settings)

    def close(self) -> None:
        self.engine.stop()
        for sock in self._sockets:
            sock.close()

    # --- the loop

    def add_reader(self, fd: int, run: Callable[[], None]) -> None:
        self.epoll = fd
        self._run = run

    def remove_reader(self, _fd: int) -> None:
        self._run = None

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        theirs.setblocking(False)
        self._sockets.append(ours)
        return ours, theirs

    def pump(self) -> None:
        assert self._run is not None
        self._run()

    # --- the test's side

    def client(self, settings: dict[str, str] | None = None) -> End:
        """A client that is logged in."""
        ours, theirs = self._pair()
        self._settings_of_login = self.settings.intern(settings or {})
        link = self.engine.adopt_client(theirs.detach(), struct.pack("!II", 8, 196608), True)
        end = End(self, ours)
        end.link = link
        self.pump()
        assert kinds(end.take())[-1:] == "Z"
        return end

    def server(self) -> End:
        """The newest server."""
        return self.servers[-1]

    def figures(self) -> dict[str, Any]:
        return self.engine.pool_figures()[0]

    # --- hooks: clients

    def on_startup(self, client: int, data: bytes) -> None:
        engine = self.engine
        self.started.append(client)
        engine.client_login(client)
        engine.client_enter(client, self.pool, 0, self._settings_of_login, object(), 0)
        if self._session_mode or self.greets_by_server:
            engine.client_want_server(client)
        else:
            engine.client_greet(client, messages.AUTH_OK + messages.READY_IDLE, client, b"key!")

    def on_greet(self, client: int, session: object, server: int, info: object) -> None:
        self.engine.client_greet(client, messages.AUTH_OK + messages.READY_IDLE, client, b"key!")

    def on_client_gone(self, client: int, session: object, reason: int) -> None:
        self.ends[client] = reason

    def on_bug(self, client: int) -> None:
        raise AssertionError("bug")

    on_server_bug = on_bug

    def failure(self, client: int, session: object, reason: int, detail: int) -> bytes:
        return error("57P01", f"failure {reason}")

    def violation(self, client: int, session: object, what: int, value: int) -> bytes:
        return error("08P01", f"violation {what}")

    # --- hooks: statements

    def judge(self, session: object, scope: int, sql: bytes, client: int) -> int | bytes | None:
        return self.verdicts.get(sql.decode(), READS)

    def judge_function(self, session: object, scope: int, oid: int) -> int | bytes:
        return READS

    def refuse_size(self, session: object, size: int) -> bytes:
        return error("54000", "too large")

    def refuse_prepared(self, session: object) -> bytes:
        return error("53200", "too much")

    def missing_statement(self, name: bytes) -> bytes:
        return error("26000", "missing")

    def existing_statement(self, name: bytes) -> bytes:
        return error("42P05", "exists")

    def deallocate(self, client: int, scope: int, sql: bytes, pinned: bool, alone: bool) -> bytes | bool:
        return False

    def on_pinned(self, client: int, session: object, scope: int, sql: bytes) -> None:
        self.pinned.append(sql.decode())

    # --- hooks: servers

    def on_demand(self, pool: int) -> None:
        if self.on_connect is not None:
            self.on_connect(pool)
            return
        while self.servers_left > 0 and self.engine.pool_wanted(pool) is not None:
            self.servers_left -= 1
            ours, theirs = self._pair()
            end = End(self, ours)
            self.servers.append(end)
            end.link = self.engine.server_open(pool, theirs.detach(), 0, end, True)

    def on_server_connected(self, server: int) -> None:
        self.engine.server_login(server)
        self.engine.server_ready(server, 1, 0)

    def on_server_message(self, server: int, code: int, body: bytes) -> None:
        raise AssertionError("no login here")

    def on_server_gone(self, server: int, pool: int, info: object, reason: int) -> None:
        self.ends[server] = reason

    def on_query_timeout(self, info: object) -> None:
        pass

    def on_error(self, pool: int, body: bytes, changed: object) -> tuple[bool, bytes | None]:
        return messages.error_fields(body).get("V") == "FATAL", None

    def on_encoding(self, value: bytes) -> int:
        return 0

    # --- hooks: settings

    def sync_message(self, have: int, want: int) -> tuple[bytes, bool]:
        return self.settings.change(have, want), self.settings.matters(have, want)

    def ask_message(self, server: int, session: object) -> bytes:
        self.asked = {}
        return messages.query("ask")

    def on_ask_row(self, server: int, body: bytes) -> None:
        name, value = messages.data_row(body)
        assert name is not None
        assert value is not None
        self.asked[name] = value

    def on_ask_done(self, server: int, session: object) -> tuple[int, int]:
        number = self.settings.intern(self.asked)
        return number, number
