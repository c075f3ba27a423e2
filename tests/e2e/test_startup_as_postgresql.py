"""`options` and search_path are read as a real PostgreSQL reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tenant_proxy.devel.postgres import Server
from tenant_proxy.errors import ProxyError
from tenant_proxy.settings_policy import CLIENT_ENCODINGS, client_encoding_codec, split_identifiers
from tenant_proxy.tenancy.startup import parse_options

SCHEMAS = ("a", "A", "b", "a b", 'q"q', "é", "a,b")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(locale="C.UTF-8") as running:
        for name in SCHEMAS:
            quoted = name.replace('"', '""')
            running.psql(f'CREATE SCHEMA "{quoted}"')
        yield running


async def connect(server: Server, **startup: str) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(
        server.dsn(), ssl=False, server_settings=startup, statement_cache_size=0, timeout=10
    )


NAMES = [
    "geqo",
    "search_path",
    "datestyle",
    "work_mem",
    "enable_seqscan",
    "enable_hashjoin",
    "application_name",
    "my.x",
]


async def settings_after(server: Server, **startup: str) -> list[str | None] | str:
    """The values of NAMES in a connection opened so, or the SQLSTATE that refused it."""
    try:
        connection = await connect(server, **startup)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    try:
        return [await connection.fetchval("SELECT current_setting($1, true)", name) for name in NAMES]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "options",
    [
        "-c geqo=off",
        "-cgeqo=off --geqo=on",
        "--enable-seqscan=off -c enable-hashjoin=off",
        r"-c search_path=a,\ b -c application_name=x\\y\ z",
        "-c\tgeqo=off\n-c application_name='x'",
        "-c application_name=",
        "-c my.x=a=b",
        "-eS 2048",
        "-fsfh",
        "-fs -fh -e",
        "-c geqo=off --",
        "-c geqo",
        "--geqo",
        "geqo=off",
        "-c",
        "-",
        "--",
        "-- -c geqo=off",
        "-fx",
        "-f xs",
        "-Z",
        "-c geqo=off\\",
        "\\",
        "-c GEQO=off -c Application_Name=b",
    ],
)
async def test_options(server, options):
    """Given raw or as the settings that were read out of it: the outcome is the same."""
    theirs = await settings_after(server, options=options)
    try:
        ours = parse_options(options)
    except ProxyError as error:
        assert error.sqlstate == theirs  # noqa: PT017
    else:
        assert await settings_after(server, **ours) == theirs


_LISTS = st.lists(
    st.sampled_from(
        ["a", "A", "b", '"', '""', ",", " ", "\t", '"a b"', '"q""q"', "é", '"a,b"', "$", "\\", ".", "1"]
    ),
    max_size=8,
).map("".join)


@given(_LISTS)
@example('"$user", public')
@example('a"b')
@example(" a , b ")
@example("")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_search_path(shared_connection, value):
    loop, connection = shared_connection

    async def theirs() -> list[str] | None:
        try:
            await connection.execute("SELECT pg_catalog.set_config('search_path', $1, false)", value)
        except asyncpg.InvalidParameterValueError:
            return None
        found = await connection.fetchval("SELECT pg_catalog.current_schemas(false)::text[]")
        return list(found)

    answer, ours = loop.run_until_complete(theirs()), split_identifiers(value)
    assert (answer is None) == (ours is None)
    if ours is not None:
        # the server leaves out what doesn't exist and what is repeated
        assert answer == [name for name in dict.fromkeys(ours) if name in (*SCHEMAS, "public")]


@pytest.fixture
def shared_connection(server):
    with asyncio.Runner() as runner:
        connection = runner.run(connect(server))
        yield runner.get_loop(), connection
        runner.run(connection.close())


@pytest.mark.parametrize("name", sorted(CLIENT_ENCODINGS))
async def test_encodings_that_are_let_through_are_known_to_the_server(server, name):
    connection = await connect(server)
    try:
        await connection.execute(f"SET client_encoding TO '{name}'")
        reported = await connection.fetchval("SHOW client_encoding")
    finally:
        connection.terminate()
    assert client_encoding_codec(reported) == CLIENT_ENCODINGS[name]
