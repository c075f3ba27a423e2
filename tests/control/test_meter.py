"""Usage gets into the catalog exactly once, wherever whoever writes it dies."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from tenant_proxy.control.meter import Meter
from tenant_proxy.hub import HubError
from tenant_proxy.usage_shm import HOUR_S, Used

START = 500_000 * HOUR_S


class Died(Exception):
    """Stands for the end of the control process."""


class Proxy:
    """What outlives the control process: the workers' counts and what the supervisor keeps."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.kept: dict[str, Any] | None = None
        self.used = Used()
        self.now = START + 1.0
        #: points at which something happens, until the control process dies; None: it lives
        self.points: int | None = None
        #: the catalog can't be reached
        self.away = False

    # as the hub
    async def call(self, target: str, method: str, params: dict[str, Any] | None = None) -> Any:
        self.point()
        if method == "keep_usage":
            assert params is not None
            # as it goes over the hub
            self.kept = json.loads(json.dumps(params["kept"]))
        self.point()
        return {"acme": 0}

    # as the reader
    def read(self, places: Mapping[str, int], now_s: float) -> dict[str, Used]:
        return {"acme": self.used} if any(self.used) else {}

    def point(self) -> None:
        if self.points is not None:
            self.points -= 1
            if self.points < 0:
                raise Died

    async def connect(self) -> Any:
        if self.away:
            raise ConnectionRefusedError("away")
        connection = await asyncpg.connect(
            self.dsn, server_settings={"search_path": "tenant_proxy"}, statement_cache_size=0
        )
        return Connection(self, connection)

    def meter(self) -> Meter:
        """One that starts with what the supervisor has."""
        return Meter(
            self,  # type: ignore[arg-type]
            self,
            self.connect,
            proxy="a",
            boot="b",
            kept=json.loads(json.dumps(self.kept)),
            clock=lambda: self.now,
        )

    def work(self, n: int) -> None:
        counts = [one + n for one in self.used[:5]]
        self.used = Used._make([*counts, n])


class Connection:
    """asyncpg's, which may die before and behind a COMMIT."""

    def __init__(self, proxy: Proxy, connection: Any) -> None:
        self._proxy = proxy
        self._connection = connection

    def transaction(self) -> Any:
        return self

    async def __aenter__(self) -> None:
        self._transaction = self._connection.transaction()
        await self._transaction.start()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await self._transaction.rollback()
            return
        self._proxy.point()
        await self._transaction.commit()
        self._proxy.point()

    def terminate(self) -> None:
        self._connection.terminate()

    def __getattr__(self, name: str) -> Any:
        self._proxy.point()
        return getattr(self._connection, name)


@pytest.fixture
def proxy(catalog_dsn: str) -> Proxy:
    return Proxy(catalog_dsn)


async def rows(proxy: Proxy) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(proxy.dsn)
    found = await connection.fetch(
        "SELECT hour, transactions, statements, bytes_out, backend_us, peak_clients"
        " FROM tenant_proxy.usage ORDER BY hour"
    )
    await connection.close()
    return [dict(row) for row in found]


async def test_dying_at_every_point_loses_and_doubles_nothing(proxy: Proxy):
    meter = proxy.meter()
    for turn in range(40):
        proxy.work(10)
        proxy.now += 60
        # further on each time, until no point is left to die at
        proxy.points = turn
        try:
            await meter.write()
        except Died:
            meter = proxy.meter()
        if proxy.points >= 1:
            break
    else:
        pytest.fail("it dies for ever")
    assert turn > 5
    proxy.points = None
    await meter.write()
    total = sum(row["transactions"] for row in await rows(proxy))
    assert total == proxy.used.transactions == 10 * (turn + 1)


@pytest.mark.parametrize("seed", range(5))
async def test_dying_at_random(proxy: Proxy, seed: int):
    dice = random.Random(seed)
    meter = proxy.meter()
    for _ in range(60):
        proxy.work(dice.randrange(1, 100))
        proxy.now += 60
        proxy.away = dice.random() < 0.3
        proxy.points = dice.randrange(25) if dice.random() < 0.5 else None
        try:
            await meter.write()
        except Died:
            meter = proxy.meter()
    proxy.points, proxy.away = None, False
    await meter.write()
    found = await rows(proxy)
    for name in ("transactions", "statements", "bytes_out", "backend_us"):
        assert sum(row[name] for row in found) == getattr(proxy.used, name)


async def test_hours_wait_apart_while_the_catalog_is_away(proxy: Proxy):
    meter = proxy.meter()
    proxy.away = True
    expected = []
    for hour in range(3):
        for minute in range(60):
            proxy.now = START + hour * HOUR_S + minute * 60 + 60
            proxy.work(1 + hour)
            await meter.write()
        expected.append(60 * (1 + hour))
    assert "away" in meter.error
    proxy.away = False
    proxy.now += 60
    await meter.write()
    found = await rows(proxy)
    assert [row["transactions"] for row in found if row["transactions"]] == expected
    assert [row["peak_clients"] for row in found][:3] == [1, 2, 3]


async def test_a_supervisor_that_is_gone_is_no_harm(proxy: Proxy):
    meter = proxy.meter()
    proxy.work(5)

    async def gone(*_: object) -> None:
        raise HubError("supervisor is gone")

    call = proxy.call
    proxy.call = gone  # type: ignore[method-assign, assignment]
    await meter.write()
    assert meter.error == "supervisor is gone"
    proxy.call = call  # type: ignore[method-assign]
    await meter.write()
    assert [row["transactions"] for row in await rows(proxy)] == [5]
