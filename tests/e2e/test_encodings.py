"""Databases that are not UTF-8, whose server folds names by its locale."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from tenant_proxy.shims import install
from tests.fix_proxy import Proxy
from tests.pg_server import ORDERS, POPULATE_TENANT, Server
from tests.wire_client import sqlstates

LOCALE = "tr_TR.ISO-8859-9"

#: what the guard refuses or turns, with a capital that the server makes an i of
FOLDED = [
    "SELECT set_conf\u0130g('search_path', 'beta', false)",
    "SELECT rolname FROM pg_auth\u0130d",
    "SELECT conname FROM pg_catalog.pg_constra\u0130nt",
    "SET sess\u0130on_replication_role TO replica",
    "DO $$ BEGIN PERFORM set_conf\u0130g('search_path', 'beta', false); END $$",
    "PREPARE p AS SELECT set_conf\u0130g('search_path', 'beta', false)",
    "SELECT query_to_xml('SELECT set_conf\u0130g(''search_path'', ''beta'', false)', true, true, '')",
]
#: … made when it runs
DYNAMIC = [
    "SELECT set_conf\u0130g(''search_path'', ''beta'', false)",
    "DO ''BEGIN PERFORM set_conf\u0130g(''''search_path'''', ''''beta'''', false); END''",
]
HONEST = {
    "SELECT '\u0130stanbul'": "\u0130stanbul",
    'SELECT 1 AS "\u0130l"': "1",
    "SELECT lower('\u0130L' COLLATE \"default\")": "il",
    "SELECT 1 AS \u00e7\u0131k": "1",
}


@pytest.fixture
def turkish(new_pg: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a database `turkish`, in LATIN5."""
    localedef = shutil.which("localedef")
    if localedef is None:
        pytest.skip("this machine has no localedef")
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / LOCALE
        subprocess.run([localedef, "-c", "-i", "tr_TR", "-f", "ISO-8859-9", made], check=False)
        if not made.exists():
            pytest.skip("no Turkish locale can be made here")
        Path(directory).chmod(0o755)
        monkeypatch.setenv("LOCPATH", f"{directory}:/usr/lib/locale")
        server = new_pg()
        with server.connect(database="postgres") as conn:
            conn.execute(f"CREATE DATABASE turkish TEMPLATE template0 ENCODING LATIN5 LOCALE '{LOCALE}'")
        with server.connect(database="turkish") as conn:
            for name, orders in ORDERS.items():
                conn.execute(POPULATE_TENANT.format(name=name, orders=", ".join(map(str, orders))))
            # the guard alone holds
            conn.execute("GRANT USAGE ON SCHEMA beta TO acme_app; GRANT SELECT ON beta.orders TO acme_app")
        yield server


@pytest.mark.parametrize("hides", [False, True])
def test_letters_that_the_server_folds_to_ascii(turkish: Server, own_proxy: Callable[..., Proxy], hides):
    async def installed() -> None:
        conn = await asyncpg.connect(turkish.dsn(database="turkish"))
        await install.install(conn)
        await conn.close()

    if hides:
        asyncio.run(installed())
    cluster = {"name": "main", "host": turkish.host, "port": turkish.port, "database": "turkish"}
    proxy = own_proxy(turkish, clusters=[cluster], secret={"value": "s"})
    for encoding, codec in (("UTF8", "utf-8"), ("LATIN5", "iso8859-9")):
        with proxy.wire(client_encoding=encoding) as client:
            for sql in FOLDED:
                assert sqlstates(client.query(sql.encode(codec))) == ["0A000"], sql
            for sql in DYNAMIC if hides else ():
                code = f"DO $$ DECLARE q text := '{sql}'; BEGIN EXECUTE q; END $$"
                assert sqlstates(client.query(code.encode(codec))), sql
                code = f"DO $$ DECLARE q text := reverse('{sql[::-1]}'); BEGIN EXECUTE q; END $$"
                assert sqlstates(client.query(code.encode(codec))), sql
            for sql, value in HONEST.items():
                (row,) = [m for m in client.query(sql.encode(codec)) if m.type == "D"]
                assert row.body[6:].decode(codec) == value
            assert client.value("SELECT item FROM orders WHERE id = 1") == "anvil"
            assert str(client.value("SHOW search_path")).startswith("acme")
