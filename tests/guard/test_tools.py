"""What psql, pg_dump, Django and SQLAlchemy really send is let through.

They run against a server of each major directly, as the tenant's role; the server logs what it got, and the
guard judges that.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql

from tenant_proxy.devel.installs import Install, installs
from tenant_proxy.devel.postgres import Server, client_environment
from tenant_proxy.guard.functions import CATALOG_RELATIONS, FUNCTIONS, INFORMATION_SCHEMA, OIDS
from tenant_proxy.model import Action
from tests.shims.conftest import install_views
from tests.unit.guard.scope import HIDING, SPACE, applied, judge, scope

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_LOGGED = re.compile(r"(?ms)^@acme_app@ LOG:  (?:statement|execute [^:\n]*): (.*?)(?=^@|\Z)")


def _majors() -> list[Any]:
    """One installation a major."""
    found: dict[int, Install] = {}
    for install in installs():
        found.setdefault(install.major, install)
    return [pytest.param(install, id=str(major)) for major, install in sorted(found.items())]


@pytest.fixture(scope="module", params=_majors())
def server(request) -> Iterator[Server]:
    with Server(
        request.param,
        settings={"log_statement": "all", "log_line_prefix": "@%u@ ", "log_parameter_max_length": "0"},
    ) as running:
        running.psql((HERE / "tools_setup.sql").read_text())
        yield running


def sent_to(server: Server, since: int) -> set[str]:
    """What the tenant's role sent since the log had `since` bytes."""
    log = server.log_path.read_bytes()[since:].decode()
    sent = {match[1].replace("\n\t", "\n").rstrip("\n") for match in _LOGGED.finditer(log)}
    assert sent
    return sent


def refused(server: Server, since: int) -> list[str]:
    """Judges what the tenant's role sent; what was refused, with why."""
    sent = sent_to(server, since)
    return [
        f"{verdict.message} ({verdict.detail}) at {verdict.position}: {sql}"
        for sql in sorted(sent)
        if (verdict := judge(sql)).action is not Action.ALLOW
    ]


def size_of_log(server: Server) -> int:
    return server.log_path.stat().st_size


def as_tenant(server: Server) -> str:
    return server.dsn(user="acme_app", password="secret")


def test_psql_s_commands(server):
    since = size_of_log(server)
    commands = (HERE / "tools_psql.txt").read_text()
    done = server.run_tool("psql", ["-X", as_tenant(server)], stdin=commands)
    assert done.returncode == 0, done.stderr
    assert refused(server, since) == []


@pytest.mark.parametrize(
    "options", [[], ["--inserts", "--clean", "--if-exists"], ["--schema-only", "--no-owner"]]
)
def test_pg_dump_of_the_tenant_s_schema(server, options):
    since = size_of_log(server)
    done = server.run_tool("pg_dump", ["--schema=acme", *options, as_tenant(server)])
    assert done.returncode == 0, done.stderr
    assert refused(server, since) == []


def test_a_dump_can_be_restored(server):
    """But for the schema itself, which the platform makes."""
    dump = server.run_tool("pg_dump", ["--schema=acme", "--inserts", as_tenant(server)]).stdout
    copy = server.run_tool("pg_dump", ["--schema=acme", as_tenant(server)]).stdout
    # psql's own commands and the data of COPY are not SQL
    copy = re.sub(r"(?ms)^(COPY .*?;)\n.*?^\\\.$", r"\1", copy)
    for script in (dump, copy):
        script = re.sub(r"(?m)^\\.*$", "", script)
        statements = [part for part in script.split(";\n") if part.strip()]
        wrong = [sql for sql in statements if judge(sql).action is not Action.ALLOW]
        assert [re.sub(r"(?m)^--.*\n|^\n", "", sql) for sql in wrong if "SCHEMA acme" not in sql] == []


