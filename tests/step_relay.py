"""A relay to a server that passes queries and batches on one at a time; something may happen before one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

SSL_REQUEST = 80877103
CANCEL_REQUEST = 80877102
WAIT_S = 20

#: what happens before a query is passed on: it gets the connection
Fault = Callable[["Passage"], None]


class StepRelay:
    """Listens on a port of its own; `fault` happens once, before the next message that has `point` in it:
    a Query's text, or else its letter and what it holds."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._lock = threading.Lock()
        self._point = ""
        self._fault: Fault | None = None
        self.happened = threading.Event()
        #: all messages passed on since `expect`
        self.passed: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self, point: str, fault: Fault) -> None:
        with self._lock:
            self._point, self._fault = point, fault
            self.passed.clear()
            self.happened.clear()

    def take(self, text: str) -> Fault | None:
        with self._lock:
            fault = self._fault if self._point in text else None
            if fault is not None:
                self._fault = None
            self.passed.append(text)
            return fault

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=Passage(self, client, self._server).run, daemon=True).start()


class Passage:
    """One connection through the relay."""

    def __init__(self, relay: StepRelay, client: socket.socket, server: tuple[str, int]) -> None:
        self._relay = relay
        self._client = client
        self._server = socket.create_connection(server, timeout=WAIT_S)
        # messages that nothing answers would wait for each other
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answered = threading.Semaphore(0)
        self._refusal = b""
        self.pid = 0

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self._startup():
                threading.Thread(target=self._back, daemon=True).start()
                while self._message():
                    pass
        self.cut()

    def ask(self, sql: str) -> None:
        """Asks the server in place of the query that is held, and passes the answer back."""
        body = sql.encode() + b"\0"
        self._server.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        assert self._answered.acquire(timeout=WAIT_S)

    def refuse(self, sqlstate: str) -> None:
        """The query that is held never gets to the server, and has failed."""
        body = f"SERROR\0C{sqlstate}\0Mrefused\0\0".encode()
        self._refusal = b"E" + struct.pack("!i", len(body) + 4) + body + b"Z\0\0\0\5I"

    def cut(self) -> None:
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _startup(self) -> bool:
        while True:
            head = _exactly(self._client, 4)
            packet = head + _exactly(self._client, struct.unpack("!i", head)[0] - 4)
            code = struct.unpack_from("!i", packet, 4)[0]
            self._server.sendall(packet)
            if code == CANCEL_REQUEST:
                self._server.recv(1)
                return False
            if code != SSL_REQUEST:
                return True
            self._client.sendall(_exactly(self._server, 1))

    def _message(self) -> bool:
        head = _exactly(self._client, 5)
        body = _exactly(self._client, struct.unpack_from("!i", head, 1)[0] - 4)
        if head[:1] in b"QPBES":
            text = body[:-1].decode(errors="replace")
            fault = self._relay.take(text if head[:1] == b"Q" else f"{head[:1].decode()} {text}")
            if fault is not None:
                fault(self)
                self._relay.happened.set()
            if self._refusal:
                self._client.sendall(self._refusal)
                self._refusal = b""
                return True
        self._server.sendall(head + body)
        # One after the other, so that the fault falls between two: each of these has a ReadyForQuery.
        return head[:1] not in b"QS" or self._answered.acquire(timeout=WAIT_S)

    def _back(self) -> None:
        started = False
        with contextlib.suppress(OSError, EOFError):
            while True:
                head = _exactly(self._server, 5)
                body = _exactly(self._server, struct.unpack_from("!i", head, 1)[0] - 4)
                if head[:1] == b"K":
                    self.pid = struct.unpack_from("!i", body)[0]
                self._client.sendall(head + body)
                if head[:1] == b"Z":
                    if started:
                        self._answered.release()
                    started = True
        self.cut()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
