"""asyncpg: binary formats, a statement cache, and pipelines of its own."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import uuid

import asyncpg
import pytest


@pytest.fixture
async def conn(each_mode):
    conn = await asyncpg.connect(each_mode.url(), timeout=20)
    yield conn
    await conn.close(timeout=10)


async def test_fetch(conn):
    rows = await conn.fetch("SELECT id, item FROM orders WHERE id >= $1 ORDER BY id", 2)
    assert [tuple(row) for row in rows] == [(2, "rocket"), (3, "spring")]
    assert await conn.fetchval("SELECT current_user::text") == "acme_app"


async def test_types(conn):
    values = [
        datetime.datetime(2020, 2, 29, 12, 30, tzinfo=datetime.UTC),
        decimal.Decimal("12345.678900"),
        uuid.UUID(int=7),
        [1, None, 3],
        b"\x00\xff",
        datetime.timedelta(days=2, seconds=5),
    ]
    row = await conn.fetchrow(
        "SELECT $1::timestamptz, $2::numeric, $3::uuid, $4::int[], $5::bytea, $6::interval", *values
    )
    assert list(row) == values


async def test_enum_of_the_tenant(conn):
    """asyncpg reads an unknown type's definition from the catalogs, by a long recursive query."""
    assert await conn.fetchval("SELECT $1::mood", "good") == "good"
    assert await conn.fetchval("SELECT ARRAY['bad'::mood]") == ["bad"]


async def test_composite_of_the_tenant(conn):
    row = await conn.fetchval("SELECT o FROM orders o WHERE id = 1")
    assert tuple(row) == (1, "anvil", 1)


async def test_statement_cache(conn):
    for _ in range(3):
        for number in range(150):
            assert await conn.fetchval(f"SELECT $1::int + {number}", 1) == number + 1


async def test_prepared_statement(conn):
    statement = await conn.prepare("SELECT item FROM orders WHERE id = $1")
    assert [parameter.name for parameter in statement.get_parameters()] == ["int4"]
    assert [await statement.fetchval(n) for n in (1, 2, 3)] == ["anvil", "rocket", "spring"]
    assert [column.name for column in statement.get_attributes()] == ["item"]


async def test_transactions_and_savepoints(conn):
    async with conn.transaction(isolation="serializable"):
        await conn.execute("CREATE TEMP TABLE inner_table (a int) ON COMMIT DROP")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with conn.transaction():
                await conn.execute("INSERT INTO inner_table VALUES (1)")
                await conn.execute("SELECT 1/0")
        assert await conn.fetchval("SELECT count(*) FROM inner_table") == 0


async def test_script_of_many_statements(conn):
    assert (
        await conn.execute("SELECT 1; SELECT 2; CREATE TEMP TABLE script (a int); DROP TABLE script")
        == "DROP TABLE"
    )


async def test_cursor(conn):
    async with conn.transaction():
        numbers = [row[0] async for row in conn.cursor("SELECT generate_series(1, 100)", prefetch=7)]
        assert numbers == list(range(1, 101))
        cursor = await conn.cursor("SELECT generate_series(1, 100)")
        await cursor.forward(50)
        assert (await cursor.fetchrow())[0] == 51


async def test_copy_records(conn):
    transaction = conn.transaction()
    await transaction.start()
    records = [(n, f"row {n}") for n in range(1000)]
    assert await conn.copy_records_to_table("scratch", records=records) == "COPY 1000"
    received = bytearray()

    async def keep(data: bytes) -> None:
        received.extend(data)

    assert await conn.copy_from_query("SELECT * FROM scratch ORDER BY id", output=keep) == "COPY 1000"
    assert received.startswith(b"0\trow 0\n")
    await transaction.rollback()


async def test_copy_that_fails_in_the_source(conn):
    async def broken():
        yield b"1\tone\n"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await conn.copy_to_table("scratch", source=broken())
    assert await conn.fetchval("SELECT count(*) FROM scratch") == 0


async def test_executemany_is_atomic(conn):
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.executemany("INSERT INTO scratch VALUES ($1, $2)", [(1, "a"), (2, "b"), (1, "again")])
    assert await conn.fetchval("SELECT count(*) FROM scratch") == 0


async def test_fetchmany(conn):
    if not hasattr(conn, "fetchmany"):
        pytest.skip("this asyncpg has no fetchmany")
    rows = await conn.fetchmany("SELECT $1::int * 2", [(n,) for n in range(50)])
    assert [row[0] for row in rows] == [2 * n for n in range(50)]


async def test_timeout_cancels(conn):
    """asyncpg sends a CancelRequest and waits for its effect."""
    with pytest.raises(TimeoutError):
        await conn.fetch("SELECT pg_sleep(15)", timeout=0.2)
    assert await conn.fetchval("SELECT 1") == 1


async def test_task_cancellation_cancels(conn):
    task = asyncio.create_task(conn.fetch("SELECT pg_sleep(15)"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await conn.fetchval("SELECT 1") == 1


async def test_listeners(proxy):
    heard: asyncio.Queue = asyncio.Queue()
    conn = await asyncpg.connect(proxy.url())
    other = await asyncpg.connect(proxy.url())
    try:

        def hear(*said):
            heard.put_nowait(said)

        await conn.add_listener("news", hear)
        await other.execute("SELECT pg_notify('news', 'hello')")
        _, pid, channel, payload = await asyncio.wait_for(heard.get(), 10)
        assert (pid, channel, payload) == (other.get_server_pid(), "news", "hello")
        await conn.remove_listener("news", hear)
    finally:
        await conn.close()
        await other.close()


async def test_log_listener(conn):
    said: asyncio.Queue = asyncio.Queue()
    conn.add_log_listener(lambda _, message: said.put_nowait(message))
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'hear me'; END $$")
    assert (await asyncio.wait_for(said.get(), 10)).message == "hear me"


async def test_server_settings(each_mode):
    conn = await asyncpg.connect(
        each_mode.url(), server_settings={"jit": "off", "application_name": "mine", "my.x": "1"}
    )
    try:
        assert await conn.fetchval("SHOW jit") == "off"
        assert conn.get_settings().application_name == "mine"
        assert await conn.fetchval("SHOW my.x") == "1"
        await conn.execute("SET my.x = '2'")
        await conn.reset()
        assert await conn.fetchval("SHOW my.x") == "1"
    finally:
        await conn.close()


async def test_pool(each_mode):
    """Its connections are reset when they are released: many statements in one message."""
    async with asyncpg.create_pool(each_mode.url(), min_size=2, max_size=5) as pool:

        async def work(number: int) -> int:
            async with pool.acquire() as conn:
                await conn.execute(f"SET my.number = '{number}'")
                async with conn.transaction():
                    await conn.execute("SELECT pg_sleep(0.005)")
                    return int(await conn.fetchval("SELECT current_setting('my.number')"))

        assert await asyncio.gather(*(work(n) for n in range(40))) == list(range(40))


async def test_a_table_that_changes_under_the_statement_cache(conn):
    """Outside a transaction asyncpg prepares the statement again by itself."""
    await conn.execute("CREATE TEMP TABLE shape (a int)")
    await conn.execute("INSERT INTO shape VALUES (1)")
    assert tuple(await conn.fetchrow("SELECT * FROM shape")) == (1,)
    await conn.execute("ALTER TABLE shape ADD b int")
    assert tuple(await conn.fetchrow("SELECT * FROM shape")) == (1, None)
    await conn.execute("DISCARD TEMP")
