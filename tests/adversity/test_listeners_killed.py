"""Listeners of many tenants on one channel name, while backends, and what listens for them, are killed.

A listener hears what its tenant's sessions have committed since it listens, in their order, nothing of
another's and nothing that was rolled back; or its session ends, which tells it that something is missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable

import asyncpg
import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.fix_shared import SERVICE, provide, shared_config
from tests.pg_server import Server
from tests.shims.conftest import install_views

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("TP_FAULT_SECONDS", "30"))
TENANTS = 12
#: listeners of each
EACH = 4
BACKENDS = 6
#: from then on nothing is killed, and who listens stays until the last word
QUIET_S = 8
LAST = "the last"
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def name_of(number: int) -> str:
    return f"ears{number}"


@pytest.fixture
def ground(new_pg: Callable[[], Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with the tenants and the views, which keep their channels apart."""
    pg = new_pg()
    provide(pg)
    install_views(pg, "app")
    with pg.connect() as conn:
        for name in map(name_of, range(TENANTS)):
            monkeypatch.setitem(PASSWORDS, name, f"{name}-secret")
            conn.execute(
                f"CREATE ROLE {name} LOGIN PASSWORD '{name}-secret'; GRANT {name} TO tenant_proxy_service;"
                f"CREATE SCHEMA {name} AUTHORIZATION {name};"
                f"ALTER ROLE {name} SET search_path = {name}, public"
            )
    return pg


class Tenant:
    """What its one notifier has said, and whether that was committed: None where nobody knows."""

    def __init__(self, name: str, proxy: Proxy, until: float, seen: Counter[str]) -> None:
        self.name, self.proxy, self.until, self.seen = name, proxy, until, seen
        self.said: list[str] = []
        self.committed: dict[str, bool | None] = {}

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        while True:
            try:
                return await asyncpg.connect(self.proxy.url(self.name), timeout=60)
            except LOST:
                self.seen["refused logins"] += 1
                await asyncio.sleep(0.05)

    async def notify(self) -> None:
        chance = random.Random(self.name)
        conn = await self.connect()
        while LAST not in "".join(word for word in self.said if self.committed[word]):
            over = time.monotonic() > self.until
            word = f"{self.name}!{len(self.said)}" + (LAST if over else "")
            self.said.append(word)
            self.committed[word] = None
            try:
                await self.say(conn, word, 1 if over else chance.random())
            except LOST:
                self.seen["notifiers lost"] += 1
                conn.terminate()
                conn = await self.connect()
            await asyncio.sleep(chance.choice([0, 0, 0.002, 0.02]))
        await conn.close()

    async def say(self, conn: asyncpg.Connection[asyncpg.Record], word: str, draw: float) -> None:
        if draw < 0.2:
            turn = conn.transaction()
            await turn.start()
            await conn.execute(f"NOTIFY news, '{word}'")
            self.committed[word] = False
            await turn.rollback()
        elif draw < 0.4:
            async with conn.transaction():
                await conn.execute(f"NOTIFY news, '{word}'")
            self.committed[word] = True
        elif draw < 0.6:
            await conn.execute("SELECT pg_notify('news', $1)", word)
            self.committed[word] = True
        else:
            await conn.execute(f"NOTIFY news, '{word}'")
            self.committed[word] = True

    async def listen(self, number: int) -> None:
        chance = random.Random(f"{self.name} {number}")
        while not await self.hear(chance):
            pass

    async def hear(self, chance: random.Random) -> bool:
        """One session; true if it has heard the last."""
        conn = await self.connect()
        heard: list[str] = []
        gone = asyncio.Event()
        conn.add_termination_listener(lambda _: gone.set())
        stays_until = time.monotonic() + chance.uniform(1, 8)
        first = None
        try:
            await conn.add_listener("news", lambda *said: heard.append(said[3]))
            first = len(self.said)
            while not gone.is_set() and not (heard and heard[-1].endswith(LAST)):
                await asyncio.sleep(0.02)
                if stays_until < time.monotonic() < self.until - QUIET_S:
                    break
                if chance.random() < 0.1:
                    assert await conn.fetchval("SELECT current_user") == self.name
                assert time.monotonic() < self.until + 120, (self.name, heard[-3:], self.said[-3:])
        except LOST:
            gone.set()
        self.judge(first, heard)
        self.seen["sessions"] += 1
        self.seen["heard"] += len(heard)
        self.seen["sessions lost"] += gone.is_set()
        conn.terminate()
        return bool(heard) and heard[-1].endswith(LAST)

    def judge(self, first: int | None, heard: list[str]) -> None:
        assert [word for word in heard if not word.startswith(f"{self.name}!")] == []
        at = [self.said.index(word) for word in heard]
        assert at == sorted(set(at)), (self.name, heard)
        assert [word for word in heard if self.committed[word] is False] == []
        if heard and first is not None:
            owed = [word for word in self.said[first : at[-1]] if self.committed[word]]
            assert set(owed) - set(heard) == set(), self.name


async def kill(server: Server, until: float, seen: Counter[str]) -> None:
    chance = random.Random(0)
    conn = await asyncpg.connect(
        host=server.host, port=server.port, user="postgres", password=server.password, database="app"
    )
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.2, 1))
        seen["kills"] += await conn.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE usename = $1 AND application_name <> 'tenant_proxy code'"
            " ORDER BY random() LIMIT 1) AS one",
            SERVICE["user"],
        )
    await conn.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_all_is_heard_or_the_session_ends(ground: Server, own_proxy: Callable[..., Proxy], workers: int):
    names = [name_of(number) for number in range(TENANTS)]
    config = shared_config(ground, BACKENDS, workers=workers)
    config["tenants"] = [{"name": name} for name in names]
    config["users"] = [{"name": n, "tenant": n, "password": {"value": PASSWORDS[n]}} for n in names]
    config["users"].append({"name": "admin", "admin": True, "password": {"value": PASSWORDS["admin"]}})
    config["pool"] = {"mode": "transaction", "queue_timeout_s": 60}
    proxy = own_proxy(ground, **config)
    seen: Counter[str] = Counter()

    async def run() -> None:
        until = time.monotonic() + SECONDS
        tenants = [Tenant(name, proxy, until, seen) for name in names]
        await asyncio.gather(
            kill(ground, until - QUIET_S, seen),
            *(tenant.notify() for tenant in tenants),
            *(tenant.listen(number) for tenant in tenants for number in range(EACH)),
        )

    asyncio.run(run())
    print(dict(seen))
    assert seen["heard"] > seen["sessions"] > 0
    assert seen["kills"] > 0
