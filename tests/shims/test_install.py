"""`tenant-proxy catalog`: installs, brings up to date, takes away; refuses with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tenant_proxy.cli import main
from tenant_proxy.shims import VERSION, generate
from tests.pg_server import Server

DATABASE = "installs"


@pytest.fixture
def dsn(pg: Server) -> Iterator[str]:
    pg.psql(f"CREATE DATABASE {DATABASE}")
    yield pg.dsn(database=DATABASE)
    pg.psql(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def run(capsys: pytest.CaptureFixture[str], command: str, *options: str) -> tuple[int, str, str]:
    status = main(["catalog", command, *options])
    out, err = capsys.readouterr()
    return status, out, err


def test_its_life(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "status", "--dsn", dsn) == (1, "the database: nothing is installed\n", "")
    assert run(capsys, "install", "--dsn", dsn) == (0, "the database: installed\n", "")
    assert run(capsys, "install", "--dsn", dsn) == (0, "the database: already installed\n", "")
    status, out, _ = run(capsys, "status", "--dsn", dsn)
    assert status == 0
    assert f"tenant_proxy {VERSION} for PostgreSQL {pg.major}" in out
    assert pg.psql("SELECT tp_catalog.version()", database=DATABASE) == VERSION
    status, out, _ = run(capsys, "status", "--json", "--dsn", dsn)
    said = json.loads(out)
    assert said["ok"] is True
    assert said["installed"] == said["current"]
    assert run(capsys, "uninstall", "--dsn", dsn) == (0, "the database: uninstalled\n", "")
    assert run(capsys, "uninstall", "--dsn", dsn) == (0, "the database: nothing is installed\n", "")
    assert pg.psql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tp%'", database=DATABASE) == "0"


def test_a_schema_that_somebody_else_has_made(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    pg.psql("CREATE SCHEMA tp_catalog AUTHORIZATION acme_app", database=DATABASE)
    status, _, err = run(capsys, "install", "--dsn", dsn)
    assert status == 1
    assert 'owned by "acme_app"' in err


def test_a_dry_run_prints_what_psql_can_run(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    status, script, err = run(capsys, "install", "--dry-run", "--dsn", dsn)
    assert (status, err) == (0, "")
    assert run(capsys, "status", "--dsn", dsn)[0] == 1
    pg.psql(script, database=DATABASE)
    assert run(capsys, "status", "--dsn", dsn)[0] == 0
    status, script, err = run(capsys, "uninstall", "--dry-run", "--dsn", dsn)
    assert run(capsys, "status", "--dsn", dsn)[0] == 0
    pg.psql(script, database=DATABASE)
    assert run(capsys, "status", "--dsn", dsn) == (1, "the database: nothing is installed\n", "")


def test_an_older_version_is_brought_up_to_date(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    run(capsys, "install", "--dsn", dsn)
    pg.psql(
        """
        CREATE VIEW tp_catalog.pg_gone AS SELECT 1 AS a;
        CREATE FUNCTION tp_catalog.gone(int, text) RETURNS int LANGUAGE sql RETURN $1;
        DROP VIEW tp_catalog.pg_views CASCADE;
        """,
        database=DATABASE,
    )
    pg.psql("COMMENT ON SCHEMA tp_catalog IS 'tenant_proxy 0 for PostgreSQL 9, 0123'", database=DATABASE)
    # what a tenant made of views that stay as they are stays as well
    pg.psql("CREATE VIEW public.mine AS SELECT relname FROM tp_catalog.pg_class", database=DATABASE)
    status, out, _ = run(capsys, "status", "--dsn", dsn)
    assert status == 1
    assert "tenant_proxy 0 for PostgreSQL 9, 0123; this version installs" in out
    assert run(capsys, "install", "--dsn", dsn) == (0, "the database: installed\n", "")
    assert run(capsys, "status", "--dsn", dsn)[0] == 0
    assert pg.psql("SELECT to_regclass('tp_catalog.pg_gone') IS NULL", database=DATABASE) == "t"
    assert pg.psql("SELECT to_regproc('tp_catalog.gone') IS NULL", database=DATABASE) == "t"
    assert pg.psql("SELECT count(*) > 0 FROM tp_catalog.pg_views", database=DATABASE) == "t"
    assert pg.psql("SELECT count(*) > 0 FROM public.mine", database=DATABASE) == "t"


def test_other_columns_than_before(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    """As after an upgrade of the server: views are made anew, unless a tenant's depends on them."""
    run(capsys, "install", "--dsn", dsn)
    pg.psql(
        "DROP VIEW tp_catalog.pg_tables; CREATE VIEW tp_catalog.pg_tables AS SELECT 1 AS other;"
        " COMMENT ON SCHEMA tp_catalog IS 'older'; CREATE VIEW public.mine AS TABLE tp_catalog.pg_tables;",
        database=DATABASE,
    )
    for command in ("install", "uninstall"):
        status, out, err = run(capsys, command, "--dsn", dsn)
        assert (status, out) == (1, "")
        assert "1 objects depend on it, made by tenants of the catalogs: " in err
        assert "mine" in err
    pg.psql("DROP VIEW public.mine", database=DATABASE)
    assert run(capsys, "install", "--dsn", dsn)[0] == 0
    assert run(capsys, "status", "--dsn", dsn)[0] == 0


