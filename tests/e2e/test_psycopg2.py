"""psycopg2: the driver of much that runs today; it speaks only the simple protocol."""

from __future__ import annotations

import io
import select
import threading
from contextlib import closing

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest


@pytest.fixture
def conn(each_mode):
    with closing(psycopg2.connect(each_mode.dsn())) as conn:
        yield conn
        conn.rollback()


def test_query_and_transaction(conn):
    with conn.cursor() as cursor:
        cursor.execute("SELECT item FROM orders WHERE id = %s", [2])
        assert cursor.fetchone() == ("rocket",)
        cursor.execute("INSERT INTO scratch VALUES (1, %s)", ["it's"])
    conn.rollback()
    with conn.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM scratch")
        assert cursor.fetchone() == (0,)


def test_session_settings(conn):
    """psycopg2 opens a session by settings of its own, and asks for them."""
    conn.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
    with conn.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("serializable",)
    conn.rollback()
    conn.set_client_encoding("LATIN1")
    with conn.cursor() as cursor:
        cursor.execute("SELECT 'é'")
        assert cursor.fetchone() == ("é",)
    assert conn.encoding == "LATIN1"


def test_copy(conn):
    with conn.cursor() as cursor:
        cursor.copy_expert("COPY scratch FROM STDIN WITH CSV", io.StringIO("1,one\n2,two\n"))
        out = io.StringIO()
        cursor.copy_expert("COPY scratch TO STDOUT", out)
        assert out.getvalue() == "1\tone\n2\ttwo\n"


def test_named_cursor(conn):
    with conn.cursor("reader") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT generate_series(1, 50)")
        assert sum(row[0] for row in cursor) == 1275


def test_execute_values(conn):
    with conn.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor, "INSERT INTO scratch VALUES %s", [(n, str(n)) for n in range(300)], page_size=100
        )
        cursor.execute("SELECT count(*) FROM scratch")
        assert cursor.fetchone() == (300,)


def test_cancel(conn):
    timer = threading.Timer(0.2, conn.cancel)
    timer.start()
    with conn.cursor() as cursor, pytest.raises(psycopg2.errors.QueryCanceled):
        cursor.execute("SELECT pg_sleep(15)")
    timer.join()


def test_notifications(proxy):
    with closing(psycopg2.connect(proxy.dsn())) as conn:
        conn.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        with conn.cursor() as cursor:
            cursor.execute("LISTEN news")
            with proxy.connect() as sender:
                sender.execute("NOTIFY news, 'hello'")
            select.select([conn], [], [], 10)
            conn.poll()
            assert [(n.channel, n.payload) for n in conn.notifies] == [("news", "hello")]


def test_errors_carry_their_fields(conn):
    with conn.cursor() as cursor, pytest.raises(psycopg2.errors.UniqueViolation) as raised:
        cursor.execute("INSERT INTO orders VALUES (1, 'again')")
    assert raised.value.diag.constraint_name == "orders_pkey"
    assert raised.value.diag.table_name == "orders"


def test_hstore_lookup_finds_nothing(conn):
    """psycopg2 asks the catalogs for a type that is not there, in a way of its own."""
    assert psycopg2.extras.HstoreAdapter.get_oids(conn) in (None, ((), ()), [(), ()])
