"""psql, pgbench and pg_dump through the proxy: what they print is what they print directly."""

from __future__ import annotations

import pytest

from tests.fix_proxy import PASSWORDS, Proxy
from tests.pg_server import Server

DIRECT_OPTIONS = "-c search_path=acme,public"


def run_psql(pg: Server, dsn: str, script: str, *flags: str) -> str:
    """What psql prints for a script, output and errors as a terminal shows them."""
    done = pg.run_tool("psql", ["-X", "-q", *flags, dsn], stdin="\\set VERBOSITY default\n" + script)
    return done.stdout + "---\n" + done.stderr.replace("psql:<stdin>:", "line ")


@pytest.fixture
def same_output(pg: Server, each_mode: Proxy):
    """Runs a psql script directly and through the proxy; the outputs must be equal. Gives the output."""

    def run(script: str, *flags: str) -> str:
        direct = f"host={pg.host} port={pg.port} dbname=app user=acme_app password={PASSWORDS['acme_app']}"
        through = run_psql(pg, each_mode.dsn(), script, *flags)
        assert through == run_psql(pg, f"{direct} options='{DIRECT_OPTIONS}'", script, *flags)
        return through

    return run


def test_a_query(same_output):
    assert "anvil" in same_output("SELECT * FROM orders ORDER BY id;")


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        (r"\d", "orders"),
        (r"\dt", "orders"),
        (r"\d orders", "orders_pkey"),
        (r"\d+ orders", "Access method"),
        (r"\d big_orders", "quantity"),
        (r"\dv", "big_orders"),
        (r"\ds", "numbers"),
        (r"\di", "orders_pkey"),
        (r"\df", "shout"),
        (r"\df+ shout", "immutable"),
        (r"\sf shout", "CREATE OR REPLACE FUNCTION"),
        (r"\sv big_orders", "CREATE OR REPLACE VIEW"),
        (r"\dT", "mood"),
        (r"\dT+ mood", "good"),
        (r"\dp orders", "orders"),
        (r"\dn", "acme"),
        (r"\du acme_app", "acme_app"),
        (r"\l app", "app"),
        (r"\dx", "plpgsql"),
        (r"\encoding", "UTF8"),
    ],
)
def test_backslash_commands(same_output, command, shows):
    assert shows in same_output(command + "\n")


def test_errors_show_where(same_output):
    shown = same_output("SELECT item,\n  nothing_such\nFROM orders;\n\\errverbose\n")
    assert "LINE 2:   nothing_such" in shown
    assert "42703" in shown


def test_copy_from_and_to_the_client(same_output):
    shown = same_output(
        "CREATE TEMP TABLE copied (id int, item text);\n"
        "\\copy copied FROM STDIN\n1\tone\n2\ttwo\n\\.\n"
        "SELECT * FROM copied;\n"
        "\\copy (SELECT item FROM orders ORDER BY id) TO STDOUT WITH CSV\n"
    )
    assert "two" in shown
    assert "rocket" in shown


def test_extended_protocol_commands(same_output):
    shown = same_output(
        "SELECT $1::int + $2::int AS sum \\bind 40 2 \\g\n"
        "SELECT 1 AS one, 'x' AS two \\gdesc\n"
        "SELECT 5 AS v \\gset\n\\echo :v\n"
    )
    assert "42" in shown
    assert "integer" in shown


def test_transactions_and_variables(same_output):
    shown = same_output(
        "\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT nothing_such;\nSELECT 'went on';\nROLLBACK;\n"
        "\\echo :ROW_COUNT :SQLSTATE :ERROR\n"
    )
    assert "went on" in shown


def test_single_transaction_and_stop_on_error(same_output, superuser):
    shown = same_output("INSERT INTO scratch VALUES (1);\nSELECT 1/0;\n", "-1", "-v", "ON_ERROR_STOP=1")
    assert "division by zero" in shown
    assert superuser.execute("SELECT count(*) FROM acme.scratch").fetchone() == (0,)


def test_fetch_count_uses_a_cursor(same_output):
    assert "4999" in same_output(
        "\\set FETCH_COUNT 100\n\\pset pager off\nSELECT generate_series(1, 5000);\n"
    )


def test_each_tenant_sees_its_own_rows(pg, proxy):
    script = "SELECT item FROM orders ORDER BY id;"
    assert "anvil" in run_psql(pg, proxy.dsn("acme_app"), script)
    shown = run_psql(pg, proxy.dsn("beta_app"), script)
    assert "bolt" in shown
    assert "anvil" not in shown


def test_conninfo(pg, proxy):
    shown = run_psql(pg, proxy.dsn(), "\\conninfo\n")
    assert str(proxy.port) in shown
    assert "acme_app" in shown


def test_reconnect(pg, proxy):
    shown = run_psql(pg, proxy.dsn(), "\\connect\nSELECT 'again';\n\\connect - beta_app\n")
    assert "again" in shown


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(pg, each_mode, superuser, protocol):
    """pgbench makes its tables in the tenant's schema and runs TPC-B in them without an error."""
    try:
        made = pg.run_tool("pgbench", ["-i", "-q", "-s", "1", each_mode.dsn()])
        assert made.returncode == 0, made.stderr
        ran = pg.run_tool(
            "pgbench", ["-M", protocol, "-c", "4", "-j", "2", "-t", "50", "-n", each_mode.dsn()]
        )
        assert ran.returncode == 0, ran.stderr
        assert "number of transactions actually processed: 200/200" in ran.stdout
        count = superuser.execute("SELECT count(*) FROM acme.pgbench_history").fetchone()
        assert count == (200,)
    finally:
        superuser.execute(
            "DROP TABLE IF EXISTS acme.pgbench_accounts, acme.pgbench_branches,"
            " acme.pgbench_history, acme.pgbench_tellers"
        )


def test_pgbench_connects_for_each_transaction(pg, proxy):
    script = "SELECT item FROM orders WHERE id = 1;"
    path = proxy.directory / "one.sql"
    path.write_text(script)
    ran = pg.run_tool("pgbench", ["-C", "-c", "4", "-t", "20", "-n", "-f", str(path), proxy.dsn()])
    assert ran.returncode == 0, ran.stderr
    assert "number of transactions actually processed: 80/80" in ran.stdout


def test_pg_dump_of_the_own_schema(pg, proxy):
    done = pg.run_tool("pg_dump", ["--schema=acme", "--no-owner", "--table=orders", "-d", proxy.dsn()])
    assert done.returncode == 0, done.stderr
    assert "COPY acme.orders" in done.stdout
    assert "anvil" in done.stdout
