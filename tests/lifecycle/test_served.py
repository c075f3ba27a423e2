"""`tenant onboard` prints a DSN that works: a proxy that does not know of it yet is waited for, shortly."""

from __future__ import annotations

import asyncio
import time

from tenant_proxy.cli.served import LONGEST_S, until_served
from tenant_proxy.devel.postgres import free_port


def dsn(town, password: str = "secret", database: str | None = None) -> str:
    return f"postgresql://late%40one:{password}@{town.pg.host}:{town.pg.port}/{database or town.database}"


async def test_who_is_let_in_later_is_waited_for(town):
    async def later() -> None:
        await asyncio.sleep(0.2)
        with town.connect() as conn:
            conn.execute("CREATE ROLE \"late@one\" LOGIN PASSWORD 'secret'")

    began = time.monotonic()
    try:
        found, _ = await asyncio.gather(until_served(dsn(town)), later())
    finally:
        with town.connect() as conn:
            conn.execute('DROP ROLE IF EXISTS "late@one"')
    assert found is True
    assert time.monotonic() - began < LONGEST_S + 0.5


async def test_who_is_let_in_by_nobody_is_not_waited_for_any_longer(town):
    began = time.monotonic()
    assert await until_served(dsn(town)) is False
    assert await until_served(dsn(town, database="nowhere")) is False
    assert 2 * LONGEST_S <= time.monotonic() - began < 2 * LONGEST_S + 2


async def test_where_nobody_answers_nothing_is_told():
    began = time.monotonic()
    assert await until_served(f"postgresql://x:y@127.0.0.1:{free_port()}/z") is None

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    assert await until_served(f"postgresql://x:y@127.0.0.1:{port}/z") is None
    server.close()
    assert time.monotonic() - began < LONGEST_S
