"""Real drivers and psql talk to the console, over a server that speaks just enough protocol for it.

They must get through what they send on their own account, and read every table.
"""

import asyncio
import struct
import subprocess

import asyncpg
import psycopg
import psycopg2
import pytest

from tenant_proxy.admin.wire import result_messages
from tenant_proxy.devel.installs import find
from tenant_proxy.devel.postgres import client_environment
from tenant_proxy.errors import ProxyError

from .fix_admin import Console, connection, pool, tenant_row, worker_snapshot

READY = b"Z\0\0\0\x05I"


class ConsoleServer:
    """A login without a password, then simple queries for the console."""

    def __init__(self) -> None:
        self.console = Console(
            worker_snapshot(
                pools=[pool("acme", "acme_app", cl_active=3)],
                clients=[connection(1, "acme", "acme_app", application_name="Grüße")],
                tenants=[tenant_row("acme", queries=5)],
                stats=[{"tenant": "acme", "database": "acme", "total_query_count": 5}],
            ),
            worker_snapshot(),
        )

    async def serve(self, reader, writer):
        try:
            await self.talk(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def talk(self, reader, writer):
        while True:
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            packet = await reader.readexactly(size - 4)
            if packet[:4] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
                writer.write(b"N")  # no TLS, no GSS
                continue
            break
        writer.write(b"R\0\0\0\x08\0\0\0\0")
        for name, value in {"server_version": "17.0", "client_encoding": "UTF8", "DateStyle": "ISO"}.items():
            body = f"{name}\0{value}\0".encode()
            writer.write(b"S" + struct.pack("!I", len(body) + 4) + body)
        writer.write(b"K" + struct.pack("!III", 12, 1, 2) + READY)
        while True:
            kind = await reader.readexactly(1)
            (size,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            if kind == b"X":
                return
            assert kind == b"Q", f"message {kind!r} is none of the simple protocol"
            try:
                writer.write(result_messages(await self.console.run(body[:-1].decode())))
            except ProxyError as error:
                writer.write(error.to_message())
            writer.write(READY)


@pytest.fixture
async def port():
    server = await asyncio.start_server(ConsoleServer().serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


SHOWS = [
    "POOLS",
    "CLIENTS",
    "SERVERS",
    "STATS",
    "TENANTS",
    "DATABASES",
    "USERS",
    "LISTS",
    "CONFIG",
    "VERSION",
]


async def test_psycopg_reads_every_table(port):
    def talk():
        rows = {}
        with psycopg.connect(
            host="127.0.0.1", port=port, user="root", dbname="pgbouncer", cursor_factory=psycopg.ClientCursor
        ) as connection:  # not autocommit: sends BEGIN and COMMIT
            for name in SHOWS:
                cursor = connection.execute(f"SHOW {name}")
                assert cursor.description
                columns = [column.name for column in cursor.description]
                rows[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
        return rows

    rows = await asyncio.to_thread(talk)
    assert rows["POOLS"][0]["cl_active"] == 3
    assert rows["CLIENTS"][0]["application_name"] == "Grüße"
    assert rows["STATS"][0]["total_query_count"] == 5
    assert {row["list"]: row["items"] for row in rows["LISTS"]}["databases"] == 2


async def test_psycopg2_and_its_transactions(port):
    def talk():
        connection = psycopg2.connect(host="127.0.0.1", port=port, user="root", dbname="tenant_proxy")
        try:
            cursor = connection.cursor()
            cursor.execute("SHOW POOLS")
            first = cursor.fetchall()
            connection.rollback()
            with pytest.raises(psycopg2.Error, match="unknown command") as error:
                cursor.execute("SHOW nonsense")
            assert error.value.pgcode == "42601"
            connection.rollback()
            cursor.execute("SHOW VERSION")
            return first, cursor.fetchone()
        finally:
            connection.close()

    first, version = await asyncio.to_thread(talk)
    assert first[0][:4] == ("acme", "acme_app", 3, 0)
    assert version[0].startswith("tenant_proxy")


async def test_asyncpg_by_simple_queries(port):
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="root", database="tenant_proxy", ssl=False
    )
    assert await connection.execute("SHOW POOLS") == "SHOW"
    assert await connection.execute("SELECT 1") == "SELECT 1"
    assert await connection.execute("RELOAD") == "RELOAD"
    await connection.reset()  # what its pool does when a connection is given back
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await connection.execute("SELECT * FROM pg_class")
    await connection.close()


async def test_psql(port):
    def psql(*commands):
        arguments = [word for command in commands for word in ("-c", command)]
        address = ["-h", "127.0.0.1", "-p", str(port), "-U", "root", "tenant_proxy"]
        return subprocess.run(
            [find().bin_dir / "psql", "-X", *address, *arguments],
            env=client_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    done = await asyncio.to_thread(psql, "SHOW POOLS;", "show version", "", "SHOW nonsense;")
    assert "acme_app" in done.stdout
    assert "(1 row)" in done.stdout
    assert 'ERROR:  unknown command "SHOW nonsense"' in done.stderr
    assert "HINT:  SHOW HELP lists the commands." in done.stderr
