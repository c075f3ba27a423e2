"""A relay to a server whose connections can be cut at a certain text, or all at once.

It lives in the event loop that made it, so what it does falls between two messages of the test's own clients.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from typing import Final, Self

#: Linux: which packets a socket gets at all
SO_ATTACH_FILTER: Final = 26


class CutRelay:
    """Listens on a port of its own as long as it is open."""

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        #: those to the proxy
        self._clients: set[asyncio.StreamWriter] = set()
        self.port = 0
        #: the next connection on which a client of the server says this is cut …
        self.cut_at = b""
        #: … when the server has got it, or else before
        self.passes = False
        #: how many were
        self.cuts = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nobody can connect, and nobody is connected."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def mute(self) -> None:
        """From now on nothing of the proxy's arrives, and nobody is told: no end, no acknowledgement."""
        assert self._listener is not None
        # a program of one instruction: of each packet nothing is kept
        code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(code))
        sockets = [self._listener.sockets[0], *(one.get_extra_info("socket") for one in self._clients)]
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self._writers |= both
        self._clients.add(writer)
        try:
            await asyncio.gather(self._up(reader, up_writer), self._pass(up_reader, writer))
        except (OSError, asyncio.CancelledError):
            # cut, or the loop ends
            pass
        finally:
            self._writers -= both
            self._clients.discard(writer)
            for one in both:
                one.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_at and self.cut_at in data:
                self.cut_at = b""
                self.cuts += 1
                if self.passes:
                    writer.write(data)
                    await writer.drain()
                    # the server has it, and perhaps has answered; the answer does not arrive
                    await asyncio.sleep(0)
                raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
        raise ConnectionAbortedError

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionAbortedError
