"""A TCP relay before a real server that changes one byte of what the server says."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Meddler:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._at, self._flip = -1, 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def change(self, at: int, flip: int) -> None:
        """In connections from now on the byte `at` of the server's stream is xored with `flip`."""
        self._at, self._flip = at, flip

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                change = (self._at, self._flip)
                threading.Thread(target=_relay, args=[client, self._target, change], daemon=True).start()


def _relay(client: socket.socket, target: tuple[str, int], change: tuple[int, int]) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(target) as server:
        back = threading.Thread(target=_pump, args=[server, client, change], daemon=True)
        back.start()
        _pump(client, server, (-1, 0))
        back.join()


def _pump(source: socket.socket, sink: socket.socket, change: tuple[int, int]) -> None:
    """Copies until the end, then ends both."""
    seen, (at, flip) = 0, change
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if seen <= at < seen + len(data):
                changed = bytearray(data)
                changed[at - seen] ^= flip
                data = bytes(changed)
            seen += len(data)
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
