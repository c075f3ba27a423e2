"""Between workers: connections for their tenant's home worker, cancel requests, signals, wishes for backends.

Each worker slot has one SOCK_SEQPACKET socket that the supervisor keeps open, so what is sent to a
worker that is being restarted waits for its successor.  A message is one packet; a connection
travels as an SCM_RIGHTS descriptor together with the bytes already read from it.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenant_proxy.obs.log import get_logger
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("mailbox")

CONNECTION = b"C"
CANCEL = b"X"
RELEASE = b"R"
RELEASED = b"r"
SIGNAL = b"S"

MAX_PACKET = 65536
#: packets taken before other callbacks of the loop get their turn
BURST = 64


class Mailbox:
    """This worker's socket, and the sending ends of all."""

    def __init__(self, worker: Worker, slot: int, pairs: Sequence[Sequence[int]]) -> None:
        self._worker = worker
        self._slot = slot
        self._receiver = socket.socket(fileno=pairs[slot][0])
        self._receiver.setblocking(False)
        self._senders = [socket.socket(fileno=tx) for _, tx in pairs]
        for sender in self._senders:
            sender.setblocking(False)

    def fileno(self) -> int:
        return self._receiver.fileno()

    def send_connection(self, slot: int, fd: int, data: bytes, *, local: bool) -> bool:
        """Passes a connection on; False when it stays: too much, or that worker's box is full."""
        if len(data) + 2 > MAX_PACKET:
            return False
        return _sent(self._senders[slot], CONNECTION + (b"\1" if local else b"\0") + data, [fd])

    def broadcast_cancel(self, packet: bytes, fd: int | None) -> bool:
        """Asks the other workers; False when there are none.

        Each gets the connection `fd` that brought the request: it ends for its client when the last has
        closed it, which is the worker that delivers the request.
        """
        return self._broadcast(CANCEL + packet, fd)

    def broadcast_release(self, wish: bytes) -> bool:
        """Asks the other workers to give up a backend (relay.peers)."""
        return self._broadcast(RELEASE + wish)

    def broadcast_signal(self, request: bytes) -> None:
        """Has the other workers end clients, or stop their statements (relay.signals)."""
        self._broadcast(SIGNAL + request)

    def send_released(self, slot: int, cluster: str) -> None:
        """Tells a worker that it may have what it has asked for."""
        try:
            self._senders[slot].send(RELEASED + cluster.encode())
        except OSError:
            log.warning("a worker's mailbox is full", worker=slot)

    def _broadcast(self, packet: bytes, fd: int | None = None) -> bool:
        # of no use to one that comes instead of one that is gone
        asked = False
        for slot, sender in enumerate(self._senders):
            if slot != self._slot and self._worker.budget.is_there(slot):
                if _sent(sender, packet, [] if fd is None else [fd]):
                    asked = True
                else:
                    log.warning("a worker's mailbox is full", worker=slot)
        return asked

    def on_readable(self) -> None:
        """Takes what has come; a callback of the loop."""
        for _ in range(BURST):
            data, fds = _taken(self._receiver)
            if not data:
                return
            self._on_packet(data[:1], data[1:], fds)

    def _on_packet(self, kind: bytes, data: bytes, fds: list[int]) -> None:
        if kind == CONNECTION and fds:
            os.set_blocking(fds[0], False)
            if not self._worker.engine.adopt_client(fds[0], data[1:], data[:1] == b"\1"):
                os.close(fds[0])
            fds = fds[1:]
        elif kind == CANCEL:
            request = messages.read_startup(data)
            self._worker.cancels.on_handed_over(request.pid, request.key, fds.pop() if fds else None)
        elif kind == RELEASE:
            self._worker.peers.on_wish(data)
        elif kind == RELEASED:
            self._worker.peers.on_released(data.decode())
        elif kind == SIGNAL:
            self._worker.signals.on_handed_over(data)
        for fd in fds:
            os.close(fd)


def pass_on(receiver: socket.socket, sender: socket.socket) -> None:
    """Empties the box of a worker that is gone: connections go to another one, the rest is of no use."""
    while True:
        data, fds = _taken(receiver)
        if not data:
            return
        if data[:1] == CONNECTION and fds and not _sent(sender, data, fds[:1]):
            log.warning("a worker's mailbox is full, a connection is lost")
        for fd in fds:
            os.close(fd)


def _sent(sender: socket.socket, packet: bytes, fds: Sequence[int]) -> bool:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sender.sendmsg([packet], rights)
    except OSError:
        return False
    return True


def _taken(receiver: socket.socket) -> tuple[bytes, list[int]]:
    """The next packet, and the files that came with it; b"": there is none."""
    try:
        data, ancillary, _, _ = receiver.recvmsg(MAX_PACKET, socket.CMSG_SPACE(4))
    except OSError:
        return b"", []
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)
