"""Things break under forty clients of two tenants: exactly those who had something running are told, what was
acknowledged is there once, what was refused is not, and all is served again at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
import pytest

from tests.adversity.cut_relay import CutRelay
from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide
from tests.pg_server import Server, frozen

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

USERS = {"acme": "acme_app", "beta": "beta_app"}
CLIENTS = 20
BACKENDS = 16
DEAD_AFTER_S = 2
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


@dataclass
class Scene:
    """A server, the proxy before it, and relays in between: the proxy knows the first one's address."""

    server: Server
    proxy: Proxy
    relays: list[CutRelay]


async def kill_a_backend(scene: Scene) -> None:
    def kill() -> None:
        with scene.server.connect() as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE usename IN ('acme_app', 'beta_app', %s) ORDER BY random() LIMIT 1) AS one",
                [SERVICE["user"]],
            )

    await asyncio.to_thread(kill)


async def kill_a_worker(scene: Scene) -> None:
    workers = scene.proxy.worker_pids()
    if workers:
        os.kill(random.choice(workers), signal.SIGKILL)


async def restart(scene: Scene) -> None:
    await asyncio.to_thread(scene.server.restart)


async def reload(scene: Scene) -> None:
    await asyncio.to_thread(scene.proxy.admin, "RELOAD")


async def cut(scene: Scene) -> None:
    """A connection is lost as its backend is made a tenant's, before that has arrived there or behind it."""
    relay = scene.relays[0]
    relay.passes = not relay.passes
    relay.cut_at = random.choice([b"set_config('role'", b"exit_on_error = off", b"RESET ROLE", b"INSERT"])
    before = relay.cuts
    end = time.monotonic() + 1
    while relay.cuts == before and time.monotonic() < end:
        await asyncio.sleep(0.005)
    relay.cut_at = b""


async def fail_over(scene: Scene, *, close: bool = True) -> None:
    """The server is at another address from now on, and not at the old one any more."""
    old, new = scene.relays
    await new.open()
    if close:
        await old.close()
    scene.relays.reverse()
    config = scene.proxy.config
    config["clusters"][0]["port"] = new.port
    await asyncio.to_thread(scene.proxy.reload, config)


async def lose(scene: Scene) -> None:
    """The same, and nothing is heard from the old address: no end of connections, no refusal."""
    old = scene.relays[0]
    old.mute()
    await asyncio.sleep(0.2)
    await fail_over(scene, close=False)
    # what was connected there is given up, and its places are used again
    await asyncio.sleep(DEAD_AFTER_S + 1)
    await old.close()


async def freeze(scene: Scene) -> None:
    """The server's processes do not get to run for a second, and then go on."""
    with frozen(scene.server):
        await asyncio.sleep(1)


async def crowd(scene: Scene) -> None:
    """Others take all places of the server that the proxy does not hold, then that of a backend that ends."""
    others: list[asyncpg.Connection[asyncpg.Record]] = []
    dsn = scene.server.dsn(user="acme_app", password="acme-secret", database="app")
    end = time.monotonic() + 1
    killed = False
    while time.monotonic() < end:
        try:
            others.append(await asyncpg.connect(dsn))
        except asyncpg.TooManyConnectionsError:
            if not killed:
                await kill_a_backend(scene)
            killed = True
            await asyncio.sleep(0.01)
    for one in others:
        one.terminate()


@dataclass(frozen=True)
class Fault:
    """What happens, at which intervals, and how many clients each time may cost their statement."""

    strike: Callable[[Scene], Awaitable[None]]
    pause_s: float
    victims: int
    #: how many relays it needs
    relays: int = 0


FAULTS = {
    "a backend killed": Fault(kill_a_backend, 0.3, 1),
    "a worker killed": Fault(kill_a_worker, 3.0, 2 * CLIENTS),
    "the server restarted": Fault(restart, 4.0, 2 * CLIENTS),
    "a reload": Fault(reload, 0.5, 0),
    "a connection cut": Fault(cut, 0.1, 1, relays=1),
    "another address": Fault(fail_over, 2.0, 2 * CLIENTS, relays=2),
    "the network lost": Fault(lose, 1.0, 2 * CLIENTS, relays=2),
    "the server frozen": Fault(freeze, 1.0, 0),
    "too many clients": Fault(crowd, 1.0, 1),
}


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_said_is_true(new_pg, own_proxy, fault, isolation):
    what = FAULTS[fault]
    settings = {"max_connections": str(BACKENDS + 12)} if what.strike is crowd else {}
    server = new_pg(settings=settings)
    provide(server)
    with server.connect() as conn:
        for tenant, user in USERS.items():
            conn.execute(f"CREATE TABLE {tenant}.probe (client int, n int, PRIMARY KEY (client, n))")
            conn.execute(f"ALTER TABLE {tenant}.probe OWNER TO {user}")
    relays = [CutRelay(server.host, server.port) for _ in range(what.relays)]
    async with contextlib.AsyncExitStack() as stack:
        for relay in relays:
            await stack.enter_async_context(relay)
        for relay in relays[1:]:
            await relay.close()
        cluster = {
            "name": "main",
            "host": server.host,
            "port": relays[0].port if relays else server.port,
            "database": "app",
            "max_backends": BACKENDS,
            "dead_after_s": DEAD_AFTER_S,
            # a relay reads along
            "tls": {"mode": "disable"},
        }
        if isolation == "shared":
            cluster["service"] = SERVICE
        proxy = await asyncio.to_thread(
            own_proxy,
            server,
            workers=2,
            isolation=isolation,
            clusters=[cluster],
            pool={"mode": "transaction", "max": 8},
        )
        await strikes(Scene(server, proxy, relays), fault)
        await asyncio.to_thread(proxy.stop)


async def use_whole_budget(proxy: Proxy) -> None:
    """As many transactions at once as there may be backends: no place has been lost."""
    each = BACKENDS // len(USERS)
    connections = [await asyncpg.connect(proxy.url(user)) for user in USERS.values() for _ in range(each)]
    try:
        transactions = [one.transaction() for one in connections]
        await asyncio.gather(*(one.start() for one in transactions))
        await asyncio.gather(*(one.fetchval("SELECT count(*) FROM probe") for one in connections))
        await asyncio.gather(*(one.rollback() for one in transactions))
    finally:
        for one in connections:
            one.terminate()


async def strikes(scene: Scene, fault: str) -> None:
    """Forty clients write, and it happens again and again."""
    what, proxy = FAULTS[fault], scene.proxy
    told = Told()
    clients = [
        asyncio.create_task(write(proxy.url(user), tenant, number, told))
        for tenant, user in USERS.items()
        for number in range(CLIENTS)
    ]
    count = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(what.pause_s)
        await what.strike(scene)
        count += 1
        struck = time.monotonic()
        while told.last < struck:
            assert time.monotonic() < struck + RECOVERY_S, f"nobody is served after {fault}: {told.errors}"
            await asyncio.sleep(0.01)
    told.stopping = True
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    await asyncio.wait_for(use_whole_budget(proxy), 15)

    with scene.server.connect() as conn:
        rows = {
            (tenant, client, n)
            for tenant in USERS
            for client, n in conn.execute(f"SELECT client, n FROM {tenant}.probe").fetchall()
        }
    assert len(told.acknowledged) > 100
    assert not told.acknowledged - rows
    assert not told.refused & rows
    assert not rows - told.acknowledged - told.unknown
    assert sum(told.errors.values()) <= what.victims * count, told.errors
