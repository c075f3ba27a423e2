"""Connections at hand: whoever waits gets one, and none is kept that is not as it was."""

from __future__ import annotations

import asyncio
from typing import Any

from tenant_proxy.catalog import keeping
from tenant_proxy.catalog.keeping import Keeping


class Connection:
    closed = False
    inside = False

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.inside


class Pool:
    """Of `size` connections, told what comes back."""

    def __init__(self, size: int = 1) -> None:
        self.released: list[Connection] = []
        self._free = [Connection() for _ in range(size)]
        self._given = asyncio.Condition()
        self.is_closed = False

    async def acquire(self, timeout: float) -> Connection:
        async with asyncio.timeout(timeout), self._given:
            await self._given.wait_for(lambda: self._free)
            return self._free.pop()

    async def release(self, connection: Connection) -> None:
        self.released.append(connection)
        async with self._given:
            self._free.append(Connection() if connection.closed else connection)
            self._given.notify()

    async def close(self) -> None:
        self.is_closed = True


def keep(size: int = 1) -> tuple[Any, Any]:
    pool: Any = Pool(size)
    return Keeping(pool), pool


async def test_the_next_gets_what_the_last_had():
    kept, pool = keep()
    first = await kept.take(1)
    await kept.give(first)
    assert await kept.take(1) is first
    assert not pool.released


async def test_one_that_is_lost_or_has_a_transaction_open_is_the_pools():
    kept, pool = keep()
    first = await kept.take(1)
    first.inside = True
    await kept.give(first)
    assert pool.released == [first]
    first.inside = False
    second = await kept.take(1)
    await kept.give(second)
    second.closed = True  # while it is kept
    assert await kept.take(1) is not second
    assert pool.released == [first, second]


async def test_who_waits_for_the_pool_gets_it():
    kept, _ = keep()
    first = await kept.take(1)
    waiting = [asyncio.create_task(kept.take(1)) for _ in range(2)]
    await asyncio.sleep(0)
    await kept.give(first)
    got = await waiting[0]
    await kept.give(got)
    assert await waiting[1] is got is first


async def test_they_go_back_after_a_while_and_at_the_end(monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_S", 0.01)
    kept, pool = keep(2)
    first, second = await kept.take(1), await kept.take(1)
    await kept.give(first)
    async with asyncio.timeout(5):
        while not pool.released:
            await asyncio.sleep(0.01)
    await kept.give(second)
    await kept.close()
    assert pool.released == [first, second]
    assert pool.is_closed
