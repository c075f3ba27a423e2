"""Waits until a proxy lets a new login in, so that a DSN that is printed works when it is read.

Proxies follow the catalog within a moment; a script that uses the DSN at once is quicker.  It is tried as any
client would, by a login that asks for nothing more.  Where no proxy answers, or one wants what is not offered
here (TLS), nobody is kept waiting.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Final
from urllib.parse import unquote, urlsplit

from tenant_proxy.auth.server_auth import ServerAuth
from tenant_proxy.errors import ProxyError

#: as long as proxies take at most
LONGEST_S: Final = 1.0
_FIRST_S: Final = 0.02
_AGAIN_S: Final = 0.04
_CONNECT_S: Final = 0.3
_PROTOCOL: Final = 3 << 16
#: what a proxy says that does not know of it yet
_NOT_YET: Final = frozenset({b"C28P01", b"C3D000"})
_MOST_BYTES: Final = 10_000


async def until_served(dsn: str) -> bool | None:
    """Whether a proxy lets it in; None where that can't be told."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + LONGEST_S
    await asyncio.sleep(_FIRST_S)
    while True:
        try:
            async with asyncio.timeout(_CONNECT_S):
                found = await _login(dsn)
        except (OSError, TimeoutError, EOFError, ValueError, struct.error, ProxyError):
            return None
        if found is not False or loop.time() > ends:
            return found
        await asyncio.sleep(_AGAIN_S)


async def _login(dsn: str) -> bool | None:
    """False: not yet."""
    place = urlsplit(dsn)
    user, password = unquote(place.username or ""), unquote(place.password or "")
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        words = ("user", user, "database", unquote(place.path[1:]), "")
        body = struct.pack("!i", _PROTOCOL) + b"".join(word.encode() + b"\0" for word in words)
        writer.write(struct.pack("!i", len(body) + 4) + body)
        auth = ServerAuth(user, password=password, require=("scram-sha-256",))
        while not auth.done:
            kind, length = struct.unpack("!ci", await reader.readexactly(5))
            if not 4 <= length < _MOST_BYTES:
                return None
            body = await reader.readexactly(length - 4)
            if kind == b"E":
                return None if _NOT_YET.isdisjoint(body.split(b"\0")) else False
            if kind != b"R":
                return None
            reply = auth.on_auth(body)
            if reply is not None:
                writer.write(reply)
        writer.write(struct.pack("!ci", b"X", 4))
        return True
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
