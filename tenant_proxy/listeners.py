"""Binding of listening sockets, done once by the supervisor and inherited by its children.

A port that is taken, a host name that has no address, a directory that is not
there: each is a ListenError with one line that says which and why.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Literal

#: sun_path of sockaddr_un, without the closing NUL (108 on Linux)
_MAX_UNIX_PATH = 107
#: How long the kernel keeps a connection that has not sent anything: a client speaks first (docs 54.2.1), and
#: nobody is woken for less than that.  Where there is no such option all come at once.
DEFER_S = 1


class ListenError(Exception):
    """Could not listen; the text is a complete line for the operator."""


@dataclass(frozen=True, slots=True)
class Listener:
    sock: socket.socket
    kind: Literal["tcp", "unix"]
    #: as people write it: "127.0.0.1:6432", "[::1]:6432", "/run/x/.s.PGSQL.6432"
    address: str

    def close(self) -> None:
        """Ends listening, for every process that has inherited the socket; who connects is refused.

        A unix socket's file goes first, so that another proxy may take its place at once.
        """
        if self.kind == "unix":
            try:
                os.unlink(self.address)
            except FileNotFoundError:
                pass
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it did not listen yet
        self.sock.close()


def open_listeners(
    addresses: list[str], port: int, backlog: int, unix_dir: str | None = None
) -> list[Listener]:
    """Listens on every address ("*" is all of IPv4 and IPv6, names are looked up); all or none."""
    listeners: list[Listener] = []
    try:
        for family, sockaddr in _resolve(addresses, port):
            listeners.append(_open_tcp(family, sockaddr, backlog))
        if unix_dir is not None:
            listeners.append(_open_unix(os.path.join(unix_dir, f".s.PGSQL.{port}"), backlog))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _resolve(addresses: list[str], port: int) -> list[tuple[int, tuple[str, int]]]:
    found: dict[tuple[int, tuple[str, int]], None] = {}  # keeps the order, drops what is named twice
    for address in addresses:
        if not address:  # would be all addresses to getaddrinfo
            raise ListenError('could not listen on "": the address is empty')
        if address == "*":
            names = ["0.0.0.0", "::"] if _has_ipv6() else ["0.0.0.0"]
        else:
            names = [address]
        for name in names:
            try:
                answers = socket.getaddrinfo(
                    name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
                )
            except (socket.gaierror, UnicodeError) as error:
                reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
                raise ListenError(f'could not listen on "{address}": {reason}') from None
            for family, _, _, _, sockaddr in answers:
                if family in (socket.AF_INET, socket.AF_INET6):
                    found[int(family), sockaddr] = None  # type: ignore[index]
    return list(found)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _open_tcp(family: int, sockaddr: tuple[str, int], backlog: int) -> Listener:
    host, port = sockaddr[0], sockaddr[1]
    shown = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"could not listen on {shown}: {error.strerror}") from None
    try:
        # After a restart the old connections' TIME_WAIT must not keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Only then may 0.0.0.0 and :: stand side by side.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_S)
        sock.setblocking(False)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(f"could not listen on {shown}: {_why(error)}") from None
    return Listener(sock, "tcp", shown)


def _open_unix(path: str, backlog: int) -> Listener:
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise ListenError(f"could not listen on {path}: the path is longer than {_MAX_UNIX_PATH} bytes")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o777)  # noqa: S103  (authentication decides who may log in, as in PostgreSQL)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(f"could not listen on {path}: {_why(error)}") from None
    return Listener(sock, "unix", path)


def _remove_stale(path: str) -> None:
    """Takes a dead process's socket file away; one that is served, or no socket at all, stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ListenError(f"could not listen on {path}: the file exists and is not a socket")
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # busy or forbidden: bind says what is wrong


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use (is another proxy running?)"
    return error.strerror or str(error)
