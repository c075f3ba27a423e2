"""Connections of a pool that stay at hand between those who use them one after another.

A pool gives and takes them by tasks and time-outs of its own, which is more work than most of what they are
asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

#: they go back to the pool this often, which closes what is not used for long
KEPT_S: Final = 1.0


class Keeping:
    """Of a pool that need not put anything right on a connection that comes back."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._kept: list[Connection] = []
        #: those that the pool is to give a connection
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None

    async def take(self, timeout_s: float) -> Connection:
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_closed():
                return connection
            await self.pool.release(connection)
        self._waiting += 1
        try:
            return await self.pool.acquire(timeout=timeout_s)
        finally:
            self._waiting -= 1

    async def give(self, connection: Connection) -> None:
        """After a use that went well; else it is the pool's to `release`."""
        if self._waiting or connection.is_closed() or connection.is_in_transaction():
            await self.pool.release(connection)
            return
        self._kept.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._end)

    async def close(self) -> None:
        self._rest()
        await self._return()
        await self.pool.close()

    def terminate(self) -> None:
        self._rest()
        self.pool.terminate()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._timer = None
        self._returning = asyncio.ensure_future(self._return())

    async def _return(self) -> None:
        while self._kept:
            await self.pool.release(self._kept.pop())
