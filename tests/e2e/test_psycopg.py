"""psycopg 3: what its documentation offers works through the proxy."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo


def test_query_with_parameters(each_mode):
    with each_mode.connect() as conn:
        assert conn.execute("SELECT item FROM orders WHERE id = %s", [2]).fetchone() == ("rocket",)
        row = conn.cursor(row_factory=dict_row).execute("SELECT id, item FROM orders WHERE id = 1").fetchone()
        assert row == {"id": 1, "item": "anvil"}


def test_binary_results_and_parameters(each_mode):
    with each_mode.connect() as conn:
        cursor = conn.cursor(binary=True)
        values = [1, 2.5, "text", b"\x00\xff", None, [1, 2], True]
        row = cursor.execute(
            "SELECT %b::int, %b::float8, %b::text, %b::bytea, %b::int, %b::int[], %b::bool", values
        )
        assert list(row.fetchone()) == values


def test_transactions(each_mode):
    with each_mode.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO scratch VALUES (1, 'rolled back')")
        conn.rollback()
        with pytest.raises(errors.DivisionByZero):
            with conn.transaction():
                conn.execute("INSERT INTO scratch VALUES (2, 'undone')")
                conn.execute("SELECT 1/0")
        with conn.transaction(force_rollback=True):
            with conn.transaction():
                conn.execute("INSERT INTO scratch VALUES (3, 'inner')")
        assert conn.execute("SELECT count(*) FROM scratch").fetchone() == (0,)
        conn.rollback()


@pytest.mark.parametrize("threshold", [0, 1, 5])
def test_prepared_statements(each_mode, threshold):
    """psycopg prepares a statement that it has seen often enough, under a name of its own."""
    with each_mode.connect() as conn:
        conn.prepare_threshold = threshold
        for number in range(12):
            assert conn.execute("SELECT %s::int + 1", [number]).fetchone() == (number + 1,)


def test_more_prepared_statements_than_the_driver_keeps(each_mode):
    """It then deallocates the oldest: by DEALLOCATE, or by a Close message."""
    with each_mode.connect() as conn:
        conn.prepare_threshold = 0
        conn.prepared_max = 5
        for _ in range(2):
            for number in range(20):
                assert conn.execute(f"SELECT {number}, %s::int", [1]).fetchone() == (number, 1)


def test_statement_changed_by_ddl_is_prepared_again(each_mode):
    """psycopg forgets its statements when it sees ALTER."""
    with each_mode.connect() as conn:
        conn.prepare_threshold = 0
        conn.execute("CREATE TEMP TABLE shape (a int)")
        conn.execute("SELECT * FROM shape")
        conn.execute("ALTER TABLE shape ADD b int")
        assert len(conn.execute("SELECT * FROM shape").description or ()) == 2
        conn.execute("DISCARD TEMP")


def test_pipeline(each_mode):
    with each_mode.connect() as conn, conn.pipeline():
        cursors = [conn.execute("SELECT %s::int", [number]) for number in range(100)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(100)]


def test_pipeline_with_an_error(each_mode):
    with each_mode.connect() as conn:
        with pytest.raises(errors.DivisionByZero):
            with conn.pipeline():
                conn.execute("SELECT 1")
                conn.execute("SELECT 1/0")
                conn.execute("SELECT 2")
        assert conn.execute("SELECT 3").fetchone() == (3,)


def test_pipeline_error_spares_what_follows_a_sync(each_mode):
    with each_mode.connect() as conn, conn.pipeline() as pipeline:
        broken = conn.execute("SELECT 1/0")
        with pytest.raises(errors.DivisionByZero):
            pipeline.sync()
            broken.fetchone()
        well = conn.execute("SELECT 2")
        pipeline.sync()
        assert well.fetchone() == (2,)


def test_executemany_returning(each_mode, superuser):
    superuser.execute("TRUNCATE acme.scratch")
    with each_mode.connect(autocommit=False) as conn:
        cursor = conn.cursor()
        rows = [(number, f"row {number}") for number in range(500)]
        cursor.executemany("INSERT INTO scratch VALUES (%s, %s) RETURNING id", rows, returning=True)
        ids = []
        while True:
            ids += [cursor.fetchone()[0]]
            if not cursor.nextset():
                break
        assert ids == list(range(500))
        conn.rollback()


def test_copy_in_and_out(each_mode):
    rows = [(number, "x" * number) for number in range(200)]
    with each_mode.connect(autocommit=False) as conn:
        with conn.cursor().copy("COPY scratch FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        with conn.cursor().copy("COPY (SELECT * FROM scratch ORDER BY id) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == rows
        conn.rollback()


def test_copy_that_the_client_breaks_off(each_mode):
    with each_mode.connect() as conn:
        with pytest.raises(ZeroDivisionError):
            with conn.cursor().copy("COPY scratch FROM STDIN") as copy:
                copy.write_row((1, "one"))
                raise ZeroDivisionError
        assert conn.execute("SELECT count(*) FROM scratch").fetchone() == (0,)


def test_server_side_cursors(each_mode):
    with each_mode.connect(autocommit=False) as conn:
        with conn.cursor("reader", row_factory=namedtuple_row) as cursor:
            cursor.itersize = 10
            cursor.execute("SELECT generate_series(1, 100) AS n")
            assert sum(row.n for row in cursor) == 5050
        with conn.cursor("scroller", scrollable=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            cursor.scroll(50)
            assert cursor.fetchone() == (51,)


def test_server_side_cursor_with_hold(each_mode):
    with each_mode.connect() as conn:
        with conn.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            assert cursor.fetchmany(2) == [(1,), (2,)]
            assert len(cursor.fetchall()) == 98


def test_streaming_results(each_mode):
    with each_mode.connect() as conn:
        assert sum(row[0] for row in conn.cursor().stream("SELECT generate_series(1, 1000)")) == 500_500


def test_cancel(each_mode):
    with each_mode.connect() as conn:
        conn.execute("SET statement_timeout = '20s'")
        timer = threading.Timer(0.2, conn.cancel)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(15)")
        timer.join()
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_safe_cancel(each_mode):
    """libpq's PQcancelBlocking, which waits for the server's answer."""
    with each_mode.connect() as conn:
        timer = threading.Timer(0.2, conn.cancel_safe)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(15)")
        timer.join()


def test_notifications(proxy):
    with proxy.connect() as listener, proxy.connect() as sender:
        listener.execute("LISTEN news")
        for word in ("one", "two"):
            sender.execute("SELECT pg_notify('news', %s)", [word])
        heard = list(listener.notifies(timeout=10, stop_after=2))
        assert [(n.channel, n.payload, n.pid) for n in heard] == [
            ("news", "one", sender.info.backend_pid),
            ("news", "two", sender.info.backend_pid),
        ]


def test_notices(each_mode):
    with each_mode.connect() as conn:
        heard = []
        conn.add_notice_handler(lambda diag: heard.append((diag.severity, diag.message_primary)))
        conn.execute("DO $$ BEGIN RAISE NOTICE 'hear me'; END $$")
        assert heard == [("NOTICE", "hear me")]


def test_connection_info(proxy):
    with proxy.connect() as conn:
        assert conn.info.parameter_status("client_encoding") == "UTF8"
        assert conn.info.server_version >= 150_000
        assert conn.info.backend_pid == conn.execute("SELECT pg_backend_pid()").fetchone()[0]


def test_types_of_the_tenants_schema(each_mode):
    """The driver looks its types up in the catalogs by their unqualified names."""
    with each_mode.connect() as conn:
        info = EnumInfo.fetch(conn, "mood")
        assert info is not None
        assert list(info.labels) == ["good", "bad"]
        assert TypeInfo.fetch(conn, "nothing_such") is None


async def test_many_at_once(each_mode):
    async def one(number: int) -> int:
        async with await psycopg.AsyncConnection.connect(each_mode.dsn(), autocommit=True) as conn:
            cursor = await conn.execute("SELECT %s::int FROM pg_sleep(0.01)", [number])
            row = await cursor.fetchone()
            assert row is not None
            return row[0]

    assert await asyncio.gather(*(one(number) for number in range(15))) == list(range(15))


def test_protocol_3_2(proxy):
    """libpq 18 may ask for it, and its cancel key is long."""
    if psycopg.pq.version() < 180_000:
        pytest.skip(f"libpq {psycopg.pq.version()} cannot ask for protocol 3.2")
    with psycopg.connect(
        proxy.dsn(min_protocol_version="3.2", max_protocol_version="3.2"), autocommit=True
    ) as conn:
        assert conn.execute("SELECT item FROM orders WHERE id = 1").fetchone() == ("anvil",)
        timer = threading.Timer(0.2, conn.cancel_safe)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            conn.execute("SELECT pg_sleep(15)")
        timer.join()