def test_django(server):
    since = size_of_log(server)
    done = subprocess.run(
        [sys.executable, HERE / "tools_django.py", server.host, str(server.port), "acme_app", "secret"],
        capture_output=True,
        text=True,
        env=client_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert refused(server, since) == []


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy(server, driver):
    since = size_of_log(server)
    engine = create_engine(as_tenant(server).replace("postgresql://", f"postgresql+{driver}://"))
    _reflect(engine)
    _query(engine)
    engine.dispose()
    assert refused(server, since) == []


async def test_asyncpg(server):
    since = size_of_log(server)
    connection = await asyncpg.connect(as_tenant(server))
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT m, created, 1::posint, ROW(1, 'x')::comp FROM customers")
            async for _ in connection.cursor("SELECT * FROM orders"):
                pass
        await connection.executemany("INSERT INTO customers (name, m) VALUES ($1, $2)", [("a", "sad")])
        await connection.copy_records_to_table("customers", records=[(77, "b")], columns=["id", "name"])
        await connection.set_type_codec("mood", schema="acme", encoder=str, decoder=str)
        await connection.reset()
    finally:
        await connection.close()
    assert refused(server, since) == []


def _reflect(engine: sqlalchemy.Engine) -> None:
    metadata = MetaData()
    metadata.reflect(engine)
    metadata.reflect(engine, views=True, schema="acme")
    inspector: Any = inspect(engine)
    inspector.get_schema_names()
    inspector.get_sequence_names()
    inspector.get_enums()
    inspector.get_domains()
    inspector.get_view_definition("v")
    inspector.get_materialized_view_names()
    inspector.get_temp_table_names()
    inspector.has_table("x")
    for table in inspector.get_table_names():
        inspector.get_columns(table)
        inspector.get_indexes(table)
        inspector.get_foreign_keys(table)
        inspector.get_check_constraints(table)
        inspector.get_unique_constraints(table)
        inspector.get_pk_constraint(table)
        inspector.get_table_comment(table)


def _query(engine: sqlalchemy.Engine) -> None:
    metadata = MetaData()
    table = Table(
        "things",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("j", postgresql.JSONB),
        Column("a", postgresql.ARRAY(Text)),
        Column("e", postgresql.ENUM("x", "y", name="kind")),
        Column("ts", DateTime(timezone=True), server_default=func.now()),
        Index("things_ix", "id", postgresql_where=text("id > 3")),
        comment="things",
    )
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            table.insert(), [{"j": {"a": 1}, "a": ["x"], "e": "x"}, {"j": None, "a": [], "e": "y"}]
        )
        upsert = postgresql.insert(table).values(id=1, j={})
        connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"j": {"b": 2}}))
        connection.execute(select(table).where(table.c.j["a"].astext == "1").with_for_update()).all()
        connection.execute(update(table).values(e="y").where(table.c.id == 1).returning(table.c.id))
        connection.begin_nested().rollback()
        connection.execute(delete(table))
    metadata.drop_all(engine)


# --- what they send is turned -------------------------------------------------------------------------------


def test_what_is_turned_runs_on_the_views(server):
    """Whatever psql, pg_dump and SQLAlchemy ask the catalogs for, the views answer as the catalogs do."""
    since = size_of_log(server)
    server.run_tool("psql", ["-X", as_tenant(server)], stdin=(HERE / "tools_psql.txt").read_text())
    server.run_tool("pg_dump", ["--schema=acme", as_tenant(server)])
    engine = create_engine(as_tenant(server).replace("postgresql://", "postgresql+psycopg://"))
    _reflect(engine)
    engine.dispose()
    sent = sent_to(server, since)
    install_views(server, "postgres")
    turned, wrong = 0, []
    with psycopg.connect(as_tenant(server), autocommit=True, prepare_threshold=None) as connection:
        for setting, value in {
            "tenant_proxy.schema": "acme",
            "tenant_proxy.space": SPACE,
            "tenant_proxy.public": "off",
            "tenant_proxy.readable": "{public}",
        }.items():
            connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
        for sql in sorted(sent):
            verdict = judge(sql, HIDING)
            if verdict.action is not Action.ALLOW:
                wrong.append(f"{verdict.message}: {sql}")
            elif verdict.edits and _fails(connection, applied(sql, verdict)) and not _fails(connection, sql):
                wrong.append(applied(sql, verdict))
            turned += bool(verdict.edits)
    assert wrong == []
    assert turned > 250


