"""Noticing that a connection's other end is gone without a word: the machine, or the network to it."""

from __future__ import annotations

import socket
from typing import Final

#: names of options that not every system has, and what of the time they are to be
_PROBES: Final = (("TCP_KEEPIDLE", 1 / 2), ("TCP_KEEPALIVE", 1 / 2), ("TCP_KEEPINTVL", 1 / 4))
_COUNT: Final = 2


def watch(sock: socket.socket, dead_after_s: float) -> None:
    """The kernel gives the connection up when nothing has been acknowledged for so long; 0: as it likes.

    Half the time after the last sign of life it asks, and again; bytes that are sent count as a question.
    However long the process at the other end is busy, its kernel answers.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not dead_after_s:
        return
    for name, part in _PROBES:
        if hasattr(socket, name):
            sock.setsockopt(
                socket.IPPROTO_TCP, getattr(socket, name), max(1, min(32767, round(dead_after_s * part)))
            )
    if hasattr(socket, "TCP_KEEPCNT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _COUNT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(2**31 - 1, round(dead_after_s * 1000))
        )
