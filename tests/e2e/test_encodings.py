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
from tests.fix_shared import provide, shared_config
from tests.pg_server import ORDERS, POPULATE_TENANT, Server
from tests.wire_client import WireClient, row, sqlstates, types

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


# --- databases of other encodings ---------------------------------------------------------


@pytest.fixture(scope="module")
def others(pg: Server) -> Iterator[Server]:
    """Databases `latin` and `bytes` (SQL_ASCII) beside the one in UTF-8."""
    provide(pg)
    for name, encoding in DATABASES.items():
        with pg.connect(database="postgres") as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
        with pg.connect(database=name) as conn:
            for tenant, orders in ORDERS.items():
                conn.execute(POPULATE_TENANT.format(name=tenant, orders=", ".join(map(str, orders))))
    yield pg
    for name in DATABASES:
        with pg.connect(database="postgres") as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


DATABASES = {"latin": "LATIN1", "bytes": "SQL_ASCII"}


def of(proxies: Callable[..., Proxy], server: Server, database: str, isolation: str) -> Proxy:
    config = shared_config(server)
    config["clusters"][0]["database"] = database
    return proxies(**config | {"isolation": isolation, "pool": {"mode": "transaction", "max": 1}})


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
@pytest.mark.parametrize(
    ("database", "encoding", "value"),
    [
        ("app", "LATIN1", b"caf\xe9"),
        ("app", "UTF8", "caf\u00e9".encode()),
        ("app", "EUC_JP", "\u6f22\u5b57".encode("euc_jp")),
        ("latin", "LATIN1", b"caf\xe9"),
        ("latin", "UTF8", "caf\u00e9".encode()),
        ("bytes", "UTF8", "caf\u00e9".encode()),
        ("bytes", "LATIN1", b"caf\xe9 ' \\"),
    ],
)
def test_settings_come_along_as_they_were_set(proxies, others, isolation, database, encoding, value):
    """Where others use the backend in between."""
    proxy = of(proxies, others, database, isolation)
    with proxy.wire(client_encoding=encoding) as one, proxy.wire() as other:
        quoted = value.replace(b"'", b"''")
        assert sqlstates(one.query(b"SET app.word = '" + quoted + b"'")) == []
        for _ in range(3):
            assert other.value("SELECT coalesce(current_setting('app.word', true), '')") == ""
            said = one.query("SELECT current_setting('app.word')")
            assert row(next(m for m in said if m.type == "D")) == (value,)


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
def test_a_name_that_is_no_utf_8(proxies, others, isolation):
    proxy = of(proxies, others, "app", isolation)
    with WireClient(proxy.host, proxy.port) as c:
        c.log_in(application_name="caf\udce9")
        assert c.value("SHOW application_name") == "caf?"


@pytest.mark.parametrize("isolation", ["dedicated", "shared"])
def test_a_channel_of_any_bytes_deafens_nobody(proxies, others, isolation):
    proxy = of(proxies, others, "bytes", isolation)
    with proxy.wire() as bystander, proxy.wire(client_encoding="LATIN1") as c:
        bystander.query("LISTEN here")
        assert types(c.query(b"LISTEN \xe9")) == "CZ"
        c.query(b"NOTIFY \xe9, 'caf\xe9'")
        c.query("NOTIFY here, 'still'")
        assert bystander.until("A")[-1].body[4:] == b"here\0still\0"


def test_words_of_a_channel_in_the_encoding_of_the_database(proxies, others):
    proxy = of(proxies, others, "latin", "dedicated")
    with proxy.wire(client_encoding="UTF8") as one, proxy.wire(client_encoding="LATIN1") as other:
        one.query("LISTEN caf\u00e9")
        other.query("LISTEN caf\u00e9".encode("latin-1"))
        said = one.query("NOTIFY caf\u00e9, 'cr\u00e8me'")
        assert next(m for m in said if m.type == "A").body[4:] == "caf\u00e9\0cr\u00e8me\0".encode()
        assert other.until("A")[-1].body[4:] == "caf\u00e9\0cr\u00e8me\0".encode("latin-1")