def _fails(connection: psycopg.Connection, sql: str) -> bool:
    """Runs a statement, with NULL for parameters that nobody binds, and leaves no trace."""
    if not sql.startswith("PREPARE"):
        sql = re.sub(r"\$\d+\b", "NULL", sql)
    connection.execute("BEGIN")
    try:
        connection.execute(sql)
    except psycopg.Error:
        return True
    finally:
        connection.execute("ROLLBACK")
        connection.execute("DEALLOCATE ALL")
    return False


# --- what the rules rest on ---------------------------------------------------------------------------------


def test_every_function_of_the_server_is_known_or_refused(server):
    """A function of a newer server is unknown, and so not let through, until it is classified."""
    rows = server.psql(
        "SELECT DISTINCT nspname || '|' || proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace"
        " WHERE nspname IN ('pg_catalog', 'information_schema')"
    ).splitlines()
    assert len(rows) > 2000
    for row in rows:
        schema, name = row.split("|")
        known = name in FUNCTIONS if schema == "pg_catalog" else name in INFORMATION_SCHEMA
        if not known:
            assert judge(f'SELECT {schema}."{name}"()').reason == "function", row


def test_what_ordinary_roles_may_not_execute_is_refused(server):
    rows = server.psql(
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND NOT has_function_privilege('acme_app', oid, 'EXECUTE')"
    ).splitlines()
    assert len(rows) > 20
    let_through = [name for name in rows if (fact := FUNCTIONS.get(name)) is None or not fact.refused]
    assert let_through == []


def test_oids_of_functions_are_those_of_the_server(server):
    """FunctionCall messages name functions by OID."""
    rows = server.psql(
        "SELECT oid || '|' || proname FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < 10000"
    ).splitlines()
    for row in rows:
        oid, name = row.split("|")
        assert name in OIDS.get(int(oid), (name,))


def test_relations_of_the_catalog_are_known(server):
    rows = server.psql(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')"
    ).splitlines()
    # one that is not known could be written to without its schema, as far as the server's grants let
    assert {name for name in rows if not name.startswith("pg_stat")} - CATALOG_RELATIONS == set()


@pytest.mark.parametrize("back", ["RESET ROLE", "RESET ALL"])
def test_a_role_from_the_startup_packet_is_what_resets_return_to(server, back):
    """So the guard lets these pass, but not SET ROLE NONE."""
    server.psql(
        "DO $$ BEGIN CREATE ROLE tenant_role; GRANT tenant_role TO acme_app;"
        " EXCEPTION WHEN duplicate_object THEN END $$"
    )
    dsn = as_tenant(server) + "?options=-crole%3Dtenant_role"
    shown = server.run_tool("psql", ["-XAtq", dsn], stdin=f"{back};\nSELECT current_user;").stdout
    assert shown.strip() == "tenant_role"
    shown = server.run_tool("psql", ["-XAtq", dsn], stdin="SET ROLE NONE;\nSELECT current_user;").stdout
    assert shown.strip() == "acme_app"
    inside = scope(login="acme_app", role="tenant_role")
    assert judge(back, inside).action is Action.ALLOW
    assert judge("SET ROLE NONE", inside).action is Action.REJECT
    # servers differ in whether these leave the role
    for sql in ("DISCARD ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET SESSION AUTHORIZATION"):
        assert judge(sql, inside).action is Action.REJECT
        assert judge(sql).action is Action.ALLOW


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ('abc'::text).upper",
        "SELECT t.upper FROM unnest(ARRAY['abc']) t",
        "SELECT 'ABC' -- continued\n''",
    ],
)
def test_attributes_are_calls_on_every_type(server, sql):
    """Why `x.f` is looked up like `f(x)`, and why two strings in a row have no shape."""
    assert server.psql(sql) == "ABC"
