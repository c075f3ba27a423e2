"""The network to the server is gone without a word: no connection ends, nothing is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncpg
import pytest

from tests.adversity.cut_relay import CutRelay
from tests.fix_proxy import Proxy
from tests.pg_server import Server

DEAD_AFTER_S = 2


async def outcome(connection: asyncpg.Connection[asyncpg.Record], sql: str) -> tuple[str, float]:
    """SQLSTATE, and how long it took."""
    start = time.monotonic()
    try:
        await connection.execute(sql)
    except asyncpg.PostgresError as error:
        return error.sqlstate or "", time.monotonic() - start
    return "", time.monotonic() - start


@pytest.mark.parametrize("what", ["sent", "running"])
async def test_who_waits_is_told(pg: Server, own_proxy: Callable[..., Proxy], what: str):
    """A statement that is on its way, and one that runs: for the latter only a probe tells."""
    async with CutRelay(pg.host, pg.port) as relay:
        cluster = {
            "name": "main",
            "host": relay.host,
            "port": relay.port,
            "database": "app",
            "dead_after_s": DEAD_AFTER_S,
            "tls": {"mode": "disable"},
        }
        quick = {"mode": "transaction", "max": 1, "retry_min_s": 0.05, "retry_max_s": 0.2}
        proxy = await asyncio.to_thread(own_proxy, pg, clusters=[cluster], pool=quick)
        connection = await asyncpg.connect(proxy.url())
        assert await outcome(connection, "SELECT 1") < ("", 5)
        if what == "sent":
            relay.mute()
            waiting = asyncio.create_task(outcome(connection, "SELECT 1"))
        else:
            waiting = asyncio.create_task(outcome(connection, "SELECT pg_sleep(60)"))
            await asyncio.sleep(0.3)
            relay.mute()
        sqlstate, took = await waiting
        assert sqlstate == "08006"
        assert DEAD_AFTER_S * 0.5 < took < DEAD_AFTER_S + 5
        # the same address is there again
        await relay.close()
        await relay.open()
        again = await asyncpg.connect(proxy.url())
        assert await outcome(again, "SELECT 1") < ("", 10)
        await again.close()
        connection.terminate()
        await asyncio.to_thread(proxy.stop)


async def test_a_server_that_is_only_busy_is_not_given_up(pg: Server, own_proxy: Callable[..., Proxy]):
    cluster = {"name": "main", "host": pg.host, "port": pg.port, "database": "app", "dead_after_s": 1}
    proxy = await asyncio.to_thread(own_proxy, pg, clusters=[cluster], pool={"mode": "transaction"})
    connection = await asyncpg.connect(proxy.url())
    assert (await outcome(connection, "SELECT pg_sleep(3)"))[0] == ""
    await connection.close()
