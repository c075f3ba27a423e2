"""CancelRequests: from a client's key to its server, over a connection of their own.

A request is forwarded only while its client's statement runs, and until the server has closed the
connection that carried it, the cancelled backend serves nobody else (DESIGN, invariant 9).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from tenant_proxy.net.tls import server_context
from tenant_proxy.obs.log import get_logger
from tenant_proxy.relay.core import Reason
from tenant_proxy.relay.session import ServerInfo
from tenant_proxy.wire import messages

if TYPE_CHECKING:
    from tenant_proxy.worker import Worker

log = get_logger("cancel")

#: how long a server may take to take and close a cancel connection
CANCEL_S = 10.0


class Cancels:
    """Cancel requests of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()

    def on_request(self, pid: int, key: bytes, packet: bytes, client: int, *, plain: bool) -> None:
        """A CancelRequest of a connection here; `plain` if it is not encrypted.

        The connection is closed when the server has taken the request: a client that waits for that, as
        libpq does, may then send its next statement without fear for it.
        """
        engine = self._worker.engine
        if self._take(pid, key, lambda: engine.client_end(client, Reason.CANCEL)):
            engine.client_hold(client, True)
            return
        asked = self._worker.mailbox.broadcast_cancel(packet, engine.fileno(client) if plain else None)
        if not asked:
            self.counts["unmatched"] += 1
        # not shut down: for the client it ends when the worker that has its key closes it too
        engine.client_end(client, Reason.HANDED_OVER if asked and plain else Reason.CANCEL)

    def on_handed_over(self, pid: int, key: bytes, fd: int | None) -> None:
        """A CancelRequest that has come to another worker, with the connection that brought it."""

        def close() -> None:
            if fd is not None:
                os.close(fd)

        if not self._take(pid, key, close):
            self.counts["unmatched"] += 1
            close()

    def _take(self, pid: int, key: bytes, delivered: Callable[[], None]) -> bool:
        """Whether the request is on its way to a server of this worker's; then `delivered` is called."""
        found = self._worker.engine.find_cancel(pid, key)
        if not found:
            return False
        server, info = found
        self.counts["forwarded"] += 1
        self._start(self._forward(server, info, delivered))
        return True

    def of_client(self, client: int) -> None:
        """Stops the statement that a client runs, if it runs one."""
        found = self._worker.engine.client_cancel(client)
        if found:
            server, info = found
            self.counts["forwarded"] += 1
            self._start(self._forward(server, info, lambda: None))

    def stop_statement(self, info: ServerInfo) -> None:
        """Cancels what a server runs that is about to be closed."""
        self._start(self._send(info))

    async def stop_statements(self, infos: Iterable[ServerInfo]) -> None:
        """As `stop_statement`, of all servers that are left with work when the worker stops."""
        async with asyncio.TaskGroup() as group:
            for info in infos:
                group.create_task(self._send(info))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, server: int, info: ServerInfo, delivered: Callable[[], None]) -> None:
        try:
            await self._send(info)
        finally:
            self._worker.engine.cancel_done(server)
            delivered()
            self._worker.engine.poke()

    async def _send(self, info: ServerInfo) -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._converse(info)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.warning("cancel request not delivered", pid=info.pid, error=str(error))

    async def _converse(self, info: ServerInfo) -> None:
        tls = server_context(info.tls) if info.encrypted and not isinstance(info.address, str) else None
        if isinstance(info.address, str):
            reader, writer = await asyncio.open_unix_connection(info.address)
        elif tls is not None and info.tls.negotiation == "direct":
            reader, writer = await asyncio.open_connection(*info.address, ssl=tls, server_hostname=info.host)
        else:
            reader, writer = await asyncio.open_connection(*info.address)
        try:
            if tls is not None and writer.get_extra_info("ssl_object") is None:
                writer.write(messages.ssl_request())
                # nothing where it hangs up
                if await reader.read(1) != b"S":
                    raise OSError("the server does not offer TLS to a cancel request")
                await writer.start_tls(tls, server_hostname=info.host)
            writer.write(messages.cancel_request(info.pid, info.key))
            await writer.drain()
            # the server closes once it has signalled the backend
            await reader.read()
        finally:
            writer.close()
