"""Tenants that are stopped for a while: PAUSE, and moves that running clients do not notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest

from tenant_proxy.catalog.failures import Failure
from tenant_proxy.catalog.records import JobState
from tenant_proxy.catalog.states import State
from tenant_proxy.config.schema import Config
from tenant_proxy.lifecycle.context import Context
from tenant_proxy.lifecycle.records import NewAccess, NewTenant
from tenant_proxy.lifecycle.verbs import Verbs
from tests.fix_lifecycle import Town, make_town
from tests.fix_proxy import Proxy
from tests.fix_shared import SERVICE, provide
from tests.pg_server import majors
from tests.wire_client import wait_until

#: generous, as machines that test are busy
FOLLOWED_S = 15.0


class Move(NamedTuple):
    """A tenant on the first of two clusters, which is not the newer, and proxies that serve it."""

    proxies: list[Proxy]
    verbs: Verbs
    dsns: list[str]
    there: str
    #: where it goes
    target: Town

    @property
    def dsn(self) -> str:
        return self.dsns[0]


@pytest.fixture
async def new_move(pg_servers, pg, town, catalog_dsn, own_proxy) -> AsyncIterator[Callable[..., Any]]:
    """Call with how many proxies there are, and whether its backends are shared."""
    other_major = next((major for major in majors() if major != pg.major), None)
    if other_major is None:
        pytest.skip("it takes two servers")
    second = make_town(pg_servers.get(other_major), catalog_dsn)
    towns = {"main": town, "second": second}
    here, there = sorted(towns, key=lambda name: towns[name].pg.major)
    contexts = []

    async def make(proxies: int = 1, isolation: str = "dedicated") -> Move:
        config = town.config()
        config["clusters"].append(second.config()["clusters"][0] | {"name": "second"})
        if isolation == "shared":
            for one in (town, second):
                provide(one.pg)
            config["clusters"] = [
                one | {"service": {**SERVICE, "max_backends": 2}} for one in config["clusters"]
            ]
        served = [
            own_proxy(
                **config, tenants=[], users=[], pool={"mode": "transaction", "max": 4}, isolation=isolation
            )
            for _ in range(proxies)
        ]
        context = await Context.open(Config.model_validate(config), "anna")
        contexts.append(context)
        verbs = Verbs(context)
        done = await verbs.tenant_onboard(NewTenant(name="acme", cluster=here), NewAccess(login="acme"))
        await verbs.tenant_set("acme", spec={"grace_s": 1})
        dsns = [f"postgresql://acme:{done.granted.password}@127.0.0.1:{one.port}/acme" for one in served]
        for dsn in dsns:
            await asyncio.to_thread(wait_until, partial(_is_served, dsn), "the tenant is served", FOLLOWED_S)
        return Move(served, verbs, dsns, there, towns[there])

    yield make
    for context in contexts:
        await context.close()
    second.clear()


def _is_served(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
async def move(new_move) -> Move:
    found: Move = await new_move()
    return found


@pytest.fixture
def connected() -> Iterator[Callable[..., list[psycopg.Connection]]]:
    """So many clients of a proxy."""
    with ExitStack() as stack:
        yield lambda dsn, count: [
            stack.enter_context(psycopg.connect(dsn, autocommit=True, prepare_threshold=0))
            for _ in range(count)
        ]


class Writer(threading.Thread):
    """Inserts one row after the other, each prepared, and keeps what was acknowledged."""

    def __init__(self, conn: psycopg.Connection) -> None:
        super().__init__()
        self.conn = conn
        self.conn.execute("SET TimeZone = 'Asia/Tokyo'")
        self.done = threading.Event()
        self.acknowledged = 0
        self.trouble: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.done.is_set():
                self.conn.execute("INSERT INTO t (n) VALUES (%s)", [self.acknowledged])
                self.acknowledged += 1
        except BaseException as error:
            self.trouble = error


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
async def test_running_clients_do_not_notice_a_move(new_move, connected, isolation):
    """Those of two proxies, which both follow the catalog; nor does one who listens."""
    _, verbs, dsns, there, target = await new_move(2, isolation)
    dsn = dsns[0]
    idle, listener, *others = connected(dsn, 4)
    (elsewhere, deaf) = connected(dsns[1], 2)
    idle.execute("CREATE TABLE t (n int)")
    idle.execute("SELECT count(*) FROM t")
    for one in (listener, deaf):
        one.execute("LISTEN news")
        one.execute("NOTIFY news, 'before'")
    writers = [Writer(conn) for conn in (*others, elsewhere)]
    for writer in writers:
        writer.start()
    # a transaction that is under way ends first
    with psycopg.connect(dsn) as late:
        late.execute("INSERT INTO t VALUES (-1)")
        moving = asyncio.ensure_future(verbs.tenant_move("acme", there))
        while (await verbs.tenant_get("acme")).state is not State.SUSPENDED:
            assert not moving.done(), moving
            await asyncio.sleep(0.02)
        late.execute("INSERT INTO t VALUES (-2)")
    job = await moving
    assert job.state is JobState.DONE
    assert (await verbs.tenant_get("acme")).cluster == there
    written = [writer.acknowledged for writer in writers]
    await asyncio.to_thread(
        wait_until,
        lambda: all(w.trouble or w.acknowledged > n for w, n in zip(writers, written, strict=True)),
        "they go on",
        FOLLOWED_S,
    )
    for writer in writers:
        writer.done.set()
        writer.join()
    assert [writer.trouble for writer in writers] == [None] * 3
    assert [w.conn.execute("SHOW TimeZone").fetchone() for w in writers] == [("Asia/Tokyo",)] * 3
    total = sum(writer.acknowledged for writer in writers) + 2
    assert idle.execute("SELECT count(*) FROM t").fetchone() == (total,)
    version = idle.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone()
    assert version == (target.pg.major,)
    elsewhere.execute("NOTIFY news, 'after'")
    for one in (listener, deaf):
        assert await asyncio.to_thread(_is_told, one, "after")


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
async def test_types_by_number_are_of_one_cluster(new_move, connected, isolation):
    """Where the tenant has been moved to, a number is another's type, or nobody's."""
    _, verbs, dsns, there, _ = await new_move(1, isolation)
    (conn,) = connected(dsns[0], 1)
    conn.execute("CREATE TYPE mood AS ENUM ('good')")

    def number() -> int:
        found = conn.execute("SELECT 'mood'::regtype::oid::int").fetchone()
        assert found is not None
        return int(found[0])

    def given(name: bytes) -> tuple[bytes | None, bytes | None]:
        result = conn.pgconn.exec_prepared(name, [b"good"])
        error = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
        return error, None if error else result.get_value(0, 0)

    conn.pgconn.prepare(b"typed", b"SELECT $1::text", [number()])
    conn.pgconn.prepare(b"plain", b"SELECT $1::text", [])
    assert given(b"typed") == given(b"plain") == (None, b"good")
    assert (await verbs.tenant_move("acme", there)).state is JobState.DONE
    await asyncio.to_thread(wait_until, lambda: given(b"plain") == (None, b"good"), "it goes on", FOLLOWED_S)
    assert given(b"typed") == (b"0A000", None)
    conn.pgconn.prepare(b"again", b"SELECT $1::text", [number()])
    assert given(b"again") == (None, b"good")


def _is_told(conn: psycopg.Connection, payload: str) -> bool:
    return any(notice.payload == payload for notice in conn.notifies(timeout=FOLLOWED_S))


async def test_who_holds_a_connection_is_not_moved_unseen(move, connected):
    _, verbs, _, there, target = move
    here = (await verbs.tenant_get("acme")).cluster
    pinned, other = connected(move.dsn, 2)
    pinned.execute("CREATE TEMP TABLE mine (n int)")
    with pytest.raises(Failure, match="still hold a connection") as failure:
        await verbs.tenant_move("acme", there)
    assert failure.value.code == "busy"
    tenant = await verbs.tenant_get("acme")
    assert (tenant.cluster, tenant.state, tenant.reason) == (here, State.ACTIVE, "")
    pinned.execute("INSERT INTO mine VALUES (1)")
    other.execute("SELECT 1")
    # nobody waits for longer than was said
    with pytest.raises(Failure, match=r"could not be moved in 0\.2 s"):
        await verbs.tenant_move("acme", there, pause_s=0.2)
    other.execute("SELECT 1")
    assert "acme" not in target.schemas()
    job = await verbs.tenant_move("acme", there, force=True)
    assert job.state is JobState.DONE
    with pytest.raises(psycopg.errors.AdminShutdown, match="moved to another cluster"):
        pinned.execute("SELECT 1")
    assert await asyncio.to_thread(lambda: other.execute("SELECT 1").fetchone()) == (1,)


def test_pause_lets_transactions_end_and_holds_what_begins(own_proxy):
    proxy = own_proxy(pool={"mode": "transaction"})

    def paused() -> bool:
        return {row["name"]: row["paused"] for row in proxy.admin("SHOW DATABASES")}["acme"] == 1

    with (
        proxy.connect() as waits,
        proxy.connect(autocommit=False) as late,
        proxy.connect("beta_app") as other,
    ):
        late.execute("SELECT 1")
        answers: list[Any] = []
        pausing = threading.Thread(target=lambda: answers.append(proxy.admin("PAUSE acme")))
        pausing.start()
        wait_until(paused, "it is paused", FOLLOWED_S)
        asking = threading.Thread(target=lambda: answers.append(waits.execute("SELECT 1").fetchone()))
        coming = threading.Thread(target=lambda: answers.append(proxy.connect().close()))
        asking.start()
        coming.start()
        assert late.execute("SELECT 2").fetchone() == (2,)
        assert other.execute("SELECT 3").fetchone() == (3,)
        assert answers == []
        late.commit()
        pausing.join(FOLLOWED_S)
        assert answers == [[]]
        # again is as once
        proxy.admin("PAUSE acme")
        assert answers == [[]]
        proxy.admin("RESUME acme")
        asking.join(FOLLOWED_S)
        coming.join(FOLLOWED_S)
        assert len(answers) == 3
        assert not paused()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not paused"):
            proxy.admin("RESUME acme")
        with pytest.raises(psycopg.errors.InvalidCatalogName):
            proxy.admin("PAUSE nobody")


def test_who_waits_for_a_pause_waits_no_longer_than_in_the_queue(own_proxy):
    proxy = own_proxy(pool={"mode": "transaction", "queue_timeout_s": 1})
    with proxy.connect() as waits, proxy.connect("beta_app") as other:
        proxy.admin("PAUSE")
        for conn in (waits, other):
            with pytest.raises(psycopg.OperationalError, match="is paused"):
                conn.execute("SELECT 1")
        proxy.admin("RESUME")
    with proxy.connect() as conn:
        conn.execute("SELECT 1")