def test_who_may_install(pg: Server, dsn: str, capsys: pytest.CaptureFixture[str]):
    """Nobody needs to be a superuser; who may not create schemas hears what is missing."""
    own = pg.dsn(user="acme_app", password="acme-secret", database=DATABASE)
    status, out, err = run(capsys, "install", "--dsn", own)
    assert (status, out) == (1, "")
    assert "permission denied for database installs" in err
    assert "GRANT CREATE ON DATABASE" in err
    pg.psql(f"GRANT CREATE ON DATABASE {DATABASE} TO acme_app")
    assert run(capsys, "install", "--dsn", own)[0] == 0
    assert run(capsys, "status", "--dsn", own)[0] == 0
    other = pg.dsn(user="beta_app", password="beta-secret", database=DATABASE)
    assert run(capsys, "status", "--dsn", other)[0] == 0
    status, _, err = run(capsys, "uninstall", "--dsn", other)
    assert status == 1
    assert "must be owner of schema" in err


def test_failures_are_a_line_each(pg: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    status, _, err = run(capsys, "status", "--dsn", "postgresql://x:y@127.0.0.1:1/x")
    assert (status, err) == (1, "tenant-proxy: the database: no connection: Connection refused\n")
    status, _, err = run(capsys, "status", "--dsn", pg.dsn(database="nowhere"))
    assert (status, err) == (1, 'tenant-proxy: the database: database "nowhere" does not exist\n')
    assert main(["catalog", "status"]) == 2
    assert main(["catalog", "status", "--dsn", pg.dsn(), "--cluster", "main"]) == 2
    bad = tmp_path / "bad.yaml"
    bad.write_text("clusters: 3")
    assert main(["catalog", "status", "-c", str(bad)]) == 1


def test_the_cluster_of_a_configuration(
    pg: Server, dsn: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cluster = {"host": pg.host, "port": pg.port, "database": DATABASE}
    config = {
        "listen": {"port": 6000},
        "clusters": [{"name": name, **cluster} for name in ("main", "more")],
        "tenants": [{"name": "acme", "cluster": "main"}],
        "users": [{"name": "acme_app", "tenant": "acme", "password": {"value": "x"}}],
    }
    path = tmp_path / "tenant_proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    monkeypatch.setenv("PGPASSWORD", pg.password)
    status, out, err = run(capsys, "install", "-c", str(path), "--cluster", "main")
    assert (status, out, err) == (0, f"main (database {DATABASE}): installed\n", "")
    assert main(["catalog", "install", "-c", str(path)]) == 2
    assert "--cluster must be one of: main, more" in capsys.readouterr().err


def test_a_server_that_nobody_knows_is_refused():
    with pytest.raises(generate.UnsupportedServer, match="PostgreSQL 19 is not supported"):
        generate.script(generate.Server(19, {}))
