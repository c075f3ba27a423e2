"""What the guard lets run on shared backends leaves their sessions as they were, function by function.

All functions of PostgreSQL's and of the extensions that shared backends may call are called with what may
matter to one of them: names of settings and roles, nulls, numbers of objects.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tenant_proxy.guard.functions import FUNCTIONS
from tenant_proxy.model import Action, Effect
from tenant_proxy.relay.code import EXTENSIONS
from tests.fix_shared import SERVICE, provide
from tests.pg_server import Server
from tests.shims.conftest import install_views
from tests.unit.guard.scope import HIDING, SPACE, applied, judge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DATABASE = "session_left"

#: type -> arguments; of others NULL
ARGUMENTS = {
    "text": ("'role'", "NULL", "'work_mem'", "'a'"),
    "name": ("'acme_app'", "NULL", "'role'"),
    "boolean": ("true", "false", "NULL"),
    "integer": ("0", "1", "-1", "NULL"),
    "bigint": ("1", "0", "NULL"),
    "oid": ("1", "'acme.orders'::regclass::oid", "'acme.numbers'::regclass::oid", "NULL"),
    "regclass": ("'acme.numbers'", "'acme.orders'", "NULL"),
    "double precision": ("0.5", "NULL"),
    "real": ("0.9",),
    "cstring": ("'a'",),
    "anyelement": ("1",),
    "anyarray": ("ARRAY[1]",),
    "text[]": ("'{a}'",),
    "bytea": (r"'\x00'", "NULL"),
    "jsonb": ("'{}'",),
    "regconfig": ("'simple'",),
    "timestamp with time zone": ("now()",),
    "interval": ("'0'",),
    "record": ("ROW(1)",),
    '"any"': ("1", "'a'"),
}
#: calls of one function, and of one that the guard knows something of
CALLS, MORE_CALLS = 3, 50
#: calls between two looks at the session
BATCH = 50

NOT_SHARED = Effect.ESCALATES | Effect.PINS | Effect.UNPROVEN | Effect.DDL | Effect.DISCARDS_ALL

FOUND = """
SELECT n.nspname::text, p.proname::text, ARRAY(SELECT t::regtype::text FROM unnest(p.proargtypes) t)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname IN ('pg_catalog', 'information_schema', 'public') AND p.prokind IN ('f', 'w', 'a')
   AND p.pronargs <= 6 AND p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype)
   AND 'internal'::regtype <> ALL (p.proargtypes) ORDER BY 1, 2, 3
"""

STATE = """
SELECT current_user, session_user, current_setting('role'), current_schemas(true),
       (SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_catalog.pg_settings
         WHERE source = 'session' AND name !~ '^transaction_'),
       (SELECT count(*) FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
       (SELECT count(*) FROM pg_catalog.pg_prepared_statements),
       (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable),
       pg_my_temp_schema(), (SELECT count(*) FROM pg_listening_channels())
"""


@pytest.fixture(scope="module")
def server(any_pg: Server) -> Server:
    provide(any_pg)
    any_pg.psql(f"CREATE DATABASE {DATABASE}")
    with any_pg.connect(database=DATABASE) as conn:
        conn.execute(
            "CREATE SCHEMA acme AUTHORIZATION acme_app; SET ROLE acme_app; SET search_path = acme;"
            "CREATE TABLE orders (id int PRIMARY KEY, item text); CREATE SEQUENCE numbers;"
            "RESET ROLE; RESET search_path"
        )
        there = {name for (name,) in conn.execute("SELECT name FROM pg_available_extensions")}
        for name in sorted(EXTENSIONS & there - {"plpgsql"}):
            conn.execute(f'CREATE EXTENSION "{name}" SCHEMA public CASCADE')
    install_views(any_pg, DATABASE)
    return any_pg


def backend(server: Server) -> psycopg.Connection:
    """A shared backend, acme's."""
    connection = psycopg.connect(
        server.dsn(user=str(SERVICE["user"]), password="service-secret", database=DATABASE),
        autocommit=True,
        prepare_threshold=None,
    )
    for name, value in {
        "role": "acme_app",
        "search_path": "acme, public",
        "statement_timeout": "2s",
        "tenant_proxy.schema": "acme",
        "tenant_proxy.space": SPACE,
        "tenant_proxy.public": "off",
        "tenant_proxy.readable": "{public}",
    }.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    return connection


def state(connection: psycopg.Connection) -> Any:
    try:
        connection.execute("SELECT '978-0-11-000533-5'::isn_left")
    except psycopg.Error as error:
        wrong_digit = error.sqlstate
    else:
        wrong_digit = ""
    try:
        return wrong_digit, connection.execute(STATE).fetchone()
    except psycopg.Error as error:
        return str(error)


def run(connection: psycopg.Connection, sql: str) -> None:
    try:
        connection.execute(sql)
    except psycopg.Error:
        assert not connection.broken, sql


def calls(server: Server) -> Iterator[tuple[str, bool]]:
    """Those that may run on shared backends, as they go there, and whether they may set something."""
    chance = random.Random(7)
    with server.connect(database=DATABASE) as conn:
        found = conn.execute(FOUND).fetchall()
    for schema, name, types in found:
        ways = list(itertools.product(*(ARGUMENTS.get(kind, ("NULL",)) for kind in types)))
        chance.shuffle(ways)
        prefix = "" if schema == "pg_catalog" else f"{schema}."
        for arguments in ways[: CALLS if FUNCTIONS.get(name) is None else MORE_CALLS]:
            sql = f'SELECT {prefix}"{name}"({", ".join(arguments)})'
            verdict = judge(sql, HIDING)
            if verdict.action is Action.ALLOW and not verdict.effects & NOT_SHARED:
                # what it says that it sets the relay asks for; a transaction takes back what is set in it
                sets = bool(verdict.effects & (Effect.SETTINGS | Effect.KEEPS))
                yield applied(sql, verdict), sets


def test_functions_leave_nothing(server):
    with server.connect(database=DATABASE) as conn:
        kind = conn.execute("SELECT to_regtype('ean13') IS NOT NULL").fetchone()
        conn.execute(f"CREATE DOMAIN public.isn_left AS {'ean13' if kind == (True,) else 'text'}")
    connection = backend(server)
    before = state(connection)
    guilty: list[str] = []
    found = list(calls(server))
    every = [sql for sql, sets in found if not sets]
    assert len(every) > 3000
    for at in range(0, len(every), BATCH):
        batch = every[at : at + BATCH]
        for sql in batch:
            run(connection, sql)
        if state(connection) == before:
            continue
        connection.close()
        for sql in batch:
            with backend(server) as alone:
                run(alone, sql)
                if state(alone) != before:
                    guilty.append(sql)
        connection = backend(server)
    for sql, sets in found:
        if sets:
            with connection.transaction(force_rollback=True), contextlib.suppress(psycopg.Error):
                connection.execute(sql)
                if connection.execute("SELECT current_user, session_user").fetchone() != (
                    "acme_app",
                    SERVICE["user"],
                ):
                    guilty.append(sql)
    connection.close()
    assert guilty == []
