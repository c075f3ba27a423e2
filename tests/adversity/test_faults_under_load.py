"""Things break under forty clients of two tenants: exactly those who had something running are told, what was
acknowledged is there once, what was refused is not, and all is served again at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg
import pytest

from tests.e2e.test_shared import SERVICE, provide
from tests.fix_proxy import Proxy
from tests.pg_server import Server

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

USERS = {"acme": "acme_app", "beta": "beta_app"}
CLIENTS = 20
SECONDS = float(os.environ.get("TP_FAULT_SECONDS", "10"))
#: how long nobody may be served after something broke
RECOVERY_S = 5.0
#: the server did not run it, and says so; after anything else nobody knows
NOT_RUN = ("40001", "42", "25", "53")

Row = tuple[str, int, int]


@dataclass
class Told:
    """What clients were told of the rows that they wrote."""

    acknowledged: set[Row] = field(default_factory=set)
    refused: set[Row] = field(default_factory=set)
    unknown: set[Row] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    last: float = 0.0
    stopping: bool = False


async def write(dsn: str, tenant: str, number: int, told: Told) -> None:
    """One client: rows of its own, by the simple and the extended protocol, alone and in transactions."""
    connection: asyncpg.Connection[asyncpg.Record] | None = None
    for n in itertools.count():
        if told.stopping:
            break
        row = (tenant, number, n)
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(dsn, timeout=20)
            if n % 3 == 0:
                async with connection.transaction():
                    await connection.execute("INSERT INTO probe VALUES ($1, $2)", number, n)
                    await connection.fetchval("SELECT count(*) FROM probe WHERE client = $1", number)
            elif n % 3 == 1:
                await connection.execute(f"INSERT INTO probe VALUES ({number}, {n})")
            else:
                await connection.execute("INSERT INTO probe VALUES ($1, $2)", number, n)
        except asyncpg.PostgresError as error:
            sqlstate = error.sqlstate or ""
            told.errors[f"{sqlstate} {error}"] += 1
            (told.refused if sqlstate.startswith(NOT_RUN) else told.unknown).add(row)
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
            await asyncio.sleep(0.01)
            told.errors[str(error)] += 1
            told.unknown.add(row)
            if connection is not None:
                connection.terminate()
            connection = None
        else:
            told.acknowledged.add(row)
            told.last = time.monotonic()
    if connection is not None:
        connection.terminate()


def kill_a_backend(server: Server, _: Proxy) -> None:
    with server.connect() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE usename IN ('acme_app', 'beta_app', %s) ORDER BY random() LIMIT 1) AS one",
            [SERVICE["user"]],
        )


def kill_a_worker(_: Server, proxy: Proxy) -> None:
    workers = proxy.worker_pids()
    if workers:
        os.kill(random.choice(workers), signal.SIGKILL)


def restart(server: Server, _: Proxy) -> None:
    server.restart()


def reload(_: Server, proxy: Proxy) -> None:
    proxy.admin("RELOAD")


#: fault -> seconds between two, and how many clients each may cost their statement
FAULTS: dict[str, tuple[Callable[[Server, Proxy], None], float, int]] = {
    "a backend killed": (kill_a_backend, 0.3, 1),
    "a worker killed": (kill_a_worker, 3.0, 2 * CLIENTS),
    "the server restarted": (restart, 4.0, 2 * CLIENTS),
    "a reload": (reload, 0.5, 0),
}


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_said_is_true(own_pg, own_proxy, fault, isolation):
    provide(own_pg)
    with own_pg.connect() as conn:
        for tenant, user in USERS.items():
            conn.execute(f"CREATE TABLE {tenant}.probe (client int, n int, PRIMARY KEY (client, n))")
            conn.execute(f"ALTER TABLE {tenant}.probe OWNER TO {user}")
    cluster = {
        "name": "main",
        "host": own_pg.host,
        "port": own_pg.port,
        "database": "app",
        "max_backends": 16,
    }
    proxy = own_proxy(
        own_pg,
        workers=2,
        isolation=isolation,
        clusters=[cluster | {"max_backends": 16} | ({"service": SERVICE} if isolation == "shared" else {})],
        pool={"mode": "transaction", "max": 8},
    )
    told = Told()
    clients = [
        asyncio.create_task(write(proxy.url(user), tenant, number, told))
        for tenant, user in USERS.items()
        for number in range(CLIENTS)
    ]
    strike, pause_s, victims = FAULTS[fault]
    strikes = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(strike, own_pg, proxy)
        strikes += 1
        struck = time.monotonic()
        while told.last < struck:
            assert time.monotonic() < struck + RECOVERY_S, f"nobody is served after {fault}: {told.errors}"
            await asyncio.sleep(0.01)
    told.stopping = True
    await asyncio.wait_for(asyncio.gather(*clients), 60)

    with own_pg.connect() as conn:
        rows = {
            (tenant, client, n)
            for tenant in USERS
            for client, n in conn.execute(f"SELECT client, n FROM {tenant}.probe").fetchall()
        }
    assert len(told.acknowledged) > 100
    assert not told.acknowledged - rows
    assert not told.refused & rows
    assert not rows - told.acknowledged - told.unknown
    assert sum(told.errors.values()) <= victims * strikes, told.errors
