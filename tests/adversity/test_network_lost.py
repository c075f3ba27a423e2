"""The network to the server is gone without a word: no connection ends, nothing is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.adversity.cut_relay import CutRelay
from tests.fix_proxy import Proxy
from tests.pg_server import Server

DEAD_AFTER_S = 2


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
        client = await asyncio.to_thread(proxy.wire)
        assert (await asyncio.to_thread(client.told_after, "SELECT 1"))[0] == []
        if what == "sent":
            relay.mute()
            waiting = asyncio.create_task(asyncio.to_thread(client.told_after, "SELECT 1"))
        else:
            waiting = asyncio.create_task(asyncio.to_thread(client.told_after, "SELECT pg_sleep(60)"))
            await asyncio.sleep(0.3)
            relay.mute()
        said, took = await waiting
        assert said == ["08006"]
        assert DEAD_AFTER_S * 0.5 < took < DEAD_AFTER_S + 5
        client.close()
        # the same address is there again
        await relay.close()
        await relay.open()
        again = await asyncio.to_thread(proxy.wire)
        assert (await asyncio.to_thread(again.told_after, "SELECT 1"))[0] == []
        again.close()
        await asyncio.to_thread(proxy.stop)
    # the server does not know yet that nobody waits: its transaction would hold up who reads code
    with pg.connect() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        )


def test_a_server_that_is_only_busy_is_not_given_up(pg: Server, own_proxy: Callable[..., Proxy]):
    cluster = {"name": "main", "host": pg.host, "port": pg.port, "database": "app", "dead_after_s": 1}
    proxy = own_proxy(pg, clusters=[cluster], pool={"mode": "transaction"})
    with proxy.wire() as client:
        assert client.told_after("SELECT pg_sleep(3)")[0] == []
