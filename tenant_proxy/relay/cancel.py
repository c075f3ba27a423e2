"""CancelRequests: from a client's key to its server, over a connection of their own.

A request is forwarded only while its client's statement runs, and until the server has closed the
connection that carried it, the cancelled backend serves nobody else (DESIGN, invariant 9).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Coroutine, Iterable
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

    def on_request(self, pid: int, key: bytes, packet: bytes, client: int | None) -> None:
        """A CancelRequest of a connection here (`client`) or, handed over, of another worker's (None).

        The connection is closed when the server has taken the request: a client that waits for that, as
        libpq does, may then send its next statement without fear for it.
        """
        if not self._take(pid, key, packet, client) and client is not None:
            self._worker.engine.client_end(client, Reason.CANCEL)

    def _take(self, pid: int, key: bytes, packet: bytes, client: int | None) -> bool:
        """Whether the request is on its way to a server of this worker's."""
        found = self._worker.engine.find_cancel(pid, key)
        if found is False:
            if client is None or not self._worker.mailbox.broadcast_cancel(packet):
                self.counts["unmatched"] += 1
        elif found is None:
            self.counts["nothing_running"] += 1
        else:
            server, info = found
            self.counts["forwarded"] += 1
            if client is not None:
                self._worker.engine.client_hold(client, True)
            self._start(self._forward(server, info, client))
            return True
        return False

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

    async def _forward(self, server: int, info: ServerInfo, client: int | None) -> None:
        try:
            await self._send(info)
        finally:
            self._worker.engine.cancel_done(server)
            if client is not None:
                self._worker.engine.client_end(client, Reason.CANCEL)
            self._worker.engine.poke()

    async def _send(self, info: ServerInfo) -> None:
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._converse(info)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            log.warning("cancel request not delivered", pid=info.pid, error=str(error))

    async def _converse(self, info: ServerInfo) -> None:
        tls = server_context(info.tls) if info.encrypted else None
        if isinstance(info.address, str):
            reader, writer = await asyncio.open_unix_connection(info.address)
        elif tls is not None and info.tls.negotiation == "direct":
            reader, writer = await asyncio.open_connection(*info.address, ssl=tls, server_hostname=info.host)
        else:
            reader, writer = await asyncio.open_connection(*info.address)
            if tls is not None:
                writer.write(messages.ssl_request())
                if await reader.readexactly(1) != b"S":
                    raise OSError("the server does not offer TLS to a cancel request")
                await writer.start_tls(tls, server_hostname=info.host)
        try:
            writer.write(messages.cancel_request(info.pid, info.key))
            await writer.drain()
            # the server closes once it has signalled the backend
            await reader.read()
        finally:
            writer.close()
